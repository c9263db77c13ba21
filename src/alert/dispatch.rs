//! Decides who is told what and when.
//!
//! [`Dispatcher::step`] is called about once a second with every alert that lives. It returns the notifications that
//! are due and the changes of its memory of what was sent; both must be committed in one transaction.
//!
//! Invariants: an alert whose opening was handed out gets exactly one closing (unless the receiver wants none), also
//! when it is silenced, inhibited, rerouted or gone by then; an unchanged group is not repeated before its
//! `repeat_interval`; alerts of a cluster with an open incident are held back by it; an incident that somebody has
//! acknowledged is not repeated, but its getting worse and its end are told; one that opens again goes on in its thread.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::alert::{
    ALERT_NAME, Fingerprint, INCIDENT_ALERT_NAME, INCIDENT_LABEL, IncidentNotice, IncidentReport,
};
use crate::model::{Alert, Labels, Timestamp};
use crate::store::state::Table;

use super::inhibit::{InhibitRule, Inhibition};
use super::route::{Integration, Route};
use super::silence::Silences;

/// An incident is told this long after it opened: what follows at once (who took over, whether two write) is then in the
/// first message.
pub const INCIDENT_WAIT: Duration = Duration::from_secs(5);

/// An alert that was announced and is no longer reported at all counts as resolved after this long.
const VANISHED_AFTER: Duration = Duration::from_mins(1);

/// Why a notification is sent. Alertmanager's words where it has them.
pub mod reason {
    pub const FIRST: &str = "first notification";
    pub const OPEN_AGAIN: &str = "the incident is open again";
    pub const NEW_ALERTS: &str = "new alerts added";
    pub const SOME_RESOLVED: &str = "some alerts resolved";
    pub const ALL_RESOLVED: &str = "all alerts resolved";
    pub const WORSE: &str = "the incident got worse";
    pub const REPEATED: &str = "repeat interval elapsed";
}

/// An announced incident is remembered for so long after its closing: should it open again, its thread goes on.
const CLOSED_KEPT: Duration = Duration::from_mins(15);

/// What receivers were told, by group and integration.
pub const NFLOG: Table<Notified> = Table::new("nflog");

/// What one integration of a receiver was told of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notified {
    pub group_key: String,
    pub group_labels: Labels,
    pub receiver: String,
    /// Alerts that were announced and not closed yet, as they were then. Empty for an incident that may open again.
    pub firing: BTreeMap<String, Alert>,
    /// When it was told last.
    pub at: Timestamp,
    /// When this run of the group was announced first.
    pub opened_at: Timestamp,
    /// The incident's title as it was then: the subject of the mail thread.
    #[serde(default)]
    pub title: Option<String>,
}

/// A row of [`NFLOG`] to write, or to delete.
pub type NotifiedChange = (String, Option<Notified>);

/// A notification to render and send.
#[derive(Clone, Debug, PartialEq)]
pub struct NotificationDraft {
    pub receiver: String,
    pub integration: Integration,
    pub group_key: String,
    pub group_labels: Labels,
    pub firing: Vec<Alert>,
    pub resolved: Vec<Alert>,
    /// One of [`reason`].
    pub reason: &'static str,
    pub at: Timestamp,
    /// When this run of the group was announced first: the start of the mail thread.
    pub opened_at: Timestamp,
    /// The incident's title when it was announced first.
    pub thread_title: Option<String>,
    pub incident: Option<IncidentNotice>,
    /// Alerts that are left out because the incident explains them.
    pub held_back: Vec<Alert>,
}

impl NotificationDraft {
    /// `firing` while any alert of the notification fires.
    pub fn status(&self) -> &'static str {
        if self.firing.is_empty() { "resolved" } else { "firing" }
    }

    /// All alerts, the firing ones first.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> + Clone {
        self.firing.iter().chain(&self.resolved)
    }
}

