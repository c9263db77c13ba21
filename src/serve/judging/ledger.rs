//! What the judge found, on its way to disk: a task of its own, so that a disk that hangs stops no judgement.
//!
//! Invariants:
//! - Before a memory says that an event was told, the event is in the log store, or stands beside that memory and is
//!   written later, also after a restart. Ids make a repetition harmless.
//! - Incidents and memory are written in one transaction; alerts hear of incidents after it was tried.
//! - Everything that waits is bounded; what is lost to a bound is said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use crate::incident::handle::carry;
use crate::intake::Intake;
use crate::model::alert::IncidentNotice;
use crate::model::incident::Incident;
use crate::model::{Batch, Event, Sample};
use crate::platform::error::chain;
use crate::platform::tasks::blocking;
use crate::store::state::tables::JUDGE;
use crate::store::state::{StateError, StateStore};

/// Events that wait for the log store; hours of a bad day.
const EVENTS_MAX: usize = 10_000;
/// Samples that wait; the newest count.
const SAMPLES_MAX: usize = 50_000;
/// Events of one write.
const WRITE_EVENTS_MAX: usize = 1000;
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// The row of the events that are not in the log store yet.
pub(super) const UNWRITTEN: &str = "unwritten_events";

pub(super) type Notices = Arc<Vec<IncidentNotice>>;

/// What judge and correlator must know after a restart, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) judge: String,
    pub(super) correlator: String,
}

#[derive(Debug, Default)]
struct Pages {
    events: Vec<Event>,
    samples: Vec<Sample>,
    memory: Option<Memory>,
    incidents: BTreeMap<String, Incident>,
    notices: Option<Notices>,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    pages: Mutex<Pages>,
    changed: Notify,
}

/// The judge's end: takes without waiting. Dropping it lets the writer finish.
#[derive(Debug)]
pub(super) struct Ledger(Arc<Shared>);

impl Ledger {
    pub(super) fn events(&self, events: Vec<Event>) {
        self.change(|pages| {
            pages.events.extend(events);
            drop_oldest(&mut pages.events);
        });
    }

    pub(super) fn samples(&self, samples: Vec<Sample>) {
        self.change(|pages| {
            if pages.samples.len() + samples.len() > SAMPLES_MAX {
                pages.samples.clear();
            }
            pages.samples.extend(samples);
        });
    }

    pub(super) fn memory(&self, memory: Memory) {
        self.change(|pages| pages.memory = Some(memory));
    }

    /// Incidents with the memory that belongs to them, and what to tell the alerts then.
    pub(super) fn incidents(&self, incidents: Vec<Incident>, memory: Memory, notices: Notices) {
        self.change(|pages| {
            pages.incidents.extend(incidents.into_iter().map(|incident| (incident.id.clone(), incident)));
            pages.memory = Some(memory);
            pages.notices = Some(notices);
        });
    }

    pub(super) fn notices(&self, notices: Notices) {
        self.change(|pages| pages.notices = Some(notices));
    }

    fn change(&self, change: impl FnOnce(&mut Pages)) {
        change(&mut self.0.pages.lock());
        self.0.changed.notify_one();
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.change(|pages| pages.is_closed = true);
    }
}

fn drop_oldest(events: &mut Vec<Event>) {
    let excess = events.len().saturating_sub(EVENTS_MAX);
    if excess > 0 {
        error!(events = excess, "events are lost: the log store has not taken any for too long");
        events.drain(..excess);
    }
}

/// Writes what the ledger takes.
pub(super) struct Scribe {
    shared: Arc<Shared>,
    intake: Intake,
    state: Arc<StateStore>,
    told: watch::Sender<Notices>,
    /// Events that the log store has not taken.
    unwritten: Vec<Event>,
    /// Whether the row beside the memory names any.
    row_has_events: bool,
    memory: Option<Memory>,
    incidents: BTreeMap<String, Incident>,
    is_failing: bool,
}

