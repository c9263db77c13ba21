//! The one task that owns the judge and the correlator: observations in; events, belief, series and incidents out.
//!
//! Nothing here waits for a disk: what is found goes to disk by `ledger`. A belief that is not looked at again, because
//! the task hangs for whatever reason, is shown as unknown after [`OUTDATED_AFTER`].

mod ledger;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{error, info};

use ledger::{Ledger, Memory, Notices};

use super::causes::{Found, VERDICTS_MAX};
use crate::cluster::{Judge, JudgeMemory, JudgeOptions};
use crate::collect::FastProbe;
use crate::http::v1::Belief;
use crate::incident::handle::Handled;
use crate::incident::{
    Correlator, CorrelatorMemory, CorrelatorOptions, FiringAlert, IncidentChange, IncidentChangeKind,
};
use crate::intake::Intake;
use crate::model::alert::{IncidentNotice, IncidentReport, MemberNotice};
use crate::model::cluster::Cluster;
use crate::model::incident::{INCIDENT_REOPENED, Incident};
use crate::model::sample::STALE_NAN;
use crate::model::{Event, EventSeverity, Labels, Observation, Sample, Timestamp};
use crate::platform::clock::Clock;
use crate::platform::tasks::TaskGroup;
use crate::store::state::StateStore;
use crate::store::state::tables::{INCIDENTS, JUDGE};

const TICK_EVERY: Duration = Duration::from_millis(250);
/// Series of the belief are written this often.
const SAMPLES_EVERY: Duration = Duration::from_secs(5);
const MEMORY_EVERY: Duration = Duration::from_secs(5);
/// A belief that was not looked at for so long is no belief about now.
pub(super) const OUTDATED_AFTER: Duration = Duration::from_secs(5);
const OUTDATED_CHECK_EVERY: Duration = Duration::from_secs(1);
/// A settled incident is still told to the alerts for this long, so that its end reaches everybody.
const SETTLED_KEPT: Duration = Duration::from_mins(15);
const EVENT_LINES_MAX: usize = 40;
/// Pieces of evidence that a message shows.
const PROOF_LINES_MAX: usize = 5;

/// What the task needs of others.
#[derive(Debug)]
pub(super) struct Wiring {
    pub(super) intake: Intake,
    pub(super) state: Arc<StateStore>,
    pub(super) fast_probe: FastProbe,
    pub(super) clock: Clock,
    /// What people do with incidents.
    pub(super) handled: mpsc::Receiver<Handled>,
    /// Clusters that the configuration may still mean. Others are forgotten.
    pub(super) watched: BTreeSet<String>,
}

/// What others see of the task.
#[derive(Clone, Debug)]
pub(super) struct Judging {
    pub(super) belief: watch::Receiver<Belief>,
    /// Incidents that are open or settled recently.
    pub(super) notices: watch::Receiver<Arc<Vec<IncidentNotice>>>,
    /// Alerts that fire, once they have been routed.
    pub(super) firing: watch::Sender<BTreeSet<FiringAlert>>,
    /// When the judge last looked.
    pub(super) looked_at: watch::Receiver<Instant>,
    /// Incidents that are open or settled recently, for those who look for causes.
    pub(super) incidents: watch::Receiver<Arc<Vec<Incident>>>,
    pub(super) verdicts: mpsc::Sender<Found>,
}