/// What one step decided.
#[derive(Debug, Default, PartialEq)]
pub struct DispatchStep {
    pub drafts: Vec<NotificationDraft>,
    pub changes: Vec<NotifiedChange>,
}

/// An alert with what holds it back, for the API.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertStatus {
    pub alert: Alert,
    pub receivers: Vec<String>,
    pub silenced_by: Vec<String>,
    pub inhibited_by: Vec<Fingerprint>,
}

impl AlertStatus {
    pub fn is_muted(&self) -> bool {
        !(self.silenced_by.is_empty() && self.inhibited_by.is_empty())
    }
}

/// A group of alerts, for the API.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupStatus {
    pub labels: Labels,
    pub receiver: String,
    pub members: Vec<Fingerprint>,
    /// When the group is looked at next.
    pub next_at: Timestamp,
}

#[derive(Debug)]
struct Group {
    key: String,
    labels: Labels,
    receiver: String,
    interval: Duration,
    repeat_interval: Duration,
    /// Looked at in every step.
    instant: bool,
    next_at: Timestamp,
    members: BTreeSet<Fingerprint>,
}

/// Who hears of what.
#[derive(Debug, Default)]
pub struct Routing {
    /// None: nobody is told anything.
    pub route: Option<Route>,
    pub receivers: BTreeMap<String, Vec<Integration>>,
    pub inhibit_rules: Vec<InhibitRule>,
}

/// Routing, and the memory of what was sent.
#[derive(Debug, Default)]
pub struct Dispatcher {
    routing: Routing,
    groups: BTreeMap<(String, String), Group>,
    notified: BTreeMap<String, Notified>,
    /// Announced alerts that are not reported any more, since when.
    missing_since: BTreeMap<Fingerprint, Timestamp>,
    statuses: Vec<AlertStatus>,
    forgotten: Vec<NotifiedChange>,
}

impl Dispatcher {
    /// Starts with the stored rows of [`NFLOG`]. Every alert source must be restored before the first step.
    pub fn new(routing: Routing, rows: Vec<(String, Notified)>) -> Self {
        let mut dispatcher = Self { notified: rows.into_iter().collect(), ..Self::default() };
        dispatcher.set_routing(routing);
        dispatcher
    }

    /// Replaces the configuration. Groups and what was sent stay; what was told to receivers that are gone is forgotten.
    pub fn set_routing(&mut self, routing: Routing) {
        self.routing = routing;
        let known: BTreeSet<String> = self
            .notified
            .values()
            .flat_map(|entry| {
                let integrations = self.routing.receivers.get(&entry.receiver);
                integrations.into_iter().flatten().map(|one| entry_key(&entry.group_key, &entry.receiver, one))
            })
            .collect();
        let gone: Vec<String> = self.notified.keys().filter(|key| !known.contains(*key)).cloned().collect();
        for key in gone {
            self.notified.remove(&key);
            self.forgotten.push((key, None));
        }
        self.groups.retain(|(_, receiver), _| self.routing.receivers.contains_key(receiver));
        for entry in self.notified.values() {
            let id = (entry.group_key.clone(), entry.receiver.clone());
            self.groups.entry(id).or_insert_with(|| Group::of_entry(entry, self.routing.route.as_ref()));
        }
    }

    /// Decides what is due now.
    pub fn step(&mut self, now: Timestamp, alerts: &[Alert], silences: &Silences) -> DispatchStep {
        let inhibition = Inhibition::new(&self.routing.inhibit_rules, alerts, now);
        self.statuses = alerts
            .iter()
            .map(|alert| AlertStatus {
                receivers: receivers_of(self.routing.route.as_ref(), &alert.labels),
                silenced_by: silences.silenced_by(&alert.labels, now),
                inhibited_by: inhibition.inhibited_by(alert),
                alert: alert.clone(),
            })
            .collect();
        self.assign(now);
        let mut step = DispatchStep { drafts: Vec::new(), changes: std::mem::take(&mut self.forgotten) };
        let mut groups = std::mem::take(&mut self.groups);
        groups.retain(|_, group| {
            if group.instant || group.next_at <= now {
                self.flush(group, now, &mut step);
                group.next_at = now + group.interval;
            }
            self.is_alive(group, now)
        });
        self.groups = groups;
        step
    }

