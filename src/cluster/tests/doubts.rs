//! What was wrong before the watch began, what ends with a new role, and times and positions that start over.

use std::time::Duration;

use crate::cluster::tests::script::{Fails, Script, primary, replica};
use crate::model::EventSeverity;
use crate::model::cluster::Health;
use crate::model::observation::{Claim, Failure, FailureKind, PatroniStatus, Source};

fn reasons(script: &Script) -> Vec<String> {
    script.cluster().reasons.into_iter().map(|reason| reason.text).collect()
}

fn series(script: &Script, name: &str) -> Option<f64> {
    let samples = script.judge.samples(script.now);
    samples.iter().find(|sample| sample.labels.metric_name() == name).map(|sample| sample.value)
}

#[test]
fn who_leads_has_nothing_to_catch_up_with() {
    let mut script = Script::healthy();
    script.wal_step = 20 << 20;
    script.node("n2").replay_blocked = true;
    script.run(40.0);
    assert!(script.take().contains(&"lag_high n2".to_owned()));
    script.wal_step = 1_000;
    script.lose_host("n1");
    script.expire("n1");
    script.acquire("n2");
    script.set("n2", primary(2));
    script.set("n3", replica("n2", 2));
    script.run(10.0);
    assert!(script.take().contains(&"lag_normal n2".to_owned()));
    assert!(!reasons(&script).contains(&"n2 lags".to_owned()), "{:?}", reasons(&script));
}

#[test]
fn a_broken_replica_that_is_promoted_is_no_replica() {
    let mut script = Script::healthy();
    script.node("n2").broken = true;
    script.run(80.0);
    assert!(script.take().contains(&"replica_broken n2".to_owned()));
    script.lose_host("n1");
    script.expire("n1");
    script.acquire("n2");
    script.set("n2", primary(2));
    script.run(10.0);
    assert!(script.take().contains(&"replica_recovered n2".to_owned()));
    assert_eq!(script.judge.memory().clusters["demo"].member_facts["n2"].broken, None);
}

#[test]
fn a_cluster_made_anew_under_old_names_does_not_lag_behind_the_old_one() {
    let mut script = Script::healthy();
    script.wal_step = 1 << 30;
    script.run(5.0);
    script.wal_step = 1_000;
    script.start_over();
    script.run(12.0);
    let cluster = script.cluster();
    assert_eq!((cluster.members[1].lag_bytes, cluster.members[1].lag_seconds), (Some(0), Some(0.0)));
}

#[test]
fn with_nobody_heard_there_is_no_count_of_writers() {
    for without_dcs in [false, true] {
        let mut script = if without_dcs { Script::healthy_without_dcs() } else { Script::healthy() };
        script.run(10.0);
        for name in ["n1", "n2", "n3"] {
            script.lose_host(name);
        }
        script.dcs_fails = Some(Fails(FailureKind::Timeout, "timed out"));
        script.run(12.0);
        assert_eq!(series(&script, "daraji_cluster_writable_members"), None);
        assert_eq!(series(&script, "daraji_cluster_has_leader"), None);
        assert_eq!(series(&script, "daraji_replica_broken"), None);
        assert_eq!(series(&script, "daraji_cluster_members_up"), Some(0.0));
    }
}

#[test]
fn one_silent_primary_among_heard_replicas_counts_as_no_writer() {
    let mut script = Script::healthy();
    script.run(10.0);
    script.lose_host("n1");
    script.run(12.0);
    assert_eq!(series(&script, "daraji_cluster_writable_members"), Some(0.0));
}

#[test]
fn what_was_broken_before_the_watch_began_is_not_ok() {
    let mut script = Script::healthy();
    script.refuse_sql("n3");
    let status = PatroniStatus { state: "start failed".into(), role: "replica".into(), ..PatroniStatus::default() };
    script.patroni.insert("n3".into(), status);
    script.run(12.0);
    assert_eq!(script.cluster().health, Health::Warning);
    let found = reasons(&script);
    assert!(found.contains(&"PostgreSQL of n3 does not answer".to_owned()), "{found:?}");
    assert!(found.contains(&"Patroni of n3 says that its PostgreSQL is start failed".to_owned()), "{found:?}");
}

