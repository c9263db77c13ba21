//! What is believed of special clusters and members: clocks, standby clusters, cascades, delays, a DCS out of sight.

use std::time::Duration;

use crate::cluster::tests::script::{Fails, Script, primary, replica};
use crate::model::Timestamp;
use crate::model::cluster::{Cluster, DemotionBasis, Member};
use crate::model::observation::{Claim, ClockOffset, DcsHealth, FailureKind, Source};

fn member<'a>(cluster: &'a Cluster, name: &str) -> &'a Member {
    cluster.members.iter().find(|member| member.name == name).unwrap()
}

fn value(script: &Script, name: &str, member: &str) -> Option<f64> {
    let samples = script.judge.samples(script.now);
    let fits = |sample: &&crate::model::Sample| {
        sample.labels.metric_name() == name && sample.labels.get("member").is_none_or(|of| of == member)
    };
    samples.iter().find(fits).map(|sample| sample.value)
}

#[test]
fn clocks_of_hosts_are_known_with_their_error() {
    let mut script = Script::healthy();
    for (name, ahead) in [("n1", 3.5), ("n2", -120.0)] {
        script.clock_ahead.insert(name.to_owned(), ahead);
    }
    script.run(5.0);
    let cluster = script.cluster();
    for (name, ahead) in [("n1", 3.5), ("n2", -120.0), ("n3", 0.0)] {
        let member = member(&cluster, name);
        let (skew, error) = (member.clock_skew_seconds.unwrap(), member.clock_skew_error_seconds.unwrap());
        assert!((skew - ahead).abs() <= error && error < 0.01, "{name}: {skew} ± {error}");
        assert_eq!(value(&script, "daraji_clock_skew_seconds", name), Some(skew));
        assert_eq!(value(&script, "daraji_clock_skew_error_seconds", name), Some(error));
        // A log line of that host, on our clock.
        let (at, _) = member.on_our_clock(script.now.shifted(ahead)).unwrap();
        assert!((at.secs_f64() - script.now.secs_f64()).abs() < 0.01, "{name}");
    }
    script.clock_ahead.clear();
    script.run(3.0);
    assert!(member(&script.cluster(), "n2").clock_skew_seconds.unwrap().abs() < 0.01);
    // The start of a postmaster is told on our clock.
    script.clock_ahead.insert("n3".to_owned(), 50.0);
    script.run(3.0);
    script.node("n3").started += 100;
    script.run(3.0);
    let event = script.event("postgres_restarted");
    let started = |name: &str| Timestamp::parse_rfc3339(&event.fields[name]).unwrap().secs_f64();
    assert!((started("postmaster_start_time") - started("started_at") - 50.0).abs() < 0.01, "{:?}", event.fields);
    // Not asked for long: unknown.
    script.lose_host("n2");
    script.run(130.0);
    assert_eq!(member(&script.cluster(), "n2").clock_skew_seconds, None);
    assert_eq!(value(&script, "daraji_clock_skew_seconds", "n2"), None);
    let offset = ClockOffset { seconds: 2.0, error_seconds: 0.02 };
    script.observe(Source::Agent { member: "n2".to_owned() }, Claim::Clock(offset));
    assert_eq!(member(&script.cluster(), "n2").clock_skew_seconds, Some(2.0));
}

#[test]
fn a_standby_cluster_writes_nothing_and_shares_its_identity_with_the_remote_primary() {
    let mut script = Script::healthy();
    script.set("n1", replica("remote", 1));
    script.put(
        "config",
        r#"{"ttl":30,"loop_wait":10,"retry_timeout":10,"standby_cluster":{"host":"10.9.0.1","port":5433}}"#,
    );
    script.run(40.0);
    let cluster = script.cluster();
    assert_eq!(cluster.standby_of.as_deref(), Some("10.9.0.1:5433"));
    assert_eq!((cluster.leader.as_deref(), cluster.health.as_str()), (Some("n1"), "ok"), "{:?}", cluster.reasons);
    let leader = member(&cluster, "n1");
    assert_eq!((leader.role.as_str(), leader.writable), ("standby_leader", Some(false)));
    assert_eq!(value(&script, "daraji_cluster_writable_members", ""), Some(0.0));
    assert!(!script.told().iter().any(|event| event.starts_with("split_brain") || event == "lock_role_mismatch"));
    // Somebody promotes it by hand: no split brain among the members, yet not what was meant.
    script.set("n1", primary(2));
    script.run(25.0);
    assert!(script.event("lock_role_mismatch").text.contains("follows 10.9.0.1:5433"));
    assert!(script.cluster().split_brain.is_none());
}

#[test]
fn a_cascade_has_its_lag_by_hop_and_in_all() {
    let mut script = Script::healthy();
    script.set("n3", replica("n2", 1));
    script.run(10.0);
    script.node("n3").replay_blocked = true;
    script.run(10.0);
    let cluster = script.cluster();
    let third = member(&cluster, "n3");
    assert_eq!(third.upstream.as_deref(), Some("n2"));
    assert!(third.lag_bytes.unwrap() > 50_000 && third.upstream_lag_bytes.unwrap() > 50_000, "{third:?}");
    assert_eq!(member(&cluster, "n2").upstream_lag_bytes, Some(0));
    script.node("n3").replay_blocked = false;
    // The upstream stands still: no lag to it, all the more to the leader.
    script.node("n2").replay_blocked = true;
    script.node("n2").broken = true;
    script.run(10.0);
    let cluster = script.cluster();
    let third = member(&cluster, "n3");
    assert_eq!(third.upstream_lag_bytes, Some(0));
    assert!(third.lag_bytes.unwrap() > 50_000, "{third:?}");
}

