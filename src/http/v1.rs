//! Our own API: clusters, events, incidents, targets, notifications, status, sessions, tokens.
//!
//! Times are RFC 3339, `null` is unknown. Fields may be added; those that are there stay.

mod events;
mod incidents;
mod tokens;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::http::auth::{TokenCheck, token_of};
use crate::http::error::ApiError;
use crate::http::listen::Peer;
use crate::incident::handle::Desk;
use crate::model::Timestamp;
use crate::model::cluster::Cluster;
use crate::notify::Outbox;
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::store::logs::LogStore;
use crate::store::state::StateStore;
use crate::store::state::tokens::Role;

/// Rows of a list at most, whatever is asked.
const LIMIT_MAX: usize = 5000;
const SESSION_BYTES_MAX: usize = 4 << 10;
/// A note's bytes as JSON, escaped to the last.
const NOTE_BODY_BYTES_MAX: usize = 32 << 10;

/// The belief about all clusters; replaced as a whole whenever it changes.
pub type Belief = Arc<Vec<Cluster>>;

/// What the handlers read.
#[derive(Clone, Debug)]
pub struct Api {
    pub clock: Clock,
    pub started_at: Timestamp,
    pub belief: watch::Receiver<Belief>,
    pub logs: Arc<LogStore>,
    pub state: Arc<StateStore>,
    /// Where people write down what they do with incidents.
    pub incident_desk: Arc<Desk>,
    pub outbox: Arc<Outbox>,
    pub targets: crate::collect::Targets,
    pub tokens: TokenCheck,
}

/// All routes below `/api/daraji/v1`.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/api/daraji/v1/status", get(status))
        .route("/api/daraji/v1/clusters", get(clusters))
        .route("/api/daraji/v1/clusters/{name}", get(cluster))
        .route("/api/daraji/v1/events", get(events::events))
        .route("/api/daraji/v1/incidents", get(incidents::list))
        .route("/api/daraji/v1/incidents/{id}", get(incidents::one))
        .route(
            "/api/daraji/v1/incidents/{id}/acknowledge",
            post(incidents::acknowledge).delete(incidents::give_back).layer(DefaultBodyLimit::max(NOTE_BODY_BYTES_MAX)),
        )
        .route(
            "/api/daraji/v1/incidents/{id}/notes",
            post(incidents::note).layer(DefaultBodyLimit::max(NOTE_BODY_BYTES_MAX)),
        )
        .route("/api/daraji/v1/incidents/{id}/patterns", get(incidents::patterns))
        .route("/api/daraji/v1/targets", get(targets))
        .route("/api/daraji/v1/notifications", get(notifications))
        .route(
            "/api/daraji/v1/session",
            // Read before anybody has shown a token.
            post(tokens::open_session).delete(tokens::close_session).layer(DefaultBodyLimit::max(SESSION_BYTES_MAX)),
        )
        .route("/api/daraji/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/api/daraji/v1/tokens/{name}", axum::routing::delete(tokens::revoke))
        .with_state(api)
}

async fn status(State(api): State<Api>, peer: Option<Extension<Peer>>, headers: HeaderMap) -> Json<Value> {
    let open = peer.is_some_and(|peer| peer.open);
    let role = token_of(&headers).and_then(|token| api.tokens.role_of(&token));
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": option_env!("DARAJI_REVISION"),
        "started_at": api.started_at,
        "now": api.clock.now(),
        "auth": if open { "none" } else { "token" },
        "role": role.map(Role::as_str),
        "clusters": api.belief.borrow().len(),
    }))
}

async fn clusters(State(api): State<Api>) -> Json<Belief> {
    Json(Arc::clone(&api.belief.borrow()))
}

async fn cluster(State(api): State<Api>, Path(name): Path<String>) -> Result<Json<Cluster>, ApiError> {
    let belief = Arc::clone(&api.belief.borrow());
    let found = belief.iter().find(|cluster| cluster.name == name).cloned();
    found.map(Json).ok_or_else(|| ApiError::not_found(format!("no cluster is called {name:?}")))
}

async fn targets(State(api): State<Api>) -> Response {
    Json(api.targets.snapshot()).into_response()
}

#[derive(Debug, Deserialize)]
struct Limit {
    limit: Option<usize>,
}

async fn notifications(State(api): State<Api>, Query(limit): Query<Limit>) -> Result<Response, ApiError> {
    let limit = limit.limit.unwrap_or(100).min(LIMIT_MAX);
    let rows = api.outbox.list(limit).map_err(|error| ApiError::internal(chain(&error)))?;
    Ok((StatusCode::OK, Json(rows)).into_response())
}

/// A time in a query parameter: RFC 3339 or Unix seconds.
fn parse_time(text: &str) -> Result<Timestamp, ApiError> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(Timestamp::from_secs_f64(seconds));
    }
    Timestamp::parse_rfc3339(text).map_err(|error| ApiError::bad_request(error.to_string()))
}
