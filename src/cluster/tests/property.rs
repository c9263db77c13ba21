//! Whatever the sources say and in whatever order: no panic, and no two writable members without a split brain.

use std::time::Duration;

use proptest::prelude::*;

use crate::cluster::tests::script::{NAMES, Script, primary, replica};
use crate::model::observation::FailureKind;

#[derive(Clone, Debug)]
enum Act {
    Promote(usize),
    Demote(usize),
    RefuseSql(usize),
    SilenceSql(usize),
    SilenceRest(usize),
    Answer(usize),
    Expire(usize),
    Release,
    Acquire(usize),
    LoseDcs,
    FindDcs,
    Restart,
    Run(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let member = 0..3_usize;
    prop_oneof![
        3 => member.clone().prop_map(Act::Promote),
        3 => member.clone().prop_map(Act::Demote),
        2 => member.clone().prop_map(Act::RefuseSql),
        2 => member.clone().prop_map(Act::SilenceSql),
        2 => member.clone().prop_map(Act::SilenceRest),
        3 => member.clone().prop_map(Act::Answer),
        1 => member.clone().prop_map(Act::Expire),
        1 => Just(Act::Release),
        2 => member.prop_map(Act::Acquire),
        1 => Just(Act::LoseDcs),
        1 => Just(Act::FindDcs),
        1 => Just(Act::Restart),
        9 => (1..60_u8).prop_map(Act::Run),
    ]
}

fn perform(script: &mut Script, act: &Act) {
    match act {
        Act::Promote(member) => script.node(NAMES[*member]).primary = true,
        Act::Demote(member) => script.set(NAMES[*member], replica("n1", 1)),
        Act::RefuseSql(member) => script.refuse_sql(NAMES[*member]),
        Act::SilenceSql(member) => script.fail_sql(NAMES[*member], FailureKind::Timeout, "timed out"),
        Act::SilenceRest(member) => {
            script
                .rest_fails
                .insert(NAMES[*member].to_owned(), super::script::Fails(FailureKind::Timeout, "timed out"));
        }
        Act::Answer(member) => {
            script.sql_fails.remove(NAMES[*member]);
            script.rest_fails.remove(NAMES[*member]);
        }
        Act::Expire(member) => script.expire(NAMES[*member]),
        Act::Release => script.release(),
        Act::Acquire(member) => script.acquire(NAMES[*member]),
        Act::LoseDcs => script.dcs_fails = Some(super::script::Fails(FailureKind::Timeout, "timed out")),
        Act::FindDcs => script.dcs_fails = None,
        Act::Restart => script.restart(),
        Act::Run(tenths) => script.run(f64::from(*tenths) / 10.0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn two_writable_members_are_a_split_brain(acts in prop::collection::vec(act(), 1..40)) {
        let mut script = Script::healthy();
        script.run(3.0);
        for act in &acts {
            let before = script.events.len();
            perform(&mut script, act);
            let cluster = script.cluster();
            let split = cluster.split_brain.as_ref();
            prop_assert!(
                cluster.writable.len() < 2 || split.is_some(),
                "{:?} writable after {act:?}, said {:?}", cluster.writable, &script.told()[before..]
            );
            // A leader is shown only as the key says.
            if let (Some(leader), None) = (&cluster.leader, &script.dcs_fails) {
                prop_assert_eq!(Some(leader), script.keys.get("leader").map(|key| &key.value));
            }
        }
        // Both writable and both asked: proof comes within five seconds.
        script.sql_fails.clear();
        script.rest_fails.clear();
        script.set("n1", primary(1));
        script.set("n2", primary(1));
        script.set("n3", replica("n1", 1));
        script.run(5.0);
        let cluster = script.cluster();
        prop_assert_eq!(cluster.writable, ["n1", "n2"]);
        prop_assert!(cluster.split_brain.is_some());
        // And the judge never remembers more than one leader change per change of the key.
        let gaps = script.events.windows(2).filter(|pair| pair[1].time < pair[0].time).count();
        prop_assert_eq!(gaps, 0);
    }

    #[test]
    fn answers_may_overtake_each_other(delays in prop::collection::vec(0..4_000_u64, 4..40)) {
        let mut script = Script::healthy();
        script.run(3.0);
        let base = script.now;
        for delay in delays {
            script.now = base + Duration::from_millis(delay);
            script.ask_sql("n1");
            script.ask_sql("n2");
        }
        prop_assert!(!script.told().iter().any(|event| event.starts_with("split_brain")));
    }
}
