//! Loki's HTTP API over the log store: what Grafana, logcli and log shippers call.
//!
//! Evaluation runs on the blocking pool, at most [`QUERIES_AT_ONCE`] at a time; a client that goes away cancels its
//! query. Errors are text, as Loki's are; unknown paths below `/loki/` are a 404 in JSON, since Grafana probes them.

pub mod config;
mod fields;
mod labels;
mod params;
mod push;
mod queries;
mod shapes;
mod tail;
mod volume;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::model::{LogRecord, Matcher};
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::blocking;
use crate::query::logql::{Engine, EngineOptions, Expr, LogExpr, ParseError, QueryError, parse};
use crate::store::logs::{LogStore, LogStoreError};
pub use config::LokiConfig;
use params::Params;

/// Further queries wait.
pub const QUERIES_AT_ONCE: usize = 4;
/// Further tails are refused.
pub const TAILS_AT_ONCE: usize = 64;
/// Series of a metric query.
const SERIES_MAX: usize = 2000;
/// Larger push requests, as they come, are refused.
const PUSH_BYTES_MAX: usize = 16 << 20;
/// Grafana decides by this what it may ask.
const LOKI_VERSION: &str = "3.5.0";

/// Why pushed records were not stored. The sender repeats them.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("log records cannot be stored now: {0}")]
    Unavailable(String),
}

/// What takes pushed records; it answers when they survive the death of the process.
pub type PushSink =
    Arc<dyn Fn(Vec<LogRecord>) -> Pin<Box<dyn Future<Output = Result<(), PushError>> + Send>> + Send + Sync>;

/// What the handlers need; cheap to clone.
#[derive(Clone)]
pub struct LokiApi {
    pub logs: Arc<LogStore>,
    pub engine: Engine,
    pub clock: Clock,
    pub push: PushSink,
    /// Labels that name the service of a pushed stream without a `service_name`; none: it stays without.
    service_labels: Arc<[String]>,
    /// How long a request waits for its turn and for its answer together.
    patience: Duration,
    slots: Arc<Semaphore>,
    tails: Arc<Semaphore>,
}

impl fmt::Debug for LokiApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LokiApi").field("logs", &self.logs).field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl LokiApi {
    pub fn new(logs: Arc<LogStore>, clock: Clock, push: PushSink, config: LokiConfig) -> Self {
        Self {
            logs,
            // More than Loki gives at once: it counts them by parts of the range.
            engine: Engine::new(EngineOptions { series_max: SERIES_MAX, ..config.engine_options() }),
            clock,
            push,
            service_labels: config.discover_service_name.into(),
            patience: EngineOptions::default().timeout,
            slots: Arc::new(Semaphore::new(QUERIES_AT_ONCE)),
            tails: Arc::new(Semaphore::new(TAILS_AT_ONCE)),
        }
    }

    /// Runs work on the store when its turn comes. The token is cancelled when the caller goes away or time is up.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LogStore, &Engine, &CancellationToken) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let stopping =
            |_| ApiError { status: StatusCode::SERVICE_UNAVAILABLE, message: "the server is stopping".into() };
        let late = |_| ApiError::from(QueryError::Timeout(self.patience));
        let deadline = Instant::now() + self.patience;
        let slot = timeout_at(deadline, Arc::clone(&self.slots).acquire_owned()).await.map_err(late)?;
        let slot = slot.map_err(stopping)?;
        let stop = CancellationToken::new();
        let _cancels = stop.clone().drop_guard();
        let (logs, engine) = (Arc::clone(&self.logs), self.engine);
        let work = blocking(move || {
            // Held by the work itself: a query whose client is gone counts until it has seen that.
            let _slot = slot;
            work(&logs, &engine, &stop)
        });
        timeout_at(deadline, work).await.map_err(late)?
    }
}

/// An error as text.
#[derive(Debug)]
struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    fn bad(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }
}