    /// Alerts as of the last step.
    pub fn statuses(&self) -> &[AlertStatus] {
        &self.statuses
    }

    /// Groups as of the last step.
    pub fn groups(&self) -> Vec<GroupStatus> {
        let status = |group: &Group| GroupStatus {
            labels: group.labels.clone(),
            receiver: group.receiver.clone(),
            members: group.members.iter().copied().collect(),
            next_at: group.next_at,
        };
        self.groups.values().map(status).collect()
    }

    /// Names of the receivers.
    pub fn receivers(&self) -> impl Iterator<Item = &str> {
        self.routing.receivers.keys().map(String::as_str)
    }

    /// Puts every alert into its groups. A resolved alert makes no new group.
    fn assign(&mut self, now: Timestamp) {
        for group in self.groups.values_mut() {
            group.members.clear();
        }
        let Some(root) = &self.routing.route else { return };
        for status in &self.statuses {
            let alert = &status.alert;
            for route in root.matching(&alert.labels) {
                let instant = alert.name() == INCIDENT_ALERT_NAME;
                let labels = if instant {
                    alert.labels.only(&[ALERT_NAME, "cluster", INCIDENT_LABEL])
                } else {
                    route.group_labels(&alert.labels)
                };
                let id = (format!("{}:{}", route.key, group_text(&labels)), route.receiver.clone());
                if alert.is_resolved(now) && !self.groups.contains_key(&id) {
                    continue;
                }
                let key = id.0.clone();
                let group = self.groups.entry(id).or_insert_with(|| Group {
                    key,
                    labels,
                    receiver: route.receiver.clone(),
                    interval: route.group_interval,
                    repeat_interval: route.repeat_interval,
                    instant,
                    next_at: if instant { now } else { now + route.group_wait },
                    members: BTreeSet::new(),
                });
                group.interval = route.group_interval;
                group.repeat_interval = route.repeat_interval;
                group.members.insert(alert.fingerprint);
            }
        }
    }

    fn is_alive(&self, group: &Group, now: Timestamp) -> bool {
        let unresolved = self
            .statuses
            .iter()
            .any(|status| group.members.contains(&status.alert.fingerprint) && !status.alert.is_resolved(now));
        let integrations = self.routing.receivers.get(&group.receiver).map_or(&[][..], Vec::as_slice);
        unresolved
            || integrations.iter().any(|one| self.notified.contains_key(&entry_key(&group.key, &group.receiver, one)))
    }

