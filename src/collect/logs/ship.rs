//! From the files through the spool to the receiver, two loops that meet in the spool.
//!
//! The reading loop puts records and checkpoints into the spool as one frame; while the spool or the disk is full it
//! reads nothing, and samples are dropped and counted. The sending loop hands over the oldest frames, one exchange at a
//! time, and repeats them until they are acknowledged.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::intake::spool::{FileCheckpoint, FrameSender, SendError, Spool, SpoolError, SpoolOptions};
use crate::model::labels::METRIC_NAME;
use crate::model::{Batch, Labels, Sample, Timestamp};
use crate::platform::backoff::Backoff;
use crate::platform::clock::Clock;
use crate::platform::disk::Disk;
use crate::platform::error::chain;
use crate::platform::tasks::{TaskGroup, blocking};
use crate::wire::agent::{AgentStatus, FileStatus};

use super::LogSource;
use super::prefix::PrefixError;
use super::tail::Tailer;

/// How long the loops wait for what.
#[derive(Clone, Copy, Debug)]
struct Pace {
    poll: Duration,
    /// While there is more to read.
    busy: Duration,
    /// After a refusal by the spool or the disk.
    full: Duration,
    samples: Duration,
    /// Exchanges are not closer than this, which bounds syncs of the disk as well.
    send: Duration,
    /// The receiver hears of us at least this often.
    heartbeat: Duration,
    /// After failed exchanges, growing.
    retry_first: Duration,
    retry_max: Duration,
    /// The status is made up anew this often.
    report: Duration,
}

const PACE: Pace = Pace {
    poll: Duration::from_millis(250),
    busy: Duration::from_millis(5),
    full: Duration::from_secs(1),
    samples: Duration::from_secs(10),
    send: Duration::from_millis(500),
    heartbeat: Duration::from_secs(10),
    retry_first: Duration::from_secs(1),
    retry_max: Duration::from_secs(10),
    report: Duration::from_secs(1),
};

/// Log records that wait for the spool at most; those of other collectors beyond are dropped.
const LOGS_WAITING_MAX: usize = 10_000;
const SEND_BYTES_MAX: usize = 1 << 20;
/// Checkpoints of files that were not seen for so long are forgotten.
const FORGET_AFTER: Duration = Duration::from_hours(7 * 24);
const FORGET_EVERY: Duration = Duration::from_hours(1);

/// Gives the samples of the host, asked every ten seconds.
pub type SampleHook = Box<dyn FnMut(Timestamp) -> Vec<Sample> + Send>;

/// What cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    #[error("open the spool")]
    Spool(#[from] SpoolError),
    #[error("read the logs settings")]
    Prefix(#[from] PrefixError),
}

/// Shared view of what the loops do.
pub type SharedStatus = Arc<Mutex<AgentStatus>>;

/// Files to follow and where to keep what was read.
#[derive(Debug)]
pub struct ShipConfig<'a> {
    pub sources: &'a [LogSource],
    pub cluster: &'a str,
    pub member: &'a str,
    pub spool_dir: &'a Path,
    pub spool: SpoolOptions,
}

/// The two loops, ready to run.
pub struct Ship {
    tailer: Tailer,
    spool: Arc<Mutex<Spool>>,
    status: SharedStatus,
    hook: Option<SampleHook>,
    clock: Clock,
    /// Of the agent's own series.
    labels: Labels,
    pace: Pace,
    batches: Option<mpsc::Receiver<Batch>>,
}

impl std::fmt::Debug for Ship {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ship").field("tailer", &self.tailer).finish_non_exhaustive()
    }
}

impl Ship {
    /// Opens the spool and takes up where it ends. Reads files, so call it where blocking is allowed.
    pub fn open(
        disk: &Disk,
        config: &ShipConfig<'_>,
        clock: Clock,
        status: SharedStatus,
        hook: Option<SampleHook>,
    ) -> Result<Self, ShipError> {
        let (mut spool, recovery) = Spool::open(disk, config.spool_dir, config.spool)?;
        // Copies of one image may share the machine's id, but not the member.
        let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        spool.claim(&format!("{} {}/{}", machine.trim(), config.cluster, config.member))?;
        if !recovery.damaged.is_empty() {
            warn!(files = ?recovery.damaged, "parts of the spool were damaged and set aside");
        }
        let tailer = Tailer::new(config.sources, config.cluster, config.member, spool.checkpoints())?;
        status.lock().spool_bytes_max = spool.max_bytes();
        let labels =
            Labels::from_pairs([("cluster", config.cluster), ("member", config.member), ("job", "daraji_agent")]);
        let spool = Arc::new(Mutex::new(spool));
        Ok(Self { tailer, spool, status, hook, clock, labels, pace: PACE, batches: None })
    }

