//! The HTTP surface: Prometheus, Loki and Alertmanager APIs, our own, and the UI.
//!
//! Invariant: handlers are thin. They turn a request into a call of a lower layer and the result into the shape that
//! the API's clients expect; nothing is decided here.

mod admission;
pub mod agent_push;
pub mod alertmanager_api;
pub mod auth;
pub mod error;
mod form;
pub mod listen;
pub mod loki_api;
pub mod origin;
pub mod prometheus_api;
pub mod ready;
pub mod rules_api;
mod ui;
pub mod v1;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::sync::{mpsc, oneshot, watch};
use tower_http::compression::CompressionLayer;

use crate::collect::Targets;
use crate::incident;
use crate::intake::Intake;
use crate::model::Timestamp;
use crate::notify::Alerting;
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::telemetry::Telemetry;
use crate::query::promql::Engine;
use crate::store::logs::LogStore;
use crate::store::metrics::MetricStore;
use crate::store::state::StateStore;
use auth::TokenCheck;

/// Everything the APIs are made of.
#[derive(Debug)]
pub struct Parts {
    pub started_at: Timestamp,
    pub clock: Clock,
    pub telemetry: Telemetry,
    pub intake: Intake,
    pub metrics: Arc<MetricStore>,
    pub logs: Arc<LogStore>,
    pub state: Arc<StateStore>,
    pub incident_desk: Arc<incident::handle::Desk>,
    pub alerting: Arc<Alerting>,
    pub targets: Targets,
    pub belief: watch::Receiver<v1::Belief>,
    /// When the judge last looked.
    pub judged_at: watch::Receiver<tokio::time::Instant>,
    pub tokens: TokenCheck,
    pub reload: ReloadRequests,
    pub loki: loki_api::LokiConfig,
    pub config_state: watch::Receiver<ConfigState>,
}

/// Bytes of a request body, unless a route takes more.
const BODY_BYTES_MAX: usize = 4 << 20;

/// Everything on one port.
pub fn router(parts: Parts) -> Router {
    let readiness = ready::Readiness {
        metrics: Arc::clone(&parts.metrics),
        logs: Arc::clone(&parts.logs),
        judged_at: parts.judged_at,
    };
    let own = v1::Api {
        clock: parts.clock.clone(),
        started_at: parts.started_at,
        belief: parts.belief.clone(),
        logs: Arc::clone(&parts.logs),
        state: parts.state,
        incident_desk: parts.incident_desk,
        outbox: Arc::clone(parts.alerting.outbox()),
        targets: parts.targets.clone(),
        tokens: parts.tokens.clone(),
    };
    let alertmanager = alertmanager_api::AlertmanagerApi {
        alerting: Arc::clone(&parts.alerting),
        clock: parts.clock.clone(),
        started_at: parts.started_at,
        revision: option_env!("DARAJI_REVISION").unwrap_or(""),
    };
    let rules = rules_api::router(Arc::clone(&parts.alerting));
    let prometheus = prometheus_api::PrometheusState::new(parts.metrics, Engine::default(), parts.clock.clone())
        .with_targets(parts.targets.clone())
        .with_config_state(parts.config_state);
    let writer = parts.intake.clone();
    let take: loki_api::PushSink = Arc::new(move |records| {
        let writer = writer.clone();
        Box::pin(async move {
            let stored = writer.accept_logs(records).await;
            stored.map_err(|error| loki_api::PushError::Unavailable(chain(&error)))
        })
    });
    let loki = loki_api::LokiApi::new(Arc::clone(&parts.logs), parts.clock.clone(), take, parts.loki);
    let push = agent_push::AgentPush {
        clock: parts.clock,
        intake: parts.intake,
        logs: parts.logs,
        targets: parts.targets,
        belief: parts.belief,
    };
    let reload = parts.reload;
    let own_name = origin::OwnName::of_url(parts.alerting.external_url());
    let guard = auth::Guard { tokens: parts.tokens, own_name };
    Router::new()
        .merge(alertmanager_api::router(alertmanager))
        .merge(rules)
        .merge(prometheus_api::router(prometheus))
        .merge(loki_api::router(loki))
        .merge(v1::router(own))
        .route("/metrics", get(metrics).with_state(parts.telemetry))
        .route("/-/healthy", get(ready::answer).with_state((readiness.clone(), "daraji is healthy.")))
        .route("/-/ready", get(ready::answer).with_state((readiness.clone(), "daraji is ready.")))
        .route("/ready", get(ready::answer).with_state((readiness, "ready")))
        .route("/-/reload", post(reload_configuration).with_state(reload))
        .fallback(ui::fallback)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
        .merge(agent_push::router(push))
        .layer(from_fn_with_state(guard, auth::guard))
        .layer(CompressionLayer::new())
}

async fn metrics(State(telemetry): State<Telemetry>) -> ([(axum::http::HeaderName, &'static str); 1], String) {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(axum::http::header::CONTENT_TYPE, kind)], telemetry.encode())
}

/// How reading the configuration again went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// All problems, a line each. Nothing is changed when there is one.
    pub problems: Vec<String>,
    /// Keys that changed since the start and need a restart.
    pub needs_restart: Vec<&'static str>,
}

/// What became of the configuration files that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigState {
    /// Whether the last one was taken.
    pub is_good: bool,
    /// When one was last taken.
    pub taken_at: Timestamp,
}

/// Leads to whoever reads the configuration; each request wants an answer.
pub type ReloadRequests = mpsc::Sender<oneshot::Sender<ReloadReport>>;

/// Takes effect when everything in the configuration is right; the answer says what is wrong, or what needs more.
async fn reload_configuration(State(reload): State<ReloadRequests>) -> (StatusCode, String) {
    let (answer, report) = oneshot::channel();
    // Where nobody takes the request, it is dropped and the report fails.
    drop(reload.send(answer).await);
    match report.await {
        Ok(report) if report.problems.is_empty() => (StatusCode::OK, format!("{report}\n")),
        // As in Prometheus, so that those who trigger its reload see the failure.
        Ok(report) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{report}\n")),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n".to_owned()),
    }
}

impl fmt::Display for ReloadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.problems.is_empty() {
            writeln!(f, "the configuration has problems; the old one stays in force")?;
            return f.write_str(&self.problems.join("\n"));
        }
        f.write_str("rules, routes and receivers are read again")?;
        if !self.needs_restart.is_empty() {
            write!(f, "; restart the server for the changes of {}", self.needs_restart.join(", "))?;
        }
        Ok(())
    }
}