    fn flush(&mut self, group: &Group, now: Timestamp, step: &mut DispatchStep) {
        let integrations = self.routing.receivers.get(&group.receiver).cloned().unwrap_or_default();
        for integration in integrations {
            let key = entry_key(&group.key, &group.receiver, &integration);
            let entry = self.entry(&key, now, step);
            let members = self.members(group, entry.as_ref(), now);
            let Some(reason) = members.reason(entry.as_ref(), group.repeat_interval, now) else { continue };
            let opened_at = entry.as_ref().map_or(now, |entry| entry.opened_at);
            let known_title = entry.as_ref().and_then(|entry| entry.title.clone());
            let mut firing = entry.map(|entry| entry.firing).unwrap_or_default();
            for alert in &members.resolved {
                firing.remove(&alert.fingerprint.to_string());
            }
            firing.extend(members.firing.iter().map(|alert| (alert.fingerprint.to_string(), without_details(alert))));
            let mut all = members.firing.iter().chain(&members.resolved);
            let incident = all.find_map(|alert| alert.incident.as_deref().cloned());
            let thread_title = known_title.or_else(|| incident.as_ref().map(|notice| notice.title.clone()));
            let change = (!firing.is_empty() || group.instant).then(|| Notified {
                group_key: group.key.clone(),
                group_labels: group.labels.clone(),
                receiver: group.receiver.clone(),
                firing,
                at: now,
                opened_at,
                title: thread_title.clone(),
            });
            match &change {
                Some(entry) => drop(self.notified.insert(key.clone(), entry.clone())),
                None => drop(self.notified.remove(&key)),
            }
            step.changes.push((key, change));
            let resolved = if integration.send_resolved { members.resolved } else { Vec::new() };
            if members.firing.is_empty() && resolved.is_empty() {
                continue;
            }
            step.drafts.push(NotificationDraft {
                held_back: self.held_back(group),
                receiver: group.receiver.clone(),
                integration,
                group_key: group.key.clone(),
                group_labels: group.labels.clone(),
                firing: members.firing,
                resolved,
                reason,
                at: now,
                opened_at,
                thread_title,
                incident,
            });
        }
    }

    /// What was told of a group, unless all of it ended long ago.
    fn entry(&mut self, key: &str, now: Timestamp, step: &mut DispatchStep) -> Option<Notified> {
        let entry = self.notified.get(key)?.clone();
        if entry.firing.is_empty() && now.since(entry.at) >= CLOSED_KEPT {
            self.notified.remove(key);
            step.changes.push((key.to_owned(), None));
            return None;
        }
        Some(entry)
    }

    /// The alerts of a group as one integration should see them.
    fn members(&mut self, group: &Group, entry: Option<&Notified>, now: Timestamp) -> Members {
        let mut members = Members::default();
        let announced =
            |fingerprint: &Fingerprint| entry.is_some_and(|entry| entry.firing.contains_key(&fingerprint.to_string()));
        let mut seen = BTreeSet::new();
        for status in &self.statuses {
            let fingerprint = status.alert.fingerprint;
            if !group.members.contains(&fingerprint) && !announced(&fingerprint) {
                continue;
            }
            seen.insert(fingerprint.to_string());
            self.missing_since.remove(&fingerprint);
            if status.alert.is_resolved(now) {
                if announced(&fingerprint) {
                    members.resolved.push(status.alert.clone());
                }
            } else if group.instant && !announced(&fingerprint) && began_at(&status.alert) + INCIDENT_WAIT > now {
                // Told in a moment.
            } else if !status.is_muted() && group.members.contains(&fingerprint) {
                members.firing.push(status.alert.clone());
            } else if announced(&fingerprint) {
                members.muted_open += 1;
            }
        }
        for (key, alert) in entry.iter().flat_map(|entry| &entry.firing) {
            if seen.contains(key) {
                continue;
            }
            let since = *self.missing_since.entry(alert.fingerprint).or_insert(now);
            if now.since(since) >= VANISHED_AFTER {
                members.resolved.push(Alert { ends_at: Some(now), updated_at: now, ..alert.clone() });
            } else {
                members.muted_open += 1;
            }
        }
        members.firing.sort_by_key(|a| (a.starts_at, a.fingerprint));
        members.resolved.sort_by_key(|a| (a.starts_at, a.fingerprint));
        members
    }

    /// Alerts that an incident of this group holds back.
    fn held_back(&self, group: &Group) -> Vec<Alert> {
        if !group.instant {
            return Vec::new();
        }
        self.statuses
            .iter()
            .filter(|status| status.inhibited_by.iter().any(|by| group.members.contains(by)))
            .map(|status| status.alert.clone())
            .collect()
    }
}

impl Notified {
    /// What was told did not have the split brain, or was less severe.
    fn has_grown_worse(&self, alert: &Alert) -> bool {
        let told = self.firing.get(&alert.fingerprint.to_string()).and_then(|told| told.incident.as_deref());
        told.zip(alert.incident.as_deref()).is_some_and(|(told, now)| {
            now.split_brain && !told.split_brain || rank(&now.severity) > rank(&told.severity)
        })
    }
}

