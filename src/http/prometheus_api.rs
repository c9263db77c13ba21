//! Prometheus' HTTP API over the metric store: what Grafana, promtool and remote writers call.
//!
//! Rules and alerts are answered elsewhere and merged by the composer. Evaluation runs on the blocking pool, at
//! most [`QUERIES_AT_ONCE`] at a time; a client that goes away cancels its query.

mod json;
mod labels;
mod params;
mod status;
mod targets;
mod tree;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::collect::Targets;
use crate::http::ConfigState;
use crate::model::Timestamp;
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::blocking;
use crate::query::promql::{Engine, Expr, Limits, Output, QueryError, RangeSpec, parse};
use crate::store::metrics::MetricStore;
use params::Params;

/// Further queries wait.
pub const QUERIES_AT_ONCE: usize = 4;

/// Larger remote write requests (compressed) are refused.
const WRITE_BYTES_MAX: usize = 16 << 20;

/// What the handlers need; cheap to clone.
#[derive(Clone, Debug)]
pub struct PrometheusState {
    pub store: Arc<MetricStore>,
    pub engine: Engine,
    pub clock: Clock,
    /// When the server started, for `runtimeinfo`.
    pub started_at: Timestamp,
    targets: Targets,
    config_state: watch::Receiver<ConfigState>,
    slots: Arc<Semaphore>,
}

impl PrometheusState {
    pub fn new(store: Arc<MetricStore>, engine: Engine, clock: Clock) -> Self {
        let started_at = clock.now();
        let slots = Arc::new(Semaphore::new(QUERIES_AT_ONCE));
        let config_state = watch::channel(ConfigState { is_good: true, taken_at: started_at }).1;
        Self { store, engine, clock, started_at, targets: Targets::default(), config_state, slots }
    }

    /// Tells how the last reading of the configuration went.
    #[must_use]
    pub fn with_config_state(self, config_state: watch::Receiver<ConfigState>) -> Self {
        Self { config_state, ..self }
    }

    /// Answers for what these collectors ask.
    #[must_use]
    pub fn with_targets(self, targets: Targets) -> Self {
        Self { targets, ..self }
    }
}

/// An error in Prometheus' envelope.
#[derive(Debug)]
struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl ApiError {
    fn bad_data(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: "bad_data", message: message.into() }
    }

    fn bad_parameter(name: &str, problem: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter {name:?}: {problem}"))
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let kind = error.api_type();
        let status = match kind {
            "bad_data" => StatusCode::BAD_REQUEST,
            "execution" => StatusCode::UNPROCESSABLE_ENTITY,
            "timeout" => StatusCode::SERVICE_UNAVAILABLE,
            "canceled" => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let message = chain(&error);
        // What is bad is the expression: the other parameters were checked before.
        if kind == "bad_data" { Self::bad_parameter("query", message) } else { Self { status, kind, message } }
    }
}

impl axum::response::IntoResponse for ApiError {
    fn into_response(self) -> Response {
        json::response(self.status, json::error(self.kind, &self.message))
    }
}

type ApiResult = Result<Response, ApiError>;

/// The routes, below `/api/v1` and `/federate`.
pub fn router(state: PrometheusState) -> Router {
    Router::new()
        .route("/api/v1/query", get(query).post(query))
        .route("/api/v1/query_range", get(query_range).post(query_range))
        .route("/api/v1/query_exemplars", get(query_exemplars).post(query_exemplars))
        .route("/api/v1/format_query", get(format_query).post(format_query))
        .route("/api/v1/parse_query", get(parse_query).post(parse_query))
        .route("/api/v1/labels", get(labels::names).post(labels::names))
        .route("/api/v1/label/{name}/values", get(labels::values))
        .route("/api/v1/series", get(labels::series).post(labels::series))
        .route("/api/v1/metadata", get(labels::metadata))
        .route("/api/v1/targets", get(targets::targets))
        .route("/api/v1/targets/metadata", get(targets::metadata))
        .route("/api/v1/scrape_pools", get(targets::scrape_pools))
        .route("/api/v1/status/buildinfo", get(status::build_info))
        .route("/api/v1/status/config", get(status::config))
        .route("/api/v1/status/flags", get(status::flags))
        .route("/api/v1/status/runtimeinfo", get(status::runtime_info))
        .route("/api/v1/status/tsdb", get(status::tsdb))
        .route("/api/v1/write", post(write::write).layer(DefaultBodyLimit::max(WRITE_BYTES_MAX)))
        .route("/federate", get(write::federate))
        .with_state(state)
}

fn parse_parameter(params: &Params) -> Result<Expr, ApiError> {
    let text = params.get("query").unwrap_or("");
    parse(text).map_err(|error| ApiError::bad_parameter("query", error))
}

/// Runs a query on the blocking pool; dropping the future cancels it.
async fn run(
    state: &PrometheusState,
    params: &Params,
    query: impl FnOnce(&Engine, &MetricStore, &Limits) -> Result<Output, QueryError> + Send + 'static,
) -> Result<Output, ApiError> {
    let cancel = CancellationToken::new();
    let limits = Limits {
        timeout: params.duration("timeout")?,
        lookback: params.duration("lookback_delta")?,
        cancel: Some(cancel.clone()),
    };
    let _cancel_when_dropped = cancel.drop_guard();
    let wait = limits.timeout.unwrap_or(state.engine.options().timeout).min(state.engine.options().timeout);
    let slot = tokio::time::timeout(wait, Arc::clone(&state.slots).acquire_owned()).await;
    let Ok(Ok(slot)) = slot else { return Err(ApiError::from(QueryError::Timeout)) };
    let (engine, store) = (state.engine.clone(), Arc::clone(&state.store));
    let result = blocking(move || {
        let output = query(&engine, &store, &limits);
        drop(slot);
        output
    });
    Ok(result.await?)
}

async fn query(State(state): State<PrometheusState>, params: Params) -> ApiResult {
    let at = params.time("time")?.unwrap_or_else(|| state.clock.now());
    let expr = parse_parameter(&params)?;
    let limit = params.limit()?;
    let output = run(&state, &params, move |engine, store, limits| engine.instant(store, &expr, at, limits)).await?;
    Ok(json::query_response(output, limit))
}

async fn query_range(State(state): State<PrometheusState>, params: Params) -> ApiResult {
    let start = params.required_time("start")?;
    let end = params.required_time("end")?;
    if end < start {
        return Err(ApiError::bad_parameter("end", "end timestamp must not be before start time"));
    }
    let step = params.required_duration("step")?;
    if step.as_millis() == 0 {
        let problem = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(ApiError::bad_parameter("step", problem));
    }
    let expr = parse_parameter(&params)?;
    let limit = params.limit()?;
    let spec = RangeSpec { start, end, step };
    let output = run(&state, &params, move |engine, store, limits| engine.range(store, &expr, spec, limits)).await?;
    Ok(json::query_response(output, limit))
}

/// Exemplars are not kept: none are found.
async fn query_exemplars(params: Params) -> ApiResult {
    parse_parameter(&params)?;
    Ok(json::success("[]"))
}

async fn format_query(params: Params) -> ApiResult {
    let expr = parse_parameter(&params)?;
    Ok(json::success(&json::string(&expr.pretty())))
}

/// The syntax tree of an expression.
async fn parse_query(params: Params) -> ApiResult {
    let expr = parse_parameter(&params)?;
    Ok(json::success(&tree::tree(&expr).to_string()))
}

/// Nothing to say: 204 without a body.
fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
