//! Incidents of scripted events and beliefs.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::incident::{Correlator, CorrelatorOptions, FiringAlert, IncidentChange, IncidentChangeKind};
use crate::model::cluster::{Cluster, Health, Member, Role};
use crate::model::incident::{Handling, INCIDENT_REOPENED, IncidentState, Note, PhaseName, Verdict};
use crate::model::{Event, EventSeverity, Timestamp};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn event(seconds: u64, name: &str, member: &str, fields: &[(&str, &str)]) -> Event {
    let severity = match name {
        "leader_changed" if fields.contains(&("planned", "true")) => EventSeverity::Notice,
        "leader_lost" | "leader_changed" | "split_brain_confirmed" | "dcs_quorum_lost" => EventSeverity::Critical,
        "primary_restarted_in_place" if fields.contains(&("crashed", "false")) => EventSeverity::Notice,
        "leader_returned" | "split_brain_ended" | "lease_renewed" => EventSeverity::Info,
        _ => EventSeverity::Warning,
    };
    Event {
        id: format!("demo/{name}/{member}/{seconds}"),
        time: at(seconds),
        cluster: "demo".to_owned(),
        member: (!member.is_empty()).then(|| member.to_owned()),
        event: name.to_owned(),
        severity,
        source: "judge".to_owned(),
        text: format!("{name} {member}"),
        fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

fn member(name: &str, role: Role) -> Member {
    Member {
        name: name.to_owned(),
        role,
        state: if role == Role::Replica { "streaming" } else { "running" }.to_owned(),
        writable: Some(role == Role::Primary),
        timeline: Some(1),
        port: 5432,
        present: true,
        ..Member::default()
    }
}

fn belief(health: Health, leader: Option<&str>) -> Cluster {
    let role = |name| if leader == Some(name) { Role::Primary } else { Role::Replica };
    Cluster {
        name: "demo".to_owned(),
        health,
        leader: leader.map(str::to_owned),
        writable: leader.into_iter().map(str::to_owned).collect(),
        timeline: Some(1),
        paused: Some(false),
        failsafe: Some(false),
        members: ["n1", "n2", "n3"].map(|name| member(name, role(name))).into(),
        ..Cluster::default()
    }
}

/// One critical alert.
fn firing_of(name: &str, seconds: u64, part: bool) -> BTreeSet<FiringAlert> {
    BTreeSet::from([FiringAlert {
        cluster: "demo".to_owned(),
        name: name.to_owned(),
        severity: EventSeverity::Critical,
        since: at(seconds),
        summary: String::new(),
        part,
    }])
}

struct Story {
    correlator: Correlator,
    changes: Vec<IncidentChange>,
    firing: BTreeSet<FiringAlert>,
}

impl Story {
    fn new() -> Self {
        Self { correlator: Correlator::new(CorrelatorOptions::default()), changes: Vec::new(), firing: BTreeSet::new() }
    }

    fn event(&mut self, event: Event) {
        self.changes.extend(self.correlator.events(&[event]));
    }

    fn alert(&mut self, seconds: u64, name: &str, severity: EventSeverity, firing: bool) {
        self.firing.retain(|alert| alert.name != name);
        if firing {
            let found = firing_of(name, seconds, true);
            self.firing.extend(found.into_iter().map(|alert| FiringAlert { severity, ..alert }));
        }
        self.changes.extend(self.correlator.alerts(&self.firing, at(seconds)));
    }

    fn believe(&mut self, seconds: std::ops::Range<u64>, cluster: &Cluster) {
        for second in seconds {
            self.changes.extend(self.correlator.belief(cluster, at(second)));
        }
    }

    fn kinds(&self) -> Vec<IncidentChangeKind> {
        let mut kinds: Vec<_> = self.changes.iter().map(|change| change.kind).collect();
        kinds.retain(|kind| *kind != IncidentChangeKind::Updated);
        kinds
    }
}

#[test]
fn a_failover_opens_once_and_settles_once() {
    let mut story = Story::new();
    story.believe(0..10, &belief(Health::Ok, Some("n1")));
    // A switchover before, and trouble that was over: no part of it.
    story.event(event(1, "leader_changed", "n1", &[("old_leader", "n2"), ("planned", "true")]));
    story.event(event(2, "lease_not_renewed", "n1", &[]));
    story.event(event(3, "lease_renewed", "n1", &[]));
    story.event(event(3, "primary_restarted_in_place", "n1", &[("crashed", "false")]));
    story.event(event(4, "rest_down", "n1", &[]));
    story.event(event(
        10,
        "leader_lost",
        "n1",
        &[("reason", "lease_expired"), ("old_leader", "n1"), ("planned", "false")],
    ));
    story.event(event(12, "leader_changed", "n2", &[("old_leader", "n1"), ("new_leader", "n2"), ("planned", "false")]));
    story.alert(13, "NoLeader", EventSeverity::Critical, true);
    story.believe(10..13, &belief(Health::Critical, None));
    // n1 still streams from itself, so to say: it has not seen the new timeline.
    let mut behind = belief(Health::Warning, Some("n2"));
    behind.timeline = Some(2);
    story.believe(13..20, &behind);
    story.alert(20, "NoLeader", EventSeverity::Critical, false);
    story.believe(20..60, &belief(Health::Ok, Some("n2")));
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened, IncidentChangeKind::Settled]);
    let incident = &story.changes.last().unwrap().incident;
    assert_eq!(incident.id, format!("demo-{}", at(10).millis()));
    assert_eq!(incident.title, "n1 lost the leader key (lease expired), n2 took over");
    assert_eq!(incident.subject, "n1 lost the leader key (lease expired)");
    assert_eq!((incident.state, incident.settled_at), (IncidentState::Settled, Some(at(50))));
    assert_eq!(incident.severity, EventSeverity::Critical);
    let phases: Vec<_> = incident.phases.iter().map(|phase| (phase.name, phase.at)).collect();
    assert_eq!(
        phases,
        [
            (PhaseName::Trigger, at(4)),
            (PhaseName::Detected, at(10)),
            (PhaseName::LeaseExpired, at(10)),
            (PhaseName::LockTaken, at(12)),
            (PhaseName::Promoted, at(13)),
            (PhaseName::LastReplicaStreaming, at(20)),
        ]
    );
    assert_eq!(incident.impact.write_outage_seconds, Some(4.0));
    assert_eq!(incident.events.len(), 3);
    assert_eq!(incident.alerts[0].resolved_at, Some(at(20)));
    assert!(story.correlator.open("demo").is_none());
}

