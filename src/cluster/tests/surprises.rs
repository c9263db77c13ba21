//! The surprises of real faults, one test each: what common belief gets wrong, the judge must not.

use crate::cluster::tests::script::{Script, primary, replica};
use crate::model::cluster::{Cluster, Member};
use crate::model::observation::{Claim, ClusterView, ClusterViewMember, FailureKind, PatroniStatus, Source};
use crate::model::{EventSeverity, Lsn};

fn member<'a>(cluster: &'a Cluster, name: &str) -> &'a Member {
    cluster.members.iter().find(|member| member.name == name).unwrap()
}

/// 1: `/cluster` says "leader running, lag 0" all through a quorum loss.
#[test]
fn surprise_01_cluster_is_a_claim_and_never_makes_a_leader() {
    let mut script = Script::settled();
    script.fail_etcd(0, FailureKind::Refused);
    script.fail_etcd(2, FailureKind::Refused);
    script.etcd_says_no_leader(1);
    script.dcs_fails = Some(super::script::Fails(FailureKind::Timeout, "timed out"));
    for _ in 0..30 {
        let leader = ClusterViewMember {
            name: "n1".into(),
            role: "leader".into(),
            state: "running".into(),
            ..Default::default()
        };
        let view = ClusterView { members: vec![leader], ..ClusterView::default() };
        script.observe(Source::Rest { member: "n2".into() }, Claim::ClusterView(view));
        script.run(1.0);
    }
    script.fail_sql("n1", FailureKind::Rejecting, "FATAL: the database system is shutting down");
    script
        .patroni
        .insert("n1".into(), PatroniStatus { state: "stopping".into(), role: "primary".into(), ..Default::default() });
    script.run(10.0);
    let cluster = script.cluster();
    assert_eq!((cluster.leader, cluster.writable.len()), (None, 0));
    assert_eq!(cluster.health.as_str(), "critical");
    let dcs = cluster.dcs.unwrap();
    assert!(dcs.stale);
    assert_eq!(dcs.quorum, Some(false));
    assert!(script.now.since(dcs.seen_at.unwrap()).as_secs() > 30);
    assert!(!script.told().iter().any(|event| event.starts_with("leader_")));
}

/// 2: a second primary is invisible in Patroni when Patroni is dead: the node just leaves `/cluster`.
#[test]
fn surprise_02_a_member_that_left_is_still_asked_and_found_writable() {
    let mut script = Script::settled();
    script.refuse_rest("n1");
    script.run(20.0);
    script.expire("n1");
    script.acquire("n2");
    script.set("n2", primary(2));
    script.run(4.0);
    let cluster = script.cluster();
    assert_eq!(cluster.writable, ["n1", "n2"]);
    assert_eq!(script.event("split_brain_confirmed").fields["members"], "n1,n2");
    let says: Vec<_> =
        cluster.members[0].sources.iter().map(|source| (source.source.as_str(), source.says.as_str())).collect();
    assert_eq!(says, [("rest", "refused"), ("sql", "writable, timeline 1"), ("dcs", "not in the DCS")]);
}

/// 3: roles and states of REST come in combinations that mean nothing by themselves.
#[test]
fn surprise_03_patronis_words_do_not_make_a_primary() {
    for (state, role) in [
        ("crashed", "primary"),
        ("starting", "primary"),
        ("stopping", "primary"),
        ("unknown", "primary"),
        ("stopped", "demoted"),
        ("start failed", "primary"),
        ("creating replica", "uninitialized"),
        ("running", "primary"),
    ] {
        let mut script = Script::settled();
        script.refuse_sql("n2");
        script
            .patroni
            .insert("n2".into(), PatroniStatus { state: state.into(), role: role.into(), ..Default::default() });
        script.run(8.0);
        let cluster = script.cluster();
        assert_eq!(cluster.writable, ["n1"], "{state} {role}");
        let member = member(&cluster, "n2");
        assert_eq!(member.state, state);
        assert_eq!((member.role.as_str(), member.writable), ("unknown", Some(false)), "{state} {role}");
    }
}

