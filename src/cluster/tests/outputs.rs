//! What leaves the judge: series, text, and readings of the keys.

use crate::cluster::dcs::{config_diff, parse_failover};
use crate::cluster::tests::script::{Script, primary};
use crate::cluster::text::{ago, bytes, status_table};
use crate::model::{Sample, Timestamp};

fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let fits = |sample: &&Sample| {
        sample.labels.metric_name() == name && labels.iter().all(|(name, value)| sample.labels.get(name) == Some(value))
    };
    samples.iter().find(fits).map(|sample| sample.value)
}

#[test]
fn series_of_a_healthy_cluster() {
    let mut script = Script::healthy();
    script.run(10.0);
    let samples = script.judge.samples(script.now);
    for (name, labels, expected) in [
        ("daraji_member_role", [("member", "n1"), ("role", "primary")].as_slice(), Some(1.0)),
        ("daraji_member_role", &[("member", "n1"), ("role", "replica")], Some(0.0)),
        ("daraji_member_role", &[("member", "n2"), ("role", "replica")], Some(1.0)),
        ("daraji_member_writable", &[("member", "n1")], Some(1.0)),
        ("daraji_member_writable", &[("member", "n2")], Some(0.0)),
        ("daraji_replication_lag_bytes", &[("member", "n2")], Some(0.0)),
        ("daraji_replication_lag_seconds", &[("member", "n2")], Some(0.0)),
        ("daraji_replication_lag_bytes", &[("member", "n1")], None),
        ("daraji_leader_lease_ttl_seconds", &[("cluster", "demo")], Some(25.0)),
        ("daraji_leader_lease_granted_ttl_seconds", &[], Some(30.0)),
        ("daraji_replica_broken", &[("member", "n2")], Some(0.0)),
        ("daraji_dcs_quorum", &[], Some(1.0)),
        ("daraji_cluster_health", &[("health", "ok")], Some(1.0)),
        ("daraji_cluster_health", &[("health", "critical")], Some(0.0)),
        ("daraji_split_brain", &[("state", "confirmed")], Some(0.0)),
        ("daraji_cluster_members_expected", &[], Some(3.0)),
        ("daraji_cluster_members_up", &[], Some(3.0)),
        ("daraji_cluster_has_leader", &[], Some(1.0)),
        ("daraji_cluster_writable_members", &[], Some(1.0)),
    ] {
        assert_eq!(value(&samples, name, labels), expected, "{name} {labels:?}");
    }
    assert!(value(&samples, "daraji_dcs_age_seconds", &[]).unwrap() < 2.0);
    assert!(samples.iter().all(|sample| sample.labels.get("cluster") == Some("demo")));
}

#[test]
fn what_is_unknown_gives_no_sample() {
    let mut script = Script::healthy();
    script.run(10.0);
    script.lose_host("n2");
    script.dcs_fails = Some(super::script::Fails(crate::model::observation::FailureKind::Timeout, "timed out"));
    script.run(12.0);
    let samples = script.judge.samples(script.now);
    for name in ["daraji_member_writable", "daraji_replication_lag_bytes", "daraji_replication_lag_seconds"] {
        assert_eq!(value(&samples, name, &[("member", "n2")]), None, "{name}");
    }
    assert_eq!(value(&samples, "daraji_member_role", &[("member", "n2"), ("role", "unknown")]), Some(1.0));
    assert_eq!(value(&samples, "daraji_cluster_has_leader", &[]), None);
    assert_eq!(value(&samples, "daraji_leader_lease_ttl_seconds", &[]), None);
    assert!(value(&samples, "daraji_dcs_age_seconds", &[]).unwrap() > 10.0);
}

#[test]
fn the_status_table_names_what_is_unknown() {
    let mut script = Script::healthy();
    script.run(10.0);
    let text = status_table(&[script.cluster()], script.now);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "demo  health ok  leader n1  timeline 1");
    assert_eq!(lines[1], "  leader key: n1, expires in 25s (read 0s ago)");
    assert_eq!(lines[2], "  etcd: quorum, 3 of 3 members healthy");
    assert_eq!(lines[3], "  failover: n2 would take over, 0 B behind");
    assert!(lines[4].starts_with("  MEMBER  ROLE     STATE      WRITABLE  TL  LAG"), "{text}");
    assert!(lines[5].starts_with("  n1      primary  running    yes       1   -"), "{text}");
    assert!(lines[6].starts_with("  n2      replica  streaming  no        1   0 B"), "{text}");
    script.lose_host("n2");
    script.refuse_rest("n1");
    script.expire("n1");
    script.acquire("n3");
    script.set("n3", primary(2));
    script.run(10.0);
    let text = status_table(&[script.cluster()], script.now);
    assert!(text.contains("  SPLIT BRAIN: n1, n3 since "), "{text}");
    assert!(text.contains("unknown"), "{text}");
    assert!(text.contains("! split brain: n1 and n3 take writes at the same time"), "{text}");
    assert_eq!(status_table(&[], script.now), "no clusters\n");
}

#[test]
fn numbers_for_people() {
    for (input, text) in
        [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (u64::MAX, "16384.0 PiB")]
    {
        assert_eq!(bytes(input), text);
    }
    let now = Timestamp::from_secs(1_000_000);
    for (secs, text) in [(3, "3s ago"), (90, "1m ago"), (7_300, "2h ago"), (200_000, "2d ago")] {
        assert_eq!(ago(Some(Timestamp::from_secs(1_000_000 - secs)), now), text);
    }
    assert_eq!(ago(None, now), "never");
}

#[test]
fn failover_keys_of_all_kinds() {
    let named = |name: &str| Some(name.to_owned());
    for (value, expected) in [
        ("{}", None),
        ("", None),
        ("null", None),
        ("garbage", None),
        (":", None),
        (r#"{"leader":"","member":""}"#, None),
        (r#"{"leader":"a"}"#, Some((named("a"), None))),
        (r#"{"leader":"a","member":"b"}"#, Some((named("a"), named("b")))),
        (r#"{"member":"b"}"#, Some((None, named("b")))),
        (r#"{"leader":7}"#, None),
        ("a:b", Some((named("a"), named("b")))),
        ("a:", Some((named("a"), None))),
    ] {
        assert_eq!(parse_failover(value).map(|(leader, candidate, _)| (leader, candidate)), expected, "{value}");
    }
}

#[test]
fn configuration_differences() {
    for (old, new, expected) in [
        ("{}", "{}", &[][..]),
        (r#"{"ttl":30}"#, r#"{"ttl":20}"#, &["ttl: 30 -> 20"]),
        (r#"{"a":{"b":{"c":1}}}"#, r#"{"a":{"b":{"c":2}}}"#, &["a.b.c: 1 -> 2"]),
        (r#"{"a":1}"#, "broken", &["a: 1 -> unset"]),
    ] {
        assert_eq!(config_diff(old, new), expected, "{old} {new}");
    }
}