#[test]
fn a_patroni_that_was_dead_before_the_watch_began_is_told() {
    let mut script = Script::healthy();
    script.refuse_rest("n3");
    script.run(12.0);
    assert!(script.take().contains(&"rest_down n3".to_owned()));
    assert_eq!(script.cluster().health, Health::Warning);
}

#[test]
fn without_access_to_postgresql_patronis_word_stands() {
    for (kind, health) in [(FailureKind::Timeout, Health::Ok), (FailureKind::Denied, Health::Unknown)] {
        let mut script = Script::healthy();
        let status = script.patroni_status("n3");
        script.patroni.insert("n3".into(), status);
        script.fail_sql("n3", kind, "never");
        script.run(30.0);
        let cluster = script.cluster();
        assert_eq!((cluster.health, cluster.members[2].writable), (health, Some(false)), "{:?}", reasons(&script));
    }
}

#[test]
fn a_patroni_that_claims_what_its_port_refuses_proves_nothing() {
    let mut script = Script::healthy();
    script.run(10.0);
    let status = script.patroni_status("n1");
    script.patroni.insert("n1".into(), status);
    script.refuse_sql("n1");
    script.run(30.0);
    let cluster = script.cluster();
    assert_eq!((cluster.members[0].writable, cluster.members[0].role.as_str()), (None, "unknown"));
    let told = script.take();
    assert!(told.contains(&"postgres_down n1".to_owned()), "{told:?}");
    assert!(!told.iter().any(|event| event.starts_with("primary_")), "no restart is made up: {told:?}");
}

#[test]
fn a_patroni_that_never_answered_is_unknown() {
    let mut script = Script::healthy();
    script.rest_fails.insert("n3".into(), Fails(FailureKind::Timeout, "timed out"));
    script.run(12.0);
    assert_eq!(script.cluster().health, Health::Unknown, "{:?}", reasons(&script));
}

#[test]
fn a_clock_that_was_set_back_leaves_nothing_old_as_current() {
    let mut script = Script::healthy();
    script.run(10.0);
    script.now = script.now - Duration::from_hours(2);
    script.lose_host("n1");
    script.run(8.0);
    let cluster = script.cluster();
    assert_eq!(cluster.members[0].writable, None, "the answer of before the step is not current");
    assert!(cluster.writable.is_empty());
    script.set("n1", primary(1));
    script.answer_rest("n1");
    script.run(12.0);
    assert_eq!(script.cluster().health, Health::Ok, "{:?}", reasons(&script));
    assert_eq!(script.cluster().writable, ["n1"]);
}

/// A stopped postmaster: sessions that are open answer, and nobody gets a new one.
#[test]
fn a_postmaster_that_hangs_is_seen_by_new_sessions_only() {
    let mut script = Script::healthy();
    script.run(10.0);
    script.take();
    let silent = || Some(Failure { kind: FailureKind::Timeout, error: "no new session".to_owned() });
    let try_it = |script: &mut Script, failure| {
        script.observe(Source::Sql { member: "n1".to_owned() }, Claim::NewSession(failure));
        script.take()
    };
    let quiet: [&str; 0] = [];
    assert_eq!(try_it(&mut script, silent()), quiet, "a busy moment");
    assert_eq!(try_it(&mut script, None), quiet);
    assert_eq!(try_it(&mut script, silent()), quiet);
    assert_eq!(try_it(&mut script, silent()), ["postgres_hung n1"]);
    assert_eq!(script.event("postgres_hung").severity, EventSeverity::Critical);
    assert_eq!(script.cluster().health, Health::Critical);
    assert_eq!(script.cluster().writable, ["n1"], "who is in goes on writing");
    assert_eq!(try_it(&mut script, None), ["postgres_hung_ended n1"]);
    let full = Some(Failure { kind: FailureKind::Rejecting, error: "53300 too many clients".to_owned() });
    assert_eq!(try_it(&mut script, full), quiet, "a full server answers");
}
