//! Live tail over a websocket: what is there, then what comes.
//!
//! Invariant: no matching line between the start and the end of a tail is left out silently. The tail subscribes before
//! it searches; where it falls behind the store's live batches it searches again for what it missed, by sequence
//! number; only what is beyond [`CATCH_UP_MAX`] is dropped, and the client is told.

use std::collections::{HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::debug;

use super::params::Params;
use super::{ApiError, LokiApi, log_expr, shapes};
use crate::model::Timestamp;
use crate::platform::error::chain;
use crate::query::logql::{Line, LogExpr};
use crate::store::logs::{Budget, CommittedBatch, Direction, LogQuery, LogStore};

/// Lines of a catch-up.
const CATCH_UP_MAX: usize = 20_000;
/// How far back a catch-up looks for lines that came late.
const CATCH_UP_BACK: Duration = Duration::from_hours(1);
const DELAY_MAX: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(1);
/// A client that takes no byte for this long is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of one frame.
const FRAME_LINES_MAX: usize = 1000;

/// What a client asked for.
struct Tail {
    api: LokiApi,
    expr: Arc<LogExpr>,
    start: Timestamp,
    limit: usize,
    delay: Duration,
    params: Params,
}

/// Upgrades to a websocket. What is wrong with the parameters is said before, as text.
pub(super) async fn tail(State(api): State<LokiApi>, request: Request) -> Result<Response, Response> {
    let (mut parts, _) = request.into_parts();
    let params = Params::of_parts(&parts);
    let tail = Tail::new(api, params).map_err(ApiError::into_response)?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await.map_err(IntoResponse::into_response)?;
    let Ok(slot) = Arc::clone(&tail.api.tails).try_acquire_owned() else {
        let message = format!("max concurrent tail requests limit exceeded, count > limit ({})", super::TAILS_AT_ONCE);
        return Err(ApiError { status: StatusCode::TOO_MANY_REQUESTS, message }.into_response());
    };
    Ok(upgrade.max_message_size(64 << 10).on_upgrade(move |socket| async move {
        if let Err(reason) = tail.run(socket).await {
            debug!(reason, "a tail ended");
        }
        drop(slot);
    }))
}

impl Tail {
    fn new(api: LokiApi, params: Params) -> Result<Self, ApiError> {
        let expr = Arc::new(log_expr(params.get("query").unwrap_or(""))?);
        let delay = params.duration("delay_for")?.unwrap_or_default();
        if delay > DELAY_MAX {
            return Err(ApiError::bad(format!("delay_for can't be greater than {}", DELAY_MAX.as_secs())));
        }
        let start = params.time("start")?.unwrap_or_else(|| api.clock.now() - Duration::from_hours(1));
        Ok(Self { expr, start, limit: params.limit()?, delay, api, params })
    }

    async fn run(&self, mut socket: WebSocket) -> Result<(), String> {
        let mut live = self.api.logs.subscribe();
        let (mut history, mut sent) = self.history().await?;
        self.send(&mut socket, &mut history, Vec::new()).await?;
        // A catch-up gives what came after these, not what the limit left out.
        let mut state = Live { last_seq: sent.iter().max().copied(), ..Live::default() };
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = state.due(self.delay);
            tokio::select! {
                received = live.recv(), if state.lines < CATCH_UP_MAX => match received {
                    Ok(batch) => {
                        self.take(&mut state, &batch, &mut sent);
                        self.drain(&mut live, &mut state, &mut sent).await?;
                    }
                    Err(RecvError::Lagged(_)) => self.catch_up(&mut live, &mut state, &mut sent).await?,
                    Err(RecvError::Closed) => return Err("the store is closed".to_owned()),
                },
                () = sleep_until(due) => {}
                _ = ping.tick() => deliver(&mut socket, Message::Ping(Vec::new().into())).await?,
                message = socket.recv() => match message {
                    None | Some(Ok(Message::Close(_))) => return Ok(()),
                    Some(Err(error)) => return Err(chain(&error)),
                    Some(Ok(_)) => {}
                },
            }
            let (mut ready, dropped) = state.ready(self.delay);
            if !ready.is_empty() || !dropped.is_empty() {
                self.send(&mut socket, &mut ready, dropped).await?;
            }
        }
    }

    /// The newest lines since the start, and the sequence numbers of all that may come again.
    async fn history(&self) -> Result<(Vec<Line>, HashSet<u64>), String> {
        let (expr, start, limit) = (Arc::clone(&self.expr), self.start, self.limit);
        let found = self.api.run(move |store, engine, stop| {
            let mut query = LogQuery::new(expr.matchers.clone(), start, Timestamp::MAX);
            query.direction = Direction::Backward;
            query.budget = Budget { stop: stop.clone(), ..Budget::default() };
            let (mut lines, mut seqs) = (Vec::new(), HashSet::new());
            store.search(&query, &mut |seq, record| {
                if let Some(line) = engine.line(&expr, record) {
                    lines.push(line);
                    seqs.insert(seq);
                }
                if lines.len() >= limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            Ok((lines, seqs))
        });
        found.await.map_err(|error| error.message)
    }

    fn take(&self, state: &mut Live, batch: &CommittedBatch, sent: &mut HashSet<u64>) {
        let mut lines = Vec::new();
        for (seq, record) in batch.iter() {
            state.last_seq = state.last_seq.max(Some(seq));
            if record.at >= self.start && !sent.remove(&seq) {
                lines.extend(self.api.engine.line(&self.expr, record));
            }
        }
        state.push(lines);
    }

    /// Takes what is waiting already, so that one frame holds it.
    async fn drain(
        &self,
        live: &mut Receiver<Arc<CommittedBatch>>,
        state: &mut Live,
        sent: &mut HashSet<u64>,
    ) -> Result<(), String> {
        use tokio::sync::broadcast::error::TryRecvError;
        while state.lines < FRAME_LINES_MAX {
            match live.try_recv() {
                Ok(batch) => self.take(state, &batch, sent),
                Err(TryRecvError::Lagged(_)) => return self.catch_up(live, state, sent).await,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Ok(())
    }

    /// Searches for what came after the last batch seen, having subscribed anew.
    async fn catch_up(
        &self,
        live: &mut Receiver<Arc<CommittedBatch>>,
        state: &mut Live,
        sent: &mut HashSet<u64>,
    ) -> Result<(), String> {
        *live = self.api.logs.subscribe();
        let (expr, after) = (Arc::clone(&self.expr), state.last_seq);
        let start = self.start.max(self.api.clock.now() - CATCH_UP_BACK);
        let skip = sent.clone();
        let found = self.api.run(move |store: &LogStore, engine, stop| {
            let mut query = LogQuery::new(expr.matchers.clone(), start, Timestamp::MAX);
            query.budget = Budget { stop: stop.clone(), ..Budget::default() };
            let (mut lines, mut dropped, mut last) = (Vec::new(), Vec::new(), after);
            store.search(&query, &mut |seq, record| {
                last = last.max(Some(seq));
                if after.is_some_and(|after| seq <= after) || skip.contains(&seq) {
                    return ControlFlow::Continue(());
                }
                if let Some(line) = engine.line(&expr, record) {
                    if lines.len() < CATCH_UP_MAX {
                        lines.push((seq, line));
                    } else if dropped.len() < FRAME_LINES_MAX {
                        dropped.push(line);
                    }
                }
                ControlFlow::Continue(())
            })?;
            Ok((lines, dropped, last))
        });
        let (lines, dropped, last) = found.await.map_err(|error| error.message)?;
        // Batches that the new subscription brings again.
        sent.retain(|seq| after.is_none_or(|after| *seq > after));
        sent.extend(lines.iter().map(|(seq, _)| *seq));
        state.last_seq = last;
        state.push(lines.into_iter().map(|(_, line)| line).collect());
        state.dropped.extend(dropped);
        Ok(())
    }

    async fn send(&self, socket: &mut WebSocket, lines: &mut [Line], dropped: Vec<Line>) -> Result<(), String> {
        lines.sort_by_key(|line| line.at);
        let mut dropped: Vec<Value> = dropped
            .iter()
            .map(|line| json!({"labels": shapes::object(&line.stream), "timestamp": line.at.nanos().to_string()}))
            .collect();
        let frames = lines.len().div_ceil(FRAME_LINES_MAX).max(usize::from(!dropped.is_empty()));
        for index in 0..frames {
            let from = index * FRAME_LINES_MAX;
            let chunk = lines.get(from..lines.len().min(from + FRAME_LINES_MAX)).unwrap_or_default();
            let mut frame = Map::new();
            if !self.params.flags.is_empty() {
                frame.insert("encodingFlags".to_owned(), json!(self.params.flags));
            }
            frame.insert("streams".to_owned(), shapes::streams(chunk, self.params.categorize()).into());
            frame.insert("dropped_entries".to_owned(), std::mem::take(&mut dropped).into());
            deliver(socket, Message::Text(Value::from(frame).to_string().into())).await?;
        }
        Ok(())
    }
}

async fn deliver(socket: &mut WebSocket, message: Message) -> Result<(), String> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(sent) => sent.map_err(|error| chain(&error)),
        Err(_elapsed) => Err("the client takes nothing".to_owned()),
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Lines that wait until their delay is over, with the time of their arrival.
#[derive(Default)]
struct Live {
    waiting: VecDeque<(Instant, Vec<Line>)>,
    lines: usize,
    dropped: Vec<Line>,
    last_seq: Option<u64>,
}

impl Live {
    fn push(&mut self, lines: Vec<Line>) {
        if !lines.is_empty() {
            self.lines += lines.len();
            self.waiting.push_back((Instant::now(), lines));
        }
    }

    fn due(&self, delay: Duration) -> Option<Instant> {
        self.waiting.front().map(|(arrived, _)| *arrived + delay)
    }

    /// Takes the lines whose delay is over, and those that were dropped.
    fn ready(&mut self, delay: Duration) -> (Vec<Line>, Vec<Line>) {
        let now = Instant::now();
        let mut ready = Vec::new();
        while self.due(delay).is_some_and(|due| due <= now) {
            let Some((_, lines)) = self.waiting.pop_front() else { break };
            ready.extend(lines);
        }
        self.lines = self.lines.saturating_sub(ready.len());
        (ready, std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LokiConfig, PushError};
    use super::*;
    use crate::model::{Labels, LogRecord};
    use crate::platform::clock::Clock;
    use crate::platform::disk::Disk;
    use crate::store::logs::LogOptions;

    #[tokio::test]
    async fn a_tail_that_fell_behind_catches_up() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
        let (logs, _) = LogStore::open(dir.path(), LogOptions::default(), &Disk::real(), &clock).unwrap();
        let append = |from: usize, to: usize| {
            for n in from..to {
                let stream = Labels::from_pairs([("member", "n1")]);
                let at = Timestamp::from_secs(1_699_999_000);
                logs.append(None, &[LogRecord { at, stream, line: format!("{n:04}"), fields: Vec::new() }]).unwrap();
            }
        };
        append(0, 10);
        let sink = Arc::new(|_| Box::pin(async { Ok::<(), PushError>(()) }) as _);
        let api = LokiApi::new(Arc::new(logs.clone()), clock, sink, LokiConfig::default());
        let tail = Tail::new(api, Params::of("query=%7Bmember%3D%22n1%22%7D&limit=4")).unwrap();
        let mut live = logs.subscribe();
        append(10, 15);
        let (history, mut sent) = tail.history().await.unwrap();
        let mut state = Live { last_seq: sent.iter().max().copied(), ..Live::default() };
        // More than the store keeps for live readers.
        append(15, 700);
        assert!(matches!(live.recv().await, Err(RecvError::Lagged(_))));
        tail.catch_up(&mut live, &mut state, &mut sent).await.unwrap();
        append(700, 720);
        tail.drain(&mut live, &mut state, &mut sent).await.unwrap();
        let (ready, dropped) = state.ready(Duration::ZERO);
        assert_eq!(dropped, []);
        let mut lines: Vec<String> = history.iter().chain(&ready).map(|line| line.line.clone()).collect();
        lines.sort();
        let expected: Vec<String> = (11..720).map(|n| format!("{n:04}")).collect();
        assert_eq!(lines, expected);
    }
}
