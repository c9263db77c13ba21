//! Incidents: what belongs together in one cluster and one window, with its own copies of the events it rests on.

use serde::{Deserialize, Serialize};

use crate::model::{Event, EventSeverity, Timestamp};

/// What rows of before a field mean by its absence.
fn yes() -> bool {
    true
}

/// Times of coming back that an incident keeps.
const REOPENED_AT_MAX: usize = 20;

/// The event that says that an incident is open again. It comes before what belongs to that.
pub const INCIDENT_REOPENED: &str = "incident_reopened";

/// Whether anybody still has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IncidentState {
    Open,
    /// Somebody has taken it; it settles like an open one.
    Acknowledged,
    Settled,
}

impl IncidentState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Settled => "settled",
        }
    }
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
    /// How often it came back soon after it had settled.
    #[serde(default)]
    pub reopened: u32,
    /// When it did, oldest first; the last few. What was concluded is about what happened since the last.
    #[serde(default)]
    pub reopened_at: Vec<Timestamp>,
    #[serde(flatten)]
    pub handling: Handling,
}

/// What people did with an incident. Only they change it; the judge carries it along.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    /// When somebody took it.
    #[serde(default)]
    pub acknowledged_at: Option<Timestamp>,
    /// Who did: the name of a token, or `local`.
    #[serde(default)]
    pub acknowledged_by: Option<String>,
    /// Oldest first; never changed, never removed.
    #[serde(default)]
    pub notes: Vec<Note>,
}

/// What somebody wrote down about an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub at: Timestamp,
    pub by: String,
    pub text: String,
}

impl Incident {
    /// Whether there is more to tell than the alert that opened it: that alert is part of trouble in the HA cluster, or
    /// something else happened too.
    pub fn is_more_than_its_alert(&self) -> bool {
        self.opener.is_none() || self.is_ha || self.events.iter().any(|event| event.severity >= EventSeverity::Warning)
    }
}

impl Incident {
    /// When the trouble began that it is about now: its opening or, if it came back, the last time.
    pub fn last_opened_at(&self) -> Timestamp {
        self.reopened_at.last().copied().unwrap_or(self.opened_at)
    }

    /// The first sign of the trouble that it is about now.
    pub fn began_at(&self) -> Timestamp {
        let opened_at = self.last_opened_at();
        let signs = self.phases.iter().filter(|phase| phase.name == PhaseName::Trigger && phase.at <= opened_at);
        signs.map(|phase| phase.at).max().unwrap_or(opened_at)
    }

    /// What happened in the trouble that it is about now.
    pub fn current_events(&self) -> &[Event] {
        let back = self.events.iter().rposition(|event| event.event == INCIDENT_REOPENED);
        back.and_then(|index| self.events.get(index + 1..)).unwrap_or(&self.events)
    }

    /// When it had settled before it came back the last time.
    pub fn settled_before(&self) -> Option<Timestamp> {
        let back = self.events.iter().rfind(|event| event.event == INCIDENT_REOPENED)?;
        Timestamp::parse_rfc3339(back.fields.get("settled_at")?).ok()
    }

    /// Opens it again: nobody has taken this, and nothing is concluded about it yet.
    pub fn reopen(&mut self, at: Timestamp) {
        self.settled_at = None;
        self.reopened = self.reopened.saturating_add(1);
        self.reopened_at.push(at);
        let surplus = self.reopened_at.len().saturating_sub(REOPENED_AT_MAX);
        self.reopened_at.drain(..surplus);
        self.causes.clear();
        self.missing.clear();
        self.verdict = None;
        self.state = IncidentState::Open;
        self.handle(&self.handling.clone());
    }

    /// Takes in what people did with it. That somebody took it counts until it comes back.
    pub fn handle(&mut self, handling: &Handling) {
        self.handling.clone_from(handling);
        let back_at = self.reopened_at.last().copied();
        if self.handling.acknowledged_at < back_at {
            self.handling.acknowledged_at = None;
            self.handling.acknowledged_by = None;
        }
        if self.state != IncidentState::Settled {
            let taken = self.handling.acknowledged_at.is_some();
            self.state = if taken { IncidentState::Acknowledged } else { IncidentState::Open };
        }
    }

    /// Takes in what was concluded about the cause.
    pub fn conclude(&mut self, verdict: &Verdict) {
        self.causes.clone_from(&verdict.causes);
        self.missing.clone_from(&verdict.missing);
        self.verdict = Some(verdict.text.clone());
    }

    /// What was concluded about the cause, once it was looked for.
    pub fn concluded(&self) -> Option<Verdict> {
        let text = self.verdict.clone()?;
        Some(Verdict { text, causes: self.causes.clone(), missing: self.missing.clone() })
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
    /// Whether what follows soon belongs to the same incident. What a person asked for is over when it is done.
    #[serde(default = "yes")]
    pub reopens: bool,
}

/// How sure a cause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    Low,
    Medium,
    High,
}

impl Confidence {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
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

impl PhaseName {
    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Trigger => "first sign",
            Self::Detected => "detected",
            Self::LeaseExpired => "lease expired",
            Self::Released => "key released",
            Self::LockTaken => "key taken",
            Self::Promoted => "promoted",
            Self::FirstWrite => "first write",
            Self::LastReplicaStreaming => "all replicas stream",
        }
    }
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

impl Impact {
    /// How long writes were refused, for people; also when that is not known.
    pub fn write_outage_text(&self) -> String {
        match (self.write_outage_seconds, self.write_outage_error_seconds) {
            (Some(seconds), Some(error)) => format!("{seconds:.1} s (±{error:.1} s)"),
            (Some(seconds), None) => format!("{seconds:.1} s"),
            (None, _) => "unknown".to_owned(),
        }
    }

    /// Which WAL is lost, for people; also when that is not known.
    pub fn lost_wal_text(&self) -> String {
        match (&self.lost_wal, self.lost_wal_bytes) {
            (_, Some(0)) => "none".to_owned(),
            (Some(range), Some(bytes)) => format!("{bytes} bytes, {range}"),
            (None, Some(bytes)) => format!("{bytes} bytes"),
            (Some(range), None) => range.clone(),
            (None, None) => "unknown".to_owned(),
        }
    }

    /// All of it, a sentence each.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.push(match self.write_outage_seconds {
            Some(_) => format!("no member was seen to take writes for {}", self.write_outage_text()),
            None => "how long no member took writes is unknown".to_owned(),
        });
        if let Some(seconds) = self.client_outage_seconds {
            lines.push(format!("clients could not write for {seconds:.1} s"));
        }
        if let Some(seconds) = self.split_brain_seconds {
            lines.push(format!("two members took writes for {seconds:.1} s"));
        }
        lines.push(match (&self.lost_wal, self.lost_wal_bytes) {
            (_, Some(0)) => "no WAL was lost".to_owned(),
            (None, None) => "whether WAL was lost is unknown".to_owned(),
            _ => format!("WAL that may be lost: {}", self.lost_wal_text()),
        });
        lines
    }
}

/// An alert of the cluster that fired while the incident was open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentAlert {
    pub name: String,
    pub severity: EventSeverity,
    pub firing_since: Timestamp,
    pub resolved_at: Option<Timestamp>,
}
