//! The scene: what the logs of a cluster hold in an incident's window, read once.
//!
//! One pass over the records finds who wrote when, who led, who took over and what went wrong, and keeps copies of the
//! records that a sign may ask for: known messages, and everything of a source that a sign reads without naming an
//! event. Copies are bounded; what was left out is counted.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::incident::IncidentAlert;
use crate::model::{Event, EventSeverity, LogRecord, Timestamp};

use super::effects::{self, By, Gravity};

/// Records that are kept at most, and their bytes.
const RECORDS_MAX: usize = 40_000;
const BYTES_MAX: usize = 48 << 20;
/// Times that are kept per stream; more of them are thinned out evenly enough for silences of seconds.
const TIMES_MAX: usize = 20_000;
/// Records closer than this count as one sign of life.
const PULSE_NS: i64 = 500_000_000;
/// What others say about the leader is old news for this long after a member's own word.
const HEARSAY_NS: i64 = 30_000_000_000;
/// A takeover belongs to an incident that opened this much later at most.
const TAKEOVER_NS: i64 = 90_000_000_000;

/// An effect may show in the logs this long before the first sign that was noticed.
const EFFECT_NS: i64 = 30_000_000_000;

/// What is to be explained.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub cluster: &'a str,
    /// When the incident opened; found from the logs when nobody watched.
    pub opened_at: Option<Timestamp>,
    /// The records to read: from well before the opening to the end, or now.
    pub start: Timestamp,
    /// Not included.
    pub end: Timestamp,
    /// The first sign of it, where somebody watched: what ended well before is no effect of it.
    pub began_at: Option<Timestamp>,
    /// When the trouble before this was over: what came earlier explains that, and not this.
    pub calm_since: Option<Timestamp>,
    /// The judge's events that belong to it. Those of planned changes are no effects.
    pub events: &'a [Event],
    pub alerts: &'a [IncidentAlert],
}

/// Which records signs ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct Interest {
    pub(super) events: BTreeSet<String>,
    /// Sources that some sign reads without naming an event.
    pub(super) sources: BTreeSet<String>,
}

/// One stream's signs of life.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse {
    pub(super) times: Vec<Timestamp>,
    pub(super) last: Timestamp,
}

/// An effect that was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) at: Timestamp,
    pub(super) gravity: Gravity,
}

/// The window as the logs show it.
#[derive(Debug)]
pub(super) struct Scene {
    /// Signs are not looked for before this.
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    /// What windows of signs are relative to.
    pub(super) opened_at: Timestamp,
    pub(super) taken_over_at: Option<Timestamp>,
    pub(super) records: Vec<LogRecord>,
    pub(super) by_event: BTreeMap<String, Vec<usize>>,
    /// By source and member; a proxy's member is "".
    pub(super) streams: BTreeMap<(String, String), Pulse>,
    pub(super) members: BTreeSet<String>,
    pub(super) leader: Option<String>,
    pub(super) new_leader: Option<String>,
    pub(super) effects: BTreeMap<String, Seen>,
    pub(super) left_out: usize,
}

impl Scene {
    /// The gravest effect there is.
    pub(super) fn gravity(&self) -> Option<Gravity> {
        self.effects.values().map(|seen| seen.gravity).max()
    }
}

/// Who led, in order of time.
#[derive(Debug, Default)]
struct Leaders {
    /// The time from which each led.
    list: Vec<(Timestamp, String)>,
    own_word_at: Option<Timestamp>,
    takeovers: Vec<(Timestamp, String)>,
}

impl Leaders {
    fn now(&self) -> Option<&str> {
        self.list.last().map(|(_, leader)| leader.as_str())
    }

