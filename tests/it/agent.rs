//! The agent against a small push server over HTTP: files in, records out, exactly once.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use daraji::agent::{AgentConfig, Inputs, SpoolConfig, start};
use daraji::model::observation::{Claim, Port, PortProbe, Source};
use daraji::model::{LogRecord, Observation, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::tasks::TaskGroup;
use daraji::wire::agent::{AgentStatus, PUSH_PATH, ProbeTarget, PushAnswer, decode_batch, decode_push};
use parking_lot::Mutex;

/// What a server keeps of the pushes it got.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) records: Vec<LogRecord>,
    pub(crate) observations: Vec<Observation>,
    /// What the agent shall try to reach.
    pub(crate) probe: Vec<ProbeTarget>,
    pub(crate) high: BTreeMap<(String, u64), u64>,
    pub(crate) status: Option<AgentStatus>,
    /// Refuse everything, as while the server is away.
    pub(crate) is_away: bool,
    /// Take what comes in, and let the answer of every n-th push get lost.
    pub(crate) lose_every: u64,
    pub(crate) pushes: u64,
    /// Answer so many milliseconds after having taken.
    pub(crate) late_ms: u64,
}

/// A push server on a port of its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct PushServer(pub(crate) Arc<Mutex<Received>>);

impl PushServer {
    /// Serves in the group; returns the base URL.
    pub(crate) async fn serve(&self, group: &TaskGroup) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let limit = axum::extract::DefaultBodyLimit::max(64 << 20);
        let router = Router::new().route(PUSH_PATH, post(take)).layer(limit).with_state(self.clone());
        group.spawn_until_stop("push server", async move {
            axum::serve(listener, router).await.unwrap();
        });
        url
    }

    pub(crate) async fn wait_for(&self, what: &str, mut is_there: impl FnMut(&Received) -> bool) {
        let waited = tokio::time::timeout(Duration::from_mins(1), async {
            while !is_there(&self.0.lock()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if waited.await.is_err() {
            let received = self.0.lock();
            panic!("{what} did not come; {} records, status {:?}", received.records.len(), received.status);
        }
    }
}

async fn take(State(push_server): State<PushServer>, body: Bytes) -> Response {
    let late_ms = push_server.0.lock().late_ms;
    let response = accept(&push_server, &body);
    tokio::time::sleep(Duration::from_millis(late_ms)).await;
    response
}

fn accept(push_server: &PushServer, body: &[u8]) -> Response {
    let mut received = push_server.0.lock();
    if received.is_away {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let push = decode_push(body).unwrap();
    let id = (push.agent.clone(), push.generation);
    for frame in &push.frames {
        if received.high.get(&id).is_none_or(|high| frame.seq > *high) {
            let batch = decode_batch(&frame.body).unwrap();
            received.records.extend(batch.logs);
            received.observations.extend(batch.observations);
            received.high.insert(id.clone(), frame.seq);
        }
    }
    let answer = PushAnswer {
        seq: received.high.get(&id).copied(),
        now: Some(Timestamp::from_secs(1)),
        probe: received.probe.clone(),
    };
    received.status = push.status.or(received.status.take());
    received.pushes += 1;
    if received.lose_every > 0 && received.pushes.is_multiple_of(received.lose_every) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    axum::Json(answer).into_response()
}

pub(crate) fn config(server: &str, dir: &Path, logs: &[(&str, &str)]) -> AgentConfig {
    let logs = logs.iter().map(|(source, pattern)| {
        serde_json::from_value(serde_json::json!({"source": source, "path": dir.join(pattern), "timezone": "UTC"}))
            .unwrap()
    });
    AgentConfig {
        cluster: "demo".into(),
        member: "n1".into(),
        server: server.into(),
        token_file: None,
        ca_file: None,
        spool: SpoolConfig { path: dir.join("spool"), max_bytes: None },
        logs: logs.collect(),
        host: false,
    }
}

pub(crate) fn append(path: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn fault(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/logs").join(name)).unwrap()
}

#[tokio::test]
async fn ports_that_the_server_names_are_tried() {
    daraji::platform::tls::install();
    let dir = tempfile::tempdir().unwrap();
    let group = TaskGroup::new("test");
    let push_server = PushServer::default();
    let url = push_server.serve(&group).await;
    let address = url.trim_start_matches("http://").to_owned();
    push_server.0.lock().probe = vec![ProbeTarget { member: "n2".into(), port: Port::Rest, address }];
    start(config(&url, dir.path(), &[]), Clock::system(), &group, Inputs::default()).await.unwrap();
    push_server
        .wait_for("the reach of n1", |received| {
            let measured = |status: &AgentStatus| status.clock_offset_error_seconds.is_some();
            !received.observations.is_empty() && received.status.as_ref().is_some_and(measured)
        })
        .await;
    let observed = push_server.0.lock().observations.first().cloned().unwrap();
    assert_eq!((observed.cluster.as_str(), observed.source), ("demo", Source::Agent { member: "n1".into() }));
    assert_eq!(observed.claim, Claim::Reach(vec![PortProbe { target: "n2".into(), port: Port::Rest, failure: None }]));
    group.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn recorded_logs_arrive_with_their_events() {
    daraji::platform::tls::install();
    let dir = tempfile::tempdir().unwrap();
    let group = TaskGroup::new("test");
    let push_server = PushServer::default();
    let url = push_server.serve(&group).await;
    let logs = [("patroni", "*.patroni.log"), ("postgresql", "*.csv"), ("etcd", "*.etcd.log")];
    for file in ["n1.patroni.log", "n1.csv", "n1.etcd.log"] {
        append(&dir.path().join(file), &fault(file));
    }
    start(config(&url, dir.path(), &logs), Clock::system(), &group, Inputs::default()).await.unwrap();
    push_server
        .wait_for("the promotion", |received| {
            received.records.iter().any(|record| record.field("event") == Some("promote_started"))
                && received.records.iter().any(|record| record.stream.get("source") == Some("etcd"))
                && received.records.iter().any(|record| record.field("event") == Some("promote_requested"))
                && received.status.as_ref().is_some_and(|status| status.files.len() == 3)
        })
        .await;
    {
        let received = push_server.0.lock();
        let promoted = received.records.iter().find(|record| record.field("event") == Some("promote_started")).unwrap();
        assert_eq!(
            promoted.stream.to_string(),
            r#"{cluster="demo", member="n1", severity="notice", source="patroni"}"#
        );
        assert_eq!(promoted.at.to_string(), "2026-11-23T05:47:28.313Z");
        let status = received.status.as_ref().unwrap();
        assert!(status.errors.is_empty(), "{status:?}");
    }
    group.stop(Duration::from_secs(5)).await;
}