/// Order of an incident's severities.
fn rank(severity: &str) -> u8 {
    match severity {
        "critical" => 2,
        "warning" => 1,
        _ => 0,
    }
}

/// When the trouble began that an alert tells of now.
fn began_at(alert: &Alert) -> Timestamp {
    alert.incident.as_ref().and_then(|notice| notice.reopened_at).unwrap_or(alert.starts_at)
}

/// Whether somebody has taken the incident that an alert stands for.
fn is_acknowledged(alert: &Alert) -> bool {
    alert.incident.as_ref().is_some_and(|notice| notice.acknowledged_by.is_some())
}

#[derive(Debug, Default)]
struct Members {
    /// Fire and are not muted.
    firing: Vec<Alert>,
    /// Were announced and are over.
    resolved: Vec<Alert>,
    /// Were announced, still fire, and are muted now.
    muted_open: usize,
}

impl Members {
    /// Why to tell now; `None`: no need.
    fn reason(&self, entry: Option<&Notified>, repeat_interval: Duration, now: Timestamp) -> Option<&'static str> {
        let Some(entry) = entry else {
            return (!self.firing.is_empty()).then_some(reason::FIRST);
        };
        if entry.firing.is_empty() {
            return (!self.firing.is_empty()).then_some(reason::OPEN_AGAIN);
        }
        let is_new = |alert: &Alert| !entry.firing.contains_key(&alert.fingerprint.to_string());
        if self.firing.iter().any(is_new) {
            Some(reason::NEW_ALERTS)
        } else if !self.resolved.is_empty() {
            let all = self.firing.is_empty() && self.muted_open == 0;
            Some(if all { reason::ALL_RESOLVED } else { reason::SOME_RESOLVED })
        } else if self.firing.iter().any(|alert| entry.has_grown_worse(alert)) {
            Some(reason::WORSE)
        } else if !self.firing.iter().all(is_acknowledged) && now.since(entry.at) >= repeat_interval {
            Some(reason::REPEATED)
        } else {
            None
        }
    }
}

impl Group {
    /// A group known only from what was sent of it before a restart.
    fn of_entry(entry: &Notified, root: Option<&Route>) -> Self {
        let instant = entry.group_labels.get(ALERT_NAME) == Some(INCIDENT_ALERT_NAME);
        let interval = root.map_or(super::route::GROUP_INTERVAL_DEFAULT, |route| route.group_interval);
        Self {
            key: entry.group_key.clone(),
            labels: entry.group_labels.clone(),
            receiver: entry.receiver.clone(),
            interval,
            repeat_interval: root.map_or(super::route::REPEAT_INTERVAL_DEFAULT, |route| route.repeat_interval),
            instant,
            next_at: entry.at + interval,
            members: BTreeSet::new(),
        }
    }
}

fn receivers_of(root: Option<&Route>, labels: &Labels) -> Vec<String> {
    let mut names: Vec<String> =
        root.map(|root| root.matching(labels).iter().map(|route| route.receiver.clone()).collect()).unwrap_or_default();
    names.dedup();
    names
}

fn entry_key(group_key: &str, receiver: &str, integration: &Integration) -> String {
    format!("{group_key}|{receiver}/{}/{}", integration.kind, integration.index)
}

/// Labels as they stand in a group key.
fn group_text(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// The alert as it is remembered: an incident without its timeline and members.
fn without_details(alert: &Alert) -> Alert {
    let incident = alert.incident.as_deref().map(|notice| {
        let (timeline, members, report) = (Vec::new(), Vec::new(), IncidentReport::default());
        Box::new(IncidentNotice { timeline, members, report, ..notice.clone() })
    });
    Alert { incident, ..alert.clone() }
}
