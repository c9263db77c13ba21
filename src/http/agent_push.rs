//! What agents push: frames of their spools, each counted once however often it comes.
//!
//! Invariant: an agent speaks for its own member and as an agent only. Observations about anything else, by any other
//! source, or too late, go no further; the rest carries times of our own clock.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router, routing::post};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::warn;

use crate::collect::Targets;
use crate::collect::config::HttpUrl;
use crate::collect::targets::{AGENT_JOB, TargetKey};
use crate::http::error::ApiError;
use crate::http::listen::Peer;
use crate::http::v1::Belief;
use crate::intake::Intake;
use crate::model::cluster::Cluster;
use crate::model::event::{OWN_SOURCE, is_own};
use crate::model::observation::{Claim, ClockOffset, Port, Source};
use crate::model::{Batch, Labels, Observation, Sample, Timestamp};
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::blocking;
use crate::store::logs::{LogStore, Origin};
use crate::wire::agent::{
    DecodeError, FrameRefusal, PROBE_TARGETS_MAX, PUSH_BYTES_MAX, PUSH_PATH, ProbeTarget, Push, PushAnswer,
    REFUSED_STATUS, decode_batch, decode_push,
};

/// What an agent saw longer ago says nothing about now.
const OBSERVATION_AGE_MAX: Duration = Duration::from_secs(30);

/// What the handler works with.
#[derive(Clone, Debug)]
pub struct AgentPush {
    pub clock: Clock,
    pub intake: Intake,
    pub logs: Arc<LogStore>,
    pub targets: Targets,
    pub belief: watch::Receiver<Belief>,
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
    // Not the agent's fault for good: another version of either side may read it.
    let push = decode_push(&body).map_err(|error| ApiError::bad_request(chain(&error)).into_response())?;
    let now = parts.clock.now();
    // An agent's own name may have been copied with its disk; a member's may not.
    let agent_name = format!("{}/{}/{}", push.cluster, push.member, push.agent);
    for frame in &push.frames {
        let from = origin(&agent_name, push.generation, frame.seq);
        if parts.logs.high_water(&from.agent, from.generation).is_some_and(|done| done >= frame.seq) {
            continue;
        }
        let encoded = frame.body.clone();
        let batch = match blocking(move || decode_batch(&encoded)).await {
            Ok(batch) => batch,
            Err(error @ DecodeError::Version { .. }) => {
                return Err(ApiError::bad_request(chain(&error)).into_response());
            }
            Err(error) => return Err(refused(frame.seq, chain(&error))),
        };
        if batch.logs.iter().any(|record| is_own(&record.stream)) {
            let reason = format!("logs with source={OWN_SOURCE:?} are the server's own events; use another source");
            return Err(refused(frame.seq, reason));
        }
        let accepted = parts.intake.accept_from(Some(from), vouched(&push, batch, now)).await;
        accepted.map_err(|error| {
            let reason = chain(&error);
            if error.is_for_good() { refused(frame.seq, reason) } else { ApiError::unavailable(reason).into_response() }
        })?;
    }
    let address = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.address.ip().to_string());
    if let Some(agent) = parts.targets.heard_agent(&push, &address, now) {
        let observations = clock_of(&push, now).into_iter().collect();
        let about = Batch { samples: samples(&push, &agent, now), observations, ..Batch::default() };
        parts.intake.accept(about).await.map_err(|error| ApiError::unavailable(chain(&error)).into_response())?;
    }
    let probe = probe_targets(&parts.belief.borrow(), &push.cluster);
    Ok(Json(PushAnswer { seq: parts.logs.high_water(&agent_name, push.generation), now: Some(now), probe }))
}

/// The ports of the cluster's members, as the members advertise them.
fn probe_targets(belief: &[Cluster], cluster: &str) -> Vec<ProbeTarget> {
    let members = belief.iter().find(|known| known.name == cluster).map_or(&[][..], |known| &known.members[..]);
    let mut targets = Vec::new();
    for member in members {
        let name = || member.name.clone();
        if !member.host.is_empty() && member.port != 0 {
            let host = if member.host.contains(':') { format!("[{}]", member.host) } else { member.host.clone() };
            let address = format!("{host}:{}", member.port);
            targets.push(ProbeTarget { member: name(), port: Port::Postgres, address });
        }
        if let Some(url) = member.rest_url.as_deref().and_then(|url| HttpUrl::parse(url).ok()) {
            targets.push(ProbeTarget { member: name(), port: Port::Rest, address: url.instance() });
        }
    }
    targets.truncate(PROBE_TARGETS_MAX);
    targets
}

