//! Why a leader was lost, what a change was, and what operators asked for.

use std::time::Duration;

use crate::cluster::tests::script::{Script, primary, replica};
use crate::model::leadership::{RequestKind, RequestOutcome};
use crate::model::observation::{Claim, DcsChange, Source};

fn field(script: &Script, event: &str, name: &str) -> String {
    script.event(event).fields.get(name).cloned().unwrap_or_default()
}

/// Gives the leader key the lease that the script reads.
fn on_its_lease(script: &mut Script) {
    let mut key = script.key("leader", "n1");
    key.lease = 7;
    script.keys.insert("leader".to_owned(), key);
    script.snapshot();
    script.run(1.5);
}

#[test]
fn reasons_by_the_keys_that_vanish_together() {
    for (what, deletes, put, lease_ttl, expected) in [
        ("both at the end of the lease", &["leader", "members/n1"][..], None, 0, "lease_expired"),
        ("only the leader key", &["leader"], None, 25, "released"),
        ("both long before the end of the lease", &["leader", "members/n1"], None, 25, "deleted_by_hand"),
        ("everything", &["leader", "members/n1", "members/n2", "config"], None, 0, "deleted_by_hand"),
        ("overwritten", &[], Some(("leader", "n2")), 25, "deleted_by_hand"),
    ] {
        let mut script = Script::settled();
        script.lease_ttl = lease_ttl;
        on_its_lease(&mut script);
        script.take();
        script.change(put.into_iter().collect(), deletes);
        let event = if put.is_some() { "leader_changed" } else { "leader_lost" };
        assert_eq!(field(&script, event, "reason"), expected, "{what}");
        assert_eq!(field(&script, event, "old_leader"), "n1", "{what}");
        assert_eq!(field(&script, event, "old_timeline"), "1", "{what}");
    }
}

#[test]
fn a_leader_that_goes_on_writing_did_not_release_its_key() {
    let mut script = Script::settled();
    script.release();
    script.run(0.9);
    assert_eq!(field(&script, "leader_lost", "reason"), "released");
    assert!(!script.told().contains(&"leader_loss_explained n1".to_owned()));
    script.run(3.0);
    assert_eq!(field(&script, "leader_loss_explained", "reason"), "deleted_by_hand");
    script.acquire("n1");
    script.run(5.0);
    assert_eq!(field(&script, "leader_returned", "reason"), "deleted_by_hand");
    let told = script.told();
    assert_eq!(told.iter().filter(|event| *event == "leader_loss_explained n1").count(), 1, "{told:?}");
}

#[test]
fn a_lease_that_was_lost_and_taken_again_at_once_was_not_deleted_by_hand() {
    let mut script = Script::settled();
    script.release();
    script.acquire("n1");
    script.run(10.0);
    assert_eq!(field(&script, "leader_returned", "reason"), "released");
    assert!(!script.told().contains(&"leader_loss_explained n1".to_owned()));
}

#[test]
fn what_nobody_watched_is_unknown_unless_the_looks_are_close() {
    for (blind_seconds, with_member, expected) in
        [(1.0, true, "lease_expired"), (1.0, false, "released"), (20.0, true, "unknown"), (20.0, false, "unknown")]
    {
        let mut script = Script::settled();
        script.dcs_fails = Some(super::script::Fails(crate::model::observation::FailureKind::Timeout, "timed out"));
        script.run(blind_seconds);
        script.keys.remove("leader");
        if with_member {
            script.keys.remove("members/n1");
        }
        script.revision += 2;
        script.dcs_fails = None;
        script.snapshot();
        assert_eq!(field(&script, "leader_lost", "reason"), expected, "{blind_seconds} {with_member}");
    }
}

