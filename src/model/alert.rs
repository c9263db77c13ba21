//! Alerts: a rule's label set with its life, and the incident that explains several of them.
//!
//! Field names of the serialised forms are Alertmanager's where Alertmanager has them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::incident::{Confidence, Evidence, Impact, IncidentState, Phase};
use crate::model::{Event, Labels, Timestamp};

/// The label that names the rule behind an alert.
pub const ALERT_NAME: &str = "alertname";

/// `alertname` of the alert that stands for an incident.
pub const INCIDENT_ALERT_NAME: &str = "Incident";

/// Label with the incident's id.
pub const INCIDENT_LABEL: &str = "incident";

/// Annotation of rules. The value `part` says that the alert is a sign or consequence of trouble in the HA cluster: an
/// incident of its cluster tells of it, so that it needs no message of its own while that is open.
pub const INCIDENT_ANNOTATION: &str = "incident";

/// Signs may come this long before the incident that they belong to.
pub const INCIDENT_LOOK_BACK: Duration = Duration::from_mins(2);

/// What happens so soon after an incident settled opens it again.
pub const INCIDENT_REOPENS_WITHIN: Duration = Duration::from_mins(10);

/// Free texts of an alert by name: `summary`, `description`, `runbook_url` …
pub type Annotations = BTreeMap<String, String>;

/// Something that is wrong, from when it was found until it is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    pub labels: Labels,
    pub annotations: Annotations,
    pub starts_at: Timestamp,
    /// When it ended or, if that lies ahead, when it counts as ended unless it is reported again. `None`: firing.
    pub ends_at: Option<Timestamp>,
    pub updated_at: Timestamp,
    #[serde(rename = "generatorURL")]
    pub generator_url: String,
    /// Identity: stays the same while the alert lives, also when labels of an incident's alert change.
    pub fingerprint: Fingerprint,
    /// The incident that this alert stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<Box<IncidentNotice>>,
}

/// Alertmanager's identity of a label set: 64 bits, shown as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// FNV-1a over the sorted names and values, each followed by 0xff.
    pub fn of(labels: &Labels) -> Self {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        for (name, value) in labels.iter() {
            name.bytes().for_each(&mut add);
            add(0xff);
            value.bytes().for_each(&mut add);
            add(0xff);
        }
        Self(hash)
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Alert {
    /// An alert that fires since `starts_at`, identified by all its labels.
    pub fn firing(labels: Labels, annotations: Annotations, starts_at: Timestamp) -> Self {
        Self {
            fingerprint: Fingerprint::of(&labels),
            labels,
            annotations,
            starts_at,
            ends_at: None,
            updated_at: starts_at,
            generator_url: String::new(),
            incident: None,
        }
    }

    /// The alert that stands for an incident. Its cause and severity may change, its identity does not.
    pub fn of_incident(notice: IncidentNotice, external_url: &str) -> Self {
        let identity = Labels::from_pairs([
            (ALERT_NAME, INCIDENT_ALERT_NAME),
            ("cluster", notice.cluster.as_str()),
            (INCIDENT_LABEL, notice.id.as_str()),
        ]);
        let mut labels = identity.to_builder();
        labels.set("severity", notice.severity.as_str());
        labels.set("cause", notice.cause.as_deref().unwrap_or(""));
        let mut annotations = Annotations::new();
        annotations.insert("summary".to_owned(), notice.title.clone());
        annotations.insert("description".to_owned(), notice.text());
        if notice.settled_at.is_some() {
            let IncidentReport { verdict, confidence, impact, .. } = &notice.report;
            let unknown = || "unknown".to_owned();
            annotations.insert("verdict".to_owned(), verdict.clone().unwrap_or_else(unknown));
            annotations
                .insert("confidence".to_owned(), confidence.map_or_else(unknown, |word| word.as_str().to_owned()));
            annotations.insert("write_outage".to_owned(), impact.write_outage_text());
            annotations.insert("lost_wal".to_owned(), impact.lost_wal_text());
        }
        Self {
            fingerprint: Fingerprint::of(&identity),
            labels: labels.build(),
            annotations,
            starts_at: notice.opened_at,
            ends_at: notice.settled_at,
            updated_at: notice.settled_at.unwrap_or(notice.opened_at),
            generator_url: format!("{}/incidents/{}", external_url.trim_end_matches('/'), notice.id),
            incident: Some(Box::new(notice)),
        }
    }

    pub fn is_resolved(&self, now: Timestamp) -> bool {
        self.ends_at.is_some_and(|end| end <= now)
    }

    /// The rule's name, "" where there is none.
    pub fn name(&self) -> &str {
        self.labels.get(ALERT_NAME).unwrap_or("")
    }

    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).unwrap_or("")
    }

    /// Whether an incident of its cluster tells of it: it is marked as part of such, and began with it or opened it.
    pub fn is_part_of(&self, incident: &IncidentNotice) -> bool {
        let marked = self.annotation(INCIDENT_ANNOTATION) == "part" && self.label("cluster") == incident.cluster;
        let opened_it = incident.opener.as_deref() == Some(self.name());
        marked && (opened_it || self.starts_at >= incident.opened_at - INCIDENT_LOOK_BACK)
    }

    pub fn annotation(&self, name: &str) -> &str {
        self.annotations.get(name).map_or("", String::as_str)
    }
}

