//! Our own API: clusters, events, incidents, targets, notifications, status, sessions, tokens.
//!
//! Times are RFC 3339, `null` is unknown. Fields may be added; those that are there stay.

mod events;
mod tokens;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::http::auth::{TokenCheck, token_of};
use crate::http::error::ApiError;
use crate::http::listen::Peer;
use crate::incident::report::{self, Account, Frame};
use crate::model::Timestamp;
use crate::model::cluster::Cluster;
use crate::model::incident::Incident;
use crate::notify::Outbox;
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::blocking;
use crate::store::logs::LogStore;
use crate::store::state::tables::INCIDENTS;
use crate::store::state::tokens::Role;
use crate::store::state::{StateError, StateStore};

/// Rows of a list at most, whatever is asked.
const LIMIT_MAX: usize = 5000;
const SESSION_BYTES_MAX: usize = 4 << 10;

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
        .route("/api/daraji/v1/incidents", get(incidents))
        .route("/api/daraji/v1/incidents/{id}", get(incident))
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

/// Filter of `GET incidents`.
#[derive(Debug, Deserialize)]
struct IncidentFilter {
    cluster: Option<String>,
    since: Option<String>,
}

async fn incidents(State(api): State<Api>, Query(filter): Query<IncidentFilter>) -> Result<Json<Value>, ApiError> {
    let since = filter.since.as_deref().map(parse_time).transpose()?;
    let state = Arc::clone(&api.state);
    let all = blocking(move || state.read()?.scan(&INCIDENTS, "", usize::MAX)).await;
    let all = all.map_err(|error: StateError| ApiError::internal(chain(&error)))?;
    let all = all.into_iter().map(|(_, incident)| incident).collect();
    Ok(Json(Value::Array(newest_first(all, filter.cluster.as_deref(), since))))
}

/// The incidents that fit, by the time they began; what is beyond the bound is older.
fn newest_first(all: Vec<Value>, cluster: Option<&str>, since: Option<Timestamp>) -> Vec<Value> {
    let text = |incident: &Value, name: &str| incident.get(name).and_then(Value::as_str).map(str::to_owned);
    let with_time = |incident: Value| {
        let opened_at = text(&incident, "opened_at").and_then(|time| Timestamp::parse_rfc3339(&time).ok());
        (opened_at, incident)
    };
    let mut wanted: Vec<(Option<Timestamp>, Value)> = all
        .into_iter()
        .filter(|incident| cluster.is_none_or(|cluster| text(incident, "cluster").as_deref() == Some(cluster)))
        .map(with_time)
        .filter(|(opened_at, _)| since.is_none_or(|since| opened_at.is_none_or(|opened| opened >= since)))
        .collect();
    wanted.sort_by_key(|(opened_at, _)| std::cmp::Reverse(*opened_at));
    wanted.into_iter().take(LIMIT_MAX).map(|(_, incident)| incident).collect()
}

/// How `GET incidents/ID` answers.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum IncidentFormat {
    #[default]
    Json,
    /// A page of its own, to hand round.
    Html,
}

#[derive(Debug, Deserialize)]
struct IncidentView {
    #[serde(default)]
    format: IncidentFormat,
}

async fn incident(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(view): Query<IncidentView>,
) -> Result<Response, ApiError> {
    let (state, key) = (Arc::clone(&api.state), id.clone());
    let found = blocking(move || state.read()?.get(&INCIDENTS, &key)).await;
    let found = found.map_err(|error: StateError| ApiError::internal(chain(&error)))?;
    let row = found.ok_or_else(|| ApiError::not_found(format!("no incident has the id {id:?}")))?;
    match view.format {
        IncidentFormat::Json => Ok(Json(row).into_response()),
        IncidentFormat::Html => {
            let incident: Incident = serde_json::from_value(row).map_err(|error| ApiError::internal(chain(&error)))?;
            let frame = Frame { title: incident.title.clone(), ..Frame::default() };
            let page = report::html(&frame, &[Account::of(incident)]);
            Ok(Html(page.map_err(|error| ApiError::internal(chain(&error)))?).into_response())
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incidents_are_cut_by_time_and_not_by_name() {
        let at = |minute: i64| Timestamp::from_secs(minute * 60);
        let incident = |cluster: &str, minute: i64| json!({"cluster": cluster, "opened_at": at(minute)});
        let count = i64::try_from(LIMIT_MAX).unwrap();
        let mut all: Vec<Value> = (0..count).map(|minute| incident("zebra", minute)).collect();
        all.insert(0, incident("ant", count));
        let list = newest_first(all.clone(), None, None);
        assert_eq!(
            (list.len(), &list[0], &list[1]),
            (LIMIT_MAX, &incident("ant", count), &incident("zebra", count - 1))
        );
        assert_eq!(newest_first(all.clone(), Some("ant"), None), [incident("ant", count)]);
        assert_eq!(newest_first(all, Some("zebra"), Some(at(count - 2))).len(), 2);
    }
}