#[test]
fn classes_of_what_happened() {
    let mut script = Script::settled();
    script.refuse_rest("n1");
    script.refuse_sql("n1");
    script.expire("n1");
    script.acquire("n2");
    script.set("n2", primary(2));
    script.run(4.0);
    for event in ["leader_changed", "timeline_changed"] {
        assert_eq!(field(&script, event, "cause_class"), "failover", "{event}");
        assert_eq!(
            (field(&script, event, "old_leader"), field(&script, event, "new_leader")),
            ("n1".into(), "n2".into())
        );
        assert_eq!(field(&script, event, "old_timeline"), "1", "{event}");
    }
    assert_eq!(field(&script, "timeline_changed", "new_timeline"), "2");

    // Demoted and promoted again under the same key.
    let mut script = Script::settled();
    script.refuse_sql("n1");
    script.run(5.0);
    script.set("n1", primary(2));
    script.run(5.0);
    assert_eq!(field(&script, "primary_promoted_again", "cause_class"), "restart_through_recovery");
    assert_eq!(field(&script, "timeline_changed", "cause_class"), "restart_through_recovery");

    let mut script = Script::settled();
    script.refuse_sql("n1");
    script.run(5.0);
    script.node("n1").started += 100;
    script.sql_fails.clear();
    script.run(5.0);
    assert_eq!(field(&script, "primary_restarted_in_place", "cause_class"), "crash_restart");
}

#[test]
fn requests_are_remembered_with_their_outcome() {
    use RequestKind::{ManualFailover, Switchover};
    use RequestOutcome::{Completed, Failed, Withdrawn};
    let mut script = Script::settled();
    let switch = |script: &mut Script, value: &str, from: &str, to: &str| {
        script.put("failover", value);
        script.run(1.0);
        script.release();
        script.acquire(to);
        script.put("failover", "{}");
        let timeline = script.node(from).timeline + 1;
        script.set(to, primary(timeline));
        script.set(from, replica(to, timeline));
        script.run(3.0);
    };
    switch(&mut script, r#"{"leader":"n1","member":"n2"}"#, "n1", "n2");
    let event = script.event("leader_changed");
    assert_eq!(event.fields["cause_class"], "switchover");
    assert_eq!((event.fields["request"].as_str(), event.fields["candidate"].as_str()), ("switchover", "n2"));
    assert_eq!(event.fields["scheduled"], "false");
    // A manual failover names nobody who shall give up.
    switch(&mut script, r#"{"member":"n1"}"#, "n2", "n1");
    let event = script.events.iter().rfind(|event| event.event == "leader_changed").unwrap();
    assert_eq!((event.fields["cause_class"].as_str(), event.fields["planned"].as_str()), ("failover", "true"));
    assert_eq!(event.fields["request"], "manual_failover");
    let due = script.now + Duration::from_mins(5);
    script.put("failover", &format!(r#"{{"leader":"n1","scheduled_at":"{due}"}}"#));
    script.run(1.0);
    script.put("failover", "{}");
    script.put("failover", r#"{"leader":"n1","member":"n3"}"#);
    script.restart();
    script.snapshot();
    script.put("failover", "{}");
    let requests = script.cluster().requests;
    let short: Vec<_> = requests.iter().map(|request| (request.kind, request.outcome)).collect();
    assert_eq!(
        short,
        [(Switchover, Completed), (ManualFailover, Completed), (Switchover, Withdrawn), (Switchover, Failed)]
    );
    assert_eq!(requests[2].scheduled_at, Some(due));
    assert_eq!(requests[3].candidate.as_deref(), Some("n3"));
    assert!(requests.iter().all(|request| request.ended_at.is_some()));
}

#[test]
fn a_change_that_comes_twice_is_told_once() {
    let mut script = Script::settled();
    script.expire("n1");
    let again = DcsChange {
        revision: script.revision,
        puts: Vec::new(),
        deletes: vec!["leader".to_owned(), "members/n1".to_owned()],
    };
    script.observe(Source::Dcs, Claim::DcsChange(again));
    assert_eq!(script.told().iter().filter(|event| *event == "leader_lost n1").count(), 1);
}
