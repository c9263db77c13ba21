//! `kill -9` of the whole server in a loop while remote writers and agents push: what was acknowledged is there, and
//! nothing is there twice.
//!
//! Writers and agents repeat what was not answered, as real ones do; some answers are lost on purpose. Lines are long, so
//! that the maintenance at each start seals log partitions and kills fall into that too. Metric blocks need minutes of
//! quiet; `crash_metrics` kills the store while it writes those.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use daraji::model::{Batch, Labels, LogRecord, Matcher, Sample, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::store::logs::{LogOptions, LogQuery, LogStore};
use daraji::wire::agent::{EncodedFrame, PUSH_PATH, Push, PushAnswer, encode_batch, encode_push};
use daraji::wire::remote_write;
use futures_util::future::join_all;
use tokio::sync::watch;

use crate::alerting::PATIENCE;
use crate::prometheus_api::client;
use crate::server::{Random, Server, home};

const ROUNDS: u64 = 12;
const WRITERS: u64 = 3;
const SERIES_PER_WRITER: u64 = 4;
const AGENTS: u64 = 2;
const RECORDS_PER_FRAME: u64 = 3;
/// Each batch of a writer and each frame of an agent is this much later than the one before.
const STEP: Duration = Duration::from_secs(10);
const LINE_BYTES: u64 = 3000;
/// A server that does not answer in this time is given up; what it does with the request is unknown.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// Answers that take longer are lost, where they are lost on purpose.
const LOST_AFTER: Duration = Duration::from_millis(2);

/// What clients see of the server's life.
#[derive(Clone)]
struct World {
    /// Empty while the server is away.
    url: watch::Receiver<String>,
    is_over: watch::Receiver<bool>,
    /// Acknowledgements to all clients.
    acknowledged: watch::Sender<u64>,
    start: Timestamp,
    http: reqwest::Client,
}

impl World {
    /// Sends a body. `None` when the answer did not come: the server may have taken it or not.
    async fn post(&self, path: &str, body: Vec<u8>, patience: Duration) -> Option<(u16, String)> {
        let mut url = self.url.clone();
        let base = url.wait_for(|url| !url.is_empty()).await.unwrap().clone();
        let exchange = async {
            let response = self.http.post(format!("{base}{path}")).body(body).send().await.ok()?;
            let status = response.status().as_u16();
            Some((status, response.text().await.ok()?))
        };
        tokio::time::timeout(patience, exchange).await.ok().flatten()
    }

    fn acknowledge(&self) {
        self.acknowledged.send_modify(|count| *count += 1);
    }

    fn is_over(&self) -> bool {
        *self.is_over.borrow()
    }

    fn time(&self, number: u64) -> Timestamp {
        self.start + STEP * u32::try_from(number).unwrap()
    }
}

fn patience(random: &mut Random) -> Duration {
    if random.below(8) == 0 { LOST_AFTER } else { REQUEST_PATIENCE }
}

fn series(writer: u64, index: u64) -> Labels {
    Labels::metric("crash", &[("writer", &writer.to_string()), ("i", &index.to_string())])
}

/// Batches that a writer sent, with whether they were acknowledged.
type Sent = Vec<bool>;

/// Sends batches in order. One that is not answered is repeated, or given up and never sent again.
async fn write(world: World, writer: u64) -> Sent {
    let mut random = Random::new(writer);
    let mut sent = Sent::new();
    while !world.is_over() {
        let number = sent.len() as u64;
        let sample = |index| Sample::new(series(writer, index), world.time(number), number as f64);
        let body = remote_write::encode(&(0..SERIES_PER_WRITER).map(sample).collect::<Vec<_>>()).unwrap();
        let acknowledged = loop {
            match world.post("/api/v1/write", body.clone(), patience(&mut random)).await {
                Some((status, text)) => {
                    assert_eq!(status, 204, "{text}");
                    break true;
                }
                None if random.below(3) == 0 || world.is_over() => break false,
                None => {}
            }
        };
        if acknowledged {
            world.acknowledge();
        }
        sent.push(acknowledged);
    }
    sent
}

