//! The one task that owns the judge and the correlator: observations in; events, belief, series and incidents out.
//!
//! Events are stored before anything else hears of them. What must survive a restart is written when it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::cluster::{Judge, JudgeMemory, JudgeOptions};
use crate::collect::FastProbe;
use crate::http::v1::Belief;
use crate::incident::{Correlator, CorrelatorMemory, CorrelatorOptions, FiringAlert, IncidentChange};
use crate::intake::Intake;
use crate::model::alert::{IncidentNotice, MemberNotice};
use crate::model::cluster::Cluster;
use crate::model::incident::Incident;
use crate::model::sample::STALE_NAN;
use crate::model::{Batch, Event, EventSeverity, Labels, Observation, Sample, Timestamp};
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::{TaskGroup, blocking};
use crate::store::state::StateStore;
use crate::store::state::tables::{INCIDENTS, JUDGE};

const TICK_EVERY: Duration = Duration::from_millis(250);
/// Series of the belief are written this often.
const SAMPLES_EVERY: Duration = Duration::from_secs(5);
const MEMORY_EVERY: Duration = Duration::from_secs(5);
/// A settled incident is still told to the alerts for this long, so that its end reaches everybody.
const SETTLED_KEPT: Duration = Duration::from_mins(15);
const EVENT_LINES_MAX: usize = 40;

/// What the task needs of others.
#[derive(Debug)]
pub(super) struct Wiring {
    pub(super) intake: Intake,
    pub(super) state: Arc<StateStore>,
    pub(super) fast_probe: FastProbe,
    pub(super) clock: Clock,
}

/// What others see of the task.
#[derive(Clone, Debug)]
pub(super) struct Judging {
    pub(super) belief: watch::Receiver<Belief>,
    /// Incidents that are open or settled recently.
    pub(super) notices: watch::Receiver<Arc<Vec<IncidentNotice>>>,
    /// Alerts that fire, once the rules have been evaluated.
    pub(super) firing: watch::Sender<BTreeSet<FiringAlert>>,
}

struct Court {
    wiring: Wiring,
    judge: Judge,
    correlator: Correlator,
    belief: watch::Sender<Belief>,
    notices: watch::Sender<Arc<Vec<IncidentNotice>>>,
    incidents: BTreeMap<String, Incident>,
    memory_written: Option<(String, String)>,
    memory_due: Timestamp,
    samples_due: Timestamp,
    /// Series of the last round.
    series: BTreeSet<Labels>,
    is_failing: bool,
}

/// Restores what was known and starts the task.
pub(super) fn start(
    wiring: Wiring,
    observations: mpsc::Receiver<Vec<Observation>>,
    group: &TaskGroup,
) -> anyhow::Result<Judging> {
    let memory: JudgeMemory = remembered(&wiring.state, "judge")?;
    let correlated: CorrelatorMemory = remembered(&wiring.state, "correlator")?;
    let belief = watch::Sender::new(Belief::default());
    let notices = watch::Sender::new(Arc::default());
    let (firing, fires) = watch::channel(BTreeSet::new());
    let judging = Judging { belief: belief.subscribe(), notices: notices.subscribe(), firing };
    let now = wiring.clock.now();
    let rows = wiring.state.read()?.scan(&INCIDENTS, "", usize::MAX)?;
    let recent =
        rows.into_iter().filter_map(|(id, row)| serde_json::from_value(row).ok().map(|incident| (id, incident)));
    let court = Court {
        judge: Judge::restore(JudgeOptions::default(), memory),
        correlator: Correlator::restore(CorrelatorOptions::default(), correlated),
        belief,
        notices,
        incidents: recent.filter(|(_, incident)| is_recent(incident, now)).collect(),
        memory_written: None,
        memory_due: now,
        samples_due: now,
        series: BTreeSet::new(),
        is_failing: false,
        wiring,
    };
    let stop = group.stop_token();
    group.spawn("judge", async move {
        court.run(observations, fires, stop).await;
    });
    Ok(judging)
}

fn remembered<T: DeserializeOwned + Default>(state: &StateStore, key: &str) -> anyhow::Result<T> {
    let row = state.read()?.get(&JUDGE, key).context("read what the judge knew")?;
    Ok(row.and_then(|row| serde_json::from_value(row).ok()).unwrap_or_default())
}

fn is_recent(incident: &Incident, now: Timestamp) -> bool {
    incident.settled_at.is_none_or(|settled| now.since(settled) < SETTLED_KEPT)
}

impl Court {
    async fn run(
        mut self,
        mut observations: mpsc::Receiver<Vec<Observation>>,
        mut firing: watch::Receiver<BTreeSet<FiringAlert>>,
        stop: tokio_util::sync::CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(TICK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // All branches are cancel-safe: what was not received stays in its queue.
            tokio::select! {
                () = stop.cancelled() => break,
                Some(found) = observations.recv() => {
                    let events: Vec<Event> = found.iter().flat_map(|one| self.judge.observe(one)).collect();
                    self.publish(events).await;
                }
                Ok(()) = firing.changed() => {
                    let fires = firing.borrow_and_update().clone();
                    let changes = self.correlator.alerts(&fires, self.wiring.clock.now());
                    self.keep(changes).await;
                }
                _ = ticks.tick() => self.tick().await,
            }
        }
        self.write_memory(Vec::new()).await;
    }

