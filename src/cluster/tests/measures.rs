//! What a change cost, and who could take over.

use crate::cluster::tests::script::{Fails, Script, primary, replica};
use crate::model::cluster::{Candidate, Health, Readiness};
use crate::model::observation::{Claim, DcsHealth, Failure, FailureKind, Source};
use crate::model::{Event, EventSeverity, Lsn};

fn number(event: &Event, name: &str) -> f64 {
    event.fields[name].parse().unwrap()
}

fn lsn(script: &Script, name: &str) -> Lsn {
    script.postgres(name).current_lsn.unwrap()
}

/// n2 leads on the next timeline, which began at `switch`.
fn take_over(script: &mut Script, switch: Lsn) {
    script.acquire("n2");
    script.run(1.0);
    script.set("n2", primary(2));
    script.set("n3", replica("n2", 2));
    script.run(2.0);
    script.put(
        "history",
        &format!(r#"[[1,{},"no recovery target specified","2026-01-01T00:00:00+00:00","n2"]]"#, switch.0),
    );
    script.run(2.0);
}

#[test]
fn the_outage_of_clients_is_measured_from_commit_to_commit() {
    let proxy = || Source::Proxy { address: "10.0.0.31:5000".to_owned() };
    let failed = || Claim::Failed(Failure { kind: FailureKind::Refused, error: "refused".to_owned() });
    for (failures, expected) in [(0, None), (1, None), (2, Some(3.0)), (30, Some(31.0))] {
        let mut script = Script::settled();
        script.observe(proxy(), Claim::Written);
        for _ in 0..failures {
            script.run(1.0);
            script.observe(proxy(), failed());
        }
        let warns = script.cluster().reasons.iter().any(|reason| reason.text.contains("10.0.0.31:5000: refused"));
        assert_eq!(warns, expected.is_some(), "{failures}");
        script.run(1.0);
        script.observe(proxy(), Claim::Written);
        let told = script.events.iter().find(|event| event.event == "client_writes_resumed");
        assert_eq!(told.map(|event| number(event, "client_outage_seconds")), expected, "{failures}");
        assert_eq!(script.cluster().health, Health::Ok, "{failures}");
    }
}

#[test]
fn without_a_commit_before_it_an_outage_of_clients_is_not_measured() {
    let mut script = Script::settled();
    let proxy = || Source::Proxy { address: "10.0.0.31:5000".to_owned() };
    for _ in 0..3 {
        let failure = Failure { kind: FailureKind::Timeout, error: "no answer".to_owned() };
        script.observe(proxy(), Claim::Failed(failure));
        script.run(1.0);
    }
    script.observe(proxy(), Claim::Written);
    assert!(script.take().is_empty());
}

#[test]
fn lost_wal_is_what_was_seen_beyond_the_end_of_the_timeline() {
    for (beyond, planned, expected) in
        [(5_000_i64, false, "5000"), (0, false, "unknown"), (-3_000, false, "unknown"), (0, true, "0")]
    {
        let mut script = Script::settled();
        if planned {
            script.put("failover", r#"{"leader":"n1","member":"n2"}"#);
        }
        // Every position of n1 is seen: nothing is written any more.
        script.wal_step = 0;
        script.run(3.0);
        let last = lsn(&script, "n1");
        script.refuse_sql("n1");
        script.refuse_rest("n1");
        script.run(1.0);
        if planned {
            script.release();
        } else {
            script.expire("n1");
        }
        let switch = Lsn(last.0.checked_add_signed(-beyond).unwrap());
        take_over(&mut script, switch);
        let event = script.event("leader_change_measured");
        assert_eq!(event.fields["lost_wal_bytes"], expected, "{beyond} {planned}: {}", event.text);
        assert_eq!(event.fields["switch_lsn"], switch.to_string());
        assert_eq!(event.fields["cause_class"], if planned { "switchover" } else { "failover" });
        assert_eq!(event.severity, if planned { EventSeverity::Info } else { EventSeverity::Notice });
        if beyond > 0 {
            assert_eq!(event.fields["old_leader_last_lsn"], last.to_string());
        }
    }
}

#[test]
fn without_the_end_of_the_timeline_lost_wal_is_unknown() {
    let mut script = Script::settled();
    script.lose_host("n1");
    script.expire("n1");
    script.acquire("n2");
    script.set("n2", primary(2));
    script.run(30.0);
    assert!(!script.told().contains(&"leader_change_measured n2".to_owned()));
    script.run(40.0);
    let event = script.event("leader_change_measured");
    assert_eq!(event.fields["lost_wal_bytes"], "unknown");
    assert!(!event.fields.contains_key("switch_lsn") && !event.fields.contains_key("old_leader_last_lsn"));
}

#[test]
fn a_split_brain_loses_what_the_old_leader_wrote_to_its_end() {
    let mut script = Script::settled();
    script.refuse_rest("n1");
    script.expire("n1");
    let switch = lsn(&script, "n1");
    take_over(&mut script, switch);
    script.run(80.0);
    assert!(!script.told().contains(&"leader_change_measured n2".to_owned()), "it goes on to lose");
    let written = lsn(&script, "n1").bytes_since(switch);
    script.set("n1", replica("n2", 2));
    script.run(5.0);
    let lost = number(script.event("leader_change_measured"), "lost_wal_bytes");
    // What came between its last answer and its end was not seen.
    assert!(lost <= written as f64 && lost > written as f64 - 10_000.0, "{lost} of {written}");
    // Somebody took writes all the time.
    assert!(!script.told().iter().any(|event| event.starts_with("writes_resumed")));
}

#[test]
fn the_outage_lies_within_its_error() {
    for pause in [3.0, 7.0, 20.0] {
        // Restarted in place.
        let mut script = Script::settled();
        script.refuse_sql("n1");
        script.wal_step = 0;
        script.run(pause);
        script.wal_step = 1_000;
        script.set("n1", primary(1));
        script.run(5.0);
        let event = script.event("writes_resumed");
        let (seconds, error) = (number(event, "write_outage_seconds"), number(event, "write_outage_error_seconds"));
        assert!((seconds - pause).abs() <= error && error < 4.5, "{pause}: {seconds} ± {error}");
    }
    // A failover after the host was lost: the old leader may have written unseen until it lost the key.
    let mut script = Script::settled();
    script.lose_host("n1");
    script.node("n1").primary = false;
    script.run(25.0);
    script.expire("n1");
    script.acquire("n2");
    script.run(1.0);
    script.set("n2", primary(2));
    script.run(5.0);
    let event = script.event("writes_resumed");
    let (seconds, error) = (number(event, "write_outage_seconds"), number(event, "write_outage_error_seconds"));
    assert!((seconds - 26.0).abs() < 4.0 && error > 20.0, "{seconds} ± {error}");
}

#[test]
fn an_idle_cluster_has_no_outage_to_measure() {
    let mut script = Script::healthy();
    script.wal_step = 0;
    script.run(30.0);
    script.refuse_sql("n1");
    script.run(5.0);
    script.wal_step = 1_000;
    script.set("n1", primary(1));
    script.run(5.0);
    assert!(!script.told().iter().any(|event| event.starts_with("writes_resumed")), "{:?}", script.told());
}

fn ready(script: &Script) -> Readiness {
    script.cluster().readiness.unwrap()
}

fn of<'a>(readiness: &'a Readiness, name: &str) -> &'a Candidate {
    readiness.candidates.iter().find(|candidate| candidate.member == name).unwrap()
}