/// Opens a ledger. `unwritten` are the events that a former run left.
pub(super) fn open(
    intake: Intake,
    state: Arc<StateStore>,
    told: watch::Sender<Notices>,
    unwritten: Vec<Event>,
) -> (Ledger, Scribe) {
    let shared = Arc::<Shared>::default();
    let ledger = Ledger(Arc::clone(&shared));
    let scribe = Scribe {
        shared,
        intake,
        state,
        told,
        row_has_events: !unwritten.is_empty(),
        unwritten,
        memory: None,
        incidents: BTreeMap::new(),
        is_failing: false,
    };
    (ledger, scribe)
}

impl Scribe {
    /// Runs until the ledger is dropped and everything was tried once more.
    pub(super) async fn run(mut self) {
        loop {
            if self.write().await {
                return;
            }
            if self.is_failing {
                tokio::time::sleep(RETRY_EVERY).await;
            } else {
                self.shared.changed.notified().await;
            }
        }
    }

    /// Writes what waits; true after the last time.
    async fn write(&mut self) -> bool {
        let Pages { events, samples, memory, incidents, notices, is_closed } = {
            let mut pages = self.shared.pages.lock();
            let taken = std::mem::take(&mut *pages);
            pages.is_closed = taken.is_closed;
            taken
        };
        self.unwritten.extend(events);
        drop_oldest(&mut self.unwritten);
        self.memory = memory.or(self.memory.take());
        self.incidents.extend(incidents);
        let mut failure = self.write_events().await;
        if !samples.is_empty() {
            let written = self.intake.accept(Batch { samples, ..Batch::default() }).await;
            failure = failure.or(written.err().map(|error| chain(&error)));
        }
        // A row of events that were written meanwhile would bring them back after a restart.
        let is_outdated = self.row_has_events && self.unwritten.is_empty();
        if self.memory.is_some() || !self.incidents.is_empty() || is_outdated {
            failure = failure.or(self.write_memory().await.err().map(|error| chain(&error)));
        }
        if let Some(notices) = notices {
            self.told.send_replace(notices);
        }
        match &failure {
            Some(error) if !self.is_failing => warn!(error, "what the judge found could not be written; trying again"),
            None if self.is_failing => info!("what the judge found is written again"),
            _ => {}
        }
        self.is_failing = failure.is_some();
        is_closed
    }

    /// Why events stay unwritten, if they do.
    async fn write_events(&mut self) -> Option<String> {
        while !self.unwritten.is_empty() {
            let count = self.unwritten.len().min(WRITE_EVENTS_MAX);
            let logs = self.unwritten.iter().take(count).map(Event::to_log_record).collect();
            if let Err(error) = self.intake.accept(Batch { logs, ..Batch::default() }).await {
                return Some(chain(&error));
            }
            self.unwritten.drain(..count);
        }
        None
    }

    /// Memory, incidents and the events that are not written otherwise, in one transaction.
    async fn write_memory(&mut self) -> Result<(), StateError> {
        let state = Arc::clone(&self.state);
        let (memory, incidents) = (self.memory.clone(), self.incidents.clone());
        let unwritten = serde_json::to_value(&self.unwritten).unwrap_or_default();
        blocking(move || {
            state.write(|tx| {
                if let Some(memory) = &memory {
                    for (key, text) in [("judge", &memory.judge), ("correlator", &memory.correlator)] {
                        tx.put(&JUDGE, key, &serde_json::from_str(text).unwrap_or_default())?;
                    }
                }
                tx.put(&JUDGE, UNWRITTEN, &unwritten)?;
                for incident in incidents.values() {
                    carry(tx, incident)?;
                }
                Ok::<(), StateError>(())
            })
        })
        .await?;
        self.row_has_events = !self.unwritten.is_empty();
        self.memory = None;
        self.incidents.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventSeverity, LogRecord, Timestamp};
    use crate::platform::clock::Clock;
    use crate::platform::disk::Disk;
    use crate::platform::telemetry::Telemetry;
    use crate::store::logs::{LogOptions, LogQuery, LogStore};
    use crate::store::metrics::{MetricOptions, MetricStore};
    use std::ops::ControlFlow;
    use tokio::sync::mpsc;

    const NOW: Timestamp = Timestamp::from_secs(1_764_000_000);