/// What a notification tells about an incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentNotice {
    pub id: String,
    pub cluster: String,
    /// What is known now, in one line. As it is when first told, it stays the subject of the incident's mails.
    pub title: String,
    /// `critical`, `warning`, `notice` or `info`.
    pub severity: String,
    /// Name of the likeliest cause, once known.
    pub cause: Option<String>,
    pub opened_at: Timestamp,
    pub settled_at: Option<Timestamp>,
    /// What happened, oldest first.
    pub timeline: Vec<Event>,
    /// The cluster's members as they are now.
    pub members: Vec<MemberNotice>,
    #[serde(default)]
    pub report: IncidentReport,
    /// When it came back last, if it did.
    #[serde(default)]
    pub reopened_at: Option<Timestamp>,
    /// Who has taken it.
    #[serde(default)]
    pub acknowledged_by: Option<String>,
    /// The alert that opened it, when no event did.
    #[serde(default)]
    pub opener: Option<String>,
    /// Two members took writes at one time: worse than what it may have been opened for.
    #[serde(default)]
    pub split_brain: bool,
}

impl IncidentNotice {
    pub fn state(&self) -> IncidentState {
        match (self.settled_at, &self.acknowledged_by) {
            (Some(_), _) => IncidentState::Settled,
            (None, Some(_)) => IncidentState::Acknowledged,
            (None, None) => IncidentState::Open,
        }
    }

    /// What is known now, in lines: what happened, why, what proves it and what to do; once it has settled also what it
    /// cost and how it went, and then what is not known as well.
    pub fn text(&self) -> String {
        let IncidentReport { verdict, evidence, advice, phases, impact, .. } = &self.report;
        let mut lines = vec![self.title.clone()];
        lines.extend(verdict.as_ref().map(|verdict| format!("Cause: {verdict}")));
        lines.extend(evidence.iter().map(|one| format!("{}  {}: {}", one.time, one.sign, one.text)));
        lines.extend(advice.as_ref().map(|advice| format!("What to do: {advice}")));
        if self.settled_at.is_some() {
            if verdict.is_none() {
                lines.push("Cause: unknown".to_owned());
            }
            lines.push(format!("Write outage: {}", impact.write_outage_text()));
            lines.push(format!("WAL lost: {}", impact.lost_wal_text()));
            lines.extend(phases.iter().map(|phase| format!("{}  {}", phase.at, phase.name.words())));
        }
        lines.join("\n")
    }
}

/// What is known of why it happened and what it cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IncidentReport {
    /// What is concluded, in one line; `None` until the causes were looked for.
    pub verdict: Option<String>,
    /// How sure the likeliest cause is, if there is one.
    pub confidence: Option<Confidence>,
    /// What proves it, the first few.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub advice: Option<String>,
    /// In the order of their times.
    pub phases: Vec<Phase>,
    pub impact: Impact,
}

/// One row of the members table in a notification. `None` means unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberNotice {
    pub name: String,
    pub role: String,
    pub state: String,
    pub writable: Option<bool>,
    pub timeline: Option<u64>,
    pub lag_bytes: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_alertmanagers() {
        assert_eq!(Fingerprint::of(&Labels::from_pairs([("foo", "bar")])).to_string(), "3fff2c2d7595e046");
    }

    #[test]
    fn an_incident_keeps_its_identity_when_its_cause_becomes_known() {
        let mut notice = IncidentNotice { id: "7".into(), cluster: "demo".into(), ..IncidentNotice::default() };
        let before = Alert::of_incident(notice.clone(), "http://x/");
        notice.cause = Some("host_lost".into());
        notice.severity = "critical".into();
        let after = Alert::of_incident(notice, "http://x/");
        assert_eq!(before.fingerprint, after.fingerprint);
        assert_eq!(after.label("cause"), "host_lost");
        assert_eq!(after.generator_url, "http://x/incidents/7");
    }
}
