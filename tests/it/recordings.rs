//! Recorded faults, replayed: what the judge says of real failures, and how soon.
//!
//! The recordings are sampled once a second (Patroni every other second), so delays hold up to a second of that.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use daraji::cluster::{Judge, JudgeOptions};
use daraji::incident::{Correlator, CorrelatorOptions, IncidentChange, IncidentChangeKind};
use daraji::model::cluster::Cluster;
use daraji::model::incident::{Incident, PhaseName};
use daraji::model::observation::{
    Claim, DcsChange, DcsHealth, DcsKey, DcsSnapshot, Failure, FailureKind, LeaseStatus, MemberAddress, PatroniStatus,
    PostgresStatus, Source, WalReceiver, WalSender,
};
use daraji::model::{Event, EventSeverity, Lsn, Observation, Timestamp};

const TICK: Duration = Duration::from_millis(250);

/// A recording and what the judge made of it.
struct Replay {
    inject: Timestamp,
    events: Vec<Event>,
    /// The belief at every tick.
    beliefs: Vec<(f64, Cluster)>,
    incidents: Vec<IncidentChange>,
    judge: Judge,
    correlator: Correlator,
}

#[derive(Default)]
struct Decoder {
    /// The recorder's `timeout` is also a connection that nobody took: where the host was gone, it was that.
    host_is_gone: bool,
    facts: BTreeMap<(String, String), Map<String, Value>>,
}

fn kind(word: &str) -> FailureKind {
    match word {
        "refused" => FailureKind::Refused,
        "timeout" => FailureKind::Timeout,
        "reset" => FailureKind::Reset,
        "rejecting" => FailureKind::Rejecting,
        "unreachable" => FailureKind::Unreachable,
        _ => FailureKind::Other,
    }
}

fn lsn(facts: &Map<String, Value>, name: &str) -> Option<Lsn> {
    facts.get(name)?.as_str()?.parse().ok()
}

fn text(facts: &Map<String, Value>, name: &str) -> Option<String> {
    facts.get(name)?.as_str().map(str::to_owned)
}

fn time(facts: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    Timestamp::parse_rfc3339(facts.get(name)?.as_str()?).ok()
}