/// How far the clock of the agent's host is from ours, as the agent measured it at its last push.
fn clock_of(push: &Push, now: Timestamp) -> Option<Observation> {
    let status = push.status.as_ref()?;
    let (ours_ahead, error_seconds) = (status.clock_offset_seconds?, status.clock_offset_error_seconds?);
    Some(Observation {
        cluster: push.cluster.clone(),
        source: Source::Agent { member: push.member.clone() },
        sent: now,
        received: now,
        claim: Claim::Clock(ClockOffset { seconds: -ours_ahead, error_seconds }),
    })
}

/// The agent gives a refused frame up, so this is only for what can never be used.
fn refused(frame: u64, reason: String) -> Response {
    warn!(frame, reason, "a frame of an agent is refused");
    let status = StatusCode::from_u16(REFUSED_STATUS).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
    (status, Json(FrameRefusal { refused_frame: frame, reason })).into_response()
}

/// Leaves of the observations those that this agent can have made, with times of our clock.
fn vouched(push: &Push, mut batch: Batch, now: Timestamp) -> Batch {
    batch.observations.retain_mut(|observation| {
        // Both by the agent's clock: how long the observation waited in the spool.
        let age = push.sent_at.since(observation.received);
        let took = observation.received.since(observation.sent).min(OBSERVATION_AGE_MAX);
        observation.received = now - age;
        observation.sent = observation.received - took;
        age <= OBSERVATION_AGE_MAX
            && observation.cluster == push.cluster
            && observation.source == Source::Agent { member: push.member.clone() }
            && agents_claim(&observation.claim)
    });
    batch
}

