//! Pushes frames to the server over HTTP.
//!
//! Invariant: a frame is given up only on the server's own word that it can never be used ([`FrameRefusal`]). Whatever else
//! comes back, the frames stay; where several are refused together, the first is sent alone, so that a proxy's limit or one
//! bad frame does not hold up the rest.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;

use crate::collect::logs::ship::SharedStatus;
use crate::intake::spool::{Ack, FrameSender, SendError, SpoolIdentity};
use crate::model::Timestamp;
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::http_client::{HttpAnswer, HttpClient, HttpError, redact};
use crate::platform::secret::Secret;
use crate::wire::agent::{
    AgentStatus, EncodedFrame, FrameRefusal, PUSH_CONTENT_TYPE, PUSH_PATH, Push, PushAnswer, encode_push,
};

use super::AgentConfig;
use super::reach::ProbeTargets;

/// A push of a megabyte over a slow line, and the server's sync.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The status is sent this often at most.
const STATUS_EVERY: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Bytes of frames in one push, unless a single one is larger: with the header this stays below the mebibyte that many
/// proxies take.
const FRAMES_BYTES_MAX: usize = 960 << 10;

/// Sends frames to one server.
#[derive(Debug)]
pub struct PushSender {
    client: HttpClient,
    url: String,
    token_file: Option<PathBuf>,
    cluster: String,
    member: String,
    clock: Clock,
    status: SharedStatus,
    probe_targets: ProbeTargets,
    last_status: Option<Timestamp>,
    /// Falls when a push of several frames is refused, and grows again slowly.
    frames_bytes_max: usize,
}

impl PushSender {
    pub fn new(config: &AgentConfig, clock: Clock, status: SharedStatus) -> Result<Self, HttpError> {
        Ok(Self {
            client: HttpClient::new(TIMEOUT, ANSWER_BYTES_MAX, config.ca_file.as_deref())?,
            url: format!("{}{PUSH_PATH}", config.server.trim_end_matches('/')),
            token_file: config.token_file.clone(),
            cluster: config.cluster.clone(),
            member: config.member.clone(),
            clock,
            status,
            probe_targets: ProbeTargets::default(),
            last_status: None,
            frames_bytes_max: FRAMES_BYTES_MAX,
        })
    }

    /// What the server wants to be tried, as its answers tell it.
    pub(super) fn probe_targets(&self) -> ProbeTargets {
        self.probe_targets.clone()
    }

    /// The status, unless it was told a moment ago.
    fn due_status(&mut self, now: Timestamp) -> Option<AgentStatus> {
        let is_due = self.last_status.is_none_or(|last| now.since(last) >= STATUS_EVERY || now < last);
        is_due.then(|| {
            self.last_status = Some(now);
            self.status.lock().clone()
        })
    }

    async fn post(&self, body: Vec<u8>) -> Result<HttpAnswer, SendError> {
        let retry = |reason| SendError::Retry { reason };
        let mut request =
            self.client.request(Method::POST, &self.url).header("content-type", PUSH_CONTENT_TYPE).body(body);
        if let Some(path) = &self.token_file {
            let token = Secret::read_file(path).map_err(|error| retry(chain(&error)))?;
            request = request.bearer_auth(token.expose());
        }
        self.client.send(request, &self.url).await.map_err(|error| retry(chain(&error)))
    }
}

/// An answer, with the agent's clock around it.
struct Exchange {
    answer: HttpAnswer,
    sent_at: Timestamp,
    received_at: Timestamp,
}

impl PushSender {
    /// One request with these frames.
    async fn exchange(&mut self, identity: &SpoolIdentity, frames: Vec<EncodedFrame>) -> Result<Exchange, SendError> {
        let sent_at = self.clock.now();
        let push = Push {
            agent: identity.agent.clone(),
            generation: identity.generation,
            cluster: self.cluster.clone(),
            member: self.member.clone(),
            sent_at,
            status: self.due_status(sent_at),
            frames,
        };
        let answer = self.post(encode_push(&push)).await;
        if answer.as_ref().map_or(true, |answer| answer.status != 200) {
            // It was not heard: tell it again.
            self.last_status = None;
        }
        Ok(Exchange { answer: answer?, sent_at, received_at: self.clock.now() })
    }

    fn acknowledged(&self, exchange: &Exchange) -> Result<Ack, SendError> {
        let answer: PushAnswer = serde_json::from_slice(&exchange.answer.body).map_err(|error| SendError::Retry {
            reason: format!("{} answered something else: {error}", redact(&self.url)),
        })?;
        if let Some(server_now) = answer.now {
            // The server looked at its clock at some time between sending and receiving: take the middle.
            let middle = f64::midpoint(exchange.sent_at.secs_f64(), exchange.received_at.secs_f64());
            let took = exchange.received_at.since(exchange.sent_at).as_secs_f64();
            let mut status = self.status.lock();
            status.clock_offset_seconds = Some(server_now.secs_f64() - middle);
            status.clock_offset_error_seconds = Some(took / 2.0);
        }
        self.probe_targets.told(answer.probe, exchange.received_at);
        Ok(Ack { seq: answer.seq })
    }
}