fn line(agent: u64, frame: u64, record: u64) -> String {
    let mut random = Random::new(1_000_000 * agent + 10 * frame + record + 1);
    let mut line = format!("record {agent}.{frame}.{record}");
    while (line.len() as u64) < LINE_BYTES {
        write!(line, " {:x}", random.below(1 << 40)).unwrap();
    }
    line
}

fn frame(world: &World, agent: u64, number: u64) -> EncodedFrame {
    let at = world.time(number);
    let stream =
        Labels::from_pairs([("cluster", "crash"), ("member", &*format!("n{agent}")), ("source", "postgresql")]);
    let record =
        |record| LogRecord { at, stream: stream.clone(), line: line(agent, number, record), fields: Vec::new() };
    let labels = Labels::metric("crash_agent", &[("member", &format!("n{agent}"))]);
    let batch = Batch {
        samples: vec![Sample::new(labels, at, number as f64)],
        logs: (0..RECORDS_PER_FRAME).map(record).collect(),
        ..Batch::default()
    };
    EncodedFrame { seq: number, body: encode_batch(&batch) }
}

/// Pushes frames in order, each until it is acknowledged; returns how many. Repeats frames that were acknowledged, as an
/// agent does that was killed before it wrote down the answer.
async fn push(world: World, agent: u64) -> u64 {
    let mut random = Random::new(100 + agent);
    let mut next = 0;
    let mut end = 0;
    while !world.is_over() || next < end {
        let first = next - random.below(3).min(next);
        if !world.is_over() {
            end = end.max(next + 1 + random.below(4));
        }
        let push = Push {
            agent: format!("agent {agent}"),
            generation: 7,
            cluster: "crash".to_owned(),
            member: format!("n{agent}"),
            sent_at: world.time(next),
            status: None,
            frames: (first..end).map(|number| frame(&world, agent, number)).collect(),
        };
        let Some((status, text)) = world.post(PUSH_PATH, encode_push(&push), patience(&mut random)).await else {
            continue;
        };
        assert_eq!(status, 200, "{text}");
        let answer: PushAnswer = serde_json::from_str(&text).unwrap();
        assert_eq!(answer.seq, Some(end - 1), "agent {agent} pushed up to {}", end - 1);
        next = end;
        world.acknowledge();
    }
    end
}