/// 4: Patroni's `lag` is receive lag; blocked replay shows only in the replay position.
#[test]
fn surprise_04_blocked_replay_is_lag() {
    let mut script = Script::settled();
    script.node("n2").replay_blocked = true;
    script.run(40.0);
    let cluster = script.cluster();
    let replica = member(&cluster, "n2");
    assert_eq!(replica.receive_lag_bytes, Some(0));
    assert!(replica.lag_bytes.unwrap() > 300_000);
    assert!((36.0..41.0).contains(&replica.lag_seconds.unwrap()), "{:?}", replica.lag_seconds);
    assert_eq!(script.take(), ["lag_high n2"]);
    script.node("n2").replay_blocked = false;
    script.run(10.0);
    assert_eq!(script.take(), ["lag_normal n2"]);
}

/// 5: the primary's view of a frozen replica keeps its last small lag for a minute.
#[test]
fn surprise_05_a_frozen_replica_has_unknown_lag_whatever_the_primary_shows() {
    let mut script = Script::settled();
    script.lose_host("n2");
    script.run(10.0);
    let cluster = script.cluster();
    let replica = member(&cluster, "n2");
    assert_eq!((replica.lag_bytes, replica.lag_seconds, replica.writable), (None, None, None));
    assert_eq!(script.take(), ["member_lost n2"]);
}

/// 6: a new etcd leader grants every lease its full time again: a rising TTL is no sign of life.
#[test]
fn surprise_06_the_leader_is_lost_when_the_key_goes_not_when_the_lease_should_end() {
    let mut script = Script::settled();
    script.lose_host("n1");
    script.lease_ttl = 12;
    script.run(4.0);
    script.lease_ttl = 30;
    script.run(26.0);
    assert_eq!(script.cluster().leader.as_deref(), Some("n1"));
    assert!(!script.told().contains(&"leader_lost n1".to_owned()));
    script.expire("n1");
    script.run(0.5);
    assert_eq!(script.event("leader_lost").fields["reason"], "lease_expired");
}

/// 7: failsafe mode does not help a partitioned leader; what it says is told as Patroni's word.
#[test]
fn surprise_07_failsafe_is_told_by_the_primary_and_ends_with_it() {
    let mut script = Script::settled();
    let mut words = script.patroni_status("n1");
    words.failsafe_mode_is_active = true;
    script.patroni.insert("n1".into(), words);
    script.run(4.0);
    assert_eq!(script.take(), ["failsafe_entered"]);
    // Replicas go on saying so for a ttl.
    script.patroni.remove("n1");
    let mut late = script.patroni_status("n2");
    late.failsafe_mode_is_active = true;
    script.patroni.insert("n2".into(), late);
    script.run(4.0);
    assert_eq!(script.take(), ["failsafe_left"]);
}

/// 8: a replica that runs, never streams, and is ahead of the leader: `/cluster` says lag 0, and it can win an election.
#[test]
fn surprise_08_a_replica_that_runs_and_does_not_stream_is_broken() {
    let mut script = Script::settled();
    script.node("n2").broken = true;
    script.run(50.0);
    assert_eq!(script.take(), Vec::<String>::new());
    assert_eq!(member(&script.cluster(), "n2").lag_bytes, None);
    assert_eq!(script.cluster().health.as_str(), "warning");
    script.run(15.0);
    assert_eq!(script.take(), ["replica_broken n2"]);
    let samples = script.judge.samples(script.now);
    let broken =
        samples.iter().filter(|sample| sample.labels.metric_name() == "daraji_replica_broken" && sample.value > 0.0);
    assert_eq!(broken.map(|sample| sample.labels.get("member").unwrap()).collect::<Vec<_>>(), ["n2"]);
    assert_eq!(script.cluster().health.as_str(), "warning");
    script.set("n2", replica("n1", 1));
    script.run(5.0);
    assert_eq!(script.take(), ["replica_recovered n2"]);
    assert_eq!(script.cluster().health.as_str(), "ok");
}