/// Whether a claim is one that agents make.
fn agents_claim(claim: &Claim) -> bool {
    match claim {
        Claim::Failed(_) | Claim::Reach(_) => true,
        Claim::Members(_)
        | Claim::Patroni(_)
        | Claim::ClusterView(_)
        | Claim::Postgres(_)
        | Claim::DcsSnapshot(_)
        | Claim::DcsChange(_)
        | Claim::Lease(_)
        | Claim::DcsHealth(_)
        | Claim::NewSession(_)
        | Claim::Written
        // Made here, of what the agent measured against our clock.
        | Claim::Clock(_) => false,
    }
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
        // Its address may change.
        ("instance", &*agent.member),
        ("job", AGENT_JOB),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LogRecord;
    use crate::model::cluster::Member;
    use crate::model::event::{Event, EventSeverity};
    use crate::model::observation::{Failure, FailureKind};
    use crate::platform::disk::Disk;
    use crate::platform::telemetry::Telemetry;
    use crate::store::logs::LogOptions;
    use crate::store::metrics::{MetricOptions, MetricStore};
    use crate::wire::agent::{AgentStatus, EncodedFrame, encode_batch, encode_push};
    use tokio::sync::mpsc;

    const NOW: Timestamp = Timestamp::from_secs(1_764_000_000);

    struct Bed {
        parts: AgentPush,
        observed: mpsc::Receiver<Vec<Observation>>,
        belief: watch::Sender<Belief>,
        _dir: tempfile::TempDir,
    }

    fn bed() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let (disk, clock) = (Disk::real(), Clock::manual(NOW));
        let metrics =
            MetricStore::open(&dir.path().join("metrics"), MetricOptions::default(), &disk, &clock).unwrap().0;
        let logs = Arc::new(LogStore::open(&dir.path().join("logs"), LogOptions::default(), &disk, &clock).unwrap().0);
        let (sender, observed) = mpsc::channel(8);
        let intake = Intake::new(Arc::new(metrics), Arc::clone(&logs), sender, &Telemetry::default());
        let (belief_sender, belief) = watch::channel(Belief::default());
        let parts = AgentPush { clock, intake, logs, targets: Targets::default(), belief };
        Bed { parts, observed, belief: belief_sender, _dir: dir }
    }

    impl Bed {
        /// Pushes one frame of agent "a" on member n1 of cluster demo, whose clock is an hour ahead.
        async fn push(&self, seq: u64, body: Vec<u8>) -> Result<PushAnswer, Response> {
            let push = Push {
                agent: "a".to_owned(),
                generation: 1,
                cluster: "demo".to_owned(),
                member: "n1".to_owned(),
                sent_at: NOW + Duration::from_hours(1),
                status: None,
                frames: vec![EncodedFrame { seq, body }],
            };
            let body = Bytes::from(encode_push(&push));
            super::push(State(self.parts.clone()), None, body).await.map(|Json(answer)| answer)
        }
    }

    fn failed(cluster: &str, source: Source, age: Duration) -> Observation {
        let received = NOW + Duration::from_hours(1) - age;
        let claim = Claim::Failed(Failure { kind: FailureKind::Other, error: String::new() });
        Observation { cluster: cluster.to_owned(), source, sent: received, received, claim }
    }

    #[tokio::test]
    async fn an_agent_speaks_for_its_own_member_only_and_by_our_clock() {
        let agent = |member: &str| Source::Agent { member: member.to_owned() };
        let moment = Duration::from_secs(2);
        let own = failed("demo", agent("n1"), moment);
        let mut observations = vec![
            own.clone(),
            failed("demo", agent("n2"), moment),
            failed("other", agent("n1"), moment),
            failed("demo", Source::Sql { member: "n1".to_owned() }, moment),
            failed("demo", Source::Dcs, moment),
            failed("demo", agent("n1"), Duration::from_mins(5)),
        ];
        observations.push(Observation { claim: Claim::Members(Vec::new()), ..own.clone() });
        let mut bed = bed();
        let body = encode_batch(&Batch { observations, ..Batch::default() });
        assert_eq!(bed.push(3, body).await.unwrap().seq, Some(3));
        let expected = Observation { sent: NOW - moment, received: NOW - moment, ..own };
        assert_eq!(bed.observed.recv().await.unwrap(), [expected]);
    }

    #[tokio::test]
    async fn an_agent_is_told_whose_ports_to_try_and_its_clock_is_known() {
        let mut bed = bed();
        let member = |name: &str, host: &str| Member {
            name: name.to_owned(),
            host: host.to_owned(),
            port: 5432,
            rest_url: Some(format!("http://{name}:8008")),
            ..Member::default()
        };
        let of = |name: &str, members| Cluster { name: name.to_owned(), members, ..Cluster::default() };
        let clusters = vec![of("demo", vec![member("n1", "10.0.0.1"), member("n2", "fe::2")]), of("other", Vec::new())];
        bed.belief.send_replace(Arc::new(clusters));
        let status = AgentStatus {
            clock_offset_seconds: Some(-3_600.0),
            clock_offset_error_seconds: Some(0.01),
            ..AgentStatus::default()
        };
        let push = Push {
            agent: "a".to_owned(),
            cluster: "demo".to_owned(),
            member: "n1".to_owned(),
            status: Some(status),
            ..Push::default()
        };
        let body = Bytes::from(encode_push(&push));
        let Ok(Json(answer)) = super::push(State(bed.parts.clone()), None, body).await else { panic!("refused") };
        let addresses: Vec<_> =
            answer.probe.iter().map(|target| (&*target.member, target.port.as_str(), &*target.address)).collect();
        assert_eq!(
            addresses,
            [
                ("n1", "postgres", "10.0.0.1:5432"),
                ("n1", "rest", "n1:8008"),
                ("n2", "postgres", "[fe::2]:5432"),
                ("n2", "rest", "n2:8008")
            ]
        );
        let observed = bed.observed.recv().await.unwrap();
        assert_eq!(observed[0].source, Source::Agent { member: "n1".to_owned() });
        assert_eq!(observed[0].claim, Claim::Clock(ClockOffset { seconds: 3_600.0, error_seconds: 0.01 }));
    }

    #[tokio::test]
    async fn only_what_can_never_be_used_is_refused_for_good() {
        let event = Event {
            id: "demo-1".to_owned(),
            time: NOW,
            cluster: "demo".to_owned(),
            member: None,
            event: "leader_lost".to_owned(),
            severity: EventSeverity::Critical,
            source: "dcs".to_owned(),
            text: "forged".to_owned(),
            fields: std::collections::BTreeMap::new(),
        };
        let logs = |record: LogRecord| encode_batch(&Batch { logs: vec![record], ..Batch::default() });
        let mut newer = encode_batch(&Batch::default());
        newer[0] = 200;
        let mut torn = encode_batch(&Batch::default());
        torn.truncate(5);
        let bed = bed();
        for (body, for_good, text) in
            [(newer, false, "version"), (torn, true, ""), (logs(event.to_log_record()), true, "own events")]
        {
            let answer = bed.push(1, body).await.unwrap_err();
            let status = answer.status().as_u16();
            let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
            assert_eq!(FrameRefusal::of(status, &body, 1).is_some(), for_good, "{status} {body:?}");
            assert!(String::from_utf8_lossy(&body).contains(text), "{body:?}");
        }
    }
}
