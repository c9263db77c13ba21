//! What agents push: frames of their spools, each counted once however often it comes.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router, routing::post};
use std::sync::Arc;

use crate::collect::Targets;
use crate::collect::targets::TargetKey;
use crate::http::error::ApiError;
use crate::http::listen::Peer;
use crate::intake::Intake;
use crate::model::{Batch, Labels, Sample, Timestamp};
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::blocking;
use crate::store::logs::{LogStore, Origin};
use crate::wire::agent::{PUSH_BYTES_MAX, PUSH_PATH, Push, PushAnswer, decode_batch, decode_push};

/// What the handler works with.
#[derive(Clone, Debug)]
pub struct AgentPush {
    pub clock: Clock,
    pub intake: Intake,
    pub logs: Arc<LogStore>,
    pub targets: Targets,
}

pub fn router(parts: AgentPush) -> Router {
    let limit = axum::extract::DefaultBodyLimit::max(PUSH_BYTES_MAX);
    Router::new().route(PUSH_PATH, post(push)).layer(limit).with_state(parts)
}

/// Numbers a frame for the stores.
pub fn origin(agent: &str, generation: u64, seq: u64) -> Origin {
    Origin { agent: agent.to_owned(), generation, seq }
}

async fn push(
    State(parts): State<AgentPush>,
    peer: Option<Extension<Peer>>,
    body: Bytes,
) -> Result<Json<PushAnswer>, Response> {
    let push = decode_push(&body).map_err(|error| refused(&chain(&error)))?;
    let now = parts.clock.now();
    for frame in &push.frames {
        let from = origin(&push.agent, push.generation, frame.seq);
        if parts.logs.high_water(&from.agent, from.generation).is_some_and(|done| done >= frame.seq) {
            continue;
        }
        let encoded = frame.body.clone();
        let batch = blocking(move || decode_batch(&encoded)).await.map_err(|error| refused(&chain(&error)))?;
        let accepted = parts.intake.accept_from(Some(from), batch).await;
        accepted.map_err(|error| ApiError::unavailable(chain(&error)).into_response())?;
    }
    let address = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.address.ip().to_string());
    let agent = parts.targets.heard_agent(&push, &address, now);
    let about = Batch { samples: samples(&push, &agent, now), ..Batch::default() };
    parts.intake.accept(about).await.map_err(|error| ApiError::unavailable(chain(&error)).into_response())?;
    let from = origin(&push.agent, push.generation, 0);
    Ok(Json(PushAnswer { seq: parts.logs.high_water(&from.agent, from.generation), now: Some(now) }))
}

/// The agent sets a refused frame aside, so this is only for what can never be read.
fn refused(reason: &str) -> Response {
    (StatusCode::BAD_REQUEST, reason.to_owned()).into_response()
}

/// Whether an agent is heard of, as a sample.
pub fn up(agent: &TargetKey, value: f64, now: Timestamp) -> Sample {
    Sample::new(labels("up", agent), now, value)
}

fn labels(name: &str, agent: &TargetKey) -> Labels {
    Labels::from_pairs([
        ("__name__", name),
        ("cluster", &*agent.cluster),
        ("member", &*agent.member),
        ("instance", &*agent.url),
        ("job", "daraji_agent"),
    ])
}

/// What the agent says about itself, as series.
fn samples(push: &Push, agent: &TargetKey, now: Timestamp) -> Vec<Sample> {
    let sample = |name: &str, value: f64| Sample::new(labels(name, agent), now, value);
    let mut samples = vec![up(agent, 1.0, now)];
    if let Some(status) = &push.status {
        samples.push(sample("daraji_agent_samples_dropped_total", status.samples_dropped as f64));
        let offset = status.clock_offset_seconds;
        samples.extend(offset.map(|offset| sample("daraji_agent_clock_offset_seconds", offset)));
    }
    samples
}
