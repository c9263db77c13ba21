//! Pushes frames to the server over HTTP.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;

use crate::collect::logs::ship::SharedStatus;
use crate::intake::spool::{Ack, FrameSender, SendError, SpoolIdentity};
use crate::model::Timestamp;
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::http_client::{HttpAnswer, HttpClient, HttpError};
use crate::platform::secret::Secret;
use crate::wire::agent::{AgentStatus, EncodedFrame, PUSH_CONTENT_TYPE, PUSH_PATH, Push, PushAnswer, encode_push};

use super::AgentConfig;

/// A push of a megabyte over a slow line, and the server's sync.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The status is sent this often at most.
const STATUS_EVERY: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 << 10;

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
    last_status: Option<Timestamp>,
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
            last_status: None,
        })
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

impl FrameSender for PushSender {
    async fn send(&mut self, identity: &SpoolIdentity, frames: Vec<EncodedFrame>) -> Result<Ack, SendError> {
        let first = frames.first().map(|frame| frame.seq);
        let is_single = frames.len() == 1;
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
        let answer = match self.post(encode_push(&push)).await {
            Ok(answer) => answer,
            Err(error) => {
                self.last_status = None;
                return Err(error);
            }
        };
        let received_at = self.clock.now();
        match (answer.status, first) {
            (200, _) => {}
            // The server read the frame and cannot use it; it would say so again each time.
            (400 | 413 | 422, Some(seq)) if is_single => {
                let reason = String::from_utf8_lossy(&answer.body).into_owned();
                return Err(SendError::Refused { seq, reason });
            }
            (status, _) => return Err(SendError::Retry { reason: describe(&self.url, status, &answer.body) }),
        }
        let answer: PushAnswer = serde_json::from_slice(&answer.body)
            .map_err(|error| SendError::Retry { reason: format!("{} answered something else: {error}", self.url) })?;
        if let Some(server_now) = answer.now {
            // The server looked at its clock at some time between sending and receiving: take the middle.
            let middle = f64::midpoint(sent_at.secs_f64(), received_at.secs_f64());
            self.status.lock().clock_offset_seconds = Some(server_now.secs_f64() - middle);
        }
        Ok(Ack { seq: answer.seq })
    }
}

fn describe(url: &str, status: u16, body: &[u8]) -> String {
    let hint = match status {
        401 | 403 => "; give the agent a token of role agent in token_file (daraji token add --role agent)",
        404 => "; is this the server's base URL?",
        _ => "",
    };
    let start = String::from_utf8_lossy(body.get(..200).unwrap_or(body)).into_owned();
    format!("{url} answered {status} {start}{hint}")
}
