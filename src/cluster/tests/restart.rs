//! A restart of Daraji: what was so before is no news, what changed meanwhile is told once.

use crate::cluster::tests::script::{Script, primary, replica};

#[test]
fn nothing_is_told_again() {
    let mut script = Script::settled();
    script.put("config", r#"{"ttl":30,"loop_wait":10,"retry_timeout":10,"pause":true}"#);
    script.lose_host("n3");
    script.node("n2").broken = true;
    script.run(80.0);
    let before = script.take();
    assert!(before.contains(&"replica_broken n2".to_owned()) && before.contains(&"member_lost n3".to_owned()));
    script.restart();
    script.snapshot();
    script.run(90.0);
    assert_eq!(script.take(), Vec::<String>::new());
    let reasons = script.cluster().reasons;
    assert!(reasons.iter().any(|reason| reason.text.contains("n3 is lost")), "{reasons:?}");
}

#[test]
fn no_leader_is_shown_before_the_dcs_was_read() {
    let mut script = Script::settled();
    script.restart();
    let cluster = script.cluster();
    assert_eq!((cluster.leader, cluster.writable.len()), (None, 0));
    assert_eq!(cluster.members.len(), 3);
    assert_eq!(script.judge.memory().members("demo").len(), 3);
}

#[test]
fn a_change_while_nobody_watched_is_told_once() {
    let mut script = Script::settled();
    let kept = script.judge.memory();
    // The judge is away.
    script.judge = crate::cluster::Judge::default();
    script.expire("n1");
    script.acquire("n2");
    script.set("n1", replica("n2", 2));
    script.set("n2", primary(2));
    script.set("n3", replica("n2", 2));
    script.take();
    script.judge = crate::cluster::Judge::restore(crate::cluster::JudgeOptions::default(), kept);
    script.snapshot();
    script.run(10.0);
    let told = script.take();
    assert_eq!(told.iter().filter(|event| *event == "leader_changed n2").count(), 1, "{told:?}");
    assert!(told.contains(&"timeline_changed n2".to_owned()), "{told:?}");
    let event = script.events.iter().rfind(|event| event.event == "leader_changed").unwrap();
    assert_eq!((event.fields["planned"].as_str(), event.fields["watched"].as_str()), ("unknown", "false"));
}

#[test]
fn a_switchover_while_nobody_watched_is_known_by_its_traces() {
    let mut script = Script::settled();
    let kept = script.judge.memory();
    script.judge = crate::cluster::Judge::default();
    script.put("failover", r#"{"leader":"n1","member":"n2"}"#);
    script.release();
    script.acquire("n2");
    script.put("failover", "{}");
    script.judge = crate::cluster::Judge::restore(crate::cluster::JudgeOptions::default(), kept);
    script.snapshot();
    let event = script.events.iter().rfind(|event| event.event == "leader_changed").unwrap();
    assert_eq!(event.fields["planned"], "true");
}

#[test]
fn a_split_brain_goes_on_and_ends_over_a_restart() {
    let mut script = Script::settled();
    script.refuse_rest("n1");
    script.expire("n1");
    script.acquire("n2");
    script.set("n2", primary(2));
    script.run(5.0);
    assert!(script.take().contains(&"split_brain_confirmed".to_owned()));
    script.restart();
    script.snapshot();
    script.run(5.0);
    assert!(!script.take().contains(&"split_brain_confirmed".to_owned()));
    assert!(script.cluster().split_brain.is_some());
    script.set("n1", replica("n2", 2));
    script.run(3.0);
    assert!(script.take().contains(&"split_brain_ended".to_owned()));
}

#[test]
fn the_same_observations_give_the_same_ids() {
    let ids = || {
        let mut script = Script::settled();
        script.expire("n1");
        script.acquire("n2");
        script.set("n2", primary(2));
        script.run(10.0);
        script.events.into_iter().map(|event| event.id).collect::<Vec<_>>()
    };
    let first = ids();
    assert_eq!(first, ids());
    let mut unique = first.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), first.len(), "{first:?}");
}