#[test]
fn a_planned_switchover_opens_nothing() {
    let mut story = Story::new();
    story.believe(0..5, &belief(Health::Ok, Some("n1")));
    story.event(event(5, "switchover_requested", "", &[]));
    story.believe(5..8, &belief(Health::Warning, None));
    story.event(event(8, "leader_changed", "n2", &[("old_leader", "n1"), ("planned", "true")]));
    story.event(event(8, "switchover_completed", "n2", &[]));
    story.believe(8..200, &belief(Health::Ok, Some("n2")));
    assert_eq!(story.changes, []);
}

#[test]
fn the_trigger_is_when_the_condition_began() {
    let mut story = Story::new();
    let since = at(4).to_string();
    story.event(event(9, "dcs_quorum_lost", "", &[("since", since.as_str())]));
    assert_eq!(story.changes[0].incident.phases[0].at, at(4));
}

#[test]
fn what_opens_and_what_only_joins() {
    for (name, opens) in [
        ("leader_lost", true),
        ("leader_changed", true),
        ("split_brain_confirmed", true),
        ("dcs_quorum_lost", true),
        ("replica_broken", true),
        ("postgres_hung", false),
        ("primary_interrupted", true),
        ("primary_restarted_in_place", true),
        ("primary_promoted_again", true),
        ("split_brain_possible", false),
        ("member_lost", false),
        ("lag_high", false),
        ("dcs_member_down", false),
        ("primary_not_writable", false),
        ("leader_returned", false),
    ] {
        let mut story = Story::new();
        story.event(event(1, name, "n1", &[]));
        assert_eq!(!story.changes.is_empty(), opens, "{name}");
    }
}