struct Court {
    wiring: Wiring,
    judge: Judge,
    correlator: Correlator,
    belief: watch::Sender<Belief>,
    looked_at: watch::Sender<Instant>,
    ledger: Ledger,
    /// How many incidents the alerts were last told of.
    told: usize,
    incidents: BTreeMap<String, Incident>,
    shown: watch::Sender<Arc<Vec<Incident>>>,
    verdicts: mpsc::Receiver<Found>,
    /// As it was last given to the ledger.
    memory: Memory,
    memory_due: Instant,
    samples_due: Instant,
    /// Series of the last round.
    series: BTreeSet<Labels>,
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
    let now = wiring.clock.now();
    let rows = wiring.state.read()?.scan(&INCIDENTS, "", usize::MAX)?;
    let known =
        rows.into_iter().filter_map(|(id, row)| serde_json::from_value(row).ok().map(|incident| (id, incident)));
    let incidents: BTreeMap<String, Incident> = known.filter(|(_, incident)| is_recent(incident, now)).collect();
    // From the first moment: alerts must not take an open incident for one that has ended.
    let notices = watch::Sender::new(notices_of(&incidents, &[]));
    let (firing, fires) = watch::channel(BTreeSet::new());
    let looked_at = watch::Sender::new(Instant::now());
    let shown = watch::Sender::new(Arc::new(incidents.values().cloned().collect()));
    let (found, verdicts) = mpsc::channel(VERDICTS_MAX);
    let judging = Judging {
        belief: belief.subscribe(),
        notices: notices.subscribe(),
        firing,
        looked_at: looked_at.subscribe(),
        incidents: shown.subscribe(),
        verdicts: found,
    };
    let unwritten = remembered(&wiring.state, ledger::UNWRITTEN)?;
    let (ledger, scribe) = ledger::open(wiring.intake.clone(), Arc::clone(&wiring.state), notices, unwritten);
    group.spawn("ledger", scribe.run());
    let clock = wiring.clock.clone();
    group.spawn_until_stop("outdated", mark_outdated(belief.clone(), looked_at.subscribe(), clock));
    let mut correlator = Correlator::restore(CorrelatorOptions::default(), correlated);
    for incident in incidents.values() {
        // What people did last may have been written after the memory.
        drop(correlator.handled(&incident.id, &incident.handling));
    }
    let court = Court {
        judge: Judge::restore(JudgeOptions::default(), memory),
        correlator,
        belief,
        looked_at,
        ledger,
        told: 0,
        incidents,
        shown,
        verdicts,
        memory: Memory::default(),
        memory_due: Instant::now(),
        samples_due: Instant::now(),
        series: BTreeSet::new(),
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
        self.forget_unwatched();
        loop {
            // All branches are cancel-safe: what was not received stays in its queue.
            tokio::select! {
                () = stop.cancelled() => break,
                Some(found) = observations.recv() => {
                    let events: Vec<Event> = found.iter().flat_map(|one| self.judge.observe(one)).collect();
                    self.publish(events);
                }
                Ok(()) = firing.changed() => {
                    let fires = firing.borrow_and_update().clone();
                    let changes = self.correlator.alerts(&fires, self.wiring.clock.now());
                    self.keep(changes);
                }
                Some(found) = self.verdicts.recv() => self.conclude(&found),
                Some(handled) = self.wiring.handled.recv() => self.take_note(&handled),
                _ = ticks.tick() => self.tick(),
            }
        }
        self.write_memory();
    }

    fn tick(&mut self) {
        self.looked_at.send_replace(Instant::now());
        let now = self.wiring.clock.now();
        let events = self.judge.tick(now);
        self.publish(events);
        let clusters = self.judge.clusters(now);
        let judged = clusters.iter().map(|cluster| cluster.name.as_str()).collect();
        let mut changes = self.correlator.judged(&judged, now);
        changes.extend(clusters.iter().filter_map(|cluster| self.correlator.belief(cluster, now)));
        self.keep(changes);
        for cluster in &clusters {
            self.wiring.fast_probe.set(&cluster.name, self.judge.wants_fast_probe(&cluster.name, now));
        }
        self.show(clusters);
        if Instant::now() >= self.samples_due {
            self.samples_due = Instant::now() + SAMPLES_EVERY;
            let mut samples = self.judge.samples(now);
            let current: BTreeSet<Labels> = samples.iter().map(|sample| sample.labels.clone()).collect();
            // What became unknown must not linger as if it were known.
            let gone = self.series.difference(&current);
            samples.extend(gone.map(|labels| Sample::new(labels.clone(), now, STALE_NAN)));
            self.series = current;
            self.ledger.samples(samples);
        }
        if Instant::now() >= self.memory_due {
            self.memory_due = Instant::now() + MEMORY_EVERY;
            self.forget_old(now);
            self.write_memory();
        }
    }