#[test]
fn surprise_08_wal_that_the_leader_never_wrote_is_divergence() {
    let mut script = Script::settled();
    script.wal_step = 0;
    script.run(4.0);
    script.node("n2").broken = true;
    let ahead = Lsn(script.postgres("n1").current_lsn.unwrap().0 + 50_000);
    let mut words = script.patroni_status("n2");
    words.replayed_location = Some(ahead);
    words.received_location = Some(ahead);
    words.replication_state = None;
    script.patroni.insert("n2".into(), words);
    // Without SQL only Patroni's numbers are left, and they say lag 0.
    script.fail_sql("n2", FailureKind::Denied, "password authentication failed");
    script.run(75.0);
    let text = &script.event("replica_broken").text;
    assert!(text.contains("ahead of the leader") || text.contains("does not stream"), "{text}");
    assert_eq!(member(&script.cluster(), "n2").lag_bytes, None);
}

/// 9: a fast shutdown may hang for a minute in "shutting down": that is no second primary.
#[test]
fn surprise_09_a_hanging_shutdown_is_not_writable() {
    let mut script = Script::settled();
    script.fail_sql("n1", FailureKind::Rejecting, "FATAL: the database system is shutting down");
    script.run(2.5);
    script.expire("n1");
    script.acquire("n2");
    script.set("n2", primary(2));
    script.run(40.0);
    assert_eq!(script.cluster().writable, ["n2"]);
    assert!(!script.told().iter().any(|event| event.starts_with("split_brain")));
}

/// 10: a killed postmaster of the leader is restarted in place; only its start time changes.
#[test]
fn surprise_10_a_restart_in_place_is_no_failover() {
    let mut script = Script::settled();
    script.refuse_sql("n1");
    script.run(5.0);
    script.node("n1").started += 5;
    script.node("n1").commits = 3;
    script.sql_fails.clear();
    script.run(4.0);
    let event = script.event("primary_restarted_in_place");
    assert_eq!((event.fields["crashed"].as_str(), event.severity), ("true", EventSeverity::Warning));
    let told = script.take();
    assert!(told.contains(&"primary_not_writable n1".to_owned()), "{told:?}");
    assert!(told.contains(&"postgres_restarted n1".to_owned()), "{told:?}");
    assert!(!told.iter().any(|event| event.starts_with("leader") || event.starts_with("timeline")), "{told:?}");
}

/// 10: statistics survive a stop in order, so that it is told from a crash.
#[test]
fn surprise_10_a_restart_in_order_is_a_notice() {
    let mut script = Script::settled();
    script.refuse_sql("n1");
    script.run(3.0);
    script.node("n1").started += 5;
    script.sql_fails.clear();
    script.run(4.0);
    let event = script.event("primary_restarted_in_place");
    assert_eq!((event.fields["crashed"].as_str(), event.severity), ("false", EventSeverity::Notice));
}

/// 10: after a backend crash not even the start time changes.
#[test]
fn surprise_10_a_backend_crash_keeps_the_start_time() {
    let mut script = Script::settled();
    script.fail_sql("n1", FailureKind::Rejecting, "FATAL: the database system is in recovery mode");
    script.run(2.5);
    script.sql_fails.clear();
    script.node("n1").commits = 3;
    script.run(4.0);
    assert_eq!(script.take(), ["primary_not_writable n1", "primary_interrupted n1", "writes_resumed n1"]);
}