#[test]
fn a_planned_change_is_no_part_of_the_title() {
    let mut story = Story::new();
    story.event(event(1, "replica_broken", "n3", &[]));
    story.event(event(2, "leader_changed", "n2", &[("old_leader", "n1"), ("planned", "true")]));
    assert_eq!(story.changes.last().unwrap().incident.title, "n3 does not replicate");
}

#[test]
fn a_critical_alert_opens_and_a_warning_does_not() {
    let mut story = Story::new();
    story.alert(1, "Lag", EventSeverity::Warning, true);
    assert_eq!(story.changes, []);
    story.alert(2, "DiskFull", EventSeverity::Critical, true);
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened]);
    assert_eq!(story.changes[0].incident.subject, "alert DiskFull fires");
    // Healthy by belief, but the alert goes on.
    story.believe(3..200, &belief(Health::Ok, Some("n1")));
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened]);
    story.alert(200, "DiskFull", EventSeverity::Critical, false);
    story.believe(200..240, &belief(Health::Ok, Some("n1")));
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened, IncidentChangeKind::Settled]);
}

#[test]
fn an_alert_that_ended_while_nobody_looked_holds_nothing_open() {
    let mut story = Story::new();
    story.alert(2, "DiskFull", EventSeverity::Critical, true);
    let memory = story.correlator.memory().clone();
    story.correlator = Correlator::restore(CorrelatorOptions::default(), memory);
    story.firing.clear();
    story.changes.extend(story.correlator.alerts(&story.firing, at(100)));
    let open = story.correlator.open("demo").unwrap();
    assert_eq!(open.alerts[0].resolved_at, Some(at(100)));
    story.believe(100..140, &belief(Health::Ok, Some("n1")));
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened, IncidentChangeKind::Settled]);
}

#[test]
fn warnings_that_began_long_before_are_no_part_of_it() {
    let mut story = Story::new();
    story.alert(1, "WalGrows", EventSeverity::Warning, true);
    story.alert(1000, "Lag", EventSeverity::Warning, true);
    story.alert(1010, "DiskFull", EventSeverity::Critical, true);
    let names: Vec<_> = story.changes[0].incident.alerts.iter().map(|alert| alert.name.as_str()).collect();
    assert_eq!(names, ["DiskFull", "Lag"]);
}

#[test]
fn a_possible_split_brain_opens_when_it_lasts() {
    let mut story = Story::new();
    story.event(event(1, "split_brain_possible", "n1", &[("members", "n1,n2")]));
    story.believe(1..8, &belief(Health::Warning, Some("n2")));
    story.event(event(8, "split_brain_ended", "", &[("confirmed", "false")]));
    story.believe(8..30, &belief(Health::Ok, Some("n2")));
    assert_eq!(story.changes, []);
    story.event(event(40, "split_brain_possible", "n1", &[("members", "n1,n2")]));
    story.believe(40..55, &belief(Health::Warning, Some("n2")));
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened]);
}

#[test]
fn a_degraded_but_stable_cluster_settles_after_ten_minutes() {
    let mut story = Story::new();
    story.event(event(1, "leader_lost", "n1", &[("reason", "lease_expired")]));
    story.event(event(3, "leader_changed", "n2", &[("old_leader", "n1"), ("planned", "false")]));
    story.believe(3..590, &belief(Health::Warning, Some("n2")));
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened]);
    story.believe(590..610, &belief(Health::Warning, Some("n2")));
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened, IncidentChangeKind::Settled]);
}

#[test]
fn a_broken_replica_keeps_its_incident_open() {
    let mut story = Story::new();
    story.event(event(1, "replica_broken", "n3", &[]));
    story.believe(1..2_000, &belief(Health::Warning, Some("n1")));
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened]);
}

