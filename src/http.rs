//! The HTTP surface: Prometheus, Loki and Alertmanager APIs, our own, and the UI.
//!
//! Invariant: handlers are thin. They turn a request into a call of a lower layer and the result into the shape that
//! the API's clients expect; nothing is decided here.

pub mod agent_push;
pub mod alertmanager_api;
pub mod auth;
pub mod error;
pub mod listen;
pub mod loki_api;
pub mod prometheus_api;
pub mod rules_api;
mod ui;
pub mod v1;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::sync::watch;
use tower_http::compression::CompressionLayer;

use crate::collect::Targets;
use crate::intake::Intake;
use crate::model::Timestamp;
use crate::notify::Alerting;
use crate::platform::clock::Clock;
use crate::platform::telemetry::Telemetry;
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
    pub alerting: Arc<Alerting>,
    pub targets: Targets,
    pub belief: watch::Receiver<v1::Belief>,
    pub tokens: TokenCheck,
    pub reload: watch::Sender<()>,
}
