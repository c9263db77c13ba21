//! Incidents: what belongs together in one cluster and one window, with its own copies of the events it rests on.

use serde::{Deserialize, Serialize};

use crate::model::{Event, EventSeverity, Timestamp};

/// Incidents of before the field were of the HA cluster.
fn yes() -> bool {
    true
}

/// Whether anybody still has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IncidentState {
    Open,
    /// Somebody has taken it; it settles like an open one.
    Acknowledged,
    Settled,
}

/// One incident of one cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Made of the cluster and the time of opening, so the same incident gets the same id when derived again.
    pub id: String,
    pub cluster: String,
    /// What is known now, in one line. Grows while the incident is open.
    pub title: String,
    /// What was known when it opened, in one line. Never changes: the subject of its notifications.
    pub subject: String,
    /// The worst of what joined.
    pub severity: EventSeverity,
    pub state: IncidentState,
    pub opened_at: Timestamp,
    pub settled_at: Option<Timestamp>,
    /// Ranked; empty while unknown.
    #[serde(default)]
    pub causes: Vec<Cause>,
    /// What is concluded, in one line; `None` until the causes were looked for.
    #[serde(default)]
    pub verdict: Option<String>,
    /// What could not be seen and would have told more.
    #[serde(default)]
    pub missing: Vec<String>,
    /// In the order of their times; only what is known.
    #[serde(default)]
    pub phases: Vec<Phase>,
    #[serde(default)]
    pub impact: Impact,
    /// Oldest first.
    #[serde(default)]
    pub events: Vec<Event>,
    #[serde(default)]
    pub alerts: Vec<IncidentAlert>,
    /// The alert that opened it, when no event did.
    #[serde(default)]
    pub opener: Option<String>,
    /// It was opened by an event of the judge, or by an alert that is marked as part of trouble in the HA cluster.
    #[serde(default = "yes")]
    pub is_ha: bool,
    /// Events that were left out because there were too many.
    #[serde(default)]
    pub events_left_out: u64,
}

impl Incident {
    /// Whether there is more to tell than the alert that opened it: that alert is part of trouble in the HA cluster, or
    /// something else happened too.
    pub fn is_more_than_its_alert(&self) -> bool {
        self.opener.is_none() || self.is_ha || self.events.iter().any(|event| event.severity >= EventSeverity::Warning)
    }
}

impl Incident {
    /// Takes in what was concluded about the cause.
    pub fn conclude(&mut self, verdict: &Verdict) {
        self.causes.clone_from(&verdict.causes);
        self.missing.clone_from(&verdict.missing);
        self.verdict = Some(verdict.text.clone());
    }

    /// The likeliest cause, when it is more than a guess.
    pub fn likely_cause(&self) -> Option<&Cause> {
        self.causes.first().filter(|cause| cause.confidence > Confidence::Low)
    }
}

/// What is concluded about an incident's cause.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// One line; also when there is not enough evidence.
    pub text: String,
    /// Ranked; roots before their symptoms.
    pub causes: Vec<Cause>,
    /// What could not be seen and would have told more.
    pub missing: Vec<String>,
}

/// A likely cause, with what proves it and what speaks against it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    pub name: String,
    pub title: String,
    /// Whose fault it is, where it is one member's.
    #[serde(default)]
    pub member: Option<String>,
    pub confidence: Confidence,
    /// From 0 to 1.
    pub score: f64,
    #[serde(default)]
    pub evidence: Vec<Evidence>,
    #[serde(default)]
    pub against: Vec<Evidence>,
    /// Signs that were expected and not found, and those that could not be observed.
    #[serde(default)]
    pub missing: Vec<String>,
    /// The cause that brought this one about.
    #[serde(default)]
    pub symptom_of: Option<String>,
    /// What to do.
    #[serde(default)]
    pub advice: String,
}

/// How sure a cause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    Low,
    Medium,
    High,
}

/// One record that proves something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub source: String,
    pub time: Timestamp,
    pub text: String,
    pub link: Option<String>,
    /// What it proves, in words.
    #[serde(default)]
    pub sign: String,
}

/// A step of a failure and its repair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    pub name: PhaseName,
    pub at: Timestamp,
}

/// The steps that a failover has, in their usual order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseName {
    /// The first sign of trouble.
    Trigger,
    /// What opened the incident.
    Detected,
    LeaseExpired,
    Released,
    LockTaken,
    /// The new leader's PostgreSQL takes writes.
    Promoted,
    FirstWrite,
    LastReplicaStreaming,
}

/// What it cost. `None` means not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Impact {
    /// Seconds without writes: from the last answer that showed new WAL to the first that did again or, in an idle
    /// cluster, in which no member was seen to take writes. Clients behind a proxy may wait longer.
    #[serde(default)]
    pub write_outage_seconds: Option<f64>,
    /// How wrong that may be; only known when it was measured by WAL.
    #[serde(default)]
    pub write_outage_error_seconds: Option<f64>,
    /// Seconds from the last transaction that a client could commit to the first again, as the write probe felt it; over
    /// all its addresses the longest. `None` without a probe, or when it felt nothing.
    #[serde(default)]
    pub client_outage_seconds: Option<f64>,
    /// How much shorter that may have been.
    #[serde(default)]
    pub client_outage_error_seconds: Option<f64>,
    /// Seconds in which two members took writes.
    #[serde(default)]
    pub split_brain_seconds: Option<f64>,
    /// WAL of an old leader that is not on the new timeline, as `FROM..TO`, as far as it was seen.
    #[serde(default)]
    pub lost_wal: Option<String>,
    /// Its bytes, over all changes; 0 only when that is proven, `None` while it is not known.
    #[serde(default)]
    pub lost_wal_bytes: Option<u64>,
}

/// An alert of the cluster that fired while the incident was open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentAlert {
    pub name: String,
    pub severity: EventSeverity,
    pub firing_since: Timestamp,
    pub resolved_at: Option<Timestamp>,
}