    /// Somebody names the leader. Returns whether it is another one than before.
    fn says(&mut self, at: Timestamp, leader: &str, own_word: bool) -> bool {
        if own_word {
            self.own_word_at = Some(at);
        } else if self.own_word_at.is_some_and(|own| at.0 - own.0 < HEARSAY_NS) {
            return false;
        }
        let has_changed = self.now().is_some_and(|known| known != leader);
        if has_changed {
            self.takeovers.push((at, leader.to_owned()));
        }
        if self.now() != Some(leader) {
            self.list.push((at, leader.to_owned()));
        }
        has_changed
    }

    /// A member says that it leads from now on.
    fn takes_over(&mut self, at: Timestamp, leader: &str) {
        if self.now().is_none() {
            self.takeovers.push((at, leader.to_owned()));
        }
        self.says(at, leader, true);
    }

    /// Who led last before a time.
    fn before(&self, at: Timestamp) -> Option<String> {
        self.list.iter().rfind(|(since, _)| *since < at).or(self.list.first()).map(|(_, leader)| leader.clone())
    }
}

/// Takes in records in order of time.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    case: &'a Case<'a>,
    interest: &'a Interest,
    scene: Scene,
    leaders: Leaders,
    bytes: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(case: &'a Case<'a>, interest: &'a Interest) -> Self {
        let scene = Scene {
            start: case.calm_since.map_or(case.start, |calm| calm.max(case.start)),
            end: case.end,
            opened_at: case.opened_at.unwrap_or(case.start),
            taken_over_at: None,
            records: Vec::new(),
            by_event: BTreeMap::new(),
            streams: BTreeMap::new(),
            members: BTreeSet::new(),
            leader: None,
            new_leader: None,
            effects: BTreeMap::new(),
            left_out: 0,
        };
        Self { case, interest, scene, leaders: Leaders::default(), bytes: 0 }
    }

    pub(super) fn record(&mut self, record: &LogRecord) {
        let source = record.stream.get("source").unwrap_or("");
        let member = record.stream.get("member").unwrap_or("");
        let event = record.field("event");
        if source != "daraji" {
            self.pulse(source, member, record.at);
        }
        if let Some(event) = event {
            self.leadership(record, (source, member, event));
            let is_sure = event != "config_param_changed" || record.field("restart").is_some();
            if is_sure {
                self.effect_of_message(record.at, (source, member, event));
            }
        }
        let wanted =
            event.is_some_and(|event| self.interest.events.contains(event)) || self.interest.sources.contains(source);
        if !wanted {
            return;
        }
        self.bytes += record.text_bytes();
        if self.scene.records.len() >= RECORDS_MAX || self.bytes > BYTES_MAX {
            self.scene.left_out += 1;
            return;
        }
        let index = self.scene.records.len();
        if let Some(event) = event {
            self.scene.by_event.entry(event.to_owned()).or_default().push(index);
        }
        self.scene.records.push(record.clone());
    }

    fn pulse(&mut self, source: &str, member: &str, at: Timestamp) {
        if !member.is_empty() && !self.scene.members.contains(member) {
            self.scene.members.insert(member.to_owned());
        }
        let pulse = self.scene.streams.entry((source.to_owned(), member.to_owned())).or_default();
        pulse.last = pulse.last.max(at);
        let is_new = pulse.times.last().is_none_or(|last| at.0 - last.0 >= PULSE_NS);
        if is_new && pulse.times.len() < TIMES_MAX {
            pulse.times.push(at);
        } else if let Some(last) = pulse.times.last_mut().filter(|_| !is_new) {
            // The pulse goes on: a silence begins after its last record.
            *last = at.max(*last);
        }
    }

    fn leadership(&mut self, record: &LogRecord, (source, member, event): (&str, &str, &str)) {
        let at = record.at;
        let named = |field: &str| record.field(field).filter(|name| !name.is_empty() && *name != "None");
        let has_changed = match (source, event) {
            ("patroni", "hb_leader" | "hb_standby_leader") => self.leaders.says(at, member, true),
            ("patroni", "hb_replica") => named("leader").is_some_and(|leader| self.leaders.says(at, leader, false)),
            ("patroni", "lock_owner") => named("owner").is_some_and(|owner| self.leaders.says(at, owner, false)),
            _ => false,
        };
        if has_changed {
            // The new leader's own log is not there, or not yet.
            self.effect("leader_changed", at, effects::gravity("leader_changed"));
        }
    }

    fn effect_of_message(&mut self, at: Timestamp, (source, member, event): (&str, &str, &str)) {
        for (of_source, message, by, effect) in effects::OF_MESSAGES {
            if *message != event || *of_source != source {
                continue;
            }
            let said_by_it = match by {
                By::Anybody => true,
                By::Leader => self.leaders.now().is_none_or(|leader| leader == member),
                By::Other => self.leaders.now() != Some(member),
            };
            if said_by_it {
                self.effect(effect, at, effects::gravity(effect));
            }
        }
        if source == "patroni" && matches!(event, "promote_started" | "standby_leader_promoted" | "leader_adopted") {
            self.leaders.takes_over(at, member);
        } else if source == "postgresql" && event == "pg_new_timeline" && self.leaders.own_word_at.is_none() {
            // Without Patroni's log a promotion is the only word there is.
            self.leaders.takes_over(at, member);
        }
    }

    /// What was told long before the first sign belongs to something else.
    fn effect(&mut self, effect: &str, at: Timestamp, gravity: Option<Gravity>) {
        let Some(gravity) = gravity else { return };
        if at < self.scene.start || self.case.began_at.is_some_and(|began| at.0 < began.0 - EFFECT_NS) {
            return;
        }
        let seen = self.scene.effects.entry(effect.to_owned()).or_insert(Seen { at, gravity });
        seen.at = seen.at.min(at);
    }

    /// The scene, with what the judge and the alerts say.
    pub(super) fn finish(mut self) -> Scene {
        for event in self.case.events {
            if event.fields.get("planned").is_none_or(|planned| planned != "true") {
                self.effect(&event.event, event.time, effects::gravity(&event.event));
            }
            self.scene.members.extend(event.member.clone());
        }
        for alert in self.case.alerts {
            let critical = alert.severity == EventSeverity::Critical;
            let gravity = if critical { Gravity::Service } else { Gravity::Degraded };
            self.effect(&alert.name, alert.firing_since, Some(gravity));
        }
        let gravest = self.scene.gravity();
        let first = self.scene.effects.values().filter(|seen| Some(seen.gravity) == gravest).map(|seen| seen.at).min();
        self.scene.opened_at = self.case.opened_at.or(first).unwrap_or(self.case.end);
        self.name_leaders();
        self.scene
    }

    /// Who led when the trouble began, and who took over: by the judge's word, else by the logs'.
    fn name_leaders(&mut self) {
        let events = self.case.events;
        let field = |event: &Event, name: &str| event.fields.get(name).cloned();
        let changed = events.iter().find(|event| event.event == "leader_changed");
        let lost = events.iter().find(|event| event.event == "leader_lost").and_then(|event| event.member.clone());
        let old = lost.or_else(|| changed.and_then(|event| field(event, "old_leader")));
        let new = changed.and_then(|event| field(event, "new_leader").or_else(|| event.member.clone()));
        let since = self.scene.start.0.max(self.scene.opened_at.0 - TAKEOVER_NS);
        let recent = |(at, _): &&(Timestamp, String)| at.0 >= since;
        let takeover = self.leaders.takeovers.iter().find(recent);
        let anchor = takeover.map_or(self.scene.opened_at, |(at, _)| *at);
        self.scene.leader = old.or_else(|| self.leaders.before(anchor));
        self.scene.taken_over_at = changed.map(|event| event.time).or_else(|| takeover.map(|(at, _)| *at));
        self.scene.new_leader = new.or_else(|| takeover.map(|(_, leader)| leader.clone()));
        self.scene.members.extend(self.scene.leader.clone());
    }
}
