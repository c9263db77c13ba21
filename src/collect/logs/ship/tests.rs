use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use super::*;
use crate::intake::spool::{Ack, SpoolIdentity};
use crate::model::Labels;
use crate::wire::agent::{EncodedFrame, decode_batch};

const FAST: Pace = Pace {
    poll: Duration::from_millis(5),
    busy: Duration::ZERO,
    full: Duration::from_millis(20),
    samples: Duration::from_millis(20),
    send: Duration::from_millis(5),
    heartbeat: Duration::from_millis(20),
    retry_first: Duration::from_millis(20),
    retry_max: Duration::from_millis(20),
    report: Duration::ZERO,
};

/// Keeps in memory what it is given, as a server in the same process would put it into its store.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    batches: Vec<Batch>,
    high: Option<u64>,
    is_away: bool,
    refused: Option<u64>,
    heartbeats: u64,
}

impl FrameSender for Store {
    async fn send(&mut self, _: &SpoolIdentity, frames: Vec<EncodedFrame>) -> Result<Ack, SendError> {
        let mut stored = self.0.lock();
        if stored.is_away {
            return Err(SendError::Retry { reason: "away".into() });
        }
        if let Some(seq) = stored.refused.take().filter(|_| !frames.is_empty()) {
            return Err(SendError::Refused { seq, reason: "planned".into() });
        }
        stored.heartbeats += u64::from(frames.is_empty());
        for frame in frames {
            if stored.high.is_none_or(|high| frame.seq > high) {
                stored.batches.push(decode_batch(&frame.body).unwrap());
                stored.high = Some(frame.seq);
            }
        }
        Ok(Ack { seq: stored.high })
    }
}

impl Store {
    fn lines(&self) -> Vec<String> {
        let stored = self.0.lock();
        stored.batches.iter().flat_map(|batch| batch.logs.iter().map(|record| record.line.clone())).collect()
    }

    async fn wait_for(&self, what: &str, mut is_there: impl FnMut(&Store) -> bool) {
        let waited = tokio::time::timeout(Duration::from_mins(1), async {
            while !is_there(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{what} did not happen");
    }
}

struct Bed {
    dir: tempfile::TempDir,
    disk: Disk,
    store: Store,
    status: SharedStatus,
    group: TaskGroup,
}

impl Bed {
    fn new(disk: Disk) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, disk, store: Store::default(), status: SharedStatus::default(), group: TaskGroup::new("test") }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("etcd.log")
    }

    /// Lines of a format whose records end with their line; padded so that they fill a spool.
    fn append(&self, numbers: std::ops::Range<u32>, padding: usize) -> Vec<String> {
        let mut file = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'0' + (state % 64) as u8)
        };
        let lines: Vec<String> =
            numbers.map(|n| format!("line {n} {}", (0..padding).map(|_| noise()).collect::<String>())).collect();
        file.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
        lines
    }

    fn open(&self, max_bytes: u64, hook: Option<SampleHook>) -> Ship {
        let source = serde_json::json!({"source": "etcd", "path": self.log()});
        let config = ShipConfig {
            sources: &[serde_json::from_value(source).unwrap()],
            cluster: "c",
            member: "m",
            spool_dir: &self.dir.path().join("spool"),
            spool: SpoolOptions { max_bytes },
        };
        let mut ship = Ship::open(&self.disk, &config, Clock::system(), Arc::clone(&self.status), hook).unwrap();
        ship.pace = FAST;
        ship
    }

    fn start(&self, max_bytes: u64, hook: Option<SampleHook>) {
        self.open(max_bytes, hook).start(&self.group, self.store.clone());
    }
}

#[tokio::test]
async fn a_full_spool_stops_reading_and_drops_samples_and_loses_no_line() {
    let bed = Bed::new(Disk::real());
    bed.store.0.lock().is_away = true;
    let lines = bed.append(0..20_000, 400);
    let mut ticks: i64 = 0;
    let hook: SampleHook = Box::new(move |_| {
        ticks += 1;
        vec![Sample::new(Labels::metric("up", &[]), Timestamp::from_secs(ticks), 1.0)]
    });
    bed.start(3 << 20, Some(hook));
    let status = Arc::clone(&bed.status);
    bed.store.wait_for("the spool is full", |_| !status.lock().errors.is_empty()).await;
    {
        let status = bed.status.lock();
        assert!(status.errors[0].contains("spool is full"), "{:?}", status.errors);
        assert!(status.spool_bytes <= 3 << 20, "{}", status.spool_bytes);
    }
    bed.store.0.lock().is_away = false;
    bed.store.wait_for("every line", |store| store.lines().len() >= lines.len()).await;
    assert_eq!(bed.store.lines(), lines);
    assert!(bed.status.lock().samples_dropped > 0);
    bed.store.wait_for("the error is gone", |_| status.lock().errors.is_empty()).await;
    bed.group.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_full_disk_is_named_and_nothing_is_lost_or_twice() {
    let bed = Bed::new(Disk::with_space(600_000));
    bed.store.0.lock().is_away = true;
    let lines = bed.append(0..20_000, 400);
    bed.start(1 << 30, None);
    let status = Arc::clone(&bed.status);
    bed.store.wait_for("the disk is full", |_| !status.lock().errors.is_empty()).await;
    assert!(status.lock().errors[0].contains("no storage space") || status.lock().errors[0].contains("space"));
    bed.disk.set_space(u64::MAX / 2);
    bed.store.0.lock().is_away = false;
    bed.store.wait_for("every line", |store| store.lines().len() >= lines.len()).await;
    assert_eq!(bed.store.lines(), lines);
    bed.group.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn batches_of_others_go_the_same_way_and_a_refused_frame_blocks_nothing() {
    let bed = Bed::new(Disk::real());
    bed.store.0.lock().refused = Some(0);
    bed.append(0..1, 0);
    let mut ship = bed.open(1 << 30, None);
    let (batches, receiver) = mpsc::channel(1);
    ship.set_batches(receiver);
    ship.start(&bed.group, bed.store.clone());
    bed.store.wait_for("the refusal", |store| store.0.lock().refused.is_none()).await;
    let sample = Sample::new(Labels::metric("up", &[]), Timestamp::from_secs(1), 1.0);
    batches.send(Batch { samples: vec![sample.clone()], ..Batch::default() }).await.unwrap();
    bed.store
        .wait_for("the sample", |store| store.0.lock().batches.iter().any(|batch| batch.samples.contains(&sample)))
        .await;
    bed.store.wait_for("a sign of life", |store| store.0.lock().heartbeats > 0).await;
    bed.group.stop(Duration::from_secs(5)).await;
}