#[test]
fn relapses_join_and_health_must_be_unbroken() {
    let mut story = Story::new();
    story.event(event(1, "dcs_quorum_lost", "", &[]));
    story.believe(1..20, &belief(Health::Critical, None));
    story.event(event(20, "dcs_quorum_restored", "", &[]));
    story.believe(20..45, &belief(Health::Ok, Some("n1")));
    story.event(event(45, "leader_lost", "n1", &[("reason", "released")]));
    story.believe(45..50, &belief(Health::Critical, None));
    story.event(event(50, "leader_returned", "n1", &[]));
    story.believe(50..79, &belief(Health::Ok, Some("n1")));
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened]);
    story.believe(79..85, &belief(Health::Ok, Some("n1")));
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened, IncidentChangeKind::Settled]);
}

#[test]
fn it_survives_a_restart_and_ignores_repeated_events() {
    let mut story = Story::new();
    let lost = event(1, "leader_lost", "n1", &[("reason", "lease_expired")]);
    story.event(lost.clone());
    let kept = serde_json::to_string(story.correlator.memory()).unwrap();
    story.correlator = Correlator::restore(CorrelatorOptions::default(), serde_json::from_str(&kept).unwrap());
    story.event(lost);
    let open = story.correlator.open("demo").unwrap();
    assert_eq!(open.events.len(), 1);
    let settled = story.correlator.forget("demo", at(9)).unwrap();
    assert_eq!((settled.kind, settled.incident.settled_at), (IncidentChangeKind::Settled, Some(at(9))));
}

fn taken(seconds: u64) -> Handling {
    let note = Note { at: at(seconds), by: "anna".to_owned(), text: "mine".to_owned() };
    Handling { acknowledged_at: Some(at(seconds)), acknowledged_by: Some("anna".to_owned()), notes: vec![note] }
}

fn concluded(reopens: bool) -> Verdict {
    let cause = serde_json::json!({
        "name": "host_lost", "title": "The host of n1 was lost", "confidence": "high", "score": 0.9, "reopens": reopens,
    });
    Verdict {
        text: "The host of n1 was lost (high)".to_owned(),
        causes: vec![serde_json::from_value(cause).unwrap()],
        missing: vec![],
    }
}

/// A loss of the leader at second 1 that settles at second 40.
fn settled_failover() -> Story {
    let mut story = Story::new();
    story.event(event(1, "leader_lost", "n1", &[("reason", "lease_expired")]));
    story.event(event(3, "leader_changed", "n2", &[("old_leader", "n1"), ("planned", "false")]));
    story.believe(3..60, &belief(Health::Ok, Some("n2")));
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened, IncidentChangeKind::Settled]);
    story
}

#[test]
fn who_has_taken_it_is_carried_along_until_it_settles_and_beyond() {
    let mut story = Story::new();
    story.event(event(1, "leader_lost", "n1", &[]));
    let id = story.correlator.open("demo").unwrap().id.clone();
    assert!(story.correlator.handled("another", &taken(2)).is_none());
    let change = story.correlator.handled(&id, &taken(2)).unwrap();
    assert_eq!((change.kind, change.incident.state), (IncidentChangeKind::Updated, IncidentState::Acknowledged));
    story.event(event(3, "leader_changed", "n2", &[("old_leader", "n1"), ("planned", "false")]));
    assert_eq!(story.correlator.open("demo").unwrap().state, IncidentState::Acknowledged);
    let given_back = story.correlator.handled(&id, &Handling::default()).unwrap().incident;
    assert_eq!((given_back.state, given_back.handling), (IncidentState::Open, Handling::default()));
    story.correlator.handled(&id, &taken(4)).unwrap();
    story.believe(4..60, &belief(Health::Ok, Some("n2")));
    let settled = &story.changes.last().unwrap().incident;
    assert_eq!((settled.state, &settled.handling), (IncidentState::Settled, &taken(4)));
    let mut more = taken(4);
    more.notes.push(Note { at: at(70), by: "ben".to_owned(), text: "power supply".to_owned() });
    let noted = story.correlator.handled(&id, &more).unwrap().incident;
    assert_eq!((noted.state, noted.handling), (IncidentState::Settled, more));
}