impl From<ParseError> for ApiError {
    fn from(error: ParseError) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let status = match &error {
            QueryError::Parse(_) | QueryError::Invalid(_) | QueryError::Limit(_) => StatusCode::BAD_REQUEST,
            QueryError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            QueryError::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            QueryError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, message: chain(&error) }
    }
}

impl From<LogStoreError> for ApiError {
    fn from(error: LogStoreError) -> Self {
        QueryError::from(error).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
        (self.status, kind, self.message + "\n").into_response()
    }
}

type Answer = Result<Json<Value>, ApiError>;

/// The routes, below `/loki/` and the legacy path of rules that Grafana probes.
pub fn router(api: LokiApi) -> Router {
    let v1 = Router::new()
        .route("/push", post(push::push).layer(DefaultBodyLimit::max(PUSH_BYTES_MAX)))
        .route("/query", get(queries::instant).post(queries::instant))
        .route("/query_range", get(queries::range).post(queries::range))
        .route("/format_query", get(queries::format).post(queries::format))
        .route("/labels", get(labels::names).post(labels::names))
        .route("/label", get(labels::names).post(labels::names))
        .route("/label/{name}/values", get(labels::values).post(labels::values))
        .route("/series", get(labels::series).post(labels::series))
        .route("/detected_labels", get(labels::detected).post(labels::detected))
        .route("/index/stats", get(volume::stats).post(volume::stats))
        .route("/index/volume", get(volume::instant).post(volume::instant))
        .route("/index/volume_range", get(volume::range).post(volume::range))
        .route("/detected_fields", get(fields::names).post(fields::names))
        .route("/detected_field/{name}/values", get(fields::values).post(fields::values))
        .route("/patterns", get(patterns).post(patterns))
        .route("/tail", get(tail::tail))
        .route("/drilldown-limits", get(drilldown_limits))
        .route("/status/buildinfo", get(build_info));
    Router::new()
        .nest("/loki/api/v1", v1)
        .route("/loki/{*path}", any(not_found))
        .route("/api/prom/rules/test/test", any(not_found))
        .with_state(api)
}

async fn not_found(request: Request) -> Response {
    let message = format!("no such path: {}", request.uri().path());
    (StatusCode::NOT_FOUND, Json(json!({"message": message}))).into_response()
}

/// Patterns are not mined; an empty answer keeps Grafana's view of them quiet.
async fn patterns() -> Json<Value> {
    Json(json!({"status": "success", "data": []}))
}

async fn drilldown_limits(State(api): State<LokiApi>) -> Json<Value> {
    Json(json!({
        "limits": {
            "discover_log_levels": api.engine.options().detect_levels,
            "discover_service_name": *api.service_labels,
            "log_level_fields": ["severity"],
            "max_entries_limit_per_query": params::ENTRIES_MAX,
            "max_line_size_truncate": true,
            "max_query_series": SERIES_MAX,
            "metric_aggregation_enabled": false,
            "pattern_persistence_enabled": false,
            "volume_enabled": true,
            "volume_max_series": params::ENTRIES_MAX,
        },
        "pattern_ingester_enabled": false,
        "version": LOKI_VERSION,
    }))
}

async fn build_info() -> Json<Value> {
    let revision = option_env!("DARAJI_REVISION").unwrap_or("");
    Json(json!({
        "version": LOKI_VERSION,
        "revision": revision,
        "branch": format!("daraji-{}", env!("CARGO_PKG_VERSION")),
        "buildDate": "",
        "buildUser": "",
        "goVersion": "",
    }))
}

/// A query that gives lines.
fn log_expr(text: &str) -> Result<LogExpr, ApiError> {
    match parse(text)? {
        Expr::Log(expr) => Ok(expr),
        Expr::Metric(_) => Err(ApiError::bad("only log queries are taken here, not metric queries")),
    }
}

/// The selector of an optional query; a pipeline after it does not matter.
fn matchers(params: &Params, name: &str) -> Result<Vec<Matcher>, ApiError> {
    match params.get(name) {
        None | Some("{}") => Ok(Vec::new()),
        Some(text) => Ok(log_expr(text)?.matchers),
    }
}

#[cfg(test)]
mod tests;
