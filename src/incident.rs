//! Incidents: what belongs together in one cluster and one window.
//!
//! Pure: time comes from events and `now` arguments. A cluster has at most one incident at a time. It is opened by an
//! unplanned loss or change of the leader, a split brain, a DCS without quorum, a broken replica, or a critical alert;
//! everything that follows joins it. A planned switchover opens nothing.
//!
//! What would open an incident soon after the last one settled opens that one again, since it is the same trouble to
//! whoever is called: same id, same thread of messages. Unless its cause says that it is over when it is done, or one of
//! both rests on an alert alone and the other is something else.
//!
//! It settles when the cluster has been healthy (belief ok, no critical alert) for 30 s without a break. A cluster that
//! stays merely degraded, such as one whose dead host is never repaired, settles after 10 minutes in which its leader
//! took writes and nothing that opens an incident went on; what is still wrong then is told by its own alerts. A cluster
//! of which only alerts are known settles 30 s after the last critical one.

pub mod causes;
mod correlate;
pub mod handle;
pub mod patterns;
pub mod report;
pub mod similar;
mod story;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::alert::{INCIDENT_LOOK_BACK, INCIDENT_REOPENS_WITHIN};
use crate::model::cluster::Cluster;
use crate::model::incident::{Handling, Incident, IncidentState, Verdict};
use crate::model::{Event, EventSeverity, Timestamp};

/// `source` of events that were derived from logs alone. Nobody watched: each that is worse than a notice opens an
/// incident by itself.
pub const FROM_LOGS: &str = "logs";

/// Patience and bounds of the correlator.
#[derive(Clone, Debug)]
pub struct CorrelatorOptions {
    /// Healthy for this long settles an incident.
    pub settle_after: Duration,
    /// Degraded but stable for this long settles it too.
    pub settle_degraded_after: Duration,
    /// A possible split brain must last this long to open an incident by itself.
    pub possible_hold: Duration,
    /// So soon after an incident settled, what would open another opens it again.
    pub reopen_within: Duration,
    /// How far back signs are looked for when an incident opens.
    pub look_back: Duration,
    /// Events that one incident keeps.
    pub events_max: usize,
    /// Recent events that are kept per cluster while nothing is open.
    pub recent_max: usize,
}

impl Default for CorrelatorOptions {
    fn default() -> Self {
        Self {
            settle_after: Duration::from_secs(30),
            settle_degraded_after: Duration::from_mins(10),
            possible_hold: Duration::from_secs(10),
            reopen_within: INCIDENT_REOPENS_WITHIN,
            look_back: INCIDENT_LOOK_BACK,
            events_max: 500,
            recent_max: 64,
        }
    }
}

/// An alert of a cluster that fires. Of several with one name the worst and oldest counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FiringAlert {
    pub cluster: String,
    /// Its `alertname`. Incidents' own alerts must not be fed back.
    pub name: String,
    pub severity: EventSeverity,
    pub since: Timestamp,
    /// What it says of itself, in one line.
    pub summary: String,
    /// Marked as a sign or consequence of trouble in the HA cluster.
    pub part: bool,
}

/// What happened to an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentChangeKind {
    Opened,
    /// The incident has an event of it.
    Reopened,
    Updated,
    Settled,
}

/// One change, with the whole incident after it.
#[derive(Clone, Debug, PartialEq)]
pub struct IncidentChange {
    pub kind: IncidentChangeKind,
    pub incident: Incident,
}

/// What must survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CorrelatorMemory {
    clusters: BTreeMap<String, ClusterIncidents>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct ClusterIncidents {
    open: Option<Incident>,
    /// The last one, for as long as it may open again.
    settled: Option<Incident>,
    /// What opened or would open an incident and goes on.
    going_on: BTreeSet<String>,
    critical_alerts: BTreeSet<String>,
    healthy_since: Option<Timestamp>,
    stable_since: Option<Timestamp>,
    possible_since: Option<Timestamp>,
    /// The last belief with a writable member. Not kept: time in which nobody looked is no outage.
    #[serde(skip)]
    written_at: Option<Timestamp>,
    /// That belief, once a later one showed none.
    dark_since: Option<Timestamp>,
    recent: VecDeque<Event>,
}