    struct Bed {
        dir: tempfile::TempDir,
        logs: Arc<LogStore>,
        state: Arc<StateStore>,
        intake: Intake,
    }

    impl Bed {
        /// A log store that takes nothing but a few bytes until it is sealed.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (disk, clock) = (Disk::real(), Clock::manual(NOW));
            let options = LogOptions { memory_bytes_max: 100, own_bytes: 0, ..LogOptions::default() };
            let logs = Arc::new(LogStore::open(&dir.path().join("logs"), options, &disk, &clock).unwrap().0);
            let metrics = MetricStore::open(&dir.path().join("metrics"), MetricOptions::default(), &disk, &clock);
            let state = Arc::new(StateStore::open(dir.path(), NOW).unwrap());
            let (sender, _) = mpsc::channel(1);
            let intake = Intake::new(Arc::new(metrics.unwrap().0), Arc::clone(&logs), sender, &Telemetry::default());
            Self { dir, logs, state, intake }
        }

        fn open(&self) -> (Ledger, Scribe) {
            let row = self.state.read().unwrap().get(&JUDGE, UNWRITTEN).unwrap().unwrap_or_default();
            let unwritten = serde_json::from_value(row).unwrap_or_default();
            open(self.intake.clone(), Arc::clone(&self.state), watch::Sender::default(), unwritten)
        }

        fn stored(&self) -> usize {
            let mut found = 0;
            let query = LogQuery::new(Vec::new(), Timestamp::MIN, Timestamp::MAX);
            let mut count = |_: u64, record: &LogRecord| {
                found += usize::from(Event::from_log_record(record).is_some());
                ControlFlow::Continue(())
            };
            self.logs.search(&query, &mut count).unwrap();
            found
        }

        fn memory(&self) -> Option<serde_json::Value> {
            self.state.read().unwrap().get(&JUDGE, "judge").unwrap()
        }
    }

    fn event(number: u32) -> Event {
        Event {
            id: format!("demo-{number}"),
            time: NOW,
            cluster: "demo".to_owned(),
            member: None,
            event: "leader_lost".to_owned(),
            severity: EventSeverity::Critical,
            source: "dcs".to_owned(),
            text: "lost".to_owned(),
            fields: BTreeMap::new(),
        }
    }

    #[tokio::test]
    async fn events_that_the_log_store_refuses_are_written_later_also_after_a_restart() {
        let bed = Bed::new();
        let filler =
            LogRecord { at: NOW, stream: crate::model::Labels::default(), line: "x".repeat(200), fields: vec![] };
        bed.logs.append(None, &[filler]).unwrap();
        let memory = Memory { judge: "{\"told\":2}".to_owned(), correlator: "{}".to_owned() };
        let (ledger, mut scribe) = bed.open();
        ledger.events(vec![event(1), event(2)]);
        ledger.memory(memory);
        assert!(!scribe.write().await);
        assert_eq!((bed.stored(), scribe.unwritten.len()), (0, 2));
        assert!(bed.memory().is_some(), "the memory is written with the events beside it");
        drop((ledger, scribe));

        bed.logs.seal().unwrap();
        let (ledger, scribe) = bed.open();
        assert_eq!(scribe.unwritten.len(), 2);
        ledger.memory(Memory { judge: "{\"told\":3}".to_owned(), correlator: "{}".to_owned() });
        drop(ledger);
        scribe.run().await;
        assert_eq!(bed.stored(), 2);
        assert_eq!(bed.memory(), Some(serde_json::json!({"told": 3})));
        assert!(bed.open().1.unwritten.is_empty(), "they are not written again in {}", bed.dir.path().display());
    }

    #[tokio::test]
    async fn the_judge_never_waits_and_what_waits_is_bounded() {
        let bed = Bed::new();
        let (ledger, mut scribe) = bed.open();
        for number in 0..u32::try_from(EVENTS_MAX).unwrap() + 5 {
            ledger.events(vec![event(number)]);
        }
        assert_eq!(ledger.0.pages.lock().events.len(), EVENTS_MAX);
        scribe.write().await;
        assert!(scribe.unwritten.len() <= EVENTS_MAX);
    }
}