/// Starts the server again and again, killing it at random moments; the last one stays.
async fn live_and_die(home: &Path, world: &World, url: watch::Sender<String>, is_over: watch::Sender<bool>) -> Server {
    let data = home.join("data");
    let mut random = Random::new(0);
    let mut acknowledged = world.acknowledged.subscribe();
    for round in 0..ROUNDS {
        let arguments = ["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        if round % 4 == 3 {
            // Killed while it opens its stores, or soon after.
            let mut server = Server::spawn(home, &arguments);
            server.wait_for_log(["metrics opened", "logs opened"][usize::try_from(random.below(2)).unwrap()]).await;
            server.kill();
        }
        let server = Server::start(home, &arguments).await;
        url.send_replace(server.url(""));
        let target = *acknowledged.borrow() + 1 + random.below(400);
        let enough = acknowledged.wait_for(|count| *count >= target);
        tokio::time::timeout(PATIENCE, enough).await.expect("pushes are not acknowledged").unwrap();
        if round + 1 == ROUNDS {
            is_over.send_replace(true);
            return server;
        }
        server.kill();
        url.send_replace(String::new());
    }
    unreachable!("the last round returns")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_acknowledged_and_doubles_nothing() {
    let home = home("crash-server");
    let (url, url_seen) = watch::channel(String::new());
    let (is_over, is_over_seen) = watch::channel(false);
    let now = Clock::system().now();
    let world = World {
        url: url_seen,
        is_over: is_over_seen,
        acknowledged: watch::Sender::new(0),
        start: now - Duration::from_hours(20),
        http: client(),
    };
    let writers = join_all((0..WRITERS).map(|writer| write(world.clone(), writer)));
    let agents = join_all((0..AGENTS).map(|agent| push(world.clone(), agent)));
    let (server, sent, pushed) = tokio::join!(live_and_die(home.path(), &world, url, is_over), writers, agents);

    for (writer, sent) in (0..).zip(&sent) {
        check_samples(&server, &world, writer, sent).await;
    }
    for (agent, frames) in (0..).zip(&pushed) {
        let points = points(&server, &format!("crash_agent{{member=\"n{agent}\"}}")).await;
        let expected: Vec<(i64, f64)> = (0..*frames).map(|n| (world.time(n).millis(), n as f64)).collect();
        assert_eq!(points.into_values().collect::<Vec<_>>(), [expected], "samples of agent {agent}");
    }
    let frames = server.lines();
    assert!(frames.iter().all(|line| line["level"] != "ERROR"), "{frames:#?}");
    assert_eq!(server.terminate().await.code(), Some(0));
    check_records(&home.path().join("data/logs"), &pushed);
}

/// Points of each series of a selector, from the query API, as they are stored.
async fn points(server: &Server, selector: &str) -> BTreeMap<String, Vec<(i64, f64)>> {
    let url = reqwest::Url::parse_with_params(&server.url("/api/v1/query"), [("query", format!("{selector}[30h]"))]);
    let path = url.unwrap().to_string();
    let answer = server.get(path.strip_prefix(server.url("").as_str()).unwrap()).await;
    let series = answer["data"]["result"].as_array().unwrap().iter().map(|series| {
        let points = series["values"].as_array().unwrap().iter().map(|pair| {
            // A float cannot hold every millisecond; half of one brings it back over the edge.
            let at = Timestamp::from_secs_f64(pair[0].as_f64().unwrap()) + Duration::from_micros(500);
            (at.millis(), pair[1].as_str().unwrap().parse().unwrap())
        });
        (series["metric"].to_string(), points.collect())
    });
    series.collect()
}

async fn check_samples(server: &Server, world: &World, writer: u64, sent: &Sent) {
    assert!(sent.iter().filter(|acknowledged| **acknowledged).count() > 100, "writer {writer} got little through");
    let found = points(server, &format!("crash{{writer=\"{writer}\"}}")).await;
    assert_eq!(found.len() as u64, SERIES_PER_WRITER, "series of writer {writer}");
    let first = found.values().next().unwrap();
    for (series, points) in &found {
        assert_eq!(points, first, "a batch is there in part: {series}");
        assert!(points.is_sorted_by(|a, b| a.0 < b.0), "{series} has a point twice: {points:?}");
    }
    let stored: BTreeMap<i64, f64> = first.iter().copied().collect();
    let mut there = 0;
    for (number, acknowledged) in (0..).zip(sent) {
        match stored.get(&world.time(number).millis()) {
            Some(value) => {
                assert_eq!(value.to_bits(), (number as f64).to_bits(), "writer {writer}, batch {number}");
                there += 1;
            }
            None => assert!(!acknowledged, "writer {writer}: batch {number} was acknowledged and is lost"),
        }
    }
    assert_eq!(stored.len(), there, "writer {writer}: points that nobody sent");
}

/// Every pushed record is in the store once, in order.
fn check_records(dir: &Path, pushed: &[u64]) {
    let (store, recovery) = LogStore::open(dir, LogOptions::default(), &Disk::real(), &Clock::system()).unwrap();
    assert!(recovery.damaged.is_empty() && recovery.unknown_frames == 0, "{recovery:?}");
    assert!(store.sealed_bytes() > 0, "nothing was sealed: the test does not reach what it should");
    for (agent, frames) in (0..).zip(pushed) {
        let matchers = vec![Matcher::equal("cluster", "crash"), Matcher::equal("member", format!("n{agent}"))];
        let mut lines = Vec::new();
        let query = LogQuery::new(matchers, Timestamp::MIN, Timestamp::MAX);
        let visit = &mut |_: u64, record: &LogRecord| {
            lines.push(record.line.clone());
            ControlFlow::Continue(())
        };
        store.search(&query, visit).unwrap();
        let expected =
            (0..*frames).flat_map(|frame| (0..RECORDS_PER_FRAME).map(move |record| line(agent, frame, record)));
        let expected: Vec<String> = expected.collect();
        let names =
            |lines: &[String]| -> Vec<String> { lines.iter().map(|line| line.chars().take(24).collect()).collect() };
        assert_eq!(lines.len(), expected.len(), "agent {agent}: {:?}", names(&lines));
        assert!(lines == expected, "agent {agent}: {:?}", names(&lines));
    }
}