    /// Drops clusters that were taken out of the configuration, and settles what was open there.
    fn forget_unwatched(&mut self) {
        let now = self.wiring.clock.now();
        let names: BTreeSet<String> = self.judge.names().map(str::to_owned).collect();
        let mut changes = Vec::new();
        for name in names.difference(&self.wiring.watched) {
            info!(cluster = name, "no longer in the configuration: forgotten");
            self.judge.forget(name);
            changes.extend(self.correlator.forget(name, now));
        }
        self.keep(changes);
    }

    /// Gives events away to be stored, and lets everybody see what they mean.
    fn publish(&mut self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        for event in &events {
            info!(cluster = event.cluster, member = event.member, event = event.event, "{}", event.text);
        }
        let changes = self.correlator.events(&events);
        self.ledger.events(events);
        self.show(self.judge.clusters(self.wiring.clock.now()));
        self.keep(changes);
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

    fn keep(&mut self, changes: Vec<IncidentChange>) {
        if changes.is_empty() {
            return;
        }
        for change in &changes {
            let incident = &change.incident;
            info!(id = incident.id, cluster = incident.cluster, kind = ?change.kind, title = incident.title, "incident");
            self.incidents.insert(incident.id.clone(), incident.clone());
        }
        let reopened = changes.iter().filter(|change| change.kind == IncidentChangeKind::Reopened);
        let told = |change: &IncidentChange| {
            change.incident.events.iter().rfind(|event| event.event == INCIDENT_REOPENED).cloned()
        };
        self.ledger.events(reopened.filter_map(told).collect());
        let incidents = changes.into_iter().map(|change| change.incident).collect();
        self.show_incidents();
        self.memory = self.current_memory();
        let notices = self.current_notices();
        self.ledger.incidents(incidents, self.memory.clone(), notices);
    }

    /// Takes in what was found about a cause, also of an incident that has settled.
    fn conclude(&mut self, found: &Found) {
        let known = self.incidents.get(&found.incident);
        if known.is_none_or(|incident| incident.reopened != found.reopened) {
            // It is about what happened before the incident came back.
            return;
        }
        let change = self.correlator.explained(&found.incident, &found.verdict);
        self.keep_change(change, &found.incident, |incident| incident.conclude(&found.verdict));
    }

    /// Takes in what people did with an incident, also with one that has settled.
    fn take_note(&mut self, handled: &Handled) {
        let change = self.correlator.handled(&handled.incident, &handled.handling);
        self.keep_change(change, &handled.incident, |incident| incident.handle(&handled.handling));
    }

    /// Keeps what the correlator changed, or changes an incident that it has forgotten.
    fn keep_change(&mut self, change: Option<IncidentChange>, id: &str, otherwise: impl FnOnce(&mut Incident)) {
        let change = change.or_else(|| {
            let incident = self.incidents.get_mut(id)?;
            otherwise(incident);
            Some(IncidentChange { kind: IncidentChangeKind::Updated, incident: incident.clone() })
        });
        self.keep(change.into_iter().collect());
    }

    fn show_incidents(&self) {
        self.shown.send_replace(Arc::new(self.incidents.values().cloned().collect()));
    }

    fn forget_old(&mut self, now: Timestamp) {
        let before = self.incidents.len();
        self.incidents.retain(|_, incident| is_recent(incident, now));
        if self.incidents.len() != before {
            self.show_incidents();
        }
        if self.incidents.len() != before || self.told != self.incidents.len() {
            let notices = self.current_notices();
            self.ledger.notices(notices);
        }
    }

    fn current_notices(&mut self) -> Notices {
        self.told = self.incidents.len();
        notices_of(&self.incidents, &self.belief.borrow())
    }

    fn current_memory(&self) -> Memory {
        Memory { judge: as_json(&self.judge.memory()), correlator: as_json(self.correlator.memory()) }
    }

    /// Gives the memory away to be written, when it changed.
    fn write_memory(&mut self) {
        let memory = self.current_memory();
        if self.memory != memory {
            self.memory = memory;
            self.ledger.memory(self.memory.clone());
        }
    }
}

/// Shows a belief as outdated while nobody looks at it again.
async fn mark_outdated(belief: watch::Sender<Belief>, looked_at: watch::Receiver<Instant>, clock: Clock) {
    let mut ticks = tokio::time::interval(OUTDATED_CHECK_EVERY);
    let mut since = None;
    loop {
        ticks.tick().await;
        let age = looked_at.borrow().elapsed();
        if age < OUTDATED_AFTER {
            since = None;
            continue;
        }
        if since.is_none() {
            error!(seconds = age.as_secs(), "the judge hangs; what was known is shown as unknown");
        }
        let since = *since.get_or_insert_with(|| clock.now() - age);
        belief.send_if_modified(|clusters| {
            let outdated: Vec<Cluster> = clusters.iter().map(|cluster| cluster.outdated(since)).collect();
            let is_new = **clusters != outdated;
            *clusters = Arc::new(outdated);
            is_new
        });
    }
}

/// What the alerts are told.
fn notices_of(incidents: &BTreeMap<String, Incident>, belief: &[Cluster]) -> Notices {
    // One that rests on an alert alone is told by that alert, on the route that was made for it.
    let told = incidents.values().filter(|incident| incident.is_more_than_its_alert());
    Arc::new(told.map(|incident| notice(incident, belief)).collect())
}

/// Plain values of ours always serialise.
fn as_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// What is known now of why it happened and what it cost.
fn report(incident: &Incident) -> IncidentReport {
    let cause = incident.likely_cause();
    let proofs = cause.iter().flat_map(|cause| &cause.evidence).take(PROOF_LINES_MAX);
    IncidentReport {
        verdict: incident.verdict.clone(),
        confidence: incident.causes.first().map(|cause| cause.confidence),
        evidence: proofs.cloned().collect(),
        advice: cause.map(|cause| cause.advice.clone()).filter(|advice| !advice.is_empty()),
        phases: incident.phases.clone(),
        impact: incident.impact.clone(),
    }
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
        cause: incident.likely_cause().map(|cause| cause.name.clone()),
        report: report(incident),
        reopened_at: incident.reopened_at.last().copied(),
        acknowledged_by: incident.handling.acknowledged_by.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cluster::{Health, Member, Role};

    #[tokio::test(start_paused = true)]
    async fn a_belief_that_nobody_looks_at_becomes_unknown() {
        let member = Member {
            name: "n1".to_owned(),
            role: Role::Primary,
            state: "running".to_owned(),
            writable: Some(true),
            seen_at: Some(Timestamp::from_secs(100)),
            ..Member::default()
        };
        let cluster = Cluster {
            name: "demo".to_owned(),
            health: Health::Ok,
            leader: Some("n1".to_owned()),
            writable: vec!["n1".to_owned()],
            members: vec![member],
            ..Cluster::default()
        };
        let belief = watch::Sender::new(Arc::new(vec![cluster.clone()]));
        let mut seen = belief.subscribe();
        let looked_at = watch::Sender::new(Instant::now());
        let group = TaskGroup::new("test");
        let clock = Clock::manual(Timestamp::from_secs(105));
        group.spawn_until_stop("outdated", mark_outdated(belief, looked_at.subscribe(), clock));
        let started = Instant::now();
        seen.changed().await.unwrap();
        assert_eq!(started.elapsed(), OUTDATED_AFTER);
        let shown = seen.borrow_and_update()[0].clone();
        assert_eq!((shown.health, shown.leader, shown.writable.len()), (Health::Unknown, None, 0));
        assert_eq!(shown.reasons[0].text, "nothing has been judged since 1970-01-01T00:01:40.000Z: the server hangs");
        let left = &shown.members[0];
        assert_eq!((left.role, left.writable, left.seen_at), (Role::Unknown, None, cluster.members[0].seen_at));
        group.stop(Duration::from_secs(1)).await;
    }
}