    /// Takes in what other collectors find as well; it goes the way of the logs.
    pub fn set_batches(&mut self, batches: mpsc::Receiver<Batch>) {
        self.batches = Some(batches);
    }

    /// Starts both loops in the group; they end with it.
    pub fn start<S: FrameSender + Sync + 'static>(self, group: &TaskGroup, sender: S) {
        let appended = Arc::new(Notify::new());
        let sending = Sending {
            spool: Arc::clone(&self.spool),
            appended: Arc::clone(&appended),
            status: Arc::clone(&self.status),
            clock: self.clock.clone(),
            pace: self.pace,
        };
        group.spawn_until_stop("send frames", sending.run(sender));
        let reading = Reading {
            ship: self,
            appended,
            pending: None,
            refusal: None,
            last_samples: None,
            last_report: None,
            last_forget: None,
        };
        group.spawn("read logs", reading.run(group.stop_token()));
    }
}

/// Whether something that happens at intervals is due; remembers that it happens now.
fn is_due(last: &mut Option<Timestamp>, now: Timestamp, every: Duration) -> bool {
    let is_due = last.is_none_or(|last| now.since(last) >= every || now < last);
    if is_due {
        *last = Some(now);
    }
    is_due
}

/// A frame that is not in the spool yet.
struct PendingFrame {
    batch: Batch,
    checkpoints: Vec<FileCheckpoint>,
}

struct Reading {
    ship: Ship,
    appended: Arc<Notify>,
    /// Refused by the spool: nothing more is read until it is taken.
    pending: Option<PendingFrame>,
    /// Why the spool took nothing the last time.
    refusal: Option<String>,
    last_samples: Option<Timestamp>,
    last_report: Option<Timestamp>,
    last_forget: Option<Timestamp>,
}

impl Reading {
    /// Ends between two turns, so that the spool is closed when the group has stopped.
    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause;
            (self, pause) = blocking(move || {
                let pause = self.step();
                (self, pause)
            })
            .await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One turn; returns how long to wait for the next.
    fn step(&mut self) -> Duration {
        let now = self.ship.clock.now();
        let mut has_more = false;
        let mut frame = self.pending.take().unwrap_or_else(|| {
            let turn = self.ship.tailer.turn(now);
            has_more = turn.has_more;
            PendingFrame { batch: Batch { logs: turn.records, ..Batch::default() }, checkpoints: turn.checkpoints }
        });
        self.add_others(now, &mut frame.batch);
        if is_due(&mut self.last_report, now, self.ship.pace.report) {
            self.report();
        }
        let pause = if has_more { self.ship.pace.busy } else { self.ship.pace.poll };
        let pause = if frame.batch.is_empty() && frame.checkpoints.is_empty() {
            pause
        } else if self.append(frame) {
            self.appended.notify_one();
            pause
        } else {
            self.ship.pace.full
        };
        if is_due(&mut self.last_forget, now, FORGET_EVERY) {
            self.ship.tailer.forget_unseen(now - FORGET_AFTER);
            self.ship.spool.lock().retain_checkpoints(|checkpoint| self.ship.tailer.remembers(checkpoint.key));
        }
        pause
    }

    /// Adds the samples of the host and what other collectors have handed in.
    fn add_others(&mut self, now: Timestamp, batch: &mut Batch) {
        if is_due(&mut self.last_samples, now, self.ship.pace.samples) {
            if let Some(hook) = &mut self.ship.hook {
                batch.samples.extend(hook(now));
            }
            batch.samples.extend(self.own_samples(now));
        }
        let Some(batches) = &mut self.ship.batches else { return };
        while let Ok(other) = batches.try_recv() {
            batch.samples.extend(other.samples);
            if batch.logs.len() < LOGS_WAITING_MAX {
                batch.logs.extend(other.logs);
            }
            batch.observations.extend(other.observations);
        }
    }

    /// What the agent measures of itself.
    fn own_samples(&self, now: Timestamp) -> Vec<Sample> {
        let status = self.ship.status.lock();
        let labels = &self.ship.labels;
        let sample = |name: &str, value: u64| Sample::new(labels.with(METRIC_NAME, name), now, value as f64);
        let unread = |file: &FileStatus| file.size_bytes.saturating_sub(file.read_bytes);
        vec![
            sample("daraji_agent_spool_bytes", status.spool_bytes),
            sample("daraji_agent_spool_max_bytes", status.spool_bytes_max),
            sample("daraji_agent_samples_dropped_total", status.samples_dropped),
            sample("daraji_agent_frames_refused_total", status.frames_refused),
            sample("daraji_agent_log_files", status.files.len() as u64),
            sample("daraji_agent_log_unread_bytes", status.files.iter().map(unread).sum()),
            sample("daraji_agent_log_truncations_total", status.files.iter().map(|file| file.truncations).sum()),
            sample("daraji_agent_errors", status.errors.len() as u64),
        ]
    }

