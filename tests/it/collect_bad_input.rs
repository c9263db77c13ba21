//! Servers that refuse, hang, break off, talk nonsense, lie or never end: each costs its own target only, within its
//! deadline, and is told apart from the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daraji::collect::config::{ClusterConfig, DcsConfig, HttpUrl, PostgresConfig, ScrapeConfig, SslMode};
use daraji::collect::{CollectConfig, CollectHandle, Sink};
use daraji::model::observation::{Claim, FailureKind, Source};
use daraji::model::{Batch, Observation};
use daraji::platform::clock::Clock;
use daraji::platform::tasks::TaskGroup;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::Receiver;

/// How a server misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Vice {
    /// Accepts and says nothing.
    Silent,
    /// Begins an answer and stops in the middle.
    HalfAnswer,
    /// Accepts and closes.
    Closes,
    /// Is something else.
    Garbage,
    /// Answers without end.
    Endless,
    /// Promises more than anybody can hold.
    Liar,
}

const VICES: [(Vice, &str); 6] = [
    (Vice::Silent, "silent"),
    (Vice::HalfAnswer, "half"),
    (Vice::Closes, "closes"),
    (Vice::Garbage, "garbage"),
    (Vice::Endless, "endless"),
    (Vice::Liar, "liar"),
];

async fn misbehave(vice: Vice, mut stream: TcpStream) {
    let mut request = [0; 1024];
    match vice {
        Vice::Silent => std::future::pending::<()>().await,
        Vice::Closes => return,
        _ => {}
    }
    let Ok(_) = stream.read(&mut request).await else { return };
    match vice {
        Vice::HalfAnswer => {
            drop(stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"state\": \"run").await);
            std::future::pending::<()>().await;
        }
        Vice::Garbage => drop(stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n\0\0\0\0garbage garbage garbage").await),
        Vice::Endless => {
            drop(stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n").await);
            let chunk = vec![b'['; 1 << 20];
            while stream.write_all(&chunk).await.is_ok() {}
        }
        Vice::Liar => {
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}").await);
            std::future::pending::<()>().await;
        }
        Vice::Silent | Vice::Closes => {}
    }
}

async fn serve(group: &TaskGroup, vice: Vice) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let inner = group.clone();
    group.spawn_until_stop("vice", async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            inner.spawn_until_stop("vice connection", misbehave(vice, stream));
        }
    });
    address
}

/// A well-behaved Patroni with a scope that can be changed.
async fn patroni(group: &TaskGroup, members: Vec<(String, SocketAddr)>, moved: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let member = |(name, at): &(String, SocketAddr)| {
        format!(
            r#"{{"name":"{name}","role":"replica","state":"running","host":"{}","port":{},"api_url":"http://{at}/patroni"}}"#,
            at.ip(),
            at.port()
        )
    };
    let mut all: Vec<String> = members.iter().map(member).collect();
    all.push(member(&("good".to_owned(), address)));
    let cluster = format!(r#"{{"members":[{}],"scope":"main"}}"#, all.join(","));
    let inner = group.clone();
    group.spawn_until_stop("patroni", async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (cluster, moved) = (cluster.clone(), Arc::clone(&moved));
            inner.spawn_until_stop("patroni request", async move {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let scope = if moved.load(Ordering::SeqCst) { "other" } else { "main" };
                let body = match request.split(' ').nth(1) {
                    Some("/patroni") => format!(
                        r#"{{"state":"running","role":"primary","xlog":{{"location":5}},"timeline":1,
                            "patroni":{{"version":"4.1.5","scope":"{scope}","name":"good"}}}}"#
                    ),
                    Some("/cluster") => cluster,
                    Some("/history") => "[]".to_owned(),
                    Some("/config") => r#"{"ttl":30}"#.to_owned(),
                    _ => "patroni_version 1\n".to_owned(),
                };
                let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{body}");
                drop(stream.write_all(answer.as_bytes()).await);
            });
        }
    });
    address
}

fn refusing_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn url(address: SocketAddr) -> HttpUrl {
    HttpUrl::parse(&format!("http://{address}")).unwrap()
}

/// An etcd with these further keys.
fn dcs(address: SocketAddr, keys: &str) -> DcsConfig {
    daraji::platform::yaml::from_yaml("f.yml", &format!("{{etcd: ['http://{address}']{keys}}}")).unwrap()
}

fn start(config: CollectConfig, group: &TaskGroup) -> (CollectHandle, Receiver<Batch>) {
    daraji::platform::tls::install();
    let (sink, receiver) = Sink::channel(16);
    (daraji::collect::start(config, group, sink, Clock::system()), receiver)
}

/// Takes observations until `done` says so.
async fn observe(receiver: &mut Receiver<Batch>, mut done: impl FnMut(&Observation) -> bool) {
    let search = async {
        while let Some(batch) = receiver.recv().await {
            if batch.observations.iter().any(&mut done) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), search).await.expect("seen in time");
}

