//! Log records, in order of time, to events and a belief: what the judge does from observations, as far as logs tell.
//!
//! - A member leads when its own Patroni says so; what others say counts while it is silent.
//! - Events have the judge's names and fields where the judge knows such a thing; other effects of messages
//!   (`incident::causes`) have their own, and `source` is `logs` for all of them.
//! - A change that was asked for is planned. A DCS is lost when all Patronis that write logs lost it.
//! - Silence proves nothing here: a member without logs is unknown, not down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::incident::FROM_LOGS;
use crate::incident::causes::effects::{self, By, Gravity};
use crate::incident::report::{LaneState, short};
use crate::model::cluster::{Cluster, Health, Member, Role};
use crate::model::{Event, EventSeverity, LogRecord, Timestamp};

use super::message::message;

/// What others say about the leader counts when its own Patroni has been silent for so long.
const OWN_WORD: Duration = Duration::from_secs(30);
/// A request is behind all changes of leadership that follow within this.
const PLANNED: Duration = Duration::from_mins(2);
/// Patronis that lose the DCS within this lose it together.
const TOGETHER: Duration = Duration::from_secs(40);
/// The same effect of the same member is told again after this.
const REPEATED_AFTER: Duration = Duration::from_mins(5);
/// Without anything new for this long the cluster counts as healthy again.
const CALM: Duration = Duration::from_mins(1);
/// Changes of a member's state that are kept.
const LANE_MAX: usize = 500;

/// A member's states, each from its time on.
pub type Lanes = BTreeMap<String, Vec<(Timestamp, LaneState)>>;

#[derive(Clone, Debug, Default)]
struct Seen {
    lane: Option<LaneState>,
    streaming: bool,
    timeline: Option<u32>,
    dcs_error_at: Option<Timestamp>,
    has_patroni: bool,
}

/// What was understood so far.
#[derive(Debug, Default)]
pub struct Watch {
    cluster: String,
    members: BTreeMap<String, Seen>,
    lanes: Lanes,
    leader: Option<String>,
    own_word_at: Option<Timestamp>,
    /// Who lost the lead, while nobody has it.
    lost: Option<String>,
    /// When a change was asked for.
    asked_at: Option<Timestamp>,
    /// When it was done.
    moved_at: Option<Timestamp>,
    dcs_lost: bool,
    timeline: Option<u32>,
    told: BTreeMap<(String, String), Timestamp>,
    disturbed_at: Option<Timestamp>,
    paused: bool,
    events: Vec<Event>,
    /// The belief is another than before the record.
    changed: bool,
}