    /// True when the frame is in the spool. Otherwise its logs wait, and its samples are given up.
    fn append(&mut self, mut frame: PendingFrame) -> bool {
        let result = self.ship.spool.lock().append(&frame.batch, &frame.checkpoints);
        let Err(error) = result else {
            if self.refusal.take().is_some() {
                info!("the spool takes records again");
            }
            return true;
        };
        let text = chain(&error);
        if self.refusal.is_none() {
            warn!(error = %text, "cannot spool; files are not read until this is mended");
        }
        self.refusal = Some(text);
        self.ship.status.lock().samples_dropped += frame.batch.samples.len() as u64;
        frame.batch.samples.clear();
        // An observation is worth nothing when it comes late.
        frame.batch.observations.clear();
        if !(frame.batch.is_empty() && frame.checkpoints.is_empty()) {
            self.pending = Some(frame);
        }
        false
    }

    fn report(&self) {
        let spool_bytes = self.ship.spool.lock().bytes();
        let files = self.ship.tailer.status();
        let errors: Vec<String> = self.ship.tailer.errors().iter().chain(&self.refusal).cloned().collect();
        let mut status = self.ship.status.lock();
        for error in
            errors.iter().filter(|error| !status.errors.contains(error) && self.refusal.as_ref() != Some(error))
        {
            warn!(%error, "logs");
        }
        for error in files.iter().filter_map(|file| file.error.as_ref()) {
            if !status.files.iter().any(|file| file.error.as_ref() == Some(error)) {
                warn!(%error, "logs");
            }
        }
        status.spool_bytes = spool_bytes;
        status.files = files;
        status.errors = errors;
    }
}

struct Sending {
    spool: Arc<Mutex<Spool>>,
    appended: Arc<Notify>,
    status: SharedStatus,
    clock: Clock,
    pace: Pace,
}

impl Sending {
    async fn run<S: FrameSender>(self, mut sender: S) {
        let seed = self.clock.now().nanos().cast_unsigned();
        let mut backoff = Backoff::new(self.pace.retry_first, self.pace.retry_max, seed);
        let mut last_error: Option<String> = None;
        // The first look at the files, so that the first exchange tells about them.
        drop(tokio::time::timeout(self.pace.send, self.appended.notified()).await);
        loop {
            match self.exchange(&mut sender).await {
                Ok(has_more) => {
                    if last_error.take().is_some() {
                        info!("the receiver takes frames again");
                    }
                    backoff.reset();
                    if !has_more {
                        tokio::time::sleep(self.pace.send).await;
                        drop(tokio::time::timeout(self.pace.heartbeat, self.appended.notified()).await);
                    }
                }
                Err(text) => {
                    if last_error.as_ref() != Some(&text) {
                        warn!(error = %text, "cannot hand over frames; they wait in the spool");
                        last_error = Some(text);
                    }
                    tokio::time::sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    /// Hands over the oldest frames; true when more wait.
    async fn exchange<S: FrameSender>(&self, sender: &mut S) -> Result<bool, String> {
        let spool = Arc::clone(&self.spool);
        let (identity, frames) = blocking(move || {
            let mut spool = spool.lock();
            (spool.identity().clone(), spool.next_unacknowledged(SEND_BYTES_MAX))
        })
        .await;
        let frames = frames.map_err(|error| chain(&error))?;
        let is_heartbeat = frames.is_empty();
        let acknowledged = match sender.send(&identity, frames).await {
            Ok(ack) => ack.seq,
            Err(SendError::Refused { seq, reason }) => {
                self.status.lock().frames_refused += 1;
                warn!(seq, reason, "the receiver will never take this frame; it is given up");
                Some(seq)
            }
            Err(error) => return Err(chain(&error)),
        };
        let Some(seq) = acknowledged.filter(|_| !is_heartbeat) else {
            return if is_heartbeat { Ok(false) } else { Err("the receiver took none of the frames".to_owned()) };
        };
        let spool = Arc::clone(&self.spool);
        blocking(move || {
            let mut spool = spool.lock();
            spool.acknowledge(seq).map(|()| spool.has_unacknowledged())
        })
        .await
        .map_err(|error| chain(&error))
    }
}

#[cfg(test)]
mod tests;