#[tokio::test]
async fn bad_members_are_told_apart_and_hide_no_good_one() {
    let group = TaskGroup::new("test");
    let mut members = vec![("refuses".to_owned(), refusing_address())];
    for (vice, name) in VICES {
        members.push((name.to_owned(), serve(&group, vice).await));
    }
    let moved = Arc::new(AtomicBool::new(false));
    let seed = patroni(&group, members.clone(), Arc::clone(&moved)).await;
    let postgres =
        PostgresConfig { user: Some("x".into()), sslmode: Some(SslMode::Disable), ..PostgresConfig::default() };
    let cluster = ClusterConfig { patroni: vec![url(seed)], postgres, ..ClusterConfig::default() };
    let (handle, mut receiver) = start(CollectConfig { clusters: vec![cluster], ..CollectConfig::default() }, &group);

    let mut failures: BTreeMap<(&str, String), (FailureKind, Duration)> = BTreeMap::new();
    let mut good = 0;
    observe(&mut receiver, |observation| {
        let took = observation.received.since(observation.sent);
        match (&observation.source, &observation.claim) {
            (Source::Rest { member }, Claim::Failed(failure)) => {
                failures.insert(("rest", member.clone()), (failure.kind, took));
            }
            (Source::Sql { member }, Claim::Failed(failure)) => {
                failures.insert(("sql", member.clone()), (failure.kind, took));
            }
            (Source::Rest { member }, Claim::Patroni(status)) => {
                assert_eq!((member.as_str(), status.role.as_str()), ("good", "primary"));
                good += 1;
            }
            _ => {}
        }
        failures.len() == 15 && good >= 2
    })
    .await;

    for (member, rest, sql) in [
        ("refuses", FailureKind::Refused, FailureKind::Refused),
        ("silent", FailureKind::Timeout, FailureKind::Timeout),
        ("half", FailureKind::Timeout, FailureKind::Other),
        ("closes", FailureKind::Reset, FailureKind::Reset),
        ("garbage", FailureKind::Other, FailureKind::Other),
        ("endless", FailureKind::Other, FailureKind::Other),
        ("liar", FailureKind::Timeout, FailureKind::Other),
    ] {
        for (source, expected) in [("rest", rest), ("sql", sql)] {
            let (kind, took) = failures[&(source, member.to_owned())];
            // What a PostgreSQL driver makes of half an HTTP answer is its own affair, as long as it ends.
            let fits =
                kind == expected || (source == "sql" && matches!(member, "half" | "liar" | "garbage" | "endless"));
            assert!(fits, "{source} of {member}: {kind:?}, not {expected:?}");
            assert!(took < Duration::from_secs(7), "{source} of {member} took {took:?}");
        }
    }
    let targets = handle.targets.snapshot();
    let down = targets.iter().filter(|target| target.up == Some(false) && target.error.is_some()).count();
    assert!(down >= 15, "{targets:#?}");
    let dcs = targets.iter().find(|target| target.source == "dcs").unwrap();
    assert!(dcs.error_hint.as_ref().is_some_and(|hint| hint.contains("dcs: {etcd:")), "{dcs:?}");

    // The host is given to another cluster.
    moved.store(true, Ordering::SeqCst);
    observe(&mut receiver, |observation| {
        matches!((&observation.source, &observation.claim), (Source::Rest { member }, Claim::Failed(failure))
            if member == "good" && failure.error.contains("belongs to scope \"other\" now, not to \"main\""))
    })
    .await;
    group.stop(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn seeds_etcds_and_pages_that_misbehave_are_named_with_what_to_do() {
    let group = TaskGroup::new("test");
    let mut config = CollectConfig::default();
    for (vice, name) in VICES {
        let address = serve(&group, vice).await;
        config.clusters.push(ClusterConfig {
            name: Some(format!("seed-{name}")),
            patroni: vec![url(address)],
            ..ClusterConfig::default()
        });
        config.clusters.push(ClusterConfig {
            name: Some(format!("etcd-{name}")),
            dcs: Some(dcs(address, "")),
            ..ClusterConfig::default()
        });
        let scrape = format!(
            "{{job_name: {name}, scrape_interval: 2s, scrape_timeout: 1s, static_configs: [{{targets: ['{address}']}}]}}"
        );
        config.scrape_configs.push(daraji::platform::yaml::from_yaml::<ScrapeConfig>("f.yml", &scrape).unwrap());
    }
    let (handle, mut receiver) = start(config, &group);
    let wanted = |target: &daraji::collect::targets::TargetStatus| {
        matches!(target.source, "discovery" | "dcs" | "etcd" | "scrape") && target.cluster.is_none()
            || target.cluster.as_ref().is_some_and(|name| name.starts_with("seed-") || name.starts_with("etcd-"))
    };
    let everything_failed = async {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                batch = receiver.recv() => drop(batch.unwrap()),
                _ = tick.tick() => {
                    let targets: Vec<_> = handle.targets.snapshot().into_iter().filter(wanted).collect();
                    // Six seeds, six key spaces, six etcd members, six pages.
                    if targets.len() >= 24 && targets.iter().all(|target| target.up == Some(false)) {
                        return targets;
                    }
                }
            }
        }
    };
    let targets = tokio::time::timeout(Duration::from_secs(30), everything_failed).await.unwrap_or_else(|_| {
        panic!("{:#?}", handle.targets.snapshot());
    });
    for target in &targets {
        let error = target.error.as_ref().unwrap();
        assert!(!error.is_empty() && error.len() < 1000, "{target:?}");
        if target.source == "discovery" {
            assert!(target.error_hint.is_some(), "{target:?}");
        }
    }
    group.stop(Duration::from_secs(10)).await;
}