#[test]
fn a_delayed_replica_is_judged_without_its_delay() {
    let mut script = Script::settled();
    script.apply_delay.insert("n3".to_owned(), 3_600.0);
    script.node("n3").replay_blocked = true;
    script.run(60.0);
    let cluster = script.cluster();
    let delayed = member(&cluster, "n3");
    assert_eq!(delayed.apply_delay_seconds, Some(3_600.0));
    assert!(delayed.lag_seconds.unwrap() > 50.0 && delayed.lag_bytes.unwrap() > 500_000, "{delayed:?}");
    assert_eq!(script.take(), Vec::<String>::new());
    assert_eq!(cluster.health.as_str(), "ok", "{:?}", cluster.reasons);
    script.apply_delay.insert("n3".to_owned(), 5.0);
    script.run(6.0);
    assert_eq!(script.take(), ["lag_high n3"]);
}

fn blind(script: &mut Script) {
    script.dcs_fails = Some(Fails(FailureKind::Timeout, "timed out"));
    for member in 0..3 {
        script.fail_etcd(member, FailureKind::Timeout);
    }
}

#[test]
fn without_a_dcs_the_last_members_are_asked_and_the_leader_has_a_deadline() {
    let mut script = Script::settled();
    assert_eq!(script.cluster().demotion, None);
    let last_seen = script.cluster().dcs.unwrap().seen_at.unwrap();
    blind(&mut script);
    script.run(12.0);
    let event = script.event("dcs_blind");
    assert_eq!((event.fields["leader"].as_str(), event.fields["demotion_certain"].as_str()), ("n1", "false"));
    let cluster = script.cluster();
    let demotion = cluster.demotion.unwrap();
    assert_eq!((demotion.member.as_str(), demotion.basis), ("n1", DemotionBasis::DcsBlind));
    // loop_wait + retry_timeout after the last word of the DCS.
    assert_eq!(demotion.due_at, last_seen + Duration::from_secs(20));
    assert!(demotion.lease_ends_at.is_some_and(|ends| ends > demotion.due_at));
    assert!(value(&script, "daraji_leader_demotion_due_seconds", "n1").unwrap() < 10.0);
    assert_eq!((cluster.leader, cluster.writable), (None, vec!["n1".to_owned()]));
    script.heal_etcd();
    script.run(3.0);
    assert_eq!(script.cluster().demotion, None);
}

#[test]
fn a_leader_that_writes_on_without_a_quorum_is_late() {
    for (failsafe, late) in [(false, true), (true, false)] {
        let mut script = Script::settled();
        script.put("config", &format!(r#"{{"ttl":30,"loop_wait":10,"retry_timeout":10,"failsafe_mode":{failsafe}}}"#));
        script.fail_etcd(0, FailureKind::Refused);
        script.fail_etcd(2, FailureKind::Refused);
        script.etcd_says_no_leader(1);
        script.dcs_fails = Some(Fails(FailureKind::Timeout, "timed out"));
        script.run(15.0);
        let says =
            |script: &Script| script.cluster().reasons.iter().any(|reason| reason.text.contains("had to demote"));
        assert!(!says(&script));
        assert_eq!(script.event("dcs_quorum_lost").fields["demotion_certain"], (!failsafe).to_string());
        script.run(15.0);
        assert_eq!(says(&script), late, "failsafe {failsafe}: {:?}", script.cluster().reasons);
        let demotion = script.cluster().demotion.unwrap();
        assert_eq!((demotion.basis, demotion.certain), (DemotionBasis::QuorumLost, !failsafe));
    }
}

#[test]
fn a_lease_that_nobody_renews_counts_down_too() {
    let mut script = Script::settled();
    script.refuse_rest("n1");
    script.lease_ttl = 12;
    script.run(3.0);
    let demotion = script.cluster().demotion.unwrap();
    assert_eq!((demotion.basis, demotion.certain), (DemotionBasis::LeaseNotRenewed, false));
    assert!(demotion.due_at < demotion.lease_ends_at.unwrap());
}

#[test]
fn an_election_and_an_alarm_of_the_dcs_are_told_once() {
    let mut script = Script::settled();
    let says = |script: &mut Script, url: &str, term, alarms: &[&str]| {
        let health = DcsHealth {
            healthy: alarms.is_empty(),
            is_leader: Some(true),
            raft_term: Some(term),
            alarms: alarms.iter().map(|alarm| (*alarm).to_owned()).collect(),
            ..DcsHealth::default()
        };
        script.observe(Source::DcsMember { url: url.to_owned() }, Claim::DcsHealth(health));
        script.take()
    };
    let quiet: [&str; 0] = [];
    assert_eq!(says(&mut script, "http://e1:2379", 4, &[]), quiet, "the first word is no news");
    assert_eq!(says(&mut script, "http://e2:2379", 5, &[]), ["dcs_leader_changed"]);
    assert_eq!(says(&mut script, "http://e1:2379", 4, &[]), quiet, "it has not heard of its successor yet");
    assert_eq!(says(&mut script, "http://e2:2379", 6, &[]), quiet, "elected again");
    let raised = ["memberID:8086 alarm:NOSPACE "];
    assert_eq!(says(&mut script, "http://e2:2379", 6, &raised), ["dcs_alarm"]);
    assert_eq!(script.event("dcs_alarm").fields["alarm"], "NOSPACE");
    assert!(script.cluster().reasons.iter().any(|reason| reason.text.contains("NOSPACE")));
    assert_eq!(says(&mut script, "http://e2:2379", 6, &raised), quiet);
    assert_eq!(says(&mut script, "http://e2:2379", 6, &[]), ["dcs_alarm_ended"]);
}
