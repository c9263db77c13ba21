//! Events: as a list, and live together with the belief about all clusters.
//!
//! Both come from the log store, where events live: what is shown live is what a later search finds.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::{Api, Belief, LIMIT_MAX, parse_time};
use crate::http::error::ApiError;
use crate::model::event::OWN_SOURCE;
use crate::model::{Event, Matcher, Timestamp};
use crate::platform::error::chain;
use crate::platform::tasks::blocking;
use crate::store::logs::{CommittedBatch, Direction, LogQuery, LogStore};

/// The belief is sent at most this often; the last one always is.
const BELIEF_EVERY: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct EventFilter {
    cluster: Option<String>,
    member: Option<String>,
    event: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<usize>,
    stream: Option<String>,
}

impl EventFilter {
    fn accepts(&self, event: &Event) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| *cluster == event.cluster)
            && self.member.as_ref().is_none_or(|member| Some(member) == event.member.as_ref())
            && self.event.as_ref().is_none_or(|name| *name == event.event)
    }
}

/// `GET events`: newest first; as server-sent events when asked by `Accept` or `?stream=1`.
pub(super) async fn events(
    State(api): State<Api>,
    Query(filter): Query<EventFilter>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if filter.stream.is_some() || accepts.contains("text/event-stream") {
        let live = Live::new(&api, filter);
        return Ok(Sse::new(live.into_stream())
            .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
            .into_response());
    }
    let since = filter.since.as_deref().map(parse_time).transpose()?.unwrap_or(Timestamp::MIN);
    let until = filter.until.as_deref().map(parse_time).transpose()?.unwrap_or(Timestamp::MAX);
    let limit = filter.limit.unwrap_or(500).min(LIMIT_MAX);
    let logs = Arc::clone(&api.logs);
    let found = blocking(move || stored_events(&logs, &filter, (since, until), limit)).await?;
    Ok(Json(found).into_response())
}

fn stored_events(
    logs: &LogStore,
    filter: &EventFilter,
    window: (Timestamp, Timestamp),
    limit: usize,
) -> Result<Vec<Event>, ApiError> {
    let mut matchers = vec![Matcher::equal("source", OWN_SOURCE)];
    if let Some(cluster) = &filter.cluster {
        matchers.push(Matcher::equal("cluster", cluster));
    }
    if let Some(member) = &filter.member {
        matchers.push(Matcher::equal("member", member));
    }
    let mut query = LogQuery::new(matchers, window.0, window.1);
    query.direction = Direction::Backward;
    let mut found = Vec::new();
    let searched = logs.search(&query, &mut |_, record| {
        found.extend(Event::from_log_record(record).filter(|event| filter.accepts(event)));
        if found.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    searched.map_err(|error| ApiError::unavailable(chain(&error)))?;
    Ok(found)
}

/// One live reader.
struct Live {
    filter: EventFilter,
    batches: broadcast::Receiver<Arc<CommittedBatch>>,
    belief: watch::Receiver<Belief>,
    belief_sent_at: Option<Instant>,
    pending: std::collections::VecDeque<SseEvent>,
}

impl Live {
    fn new(api: &Api, filter: EventFilter) -> Self {
        let mut belief = api.belief.clone();
        belief.mark_changed();
        let pending = std::collections::VecDeque::new();
        Self { filter, batches: api.logs.subscribe(), belief, belief_sent_at: None, pending }
    }

    fn into_stream(self) -> impl Stream<Item = Result<SseEvent, Infallible>> {
        stream::unfold(self, |mut live| async move { live.next().await.map(|event| (Ok(event), live)) })
    }

    /// The next message; `None` when the server stops.
    async fn next(&mut self) -> Option<SseEvent> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            let belief_due = self.belief_sent_at.map_or_else(Instant::now, |sent| sent + BELIEF_EVERY);
            // Both branches are cancel-safe: `recv` and `changed` lose nothing when dropped.
            tokio::select! {
                batch = self.batches.recv() => match batch {
                    Ok(batch) => self.queue_events(&batch),
                    // The reader reloads what it missed by `GET events`.
                    Err(RecvError::Lagged(_)) => return Some(SseEvent::default().event("missed").data("{}")),
                    Err(RecvError::Closed) => return None,
                },
                changed = async {
                    tokio::time::sleep_until(belief_due).await;
                    self.belief.changed().await
                } => {
                    changed.ok()?;
                    self.belief_sent_at = Some(Instant::now());
                    let belief = Arc::clone(&self.belief.borrow_and_update());
                    return Some(message("clusters", None, &*belief));
                }
            }
        }
    }

    fn queue_events(&mut self, batch: &CommittedBatch) {
        let events = batch.records.iter().filter_map(Event::from_log_record);
        let filter = &self.filter;
        self.pending.extend(
            events.filter(|event| filter.accepts(event)).map(|event| message("event", Some(&event.id), &event)),
        );
    }
}

fn message(kind: &str, id: Option<&str>, data: &impl Serialize) -> SseEvent {
    // Our own values always serialise; an empty object is better than a broken stream.
    let json = serde_json::to_string(data).unwrap_or_else(|_| "{}".to_owned());
    let event = SseEvent::default().event(kind).data(json);
    match id {
        Some(id) => event.id(id.replace(['\n', '\r', '\0'], " ")),
        None => event,
    }
}