fn flag(facts: &Map<String, Value>, name: &str) -> bool {
    facts.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn timeline(facts: &Map<String, Value>) -> Option<u32> {
    facts.get("tl")?.as_u64().and_then(|timeline| u32::try_from(timeline).ok())
}

fn postgres(facts: &Map<String, Value>) -> PostgresStatus {
    let receiver = facts.get("rcv").and_then(Value::as_array).map(|receiver| WalReceiver {
        status: receiver[0].as_str().unwrap_or("").to_owned(),
        sender_host: receiver[1].as_str().map(str::to_owned),
        received_timeline: timeline(facts),
        ..WalReceiver::default()
    });
    let senders =
        facts.get("snd").and_then(Value::as_array).map_or(&[][..], Vec::as_slice).iter().filter_map(|sender| {
            let (name, state) = sender.as_str()?.split_once(':')?;
            Some(WalSender { application_name: name.to_owned(), state: state.to_owned(), ..WalSender::default() })
        });
    PostgresStatus {
        in_recovery: flag(facts, "rec"),
        timeline: timeline(facts),
        current_lsn: lsn(facts, "cur"),
        receive_lsn: lsn(facts, "recv"),
        replay_lsn: lsn(facts, "replay"),
        postmaster_start_time: time(facts, "start"),
        receiver,
        senders: senders.collect(),
        ..PostgresStatus::default()
    }
}

fn patroni(facts: &Map<String, Value>) -> PatroniStatus {
    PatroniStatus {
        state: text(facts, "state").unwrap_or_default(),
        role: text(facts, "role").unwrap_or_default(),
        timeline: timeline(facts),
        location: lsn(facts, "loc"),
        received_location: lsn(facts, "recv"),
        replayed_location: lsn(facts, "replay"),
        replication_state: text(facts, "rs"),
        postmaster_start_time: time(facts, "start"),
        pause: flag(facts, "pause"),
        failsafe_mode_is_active: flag(facts, "fs"),
        pending_restart: flag(facts, "pr"),
        cluster_unlocked: flag(facts, "ul"),
        ..PatroniStatus::default()
    }
}

impl Decoder {
    fn claim(&mut self, source: &str, node: &str, delta: &Map<String, Value>) -> Claim {
        if let Some(word) = delta.get("err").and_then(Value::as_str) {
            let kind = if self.host_is_gone && word == "timeout" { FailureKind::Unreachable } else { kind(word) };
            return Claim::Failed(Failure { kind, error: word.to_owned() });
        }
        let facts = self.facts.entry((source.to_owned(), node.to_owned())).or_default();
        for (name, value) in delta {
            facts.insert(name.clone(), value.clone());
        }
        match source {
            "sql" => Claim::Postgres(postgres(facts)),
            "rest" => Claim::Patroni(patroni(facts)),
            "etcd" => Claim::DcsHealth(DcsHealth {
                healthy: flag(facts, "healthy"),
                has_leader: Some(flag(facts, "lead")),
                is_leader: Some(flag(facts, "me")),
                ..DcsHealth::default()
            }),
            "lease" => {
                let number = |name: &str| facts.get(name).and_then(Value::as_i64).unwrap_or(0);
                Claim::Lease(LeaseStatus {
                    lease: 1,
                    ttl_seconds: number("ttl"),
                    granted_ttl_seconds: number("granted"),
                })
            }
            _ => dcs(delta),
        }
    }

    fn source(source: &str, node: &str) -> Source {
        let member = node.to_owned();
        match source {
            "sql" => Source::Sql { member },
            "rest" => Source::Rest { member },
            "etcd" => Source::DcsMember { url: format!("http://{node}:2379") },
            _ => Source::Dcs,
        }
    }
}

fn dcs(change: &Map<String, Value>) -> Claim {
    let revision = change["rev"].as_i64().unwrap_or(0);
    let puts: Vec<_> = change["put"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| DcsKey {
            key: key.clone(),
            value: value.as_str().unwrap_or("").to_owned(),
            mod_revision: revision,
            create_revision: revision,
            lease: 0,
        })
        .collect();
    let deletes = change["del"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    if revision == 101 {
        return Claim::DcsSnapshot(DcsSnapshot { revision, keys: puts });
    }
    Claim::DcsChange(DcsChange { revision, puts, deletes: deletes.collect() })
}

fn addresses() -> Claim {
    let address = |name: &&str| MemberAddress { member: (*name).to_owned(), present: true, ..MemberAddress::default() };
    Claim::Members(["n1", "n2", "n3"].iter().map(address).collect())
}

fn replay(name: &str) -> Replay {
    let path = format!("{}/tests/data/recordings/{name}.ndjson", env!("CARGO_MANIFEST_DIR"));
    let recording = std::fs::read_to_string(&path).unwrap();
    let mut lines = recording.lines();
    let head: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    let inject = Timestamp::parse_rfc3339(head["inject"].as_str().unwrap()).unwrap();
    let at = |millis: i64| Timestamp(inject.0 + millis * 1_000_000);
    let mut decoder = Decoder { host_is_gone: name == "04-host-loss", ..Decoder::default() };
    let mut replay = Replay {
        inject,
        events: Vec::new(),
        beliefs: Vec::new(),
        incidents: Vec::new(),
        judge: Judge::new(JudgeOptions::default()),
        correlator: Correlator::new(CorrelatorOptions::default()),
    };
    let mut clock = None;
    for line in lines {
        let (sent, took, source, node, delta): (i64, i64, String, String, Map<String, Value>) =
            serde_json::from_str(line).unwrap();
        let (sent, received) = (at(sent), at(sent + took));
        let observe = |source, claim| Observation { cluster: "a".to_owned(), source, sent, received, claim };
        if clock.is_none() {
            replay.observe(&observe(Source::Dcs, addresses()));
        }
        clock = Some(replay.tick_until(clock.unwrap_or(received), received));
        let claim = decoder.claim(&source, &node, &delta);
        replay.observe(&observe(Decoder::source(&source, &node), claim));
    }
    replay
}

fn seconds(inject: Timestamp, at: Timestamp) -> f64 {
    (at.0 - inject.0) as f64 / 1e9
}

impl Replay {
    fn observe(&mut self, observation: &Observation) {
        let events = self.judge.observe(observation);
        self.take(events);
    }

    fn take(&mut self, events: Vec<Event>) {
        self.incidents.extend(self.correlator.events(&events));
        self.events.extend(events);
    }

    /// Ticks up to a time; returns the time of the last tick.
    fn tick_until(&mut self, mut clock: Timestamp, end: Timestamp) -> Timestamp {
        while clock + TICK <= end {
            clock = clock + TICK;
            let events = self.judge.tick(clock);
            self.take(events);
            let cluster = self.judge.cluster("a", clock).unwrap();
            self.incidents.extend(self.correlator.belief(&cluster, clock));
            self.beliefs.push((seconds(self.inject, clock), cluster));
        }
        clock
    }

    /// How often an incident opened and settled, and its last version.
    fn incident(&self) -> (usize, usize, &Incident) {
        let count = |kind| self.incidents.iter().filter(|change| change.kind == kind).count();
        let last = self.incidents.last().unwrap_or_else(|| panic!("no incident: {}", self.script()));
        (count(IncidentChangeKind::Opened), count(IncidentChangeKind::Settled), &last.incident)
    }

    fn phase(&self, name: PhaseName) -> Option<f64> {
        let phases = &self.incident().2.phases;
        phases.iter().find(|phase| phase.name == name).map(|phase| seconds(self.inject, phase.at))
    }

    fn find(&self, event: &str) -> Vec<(f64, &Event)> {
        self.events
            .iter()
            .filter(|other| other.event == event)
            .map(|event| (seconds(self.inject, event.time), event))
            .collect()
    }

    /// The only event of this name, and when it was said.
    fn one(&self, event: &str) -> (f64, &Event) {
        let found = self.find(event);
        assert_eq!(found.len(), 1, "{event}: {}", self.script());
        found[0]
    }

    fn none(&self, event: &str) {
        assert!(self.find(event).is_empty(), "{event}: {}", self.script());
    }

    fn belief_at(&self, at: f64) -> &Cluster {
        &self.beliefs.iter().rfind(|(time, _)| *time <= at).unwrap().1
    }

    /// All events with their times, for messages.
    fn script(&self) -> String {
        let line = |event: &Event| {
            let at = seconds(self.inject, event.time);
            format!(
                "\n{at:8.2} {:?} {} {} | {}",
                event.severity,
                event.event,
                event.member.as_deref().unwrap_or("-"),
                event.text
            )
        };
        self.events.iter().map(line).collect()
    }

    fn loudest(&self) -> EventSeverity {
        self.events.iter().map(|event| event.severity).max().unwrap()
    }
}

#[track_caller]
fn within(at: f64, from: f64, to: f64) {
    assert!((from..=to).contains(&at), "{at} is not in {from}..={to}");
}

/// Nobody but the right owner is ever shown as the leader.
#[track_caller]
fn leaders_are(replay: &Replay, allowed: &[&str]) {
    for (at, cluster) in &replay.beliefs {
        let leader = cluster.leader.as_deref().unwrap_or("");
        assert!(leader.is_empty() || allowed.contains(&leader), "{leader} at {at}");
    }
}

/// Two members are never shown as writable without a split brain.
#[track_caller]
fn two_writable_are_a_split_brain(replay: &Replay) {
    for (at, cluster) in &replay.beliefs {
        assert!(cluster.writable.len() < 2 || cluster.split_brain.is_some(), "{:?} at {at}", cluster.writable);
    }
}

fn names(replay: &Replay) -> Vec<String> {
    replay.events.iter().map(|event| event.event.clone()).collect()
}

#[test]
fn fault_01_a_killed_postmaster_is_restarted_in_place() {
    let replay = replay("01-kill-postmaster");
    let (at, event) = replay.one("primary_restarted_in_place");
    within(at, 6.0, 7.5);
    assert_eq!(event.member.as_deref(), Some("n1"));
    for event in ["leader_lost", "leader_changed", "timeline_changed", "split_brain_possible", "split_brain_confirmed"]
    {
        replay.none(event);
    }
    leaders_are(&replay, &["n1"]);
    assert_eq!(replay.belief_at(3.0).writable, Vec::<String>::new());
    assert_eq!(replay.belief_at(29.0).health.as_str(), "ok");
    let opened: Vec<_> = replay.incidents.iter().filter(|change| change.kind == IncidentChangeKind::Opened).collect();
    assert_eq!(opened.len(), 1, "{opened:?}");
    assert_eq!(opened[0].incident.severity, EventSeverity::Warning);
}

#[test]
fn fault_02_a_stopped_patroni_leaves_two_writable_primaries() {
    let replay = replay("02-stop-patroni");
    // The lease tells long before the key goes.
    within(replay.one("lease_not_renewed").0, 5.0, 12.0);
    let (lost, event) = replay.one("leader_lost");
    within(lost, 24.5, 24.6);
    assert_eq!(event.fields["reason"], "lease_expired");
    let (_, event) = replay.one("leader_changed");
    assert_eq!((event.fields["old_leader"].as_str(), event.fields["new_leader"].as_str()), ("n1", "n2"));
    assert_eq!(event.fields["planned"], "false");
    // Two primaries from 26.9 to 60.4 s.
    within(replay.one("split_brain_confirmed").0, 26.9, 31.9);
    within(replay.one("split_brain_ended").0, 60.4, 63.0);
    assert_eq!(replay.belief_at(40.0).writable, ["n1", "n2"]);
    leaders_are(&replay, &["n1", "n2"]);
    two_writable_are_a_split_brain(&replay);
    let (opened, settled, incident) = replay.incident();
    assert_eq!((opened, settled), (1, 1));
    within(seconds(replay.inject, incident.settled_at.unwrap()), 100.0, 115.0);
    within(replay.phase(PhaseName::LastReplicaStreaming).unwrap(), 77.0, 81.0);
    assert_eq!(incident.title, "n1 lost the leader key (lease expired), n2 took over, split brain of n1 and n2");
}

#[test]
fn fault_03_a_killed_patroni_loses_the_key_and_splits_the_brain() {
    let replay = replay("03-kill-patroni");
    within(replay.one("leader_lost").0, 26.5, 26.6);
    within(replay.one("leader_changed").0, 26.8, 28.7);
    within(replay.one("split_brain_confirmed").0, 27.6, 32.6);
    within(replay.one("split_brain_ended").0, 80.5, 82.5);
    replay.none("split_brain_possible");
    leaders_are(&replay, &["n2", "n1"]);
    two_writable_are_a_split_brain(&replay);
    let (opened, _, incident) = replay.incident();
    assert_eq!(opened, 1);
    assert_eq!(incident.subject, "n2 lost the leader key (lease expired)");
    // Its Patroni was silent long before.
    within(replay.phase(PhaseName::Trigger).unwrap(), 0.3, 6.0);
    within(replay.phase(PhaseName::LockTaken).unwrap(), 26.8, 26.9);
    within(replay.phase(PhaseName::Promoted).unwrap(), 27.6, 29.6);
    assert!(incident.impact.split_brain_seconds.unwrap() > 50.0);
    // The old leader returns last, after the heal at 75 s and a restart as a replica.
    within(replay.phase(PhaseName::LastReplicaStreaming).unwrap(), 100.0, 106.0);
}

#[test]
fn fault_04_a_lost_host_is_possibly_a_split_brain_until_it_answers() {
    let replay = replay("04-host-loss");
    let (at, event) = replay.one("member_lost");
    within(at, 2.5, 8.0);
    assert_eq!(event.fields["sources"], "rest unreachable, sql unreachable");
    assert_eq!(event.fields["reason"], "unknown");
    within(replay.one("leader_lost").0, 22.9, 23.1);
    within(replay.one("leader_changed").0, 25.0, 26.0);
    let (at, event) = replay.one("split_brain_possible");
    within(at, 27.0, 32.0);
    assert_eq!(event.member.as_deref(), Some("n1"));
    replay.none("split_brain_confirmed");
    assert_eq!(replay.one("split_brain_ended").1.fields["confirmed"], "false");
    replay.one("member_returned");
    // The member is still shown while nobody hears of it.
    let lost = replay.belief_at(40.0);
    assert_eq!(lost.members[0].name, "n1");
    assert_eq!((lost.members[0].writable, lost.members[0].lag_bytes), (None, None));
    two_writable_are_a_split_brain(&replay);
    assert!(replay.incident().2.impact.write_outage_seconds.is_some_and(|seconds| (15.0..28.0).contains(&seconds)));
}

#[test]
fn fault_05_a_partitioned_leader_demotes_itself() {
    let replay = replay("05-partition-leader");
    within(replay.one("leader_lost").0, 22.6, 22.8);
    within(replay.one("leader_changed").0, 24.9, 26.0);
    // It answers "shutting down" for a minute: that is no second primary.
    replay.none("split_brain_possible");
    replay.none("split_brain_confirmed");
    replay.none("dcs_quorum_lost");
    replay.none("member_lost");
    leaders_are(&replay, &["n2", "n3"]);
    two_writable_are_a_split_brain(&replay);
}

#[test]
fn fault_07_an_etcd_election_is_no_failover() {
    let replay = replay("07-etcd-leader-kill");
    assert_eq!(names(&replay), ["watch_started", "dcs_member_down"], "{}", replay.script());
    leaders_are(&replay, &["n2"]);
    assert!(replay.beliefs.iter().skip(8).all(|(_, cluster)| cluster.leader.is_some()));
    assert!(replay.incidents.is_empty());
}

#[test]
fn fault_08_without_quorum_no_leader_is_shown_as_current() {
    let replay = replay("08-etcd-quorum-loss");
    within(replay.one("dcs_quorum_lost").0, 2.0, 8.0);
    within(replay.one("dcs_quorum_restored").0, 75.0, 77.5);
    replay.one("primary_promoted_again");
    for event in ["leader_lost", "leader_changed", "split_brain_possible", "split_brain_confirmed"] {
        replay.none(event);
    }
    let dark: Vec<_> = replay.beliefs.iter().filter(|(at, _)| (8.0..75.0).contains(at)).collect();
    assert!(dark.len() > 200);
    for (at, cluster) in dark {
        let dcs = cluster.dcs.as_ref().unwrap();
        assert_eq!((cluster.leader.as_deref(), dcs.stale, dcs.quorum), (None, true, Some(false)), "at {at}");
        // What was read last is still told, with its time.
        let lock = cluster.lock.as_ref().unwrap();
        assert_eq!((lock.owner.as_deref(), lock.lease_ttl_seconds), (Some("n2"), None));
        assert!(seconds(replay.inject, lock.seen_at) < 5.0);
        assert_eq!(cluster.health.as_str(), "critical");
    }
    assert_eq!(replay.belief_at(40.0).writable, Vec::<String>::new());
    assert_eq!(replay.belief_at(80.0).leader.as_deref(), Some("n2"));
    let (opened, settled, incident) = replay.incident();
    assert_eq!((opened, settled), (1, 1));
    assert_eq!(incident.subject, "the DCS lost its quorum");
    assert!(incident.impact.write_outage_seconds.unwrap() > 55.0);
}

#[test]
fn fault_09_failsafe_mode_keeps_the_primary() {
    let replay = replay("09-etcd-quorum-loss-failsafe");
    within(replay.one("failsafe_entered").0, 15.0, 17.5);
    within(replay.one("failsafe_left").0, 75.0, 110.0);
    replay.one("dcs_quorum_lost");
    replay.none("primary_promoted_again");
    assert!(replay.beliefs.iter().filter(|(at, _)| *at > -10.0).all(|(_, cluster)| cluster.writable == ["n2"]));
    assert_eq!(replay.incident().2.impact.write_outage_seconds, None);
}

#[test]
fn fault_10_a_switchover_is_one_planned_change_and_no_incident() {
    let replay = replay("10-switchover");
    let (at, event) = replay.one("leader_changed");
    within(at, 3.1, 4.2);
    assert_eq!(event.fields["planned"], "true");
    assert_eq!((event.fields["old_leader"].as_str(), event.fields["new_leader"].as_str()), ("n2", "n1"));
    assert!(replay.loudest() <= EventSeverity::Notice, "{}", replay.script());
    let notices = replay.events.iter().filter(|event| event.severity == EventSeverity::Notice);
    assert_eq!(notices.map(|event| event.event.as_str()).collect::<Vec<_>>(), ["leader_changed"]);
    for event in ["leader_lost", "switchover_failed", "postgres_down", "member_lost"] {
        replay.none(event);
    }
    replay.one("switchover_requested");
    replay.one("switchover_completed");
    assert!(replay.beliefs.iter().all(|(_, cluster)| cluster.health.as_str() != "critical"));
    assert!(replay.incidents.is_empty());
    two_writable_are_a_split_brain(&replay);
}

#[test]
fn fault_11_a_manual_promote_splits_the_brain_and_leaves_a_broken_replica() {
    let replay = replay("11-promote-while-paused");
    replay.one("paused");
    replay.one("resumed");
    let (at, event) = replay.one("split_brain_confirmed");
    within(at, 0.5, 5.5);
    assert_eq!(event.fields["members"], "n1,n2");
    assert_eq!(event.fields["paused"], "true");
    within(replay.one("split_brain_ended").0, 61.0, 64.0);
    let (at, event) = replay.one("replica_broken");
    within(at, 120.0, 140.0);
    assert_eq!(event.member.as_deref(), Some("n2"));
    // The broken one is shown with unknown lag, never 0.
    let broken = &replay.belief_at(140.0).members[1];
    assert_eq!((broken.name.as_str(), broken.lag_bytes, broken.lag_seconds), ("n2", None, None));
    leaders_are(&replay, &["n1"]);
    replay.none("leader_changed");
    replay.none("timeline_changed");
    // The broken replica belongs to the split brain's incident, which stays open for it.
    let (opened, settled, incident) = replay.incident();
    assert_eq!((opened, settled), (1, 0));
    assert_eq!(incident.title, "split brain of n1 and n2, n2 does not replicate");
}

#[test]
fn fault_13_blocked_replay_is_lag_although_everything_is_received() {
    let replay = replay("13-replay-blocked");
    let (at, event) = replay.one("lag_high");
    within(at, 30.0, 45.0);
    assert_eq!(event.member.as_deref(), Some("n2"));
    let lagging = &replay.belief_at(50.0).members[1];
    assert!(lagging.receive_lag_bytes.unwrap() < 200_000);
    assert!(lagging.lag_bytes.unwrap() > 1_000_000);
    assert!((40.0..50.0).contains(&lagging.lag_seconds.unwrap()));
    within(replay.one("lag_normal").0, 55.0, 65.0);
    let healthy = replay.belief_at(-1.0);
    assert!(healthy.members[1].lag_seconds.unwrap() < 2.0);
    replay.none("replica_broken");
}

#[test]
fn fault_17_a_backend_crash_keeps_the_postmaster() {
    let replay = replay("17-backend-crash");
    let (at, _) = replay.one("primary_interrupted");
    within(at, 1.0, 4.0);
    replay.none("postgres_restarted");
    replay.none("leader_changed");
}