#[test]
fn what_follows_soon_opens_the_old_incident_again() {
    let mut story = settled_failover();
    let first = story.changes.last().unwrap().incident.clone();
    story.correlator.handled(&first.id, &taken(50)).unwrap();
    story.correlator.explained(&first.id, &concluded(true)).unwrap();
    let kept = serde_json::to_string(story.correlator.memory()).unwrap();
    story.correlator = Correlator::restore(CorrelatorOptions::default(), serde_json::from_str(&kept).unwrap());
    story.believe(60..100, &belief(Health::Ok, Some("n2")));
    story.event(event(100, "leader_lost", "n2", &[("reason", "released")]));
    let again = story.correlator.open("demo").unwrap().clone();
    assert_eq!((&again.id, &again.subject, again.opened_at), (&first.id, &first.subject, first.opened_at));
    assert_eq!((again.state, again.settled_at), (IncidentState::Open, None));
    assert_eq!((again.reopened, &again.reopened_at[..]), (1, &[at(100)][..]));
    assert_eq!((again.causes.len(), &again.verdict), (0, &None), "what was concluded is about the first trouble");
    assert_eq!((again.handling.acknowledged_at, again.handling.notes.len()), (None, 1), "nobody has taken this");
    let said = again.events.iter().find(|event| event.event == INCIDENT_REOPENED).unwrap();
    assert_eq!(
        said.text,
        "the incident is open again, 67 s after it settled: n2 lost the leader key (released); \
         it was concluded: The host of n1 was lost (high)"
    );
    assert_eq!((said.severity, said.fields["because"].as_str()), (EventSeverity::Notice, "leader_lost"));
    story.event(event(102, "leader_changed", "n3", &[("old_leader", "n2"), ("planned", "false")]));
    story.believe(102..150, &belief(Health::Ok, Some("n3")));
    assert_eq!(story.kinds(), {
        use IncidentChangeKind::{Opened, Reopened, Settled};
        [Opened, Settled, Reopened, Settled]
    });
    let last = &story.changes.last().unwrap().incident;
    let rounds: Vec<_> = last.phases.iter().filter(|phase| phase.at >= at(100)).map(|phase| phase.name).collect();
    assert_eq!(
        rounds,
        [
            PhaseName::Trigger,
            PhaseName::Detected,
            PhaseName::Released,
            PhaseName::LockTaken,
            PhaseName::Promoted,
            PhaseName::LastReplicaStreaming
        ]
    );
    assert_eq!(last.phases.iter().filter(|phase| phase.name == PhaseName::LockTaken).count(), 2);
}

#[test]
fn what_is_another_trouble_opens_another_incident() {
    for (what, seconds, cause_reopens, alert, reopened) in [
        ("soon", 600, true, None, true),
        ("too late", 660, true, None, false),
        ("over when it was done", 100, false, None, false),
        ("an alert that is part of such trouble", 100, true, Some(true), true),
        ("an alert about something else", 100, true, Some(false), false),
    ] {
        let mut story = settled_failover();
        let id = story.changes.last().unwrap().incident.id.clone();
        story.correlator.explained(&id, &concluded(cause_reopens)).unwrap();
        story.believe(60..seconds, &belief(Health::Ok, Some("n2")));
        match alert {
            None => story.event(event(seconds, "leader_lost", "n2", &[])),
            Some(part) => {
                story.alert(seconds, "Wrong", EventSeverity::Critical, true);
                if !part {
                    story = settled_failover();
                    let firing = firing_of("Wrong", seconds, false);
                    story.changes.extend(story.correlator.alerts(&firing, at(seconds)));
                }
            }
        }
        let open = story.correlator.open("demo").unwrap();
        assert_eq!((open.id == id, open.reopened == 1), (reopened, reopened), "{what}");
        assert_eq!(story.kinds().contains(&IncidentChangeKind::Reopened), reopened, "{what}");
    }
}