/// 11: a failed start gives the key away early: released, not expired.
#[test]
fn surprise_11_a_released_key_is_told_from_an_expired_one() {
    let mut script = Script::settled();
    script.refuse_sql("n1");
    script.run(6.0);
    script.release();
    script.run(0.5);
    let event = script.event("leader_lost");
    assert_eq!((event.fields["reason"].as_str(), event.fields["planned"].as_str()), ("released", "false"));
    assert_eq!(event.severity, EventSeverity::Critical);
}

/// 12: `cluster_unlocked` of one replica only means that this one could not read a leader.
#[test]
fn surprise_12_cluster_unlocked_of_a_replica_proves_nothing() {
    let mut script = Script::settled();
    let mut words = script.patroni_status("n3");
    words.cluster_unlocked = true;
    script.patroni.insert("n3".into(), words);
    script.run(10.0);
    assert_eq!(script.take(), Vec::<String>::new());
    assert_eq!(script.cluster().leader.as_deref(), Some("n1"));
}

/// 13: proxies hide outages as latency: the outage is known from PostgreSQL itself.
#[test]
fn surprise_13_an_outage_without_client_errors_is_seen() {
    let mut script = Script::settled();
    script.refuse_sql("n1");
    script.run(3.0);
    assert_eq!(script.cluster().writable, Vec::<String>::new());
    assert_eq!(script.cluster().health.as_str(), "critical");
}

/// 14: on its return the old leader is writable for half a second more.
#[test]
fn surprise_14_a_short_second_primary_is_still_proven() {
    let mut script = Script::settled();
    script.lose_host("n1");
    script.run(24.0);
    script.expire("n1");
    script.acquire("n2");
    script.set("n2", primary(2));
    script.run(10.0);
    assert_eq!(script.cluster().split_brain.unwrap().members, ["n1", "n2"]);
    script.rest_fails.clear();
    script.sql_fails.clear();
    script.run(1.5);
    script.set("n1", replica("n2", 2));
    script.run(3.0);
    let ended = script.event("split_brain_ended");
    assert_eq!(ended.fields["confirmed"], "true");
    script.event("split_brain_possible");
    script.event("split_brain_confirmed");
}

/// 15: the judge does not wait for proxies: the new leader is told when it holds the key.
#[test]
fn surprise_15_the_new_leader_is_told_when_it_takes_the_key() {
    let mut script = Script::settled();
    script.expire("n1");
    script.run(0.3);
    let taken_at = script.now;
    script.acquire("n3");
    assert_eq!(script.event("leader_changed").time, taken_at);
}

/// 16: SQL to a frozen host hangs; a timeout proves nothing.
#[test]
fn surprise_16_a_hanging_answer_is_unknown_not_down() {
    let mut script = Script::settled();
    script.fail_sql("n1", FailureKind::Timeout, "deadline of 2.5 s passed");
    script.rest_fails.insert("n1".into(), super::script::Fails(FailureKind::Timeout, "timed out"));
    script.run(4.0);
    let cluster = script.cluster();
    assert_eq!(member(&cluster, "n1").writable, None);
    assert_eq!(cluster.leader.as_deref(), Some("n1"));
    assert_ne!(cluster.health.as_str(), "ok");
}

/// 16: ended sessions and full servers prove nothing either.
#[test]
fn surprise_16_a_full_server_still_writes() {
    for error in
        ["FATAL: sorry, too many clients already", "FATAL: terminating connection due to administrator command"]
    {
        let mut script = Script::settled();
        script.fail_sql("n1", FailureKind::Rejecting, error);
        script.rest_fails.insert("n1".into(), super::script::Fails(FailureKind::Timeout, "timed out"));
        script.run(4.0);
        assert_eq!(member(&script.cluster(), "n1").writable, None, "{error}");
    }
}