#[test]
fn the_furthest_member_would_take_over() {
    let mut script = Script::settled();
    script.node("n2").broken = true;
    script.run(3.0);
    let readiness = ready(&script);
    assert_eq!(readiness.candidate.as_deref(), Some("n3"));
    assert_eq!((readiness.lag_bytes, readiness.blockers.len()), (Some(0), 0));
    assert!(of(&readiness, "n2").risks[0].contains("does not stream"), "{readiness:?}");
    let samples = script.judge.samples(script.now);
    let value =
        |name: &str| samples.iter().find(|sample| sample.labels.metric_name() == name).map(|sample| sample.value);
    assert_eq!((value("daraji_failover_ready"), value("daraji_failover_lag_bytes")), (Some(1.0), Some(0.0)));
}

#[test]
fn everything_that_stands_in_the_way_is_named() {
    type Break = fn(&mut Script);
    let cases: [(&str, Break); 8] = [
        ("Patroni is paused", |script| script.put("config", r#"{"ttl":30,"pause":true}"#)),
        ("the DCS has no quorum", |script| {
            script.fail_etcd(0, FailureKind::Refused);
            script.fail_etcd(2, FailureKind::Refused);
            script.etcd_says_no_leader(1);
            script.dcs_fails = Some(Fails(FailureKind::Timeout, "timed out"));
        }),
        ("the DCS cannot be read", |script| script.dcs_fails = Some(Fails(FailureKind::Timeout, "timed out"))),
        ("tag nofailover", |script| {
            for name in ["n2", "n3"] {
                let mut status = script.patroni_status(name);
                status.tags.insert("nofailover".to_owned(), "true".to_owned());
                script.patroni.insert(name.to_owned(), status);
            }
        }),
        ("its watchdog is required", |script| {
            for name in ["n2", "n3"] {
                let mut status = script.patroni_status(name);
                status.watchdog_failed = true;
                script.patroni.insert(name.to_owned(), status);
            }
        }),
        ("its Patroni does not answer", |script| {
            script.refuse_rest("n2");
            script.refuse_rest("n3");
        }),
        ("is no synchronous standby", |script| {
            script.put("config", r#"{"ttl":30,"synchronous_mode":true}"#);
            script.put("sync", r#"{"leader":"n1","sync_standby":null}"#);
        }),
        ("maximum_lag_on_failover is 1000", |script| {
            script.put("config", r#"{"ttl":30,"maximum_lag_on_failover":1000}"#);
            script.put("status", r#"{"optime":900000000}"#);
            script.node("n2").broken = true;
            script.node("n3").broken = true;
        }),
    ];
    for (expected, break_it) in cases {
        let mut script = Script::settled();
        assert!(ready(&script).candidate.is_some());
        break_it(&mut script);
        script.run(12.0);
        let readiness = ready(&script);
        assert_eq!((readiness.candidate.as_ref(), readiness.lag_bytes), (None, None), "{expected}: {readiness:?}");
        let said: Vec<_> =
            readiness.candidates.iter().flat_map(|one| &one.blockers).chain(&readiness.blockers).collect();
        assert!(said.iter().any(|text| text.contains(expected)), "{expected}: {said:?}");
    }
}

#[test]
fn rules_that_keep_one_member_out() {
    let mut script = Script::settled();
    script.put("config", r#"{"ttl":30,"failsafe_mode":true,"synchronous_mode":"quorum","check_timeline":true}"#);
    script.put("failsafe", r#"{"n1":"http://n1","n2":"http://n2"}"#);
    script.put("sync", r#"{"leader":"n1","sync_standby":"n2,n3","quorum":1}"#);
    script.run(3.0);
    let readiness = ready(&script);
    assert_eq!(readiness.candidate.as_deref(), Some("n2"));
    assert_eq!(of(&readiness, "n3").blockers, ["is not in the failsafe key"]);
    // Equal positions: the higher priority wins.
    script.put("failsafe", r#"{"n1":"","n2":"","n3":""}"#);
    let mut status = script.patroni_status("n3");
    status.tags.insert("failover_priority".to_owned(), "5".to_owned());
    status.received_location = None;
    script.patroni.insert("n3".to_owned(), status);
    script.wal_step = 0;
    script.run(4.0);
    assert_eq!(ready(&script).candidate.as_deref(), Some("n3"));
    let alarm = DcsHealth { healthy: true, alarms: vec!["NOSPACE".to_owned()], ..DcsHealth::default() };
    script.observe(Source::DcsMember { url: "http://e1:2379".to_owned() }, Claim::DcsHealth(alarm));
    assert!(ready(&script).blockers[0].contains("NOSPACE"));
}