    async fn tick(&mut self) {
        let now = self.wiring.clock.now();
        let events = self.judge.tick(now);
        self.publish(events).await;
        let clusters = self.judge.clusters(now);
        let changes = clusters.iter().filter_map(|cluster| self.correlator.belief(cluster, now)).collect();
        self.keep(changes).await;
        for cluster in &clusters {
            self.wiring.fast_probe.set(&cluster.name, self.judge.wants_fast_probe(&cluster.name, now));
        }
        self.show(clusters);
        if now >= self.samples_due {
            self.samples_due = now + SAMPLES_EVERY;
            let mut samples = self.judge.samples(now);
            let current: BTreeSet<Labels> = samples.iter().map(|sample| sample.labels.clone()).collect();
            // What became unknown must not linger as if it were known.
            let gone = self.series.difference(&current);
            samples.extend(gone.map(|labels| Sample::new(labels.clone(), now, STALE_NAN)));
            self.series = current;
            self.write(Batch { samples, ..Batch::default() }).await;
        }
        if now >= self.memory_due {
            self.memory_due = now + MEMORY_EVERY;
            self.forget_old(now);
            self.write_memory(Vec::new()).await;
        }
    }

    /// Stores events, then lets everybody see what they mean.
    async fn publish(&mut self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        for event in &events {
            info!(cluster = event.cluster, member = event.member, event = event.event, "{}", event.text);
        }
        let logs = events.iter().map(Event::to_log_record).collect();
        self.write(Batch { logs, ..Batch::default() }).await;
        let changes = self.correlator.events(&events);
        self.show(self.judge.clusters(self.wiring.clock.now()));
        self.keep(changes).await;
    }

    async fn write(&mut self, batch: Batch) {
        let failed = self.wiring.intake.accept(batch).await.err();
        match &failed {
            Some(error) if !self.is_failing => {
                error!(error = %chain(error), "what the judge found could not be written");
            }
            _ => {}
        }
        self.is_failing = failed.is_some();
    }

    fn show(&self, clusters: Vec<Cluster>) {
        self.belief.send_if_modified(|current| {
            let is_new = **current != clusters;
            if is_new {
                *current = Arc::new(clusters);
            }
            is_new
        });
    }

    async fn keep(&mut self, changes: Vec<IncidentChange>) {
        if changes.is_empty() {
            return;
        }
        for change in &changes {
            let incident = &change.incident;
            info!(id = incident.id, cluster = incident.cluster, kind = ?change.kind, title = incident.title, "incident");
            self.incidents.insert(incident.id.clone(), incident.clone());
        }
        self.write_memory(changes.into_iter().map(|change| change.incident).collect()).await;
        self.tell_alerts();
    }

    fn forget_old(&mut self, now: Timestamp) {
        let before = self.incidents.len();
        self.incidents.retain(|_, incident| is_recent(incident, now));
        if self.incidents.len() != before || self.notices.borrow().len() != self.incidents.len() {
            self.tell_alerts();
        }
    }

    fn tell_alerts(&self) {
        let belief = Arc::clone(&self.belief.borrow());
        // One that rests on an alert alone is told by that alert, on the route that was made for it.
        let told = self.incidents.values().filter(|incident| incident.is_more_than_its_alert());
        let notices = told.map(|incident| notice(incident, &belief)).collect();
        self.notices.send_replace(Arc::new(notices));
    }

    /// Writes incidents and memory in one transaction; memory only when it changed.
    async fn write_memory(&mut self, incidents: Vec<Incident>) {
        let memory = (as_json(&self.judge.memory()), as_json(self.correlator.memory()));
        if incidents.is_empty() && self.memory_written.as_ref() == Some(&memory) {
            return;
        }
        let state = Arc::clone(&self.wiring.state);
        let rows = memory.clone();
        let written = blocking(move || {
            state.write(|tx| {
                for (key, text) in [("judge", &rows.0), ("correlator", &rows.1)] {
                    tx.put(&JUDGE, key, &serde_json::from_str(text).unwrap_or_default())?;
                }
                for incident in &incidents {
                    tx.put(&INCIDENTS, &incident.id, &serde_json::to_value(incident).unwrap_or_default())?;
                }
                Ok::<(), crate::store::state::StateError>(())
            })
        })
        .await;
        match written {
            Ok(()) => self.memory_written = Some(memory),
            Err(error) => warn!(error = %chain(&error), "what the judge knows could not be written; trying again"),
        }
    }
}

/// Plain values of ours always serialise.
fn as_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn notice(incident: &Incident, belief: &[Cluster]) -> IncidentNotice {
    let cluster = belief.iter().find(|cluster| cluster.name == incident.cluster);
    let members = cluster.map_or(&[][..], |cluster| &cluster.members[..]);
    let skip = incident.events.len().saturating_sub(EVENT_LINES_MAX);
    IncidentNotice {
        id: incident.id.clone(),
        cluster: incident.cluster.clone(),
        title: incident.title.clone(),
        severity: severity(incident.severity).to_owned(),
        cause: incident.causes.first().map(|cause| cause.name.clone()),
        description: incident.title.clone(),
        opened_at: incident.opened_at,
        settled_at: incident.settled_at,
        timeline: incident.events.iter().skip(skip).cloned().collect(),
        members: members
            .iter()
            .map(|member| MemberNotice {
                name: member.name.clone(),
                role: member.role.as_str().to_owned(),
                state: member.state.clone(),
                writable: member.writable,
                timeline: member.timeline.map(u64::from),
                lag_bytes: member.lag_bytes,
            })
            .collect(),
        write_outage_seconds: incident.impact.write_outage_seconds,
        opener: incident.opener.clone(),
        split_brain: incident.events.iter().any(|event| event.event == "split_brain_confirmed"),
    }
}

fn severity(severity: EventSeverity) -> &'static str {
    match severity {
        EventSeverity::Critical => "critical",
        EventSeverity::Warning => "warning",
        EventSeverity::Notice | EventSeverity::Info => "info",
    }
}