impl FrameSender for PushSender {
    async fn send(&mut self, identity: &SpoolIdentity, mut frames: Vec<EncodedFrame>) -> Result<Ack, SendError> {
        let bytes = truncate(&mut frames, self.frames_bytes_max);
        let first = frames.first().cloned();
        let several = frames.len() > 1;
        let mut exchange = self.exchange(identity, frames).await?;
        match (exchange.answer.status, &first) {
            (200, _) => self.frames_bytes_max = (self.frames_bytes_max + bytes / 16).min(FRAMES_BYTES_MAX),
            (400 | 413 | 422, Some(first)) if several => {
                self.frames_bytes_max = bytes / 2;
                exchange = self.exchange(identity, vec![first.clone()]).await?;
            }
            _ => {}
        }
        let HttpAnswer { status, body, .. } = &exchange.answer;
        if *status == 200 {
            return self.acknowledged(&exchange);
        }
        let refusal = first.and_then(|first| FrameRefusal::of(*status, body, first.seq));
        Err(match refusal {
            Some(FrameRefusal { refused_frame, reason }) => SendError::Refused { seq: refused_frame, reason },
            None => SendError::Retry { reason: describe(&self.url, *status, body) },
        })
    }
}

/// Leaves the first frames, of so many bytes together but at least one; returns their bytes.
fn truncate(frames: &mut Vec<EncodedFrame>, bytes_max: usize) -> usize {
    let mut bytes = 0;
    let mut is_first = true;
    frames.retain(|frame| {
        let fits = is_first || bytes + frame.body.len() <= bytes_max;
        // What does not fit ends the push: later frames must not overtake it.
        bytes = if fits { bytes + frame.body.len() } else { bytes_max + 1 };
        is_first = false;
        fits
    });
    frames.iter().map(|frame| frame.body.len()).sum()
}

fn describe(url: &str, status: u16, body: &[u8]) -> String {
    let hint = match status {
        401 | 403 => "; give the agent a token of role agent in token_file (daraji token add --role agent)",
        404 => "; is this the server's base URL?",
        400 | 422 => "; the server may be older than this agent: update the server first",
        413 => "; a proxy in between takes no body of this size: raise its limit (nginx: client_max_body_size)",
        _ => "",
    };
    let start = String::from_utf8_lossy(body.get(..200).unwrap_or(body)).into_owned();
    format!("{} answered {status} {start}{hint}", redact(url))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Bytes;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use std::sync::Arc;

    use super::*;
    use crate::platform::tasks::TaskGroup;
    use crate::wire::agent::{REFUSED_STATUS, decode_push};

    /// Answers as a server behind a proxy does: the proxy by the size of the body, the server by the frames.
    #[derive(Clone, Copy)]
    struct Door {
        body_bytes_max: usize,
        /// This one can never be read, says the server; with `is_old` it says so in a proxy's words.
        bad_frame: Option<u64>,
        is_old: bool,
    }

    async fn take(State(door): State<Door>, body: Bytes) -> axum::response::Response {
        if body.len() > door.body_bytes_max {
            return (StatusCode::PAYLOAD_TOO_LARGE, "<html>413 Request Entity Too Large</html>").into_response();
        }
        let push = decode_push(&body).unwrap();
        if let Some(refused_frame) = door.bad_frame.filter(|bad| push.frames.iter().any(|frame| frame.seq == *bad)) {
            let status = if door.is_old { StatusCode::BAD_REQUEST } else { REFUSED_STATUS.try_into().unwrap() };
            let refusal = FrameRefusal { refused_frame, reason: "torn".to_owned() };
            return (status, serde_json::to_vec(&refusal).unwrap()).into_response();
        }
        let answer = PushAnswer { seq: push.frames.last().map(|frame| frame.seq), now: None, ..PushAnswer::default() };
        serde_json::to_vec(&answer).unwrap().into_response()
    }

    /// What ten frames of 1000 bytes come to: how far they were acknowledged, which were given up, and whether the sender
    /// is stuck before the end.
    async fn deliver(door: Door) -> (Option<u64>, Vec<u64>, bool) {
        crate::platform::tls::install();
        let group = TaskGroup::new("test");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route(PUSH_PATH, axum::routing::post(take)).with_state(door);
        group.spawn_until_stop("door", async move { axum::serve(listener, router).await.unwrap() });
        let text = format!("cluster: c\nmember: m\nserver: {server}\n");
        let config = AgentConfig::from_yaml("agent.yml", &text).unwrap();
        let mut sender = PushSender::new(&config, Clock::system(), Arc::default()).unwrap();
        let identity = SpoolIdentity { agent: "a".to_owned(), generation: 1, host: None };
        let (mut done, mut refused) = (None, Vec::new());
        for _ in 0..40 {
            let next = done.map_or(0, |done| done + 1);
            let frames: Vec<_> = (next..10).map(|seq| EncodedFrame { seq, body: vec![0; 1000] }).collect();
            if frames.is_empty() {
                break;
            }
            match sender.send(&identity, frames).await {
                Ok(ack) => done = ack.seq,
                Err(SendError::Refused { seq, .. }) => {
                    refused.push(seq);
                    done = Some(seq);
                }
                Err(SendError::Retry { .. }) => {}
            }
        }
        group.stop(Duration::from_secs(5)).await;
        (done, refused, done != Some(9))
    }

    #[tokio::test]
    async fn only_the_servers_own_word_gives_a_frame_up_and_nothing_wedges() {
        let open = Door { body_bytes_max: 1 << 20, bad_frame: None, is_old: false };
        for (door, expected) in [
            (open, (Some(9), vec![], false)),
            // A proxy that takes three frames, and one that takes one.
            (Door { body_bytes_max: 3500, ..open }, (Some(9), vec![], false)),
            (Door { body_bytes_max: 1500, ..open }, (Some(9), vec![], false)),
            // A proxy that takes none: nothing is lost.
            (Door { body_bytes_max: 900, ..open }, (None, vec![], true)),
            (Door { bad_frame: Some(4), ..open }, (Some(9), vec![4], false)),
            (Door { bad_frame: Some(4), is_old: true, ..open }, (Some(3), vec![], true)),
        ] {
            assert_eq!(deliver(door).await, expected, "{} {:?}", door.body_bytes_max, door.bad_frame);
        }
    }
}
