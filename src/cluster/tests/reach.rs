//! What the agents' reports change: why a member is lost, and whether an old primary may still write.

use crate::cluster::tests::script::{Fails, NAMES, Script, primary};
use crate::model::observation::{Claim, FailureKind, Port, PortProbe, Source};

/// The agent of `from` reports of all members; `fails` names those whose ports it cannot reach, and how.
fn report(script: &mut Script, from: &str, fails: &[(&str, FailureKind)]) {
    let failure = |name: &str| fails.iter().find(|(other, _)| *other == name).map(|(_, kind)| *kind);
    let probe = |name: &&str, port| PortProbe { target: (*name).to_owned(), port, failure: failure(name) };
    let ports = NAMES.iter().flat_map(|name| [probe(name, Port::Postgres), probe(name, Port::Rest)]).collect();
    script.observe(Source::Agent { member: from.to_owned() }, Claim::Reach(ports));
}

fn run_with_reports(script: &mut Script, seconds: u32, from: &[&str], fails: &[(&str, FailureKind)]) {
    for second in 0..seconds {
        if second % 5 == 0 {
            for from in from {
                report(script, from, fails);
            }
        }
        script.run(1.0);
    }
}

#[test]
fn a_lost_member_is_down_or_it_is_us_who_are_cut_off() {
    use FailureKind::{Refused, Timeout};
    let others = ["n1", "n2"];
    for (what, from, fails, expected) in [
        ("nobody else looks", &[][..], &[][..], "unknown"),
        ("the others reach it", &others, &[], "monitor_cut_off"),
        ("one of the others does", &others, &[("n3", Timeout)], "unreachable_from_all"),
        ("its own agent reaches it", &["n3"], &[], "monitor_cut_off"),
        ("only its own agent tries, and hangs", &["n3"], &[("n3", Timeout)], "unknown"),
        ("the host refuses", &others, &[("n3", Refused)], "down"),
    ] {
        let mut script = Script::settled();
        run_with_reports(&mut script, 6, from, &[]);
        script.take();
        script.lose_host("n3");
        run_with_reports(&mut script, 14, from, fails);
        let event = script.event("member_lost");
        assert_eq!(event.fields["reason"], expected, "{what}: {}", event.text);
        assert_eq!(event.fields["sources"], "rest unreachable, sql unreachable", "{what}");
        assert_eq!(event.fields.contains_key("postgres_port"), !from.is_empty(), "{what}");
    }
    let mut script = Script::settled();
    script.refuse_rest("n3");
    script.refuse_sql("n3");
    script.run(10.0);
    assert_eq!(script.event("member_lost").fields["reason"], "down");

    // Connections are taken, by the agents' word too, and nobody answers on them.
    let mut script = Script::settled();
    let hangs = || Fails(Timeout, "no answer");
    script.rest_fails.insert("n3".to_owned(), hangs());
    script.sql_fails.insert("n3".to_owned(), hangs());
    run_with_reports(&mut script, 14, &others, &[]);
    assert_eq!(script.event("member_lost").fields["reason"], "not_answering");
}

#[test]
fn a_primary_that_only_we_cannot_see_is_not_counted_out() {
    let writers = |script: &Script| {
        let samples = script.judge.samples(script.now);
        let found = samples.iter().find(|sample| sample.labels.metric_name() == "daraji_cluster_writable_members");
        found.map(|sample| sample.value)
    };
    for (fails, expected) in [(&[][..], None), (&[("n1", FailureKind::Unreachable)], Some(0.0))] {
        let mut script = Script::settled();
        script.lose_host("n1");
        run_with_reports(&mut script, 14, &["n2", "n3"], fails);
        assert_eq!(writers(&script), expected);
    }
}

#[test]
fn a_report_from_before_the_silence_is_no_evidence() {
    let mut script = Script::settled();
    report(&mut script, "n1", &[]);
    script.lose_host("n3");
    // The agents have died with the network: their last word was good.
    script.run(9.0);
    assert!(!script.told().contains(&"member_lost n3".to_owned()), "they are given time to report");
    script.run(6.0);
    assert_eq!(script.event("member_lost").fields["reason"], "unknown");
}

/// n1 is out of our sight, and n2 has taken over.
fn dark_primary() -> Script {
    let mut script = Script::settled();
    script.lose_host("n1");
    script.run(5.0);
    script.expire("n1");
    script.acquire("n2");
    script.set("n2", primary(2));
    script
}

#[test]
fn a_refusing_port_is_fencing_evidence_and_an_open_one_is_not() {
    use FailureKind::{Refused, Timeout};
    for (fails, possible, port) in [
        (&[("n1", Refused)][..], false, ""),
        (&[("n1", Timeout)], true, "n2 timeout, n3 timeout"),
        (&[], true, "n2 open, n3 open"),
    ] {
        let mut script = dark_primary();
        run_with_reports(&mut script, 12, &["n2", "n3"], fails);
        let raised = script.events.iter().find(|event| event.event == "split_brain_possible");
        assert_eq!(raised.is_some(), possible, "{fails:?}: {:?}", script.told());
        assert_eq!(raised.map_or("", |event| event.fields["postgres_port"].as_str()), port);
        assert_eq!(script.cluster().split_brain.is_some(), possible);
    }
}

#[test]
fn evidence_that_comes_later_ends_the_doubt() {
    let mut script = dark_primary();
    script.run(8.0);
    assert!(script.take().contains(&"split_brain_possible n1".to_owned()));
    report(&mut script, "n3", &[("n1", FailureKind::Refused)]);
    script.run(1.0);
    assert!(script.take().contains(&"split_brain_ended".to_owned()));
    // A single agent behind a broken link does not outvote one that connects.
    let mut script = dark_primary();
    script.run(8.0);
    report(&mut script, "n2", &[]);
    report(&mut script, "n3", &[("n1", FailureKind::Refused)]);
    script.run(1.0);
    assert!(script.cluster().split_brain.is_some());
}

#[test]
fn the_matrix_is_shown_while_it_is_fresh() {
    let mut script = Script::settled();
    report(&mut script, "n2", &[("n3", FailureKind::Timeout)]);
    let value = |script: &Script, target: &str| {
        let samples = script.judge.samples(script.now);
        let fits = |sample: &&crate::model::Sample| {
            sample.labels.metric_name() == "daraji_reachable"
                && sample.labels.get("member") == Some("n2")
                && sample.labels.get("target") == Some(target)
                && sample.labels.get("port") == Some("rest")
        };
        samples.iter().find(fits).map(|sample| sample.value)
    };
    assert_eq!((value(&script, "n1"), value(&script, "n3")), (Some(1.0), Some(0.0)));
    let matrix = script.cluster().reachability;
    assert_eq!(matrix.len(), 6);
    assert_eq!(matrix[4].failure, Some(FailureKind::Timeout));
    script.run(16.0);
    assert_eq!((value(&script, "n1"), script.cluster().reachability.len()), (None, 0));
}