/// Finds out which events and alerts belong together.
#[derive(Debug, Default)]
pub struct Correlator {
    options: CorrelatorOptions,
    memory: CorrelatorMemory,
}

impl Correlator {
    pub fn new(options: CorrelatorOptions) -> Self {
        Self { options, memory: CorrelatorMemory::default() }
    }

    /// A correlator that knows which incidents are open.
    pub fn restore(options: CorrelatorOptions, memory: CorrelatorMemory) -> Self {
        Self { options, memory }
    }

    pub fn memory(&self) -> &CorrelatorMemory {
        &self.memory
    }

    /// The incident that is open in a cluster.
    pub fn open(&self, cluster: &str) -> Option<&Incident> {
        self.memory.clusters.get(cluster)?.open.as_ref()
    }

    /// Takes in events of the judge, in their order.
    pub fn events(&mut self, events: &[Event]) -> Vec<IncidentChange> {
        let mut changes = Changes::default();
        for event in events {
            let state = self.memory.clusters.entry(event.cluster.clone()).or_default();
            changes.add(correlate::event(state, event, &self.options));
        }
        changes.list
    }

    /// Takes in all alerts that fire now. What is not among them has ended, also when nobody saw it end.
    pub fn alerts(&mut self, firing: &BTreeSet<FiringAlert>, now: Timestamp) -> Vec<IncidentChange> {
        for alert in firing {
            self.memory.clusters.entry(alert.cluster.clone()).or_default();
        }
        let changed = |(cluster, state): (&String, &mut ClusterIncidents)| {
            let here: Vec<_> = firing.iter().filter(|alert| alert.cluster == *cluster).collect();
            correlate::alerts(state, &here, now, &self.options)
        };
        self.memory.clusters.iter_mut().filter_map(changed).collect()
    }

    /// Takes in the belief, about once a second: phases, outage, settling.
    pub fn belief(&mut self, cluster: &Cluster, now: Timestamp) -> Option<IncidentChange> {
        let state = self.memory.clusters.entry(cluster.name.clone()).or_default();
        correlate::belief(state, cluster, now, &self.options)
    }

    /// Takes in that no cluster but these is judged: incidents of others settle when their alerts have ended.
    pub fn judged(&mut self, judged: &BTreeSet<&str>, now: Timestamp) -> Vec<IncidentChange> {
        let others = self.memory.clusters.iter_mut().filter(|(name, _)| !judged.contains(name.as_str()));
        others.filter_map(|(_, state)| correlate::without_belief(state, now, &self.options)).collect()
    }

    /// Takes in what people did with an incident; `None` when it is neither open nor may open again.
    pub fn handled(&mut self, id: &str, handling: &Handling) -> Option<IncidentChange> {
        self.change(id, |incident| incident.handle(handling))
    }

    /// Takes in what was concluded about the cause; `None` when the incident is neither open nor may open again.
    pub fn explained(&mut self, id: &str, verdict: &Verdict) -> Option<IncidentChange> {
        self.change(id, |incident| incident.conclude(verdict))
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut Incident)) -> Option<IncidentChange> {
        let states = self.memory.clusters.values_mut();
        let mut known = states.flat_map(|state| state.open.iter_mut().chain(&mut state.settled));
        let incident = known.find(|incident| incident.id == id)?;
        change(incident);
        Some(IncidentChange { kind: IncidentChangeKind::Updated, incident: incident.clone() })
    }

    /// Drops what is known about a cluster that is no longer watched; settles what is open.
    pub fn forget(&mut self, cluster: &str, now: Timestamp) -> Option<IncidentChange> {
        let mut incident = self.memory.clusters.remove(cluster)?.open?;
        incident.state = IncidentState::Settled;
        incident.settled_at = Some(now);
        Some(IncidentChange { kind: IncidentChangeKind::Settled, incident })
    }
}

/// Changes of one call: of several updates of an incident only the last counts.
#[derive(Default)]
struct Changes {
    list: Vec<IncidentChange>,
}

impl Changes {
    fn add(&mut self, change: Option<IncidentChange>) {
        let Some(change) = change else { return };
        let same = |other: &&mut IncidentChange| other.incident.id == change.incident.id;
        match self.list.iter_mut().find(same) {
            Some(known) if change.kind == IncidentChangeKind::Updated => known.incident = change.incident,
            _ => self.list.push(change),
        }
    }
}