#[test]
fn an_incident_that_rests_on_an_alert_alone_comes_back_with_that_alert_only() {
    for (name, reopened) in [("DiskFull", true), ("Lag", false)] {
        let mut story = Story::new();
        for (seconds, name) in [(1, "DiskFull"), (100, name)] {
            let firing = firing_of(name, seconds, false);
            story.changes.extend(story.correlator.alerts(&firing, at(seconds)));
            story.changes.extend(story.correlator.alerts(&BTreeSet::new(), at(seconds + 1)));
            story.believe(seconds + 1..seconds + 40, &belief(Health::Ok, Some("n1")));
        }
        assert_eq!(story.kinds().contains(&IncidentChangeKind::Reopened), reopened, "{name}");
    }
    let mut story = Story::new();
    let firing = firing_of("DiskFull", 1, false);
    story.changes.extend(story.correlator.alerts(&firing, at(1)));
    story.changes.extend(story.correlator.alerts(&BTreeSet::new(), at(2)));
    story.believe(2..40, &belief(Health::Ok, Some("n1")));
    story.event(event(50, "leader_lost", "n1", &[]));
    assert!(!story.kinds().contains(&IncidentChangeKind::Reopened), "the HA cluster's trouble is another");
}

#[test]
fn a_cluster_that_nobody_judges_settles_with_its_alerts() {
    let mut story = Story::new();
    story.alert(1, "NoLeader", EventSeverity::Critical, true);
    let tick = |story: &mut Story, seconds: std::ops::Range<u64>| {
        for second in seconds {
            story.changes.extend(story.correlator.judged(&BTreeSet::from(["another"]), at(second)));
        }
    };
    tick(&mut story, 1..100);
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened]);
    story.alert(100, "NoLeader", EventSeverity::Critical, false);
    tick(&mut story, 100..120);
    story.alert(120, "NoLeader", EventSeverity::Critical, true);
    tick(&mut story, 120..121);
    story.alert(121, "NoLeader", EventSeverity::Critical, false);
    tick(&mut story, 121..151);
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened], "quiet for less than the settling time");
    tick(&mut story, 151..160);
    assert_eq!(story.kinds(), [IncidentChangeKind::Opened, IncidentChangeKind::Settled]);
    story.changes.extend(story.correlator.judged(&BTreeSet::from(["demo"]), at(500)));
    assert_eq!(story.changes.last().unwrap().incident.settled_at, Some(at(151)));
}

#[test]
fn an_outage_is_only_what_was_seen() {
    let blind = || {
        let mut cluster = belief(Health::Unknown, None);
        cluster.members.iter_mut().for_each(|member| member.writable = None);
        cluster
    };
    for (dark, outage) in [(belief(Health::Critical, None), Some(7.0)), (blind(), None)] {
        let mut story = Story::new();
        story.event(event(1, "leader_lost", "n1", &[]));
        story.believe(1..4, &belief(Health::Ok, Some("n1")));
        story.believe(4..10, &dark);
        story.believe(10..12, &belief(Health::Ok, Some("n1")));
        assert_eq!(story.correlator.open("demo").unwrap().impact.write_outage_seconds, outage);
        // Away for an hour.
        let kept = serde_json::to_string(story.correlator.memory()).unwrap();
        story.correlator = Correlator::restore(CorrelatorOptions::default(), serde_json::from_str(&kept).unwrap());
        story.believe(3_600..3_602, &belief(Health::Warning, Some("n1")));
        assert_eq!(story.correlator.open("demo").unwrap().impact.write_outage_seconds, outage);
    }
}

#[test]
fn it_is_bounded() {
    let mut story = Story::new();
    story.event(event(0, "leader_lost", "n1", &[]));
    for second in 1..1_000 {
        story.event(event(second, "rest_down", "n1", &[]));
    }
    let open = story.correlator.open("demo").unwrap();
    assert_eq!((open.events.len(), open.events_left_out), (500, 500));
}

#[test]
fn its_json_has_the_names_of_the_contract() {
    let mut story = Story::new();
    story.event(event(1, "leader_lost", "n1", &[("reason", "lease_expired")]));
    let json = serde_json::to_value(&story.changes[0].incident).unwrap();
    for name in ["id", "cluster", "title", "severity", "state", "opened_at", "settled_at", "causes", "phases", "impact"]
    {
        assert!(json.get(name).is_some(), "{name}");
    }
    assert_eq!(json["state"], "open");
    assert_eq!(json["severity"], "critical");
    assert_eq!(json["phases"][0]["name"], "trigger");
    assert!(json["impact"]["write_outage_seconds"].is_null());
}
