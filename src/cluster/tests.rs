//! Scripted sequences: what every lab fault and every surprise must, and must not, make the judge say.

mod beliefs;
mod doubts;
mod leadership;
mod measures;
mod outputs;
mod property;
mod reach;
mod restart;
mod script;
mod simulation;
mod surprises;

use script::{Script, primary, replica};

#[test]
fn a_healthy_cluster_is_quiet_and_ok() {
    let mut script = Script::healthy();
    script.run(30.0);
    assert_eq!(script.told(), ["watch_started"]);
    let cluster = script.cluster();
    assert_eq!(cluster.health.as_str(), "ok", "{:?}", cluster.reasons);
    assert_eq!(cluster.leader.as_deref(), Some("n1"));
    assert_eq!(cluster.writable, ["n1"]);
    let replica = &cluster.members[1];
    assert_eq!((replica.role.as_str(), replica.state.as_str()), ("replica", "streaming"));
    assert_eq!((replica.lag_bytes, replica.lag_seconds), (Some(0), Some(0.0)));
    assert_eq!(replica.upstream.as_deref(), Some("n1"));
}

#[test]
fn kill_patroni_loses_the_leader_and_splits_the_brain() {
    let mut script = Script::healthy();
    script.run(5.0);
    script.refuse_rest("n1");
    script.run(26.0);
    assert_eq!(script.take(), ["watch_started", "rest_down n1"]);
    script.expire("n1");
    script.run(0.2);
    assert_eq!(script.take(), ["leader_lost n1", "dcs_member_expired n1"]);
    script.acquire("n2");
    script.run(0.2);
    assert_eq!(script.take(), ["leader_changed n2"]);
    script.run(1.0);
    script.set("n2", primary(2));
    script.run(4.0);
    let told = script.take();
    assert!(told.contains(&"split_brain_confirmed".to_owned()), "{told:?}");
    assert!(told.contains(&"timeline_changed n2".to_owned()), "{told:?}");
    let cluster = script.cluster();
    assert_eq!(cluster.writable, ["n1", "n2"]);
    assert_eq!(cluster.health.as_str(), "critical");
    script.run(30.0);
    script.answer_rest("n1");
    script.set("n1", replica("n2", 2));
    script.run(10.0);
    let told = script.take();
    assert!(told.contains(&"split_brain_ended".to_owned()), "{told:?}");
    assert_eq!(script.cluster().health.as_str(), "ok", "{:?}", script.cluster().reasons);
}

#[test]
fn a_switchover_says_exactly_one_planned_change() {
    let mut script = Script::healthy();
    script.run(10.0);
    script.take();
    script.put("failover", r#"{"leader":"n1","member":"n2"}"#);
    script.run(0.5);
    script.refuse_sql("n1");
    script.run(1.5);
    script.release();
    script.run(1.0);
    script.acquire("n2");
    script.put("failover", "{}");
    script.set("n2", primary(2));
    script.run(2.0);
    script.set("n1", replica("n2", 2));
    script.set("n3", replica("n2", 2));
    script.run(90.0);
    let loud: Vec<_> =
        script.events.iter().filter(|event| event.severity > crate::model::EventSeverity::Notice).collect();
    assert!(loud.is_empty(), "{loud:#?}");
    let changes: Vec<_> = script.events.iter().filter(|event| event.event == "leader_changed").collect();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].fields["planned"], "true");
    assert_eq!((changes[0].fields["old_leader"].as_str(), changes[0].fields["new_leader"].as_str()), ("n1", "n2"));
    assert!(!script.events.iter().any(|event| event.event == "leader_lost" || event.event.starts_with("split_brain")));
    assert_eq!(script.cluster().health.as_str(), "ok", "{:?}", script.cluster().reasons);
}
