//! Incidents: the list, one with what is around it, and what people do with it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Api, LIMIT_MAX, parse_time};
use crate::http::auth::Caller;
use crate::http::error::ApiError;
use crate::incident::handle::{Act, HandleError};
use crate::incident::patterns::{Comparison, around};
use crate::incident::report::{self, Account, Frame};
use crate::incident::similar::{self, Outline, Similar};
use crate::model::Timestamp;
use crate::model::incident::Incident;
use crate::notify::outbox::Notification;
use crate::platform::error::chain;
use crate::platform::tasks::blocking;
use crate::store::state::tables::INCIDENTS;
use crate::store::state::{StateError, StateStore, Table};

/// How long the logs around an incident are read.
const PATTERNS_PATIENCE: Duration = Duration::from_secs(2);

/// The same rows, read without what comparing does not need.
const OUTLINES: Table<Outline> = Table::new(INCIDENTS.name());

/// Filter of `GET incidents`.
#[derive(Debug, Deserialize)]
pub(super) struct IncidentFilter {
    cluster: Option<String>,
    since: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    Query(filter): Query<IncidentFilter>,
) -> Result<Json<Value>, ApiError> {
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
pub(super) struct IncidentView {
    #[serde(default)]
    format: IncidentFormat,
}

pub(super) async fn one(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(view): Query<IncidentView>,
) -> Result<Response, ApiError> {
    let whole = whole(&api, &id).await?;
    match view.format {
        IncidentFormat::Json => Ok(Json(whole).into_response()),
        IncidentFormat::Html => {
            let frame = Frame { title: whole.incident.title.clone(), ..Frame::default() };
            let page = report::html(&frame, &[Account::of(whole.incident)]);
            Ok(Html(page.map_err(|error| ApiError::internal(chain(&error)))?).into_response())
        }
    }
}

/// An incident with what is around it.
#[derive(Debug, Serialize)]
pub(super) struct Whole {
    #[serde(flatten)]
    incident: Incident,
    similar: Vec<Similar>,
    notifications: Vec<Value>,
}

async fn whole(api: &Api, id: &str) -> Result<Whole, ApiError> {
    let (state, outbox, key) = (Arc::clone(&api.state), Arc::clone(&api.outbox), id.to_owned());
    let found = blocking(move || {
        let Some(incident) = stored(&state, &key)? else { return Ok(None) };
        let rows = state.read()?;
        let similar = match rows.get(&OUTLINES, &key)? {
            Some(this) => {
                similar::similar(&this, rows.scan(&OUTLINES, "", usize::MAX)?.into_iter().map(|(_, row)| row))
            }
            None => Vec::new(),
        };
        drop(rows);
        let notifications = outbox.of_incident(&key)?.iter().map(notification).collect();
        Ok(Some(Whole { incident, similar, notifications }))
    });
    let found: Option<Whole> = found.await.map_err(|error: StateError| ApiError::internal(chain(&error)))?;
    found.ok_or_else(|| unknown(id))
}

/// The row of an incident.
pub(super) fn stored(state: &StateStore, id: &str) -> Result<Option<Incident>, StateError> {
    const TYPED: Table<Incident> = Table::new(INCIDENTS.name());
    state.read()?.get(&TYPED, id)
}

fn notification(one: &Notification) -> Value {
    json!({
        "id": one.id,
        "at": one.created_at,
        "receiver": one.receiver,
        "integration": one.integration,
        "target": one.target,
        "kind": one.kind,
        "reason": one.reason,
        "subject": one.subject,
        "state": one.state,
        "attempts": one.attempts,
        "delivered_at": one.delivered_at,
        "next_attempt_at": one.next_attempt_at,
        "error": one.last_error,
    })
}

/// What the logs said around it that they did not say before.
pub(super) async fn patterns(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<Comparison>, ApiError> {
    let (state, logs, now, key) = (Arc::clone(&api.state), Arc::clone(&api.logs), api.clock.now(), id.clone());
    let stop = CancellationToken::new();
    let _cancels = stop.clone().drop_guard();
    let reads = stop.clone();
    let mut work = std::pin::pin!(blocking(move || {
        let found = stored(&state, &key).map_err(|error| ApiError::internal(chain(&error)))?;
        let incident = found.ok_or_else(|| unknown(&key))?;
        let compared = around(&logs, &incident, now, (PATTERNS_PATIENCE, &reads));
        compared.map_err(|error| ApiError::unavailable(chain(&error)))
    }));
    let early = tokio::time::timeout(PATTERNS_PATIENCE, &mut work).await;
    let answer = if let Ok(answer) = early {
        answer
    } else {
        // A search that finds little does not see how long it takes.
        stop.cancel();
        work.await
    };
    answer.map(Json)
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("no incident has the id {id:?}"))
}

/// Body of `POST incidents/ID/acknowledge`; may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcknowledgeRequest {
    comment: Option<String>,
}

/// Body of `POST incidents/ID/notes`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoteRequest {
    text: String,
}

pub(super) async fn acknowledge(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Whole>, ApiError> {
    let AcknowledgeRequest { comment } =
        if body.is_empty() { AcknowledgeRequest::default() } else { parse(&body, r#"{"comment": "…"}"#)? };
    act(&api, id, Act::Acknowledge { comment }, caller).await
}

pub(super) async fn give_back(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Whole>, ApiError> {
    act(&api, id, Act::GiveBack, caller).await
}

pub(super) async fn note(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Whole>, ApiError> {
    let NoteRequest { text } = parse(&body, r#"{"text": "…"}"#)?;
    act(&api, id, Act::Note { text }, caller).await
}

fn parse<T: DeserializeOwned>(body: &[u8], shape: &str) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::bad_request(format!("the body is not {shape}: {error}")))
}

async fn act(api: &Api, id: String, act: Act, Caller(by): Caller) -> Result<Json<Whole>, ApiError> {
    let (desk, key, now) = (Arc::clone(&api.incident_desk), id.clone(), api.clock.now());
    let done = blocking(move || desk.act(&key, &act, &by, now)).await;
    done.map_err(|error| match &error {
        HandleError::Unknown(_) => ApiError::not_found(error.to_string()),
        HandleError::Settled | HandleError::ManyNotes => ApiError::conflict(error.to_string()),
        HandleError::EmptyNote | HandleError::LongNote(_) => ApiError::bad_request(error.to_string()),
        HandleError::Unreadable { .. } | HandleError::State(_) => ApiError::internal(chain(&error)),
    })?;
    whole(api, &id).await.map(Json)
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