/// 17: Patroni's log calls decisive things INFO; planned or not comes from the `failover` key alone.
#[test]
fn surprise_17_planned_is_read_from_the_failover_key() {
    for (request, planned) in [
        (Some(r#"{"leader":"n1","member":"n2"}"#), "true"),
        (Some(r#"{"member":"n2"}"#), "true"),
        (Some("n1:n2"), "true"),
        (Some(r#"{"leader":"n1","scheduled_at":"2100-01-01T00:00:00+00:00"}"#), "false"),
        (Some(r#"{"leader":"n3","member":"n2"}"#), "false"),
        (Some("{}"), "false"),
        (None, "false"),
    ] {
        let mut script = Script::settled();
        if let Some(request) = request {
            script.put("failover", request);
        }
        script.run(0.5);
        script.release();
        script.run(0.5);
        script.acquire("n2");
        assert_eq!(script.event("leader_changed").fields["planned"], planned, "{request:?}");
        assert_eq!(script.told().contains(&"leader_lost n1".to_owned()), planned == "false", "{request:?}");
    }
}

/// 18: renewals do not rewrite the leader key: its revision stands still in health, and the lease tells.
#[test]
fn surprise_18_the_lease_predicts_and_the_revision_does_not() {
    let mut script = Script::settled();
    script.run(300.0);
    assert_eq!(script.take(), Vec::<String>::new());
    assert_eq!(script.cluster().lock.unwrap().lease_ttl_seconds, Some(25));
    script.lease_ttl = 15;
    script.run(1.5);
    assert_eq!(script.take(), ["lease_not_renewed n1"]);
    assert_eq!(script.cluster().health.as_str(), "warning");
    script.lease_ttl = 29;
    script.run(1.5);
    assert_eq!(script.take(), ["lease_renewed n1"]);
}

/// One after the other is no overlap, whatever the key says.
#[test]
fn a_primary_that_stops_before_the_next_one_writes_is_no_split_brain() {
    for probe_steps in [3, 20, 25] {
        let mut script = Script::settled();
        script.probe_steps = probe_steps;
        script.run(4.0);
        script.refuse_sql("n1");
        script.set("n2", primary(2));
        script.run(10.0);
        assert!(!script.told().iter().any(|event| event.starts_with("split_brain")), "{:?}", script.told());
        assert_eq!(script.cluster().writable, ["n2"]);
    }
}

#[test]
fn a_later_term_is_not_a_restart_of_the_first() {
    let mut script = Script::settled();
    script.refuse_sql("n1");
    script.lease_ttl = 12;
    script.run(3.0);
    script.expire("n1");
    script.acquire("n2");
    script.set("n2", primary(2));
    script.set("n1", replica("n2", 2));
    script.run(20.0);
    script.expire("n2");
    script.refuse_sql("n2");
    script.acquire("n1");
    script.set("n1", primary(3));
    script.run(10.0);
    let told = script.told();
    let restart = |event: &&String| event.starts_with("primary_") && *event != "primary_not_writable n1";
    assert_eq!(told.iter().find(restart), None, "{told:?}");
    assert!(told.contains(&"lease_not_renewed n1".to_owned()), "{told:?}");
    assert!(!told.iter().any(|event| event.starts_with("lease_renewed")), "{told:?}");
}

#[test]
fn a_scheduled_switchover_is_planned_when_its_time_has_come() {
    let mut script = Script::settled();
    let due = script.now + std::time::Duration::from_mins(5);
    script.put("failover", &format!(r#"{{"leader":"n1","member":"n2","scheduled_at":"{due}"}}"#));
    script.run(300.0);
    script.refuse_sql("n1");
    script.run(2.0);
    script.release();
    script.acquire("n2");
    script.put("failover", "{}");
    script.set("n2", primary(2));
    script.set("n1", replica("n2", 2));
    script.set("n3", replica("n2", 2));
    script.run(30.0);
    assert_eq!(script.event("leader_changed").fields["planned"], "true");
    let loud = script.events.iter().filter(|event| event.severity > EventSeverity::Notice).count();
    assert_eq!(loud, 0, "{:?}", script.told());
}

#[test]
fn a_withdrawn_switchover_does_not_make_the_next_failover_planned() {
    let mut script = Script::settled();
    script.put("failover", r#"{"leader":"n1","member":"n2"}"#);
    script.run(3.0);
    script.put("failover", "{}");
    script.run(1.0);
    assert_eq!(script.take(), ["switchover_requested", "switchover_failed"]);
    script.expire("n1");
    script.acquire("n2");
    assert_eq!(script.event("leader_changed").fields["planned"], "false");
}

#[test]
fn a_switchover_that_nobody_takes_up_is_a_lost_leader() {
    let mut script = Script::settled();
    script.put("failover", r#"{"leader":"n1","member":"n2"}"#);
    script.run(1.0);
    script.refuse_sql("n1");
    script.release();
    script.run(40.0);
    let told = script.take();
    assert!(told.contains(&"leader_lost n1".to_owned()) && told.contains(&"switchover_failed".to_owned()), "{told:?}");
    assert_eq!(script.cluster().health.as_str(), "critical");
}

#[test]
fn a_manual_failover_after_a_loss_was_not_planned() {
    let mut script = Script::settled();
    script.lose_host("n1");
    script.expire("n1");
    script.run(5.0);
    script.put("failover", r#"{"member":"n3"}"#);
    script.run(1.0);
    script.acquire("n3");
    assert_eq!(script.event("leader_changed").fields["planned"], "false");
}

#[test]
fn a_dcs_that_only_we_cannot_see_is_blindness_not_a_lost_quorum() {
    let mut script = Script::settled();
    for member in 0..3 {
        script.fail_etcd(member, FailureKind::Timeout);
    }
    script.dcs_fails = Some(super::script::Fails(FailureKind::Timeout, "timed out"));
    script.run(15.0);
    let cluster = script.cluster();
    assert_eq!(cluster.leader, None);
    assert_eq!(cluster.dcs.unwrap().quorum, None);
    assert_eq!(cluster.health.as_str(), "warning");
    let told = script.take();
    assert!(told.contains(&"dcs_blind".to_owned()) && !told.contains(&"dcs_quorum_lost".to_owned()), "{told:?}");
    script.heal_etcd();
    script.run(3.0);
    assert!(script.take().contains(&"dcs_visible".to_owned()));
    assert_eq!(script.cluster().leader.as_deref(), Some("n1"));
}

#[test]
fn pause_and_configuration_changes_are_told() {
    let mut script = Script::settled();
    script.put(
        "config",
        r#"{"ttl":30,"loop_wait":10,"retry_timeout":10,"maximum_lag_on_failover":1048576,"pause":true}"#,
    );
    script.run(0.5);
    assert_eq!(script.take(), ["paused"]);
    script.put("config", r#"{"ttl":40,"loop_wait":10,"retry_timeout":10,"maximum_lag_on_failover":1048576,"postgresql":{"parameters":{"work_mem":"8MB"}}}"#);
    script.run(0.5);
    assert_eq!(script.take(), ["config_changed", "resumed"]);
    let text = &script.event("config_changed").text;
    assert!(
        text.contains("ttl: 30 -> 40") && text.contains("postgresql.parameters.work_mem: unset -> \"8MB\""),
        "{text}"
    );
    assert_eq!(script.cluster().config.unwrap().ttl, Some(40));
}

#[test]
fn an_idle_leader_gives_no_lag_in_seconds() {
    let mut script = Script::settled();
    script.wal_step = 0;
    script.run(600.0);
    let cluster = script.cluster();
    let replica = member(&cluster, "n2");
    assert_eq!((replica.lag_bytes, replica.lag_seconds), (Some(0), Some(0.0)));
}

#[test]
fn without_a_dcs_the_leader_is_whom_cluster_names_and_postgresql_bears_out() {
    let mut script = Script::healthy_without_dcs();
    script.run(10.0);
    assert_eq!(script.take(), ["watch_started"]);
    let cluster = script.cluster();
    assert_eq!((cluster.leader.as_deref(), cluster.health.as_str()), (Some("n1"), "ok"));
    assert!(cluster.dcs.is_none() && cluster.lock.is_none());
    script.lose_host("n1");
    script.run(22.0);
    script.change(Vec::new(), &["leader", "members/n1"]);
    script.change(vec![("leader", "n2")], &[]);
    script.set("n2", primary(2));
    script.run(5.0);
    let changed = script.event("leader_changed");
    assert_eq!(changed.fields["planned"], "unknown");
    assert_eq!(script.cluster().leader.as_deref(), Some("n2"));
}

#[test]
fn a_server_that_is_replaced_under_the_judge_is_no_split_brain() {
    // Two clusters that share a name by mistake, or a clone: another system identifier.
    let mut script = Script::settled();
    let mut other = script.postgres("n2");
    other.in_recovery = false;
    other.system_identifier = Some("42".to_owned());
    for _ in 0..6 {
        script.ask_sql("n1");
        script.now = script.now + std::time::Duration::from_millis(200);
        script.observe(Source::Sql { member: "n9".into() }, Claim::Postgres(other.clone()));
        script.now = script.now + std::time::Duration::from_millis(200);
    }
    assert!(!script.told().iter().any(|event| event == "split_brain_confirmed"));
}

#[test]
fn a_standby_cluster_has_a_leader_that_writes_nothing() {
    let mut script = Script::settled();
    script.set("n1", replica("remote", 1));
    let mut words = script.patroni_status("n1");
    words.role = "standby_leader".to_owned();
    script.patroni.insert("n1".into(), words);
    script.run(40.0);
    let cluster = script.cluster();
    assert_eq!(cluster.health.as_str(), "ok", "{:?}", cluster.reasons);
    assert_eq!(cluster.leader.as_deref(), Some("n1"));
    assert_eq!(member(&cluster, "n1").role.as_str(), "standby_leader");
    assert_eq!(member(&cluster, "n2").lag_bytes, Some(0));
    assert_eq!(cluster.timeline, Some(1));
    assert!(!script.told().contains(&"lock_role_mismatch".to_owned()));
}

#[test]
fn a_dark_host_does_not_keep_the_probes_fast_for_ever() {
    let mut script = Script::settled();
    assert!(!script.judge.wants_fast_probe("demo", script.now));
    script.lose_host("n1");
    script.run(22.0);
    script.expire("n1");
    assert!(script.judge.wants_fast_probe("demo", script.now));
    script.acquire("n2");
    script.set("n2", primary(2));
    script.run(150.0);
    assert!(script.cluster().split_brain.is_some());
    assert!(!script.judge.wants_fast_probe("demo", script.now));
}

#[test]
fn a_lock_owner_that_does_not_write_is_a_mismatch_after_a_while() {
    let mut script = Script::settled();
    script.refuse_sql("n1");
    script.run(12.0);
    assert!(!script.told().contains(&"lock_role_mismatch".to_owned()));
    script.run(8.0);
    assert!(script.told().contains(&"lock_role_mismatch".to_owned()));
    script.set("n1", primary(1));
    script.run(4.0);
    assert_eq!(script.cluster().health.as_str(), "ok");
}

#[test]
fn a_member_that_nobody_names_is_forgotten_after_a_day() {
    let mut script = Script::settled();
    script.lose_host("n3");
    script.run(5.0);
    let mut list: Vec<_> = script.judge.memory().members("demo").to_vec();
    list.retain(|address| address.member != "n3");
    script.observe(Source::Dcs, Claim::Members(list));
    script.run(2.0);
    assert!(!member(&script.cluster(), "n3").present);
    script.now = script.now + std::time::Duration::from_hours(25);
    let now = script.now;
    script.judge.tick(now);
    assert_eq!(script.cluster().members.len(), 2);
}