impl Watch {
    pub fn new(cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), ..Self::default() }
    }

    /// Takes in the next record; what it means, and whether the belief changed with it.
    pub fn record(&mut self, record: &LogRecord) -> (Vec<Event>, bool) {
        self.changed = false;
        let source = record.stream.get("source").unwrap_or("");
        let member = record.stream.get("member").unwrap_or("").to_owned();
        let Some(event) = record.field("event").map(str::to_owned) else { return (Vec::new(), false) };
        match source {
            "patroni" => {
                self.seen(&member).has_patroni = true;
                self.patroni(record, &member, &event);
            }
            "postgresql" => self.postgresql(record, &member, &event),
            _ => {}
        }
        self.effects(record, (source, &member, &event));
        (std::mem::take(&mut self.events), self.changed)
    }

    pub fn lanes(self) -> Lanes {
        self.lanes
    }

    fn seen(&mut self, member: &str) -> &mut Seen {
        self.members.entry(member.to_owned()).or_default()
    }

    fn lane(&mut self, member: &str, at: Timestamp, state: LaneState) {
        if self.members.get(member).and_then(|seen| seen.lane) == Some(state) {
            return;
        }
        self.seen(member).lane = Some(state);
        self.changed = true;
        let lane = self.lanes.entry(member.to_owned()).or_default();
        if lane.len() < LANE_MAX {
            lane.push((at, state));
        }
    }

    /// Adds an event, whose id is the same each time that the logs are read.
    fn tell(
        &mut self,
        record: &LogRecord,
        (word, member): (&str, Option<&str>),
        severity: EventSeverity,
        text: String,
    ) {
        self.tell_with(record, (word, member), severity, (text, &[]));
    }

    fn tell_with(
        &mut self,
        record: &LogRecord,
        (word, member): (&str, Option<&str>),
        severity: EventSeverity,
        (text, fields): (String, &[(&str, &str)]),
    ) {
        let who = member.unwrap_or("");
        let pairs = fields.iter().filter(|(_, value)| !value.is_empty());
        let mut fields: BTreeMap<String, String> =
            pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if let Some(source) = record.stream.get("source") {
            fields.insert("seen_in".to_owned(), source.to_owned());
        }
        if severity >= EventSeverity::Warning {
            self.disturbed_at = Some(record.at);
        }
        self.events.push(Event {
            id: format!("{}-{word}-{who}-{}", self.cluster, record.at.nanos()),
            time: record.at,
            cluster: self.cluster.clone(),
            member: member.map(str::to_owned),
            event: word.to_owned(),
            severity,
            source: FROM_LOGS.to_owned(),
            text,
            fields,
        });
        self.changed = true;
    }

    fn is_planned(&self, at: Timestamp) -> bool {
        self.asked_at.is_some_and(|asked| at.since(asked) <= PLANNED)
    }

    /// What a planned change brings with it, before and after.
    fn is_expected(&self, at: Timestamp) -> bool {
        self.is_planned(at) || self.moved_at.is_some_and(|moved| at.since(moved) <= CALM)
    }

    fn patroni(&mut self, record: &LogRecord, member: &str, event: &str) {
        let at = record.at;
        let field = |name: &str| record.field(name).filter(|value| !value.is_empty() && *value != "None");
        match event {
            "hb_leader" | "hb_standby_leader" => self.leads(record, member),
            "hb_replica" => {
                self.lane(member, at, LaneState::Replica);
                self.hearsay(at, field("leader"));
                self.dcs_answers(record, member);
            }
            "hb_idle" => self.dcs_answers(record, member),
            "lock_owner" => self.hearsay(at, field("owner")),
            "promote_started" | "standby_leader_promoted" | "leader_adopted" => self.takes_over(record, member),
            "manual_request" | "manual_demoting" | "sched_fired" => {
                let action = field("action").unwrap_or("switchover").to_owned();
                if !self.is_expected(at) {
                    let text = match (field("leader"), field("cand")) {
                        (Some(from), Some(to)) => format!("{action} from {from} to {to} was requested"),
                        (Some(from), None) => format!("{action} away from {from} was requested"),
                        _ => format!("{action} was requested"),
                    };
                    self.tell(record, ("switchover_requested", Some(member)), EventSeverity::Notice, text);
                }
                // What follows a change that is done is its own echo.
                if self.moved_at.is_none_or(|moved| at.since(moved) > CALM) {
                    self.asked_at = Some(at);
                }
            }
            "lock_released" => self.loses(record, member, ("released", "released the leader key")),
            "lock_removed_start_failed"
            | "lock_released_datadir"
            | "primary_start_timeout"
            | "primary_crash_failover" => {
                self.loses(record, member, ("released", "gave up the leader key because PostgreSQL does not start"));
            }
            "demoting_dcs_unreachable" | "demoted_dcs_unreachable" => {
                self.lane(member, at, LaneState::Down);
                self.loses(record, member, ("unknown", "demoted itself because the DCS does not answer"));
            }
            "demote_started" | "demoted_no_lock" | "demoted_lock_update_failed" => {
                self.lane(member, at, LaneState::Down);
            }
            "dcs_error" | "dcs_inaccessible" => self.dcs_fails(record, member),
            "paused_primary_no_lock" => self.lane(member, at, LaneState::Primary),
            "pg_not_running" | "pg_start_failed" => self.lane(member, at, LaneState::Down),
            _ => {}
        }
        let paused = record.line.contains("PAUSE: ");
        if paused != self.paused && (paused || event.starts_with("hb_")) {
            self.paused = paused;
            let (word, text) =
                if paused { ("paused", "Patroni is paused") } else { ("resumed", "Patroni is no longer paused") };
            self.tell(record, (word, None), EventSeverity::Notice, text.to_owned());
        }
    }

    /// What somebody else says about the leader.
    fn hearsay(&mut self, at: Timestamp, leader: Option<&str>) {
        let Some(leader) = leader else { return };
        let is_silent = self.own_word_at.is_none_or(|own| at.since(own) > OWN_WORD);
        if self.lost.is_none() && is_silent && self.leader.is_none() {
            self.leader = Some(leader.to_owned());
            self.changed = true;
        }
    }

    /// A member's own word that it holds the key.
    fn leads(&mut self, record: &LogRecord, member: &str) {
        self.own_word_at = Some(record.at);
        self.dcs_answers(record, member);
        if self.leader.as_deref() != Some(member) || self.lost.is_some() {
            let is_first = self.leader.is_none() && self.lost.is_none();
            if is_first {
                self.leader = Some(member.to_owned());
                self.changed = true;
            } else {
                self.takes_over(record, member);
            }
        }
        self.lane(member, record.at, LaneState::Leader);
    }

    fn takes_over(&mut self, record: &LogRecord, member: &str) {
        self.own_word_at = Some(record.at);
        let old = self.lost.take().or_else(|| self.leader.clone());
        let planned = if self.is_planned(record.at) { "true" } else { "false" };
        let is_same = old.as_deref() == Some(member);
        let was_lost = self.leader.is_none() && old.is_some();
        self.leader = Some(member.to_owned());
        self.changed = true;
        if is_same {
            if was_lost {
                let text = format!("{member} took the leader key again");
                self.tell(record, ("leader_returned", Some(member)), EventSeverity::Notice, text);
            }
            return;
        }
        let old = old.unwrap_or_default();
        if old.is_empty() {
            return;
        }
        if matches!(self.members.get(&old).and_then(|seen| seen.lane), Some(LaneState::Leader | LaneState::Primary)) {
            self.lane(&old, record.at, LaneState::Unknown);
        }
        let severity = if planned == "true" { EventSeverity::Notice } else { EventSeverity::Critical };
        let text = format!("{member} took over from {old}");
        let fields = [("old_leader", old.as_str()), ("new_leader", member), ("planned", planned)];
        self.tell_with(record, ("leader_changed", Some(member)), severity, (text, &fields));
        // The next change needs a request of its own.
        self.moved_at = self.asked_at.take().map(|_| record.at);
    }

    fn loses(&mut self, record: &LogRecord, member: &str, (reason, how): (&str, &str)) {
        if self.leader.as_deref() != Some(member) {
            return;
        }
        self.lane(member, record.at, LaneState::Down);
        self.leader = None;
        self.lost = Some(member.to_owned());
        self.changed = true;
        if !self.is_planned(record.at) {
            let text = format!("{member} {how}");
            self.tell_with(
                record,
                ("leader_lost", Some(member)),
                EventSeverity::Critical,
                (text, &[("reason", reason)]),
            );
        }
    }

    fn dcs_fails(&mut self, record: &LogRecord, member: &str) {
        self.seen(member).dcs_error_at = Some(record.at);
        let writers: Vec<&Seen> = self.members.values().filter(|seen| seen.has_patroni).collect();
        let fails = |seen: &&&Seen| seen.dcs_error_at.is_some_and(|at| record.at.since(at) <= TOGETHER);
        let failing = writers.iter().filter(fails).count();
        if !self.dcs_lost && writers.len() >= 2 && failing == writers.len() {
            self.dcs_lost = true;
            let text = format!("none of the {failing} Patronis that write logs reaches the DCS");
            self.tell(record, ("dcs_quorum_lost", None), EventSeverity::Critical, text);
        }
    }

    fn dcs_answers(&mut self, record: &LogRecord, member: &str) {
        self.seen(member).dcs_error_at = None;
        if self.dcs_lost {
            self.dcs_lost = false;
            let text = format!("{member}'s Patroni reaches the DCS again");
            self.tell(record, ("dcs_quorum_restored", None), EventSeverity::Notice, text);
        }
    }

    fn postgresql(&mut self, record: &LogRecord, member: &str, event: &str) {
        let at = record.at;
        let timeline = record.field("tl").and_then(|number| number.parse().ok());
        match event {
            "pg_new_timeline" => {
                self.timeline = self.timeline.max(timeline);
                self.seen(member).timeline = timeline;
                self.promoted(record, member);
            }
            "pg_ready" if self.leader.as_deref() == Some(member) => self.lane(member, at, LaneState::Leader),
            "pg_ready_ro" | "pg_standby_mode" => self.lane(member, at, LaneState::Replica),
            "wal_stream_started" | "wal_stream_restarted" => {
                self.lane(member, at, LaneState::Replica);
                let seen = self.seen(member);
                (seen.streaming, seen.timeline) = (true, timeline);
                self.changed = true;
            }
            "wal_stream_ended" | "wal_stream_lost" | "wal_conn_failed" | "walreceiver_stopped" => {
                self.seen(member).streaming = false;
                self.changed = true;
            }
            "pg_postmaster_died" => self.dies(record, member),
            "pg_shutdown_req"
            | "pg_shutdown_done"
            | "pg_crash_reinit"
            | "pg_crash_recovery"
            | "pg_interrupted"
            | "pg_shutdown_abnormal" => {
                self.lane(member, at, LaneState::Down);
            }
            _ => {}
        }
    }

    /// Its processes say that the server is gone.
    fn dies(&mut self, record: &LogRecord, member: &str) {
        if self.seen(member).lane == Some(LaneState::Down) {
            return;
        }
        let led = self.leader.as_deref() == Some(member);
        let severity = if led { EventSeverity::Critical } else { EventSeverity::Warning };
        self.lane(member, record.at, LaneState::Down);
        let text = format!("{member}'s PostgreSQL died without a shutdown");
        self.tell(record, ("postgres_down", Some(member)), severity, text);
    }

    /// A new timeline: Patroni's doing, or somebody else's.
    fn promoted(&mut self, record: &LogRecord, member: &str) {
        let has_patroni = self.members.values().any(|seen| seen.has_patroni);
        if !has_patroni {
            self.takes_over(record, member);
        } else if self.leader.as_deref() != Some(member) && self.seen(member).has_patroni {
            self.lane(member, record.at, LaneState::Primary);
            let text = format!("{member} was promoted, and not by its Patroni");
            self.tell(record, ("promoted_outside", Some(member)), EventSeverity::Critical, text);
        }
    }

    /// What a message means by itself.
    fn effects(&mut self, record: &LogRecord, (source, member, event): (&str, &str, &str)) {
        for (of_source, of_event, by, effect) in effects::OF_MESSAGES {
            if *of_event != event || *of_source != source {
                continue;
            }
            // These are told by what came before and after.
            let is_told = matches!(*effect, "leader_changed" | "leader_lost" | "promoted_outside" | "dcs_no_leader");
            let only_with_restart = event == "config_param_changed" && record.field("restart").is_none();
            let led = self.leader.as_deref().or(self.lost.as_deref());
            let said_by_it = match by {
                By::Anybody => true,
                By::Leader => led.is_none_or(|leader| leader == member),
                By::Other => led != Some(member),
            };
            if is_told || only_with_restart || !said_by_it || self.is_expected(record.at) {
                continue;
            }
            let key = ((*effect).to_owned(), member.to_owned());
            if self.told.get(&key).is_some_and(|told| record.at.since(*told) < REPEATED_AFTER) {
                continue;
            }
            self.told.insert(key, record.at);
            let severity = match effects::gravity(effect) {
                Some(Gravity::Leadership | Gravity::Service) => EventSeverity::Critical,
                _ => EventSeverity::Warning,
            };
            let text = format!("{}: {}", effect.replace('_', " "), short(&message(record), 160));
            self.tell(record, (effect, Some(member).filter(|name| !name.is_empty())), severity, text);
        }
    }

    /// The belief at a time, as far as the correlator needs it.
    pub fn belief(&self, now: Timestamp) -> Cluster {
        let calm = self.disturbed_at.is_none_or(|at| now.since(at) >= CALM);
        let settled = self.leader.is_some() && !self.dcs_lost;
        let health = match (settled, calm) {
            (true, true) => Health::Ok,
            (true, false) => Health::Warning,
            (false, _) => Health::Critical,
        };
        let writes = |name: &&String| {
            matches!(self.members.get(*name).and_then(|seen| seen.lane), Some(LaneState::Leader | LaneState::Primary))
        };
        let writable: BTreeSet<String> = self.members.keys().filter(writes).cloned().collect();
        // While one may or may not take writes, nobody can say that no member does.
        let is_dark = writable.is_empty() && self.members.values().any(|seen| seen.lane == Some(LaneState::Unknown));
        Cluster {
            name: self.cluster.clone(),
            health,
            leader: self.leader.clone(),
            writable: writable.into_iter().collect(),
            timeline: self.timeline,
            paused: Some(self.paused),
            members: self
                .members
                .iter()
                .filter(|(_, seen)| seen.lane.is_some())
                .map(|(name, seen)| self.member(name, seen, is_dark))
                .collect(),
            ..Cluster::default()
        }
    }

    fn member(&self, name: &str, seen: &Seen, is_dark: bool) -> Member {
        let is_leader = self.leader.as_deref() == Some(name);
        Member {
            name: name.to_owned(),
            role: if is_leader { Role::Primary } else { Role::Replica },
            state: if seen.streaming { "streaming" } else { "running" }.to_owned(),
            writable: match seen.lane {
                None | Some(LaneState::Unknown) => None,
                Some(LaneState::Leader | LaneState::Primary) => Some(true),
                Some(LaneState::Replica | LaneState::Down) => (!is_dark).then_some(false),
            },
            timeline: seen.timeline,
            present: true,
            ..Member::default()
        }
    }
}
