use proptest::prelude::*;

use super::*;

/// Bodies as real versions send them.
const PRIMARY_4_1: &str = r#"{"state":"running","postmaster_start_time":"2026-11-23 05:42:31.494143+00:00","role":"primary",
  "server_version":150018,"xlog":{"location":103855768},"timeline":1,"replication":[{"usename":"repl",
  "application_name":"n2","client_addr":"10.0.0.12","state":"streaming","sync_state":"async","sync_priority":0}],
  "dcs_last_seen":1795412638,"database_system_identifier":"7711237130361182642",
  "patroni":{"version":"4.1.5","scope":"main","name":"n1"}}"#;
const REPLICA_3_0: &str = r#"{"state":"running","postmaster_start_time":"2026-11-23 05:38:36.095480+00:00","role":"replica",
  "server_version":150018,"xlog":{"received_location":103814248,"replayed_location":103814240,
  "replayed_timestamp":"2026-11-23 05:43:59.181150+00:00","paused":true},"timeline":0,"pause":true,"sync_standby":true,
  "cluster_unlocked":true,"tags":{"nofailover":true,"zone":"a"},"pending_restart":true,
  "patroni":{"version":"3.0.2","scope":"main"}}"#;
const MASTER_2_1: &str = r#"{"state":"running","postmaster_start_time":"2022-01-02 03:04:05.678 UTC","role":"master",
  "server_version":130004,"xlog":{"location":5},"timeline":3,"patroni":{"version":"2.1.0","scope":"main"}}"#;
const STARTING: &str =
    r#"{"state":"starting","role":"demoted","patroni":{"version":"4.0.1","scope":"main","name":"n1"}}"#;

#[test]
fn a_primary_of_4_1() {
    let (status, identity) = status(PRIMARY_4_1.as_bytes()).unwrap();
    assert_eq!(identity, Identity { scope: Some("main".into()), name: Some("n1".into()) });
    assert_eq!(status.role, "primary");
    assert_eq!(status.location, Some(Lsn(103_855_768)));
    assert_eq!(status.timeline, Some(1));
    assert_eq!(status.server_version, Some(150_018));
    assert_eq!(status.postmaster_start_time.unwrap().to_string(), "2026-11-23T05:42:31.494143Z");
    assert_eq!(status.dcs_last_seen, Some(Timestamp::from_secs(1_795_412_638)));
    assert!(!status.pause && !status.cluster_unlocked);
}

#[test]
fn a_replica_of_3_0_with_every_flag() {
    let (status, identity) = status(REPLICA_3_0.as_bytes()).unwrap();
    assert_eq!(identity.name, None);
    assert_eq!((status.timeline, status.location), (None, None));
    assert_eq!(status.received_location, Some(Lsn(103_814_248)));
    assert_eq!(status.replay_paused, Some(true));
    assert!(status.pause && status.sync_standby && status.cluster_unlocked && status.pending_restart);
    assert_eq!(status.tags, BTreeMap::from([("nofailover".into(), "true".into()), ("zone".into(), "a".into())]));
}

#[test]
fn old_words_and_missing_keys() {
    let (old, _) = status(MASTER_2_1.as_bytes()).unwrap();
    assert_eq!(old.role, "primary");
    assert_eq!(old.postmaster_start_time.unwrap().to_string(), "2022-01-02T03:04:05.678Z");
    let (starting, _) = status(STARTING.as_bytes()).unwrap();
    assert_eq!((starting.state.as_str(), starting.role.as_str()), ("starting", "demoted"));
    let (odd, _) = status(br#"{"state":5,"role":"replica","xlog":[],"timeline":"x","tags":[1]}"#).unwrap();
    assert_eq!(odd, PatroniStatus { state: "unknown".into(), role: "replica".into(), ..PatroniStatus::default() });
}

#[test]
fn what_is_not_patroni_is_an_error() {
    for body in ["", "<html>", "[]", "5", r#"{"hello":"world"}"#] {
        assert!(status(body.as_bytes()).is_err(), "{body}");
        assert!(cluster(body.as_bytes()).is_err(), "{body}");
    }
    assert!(history(b"{}").is_err());
}

#[test]
fn the_cluster_view() {
    let view = cluster(
        br#"{"members":[
          {"name":"n1","role":"leader","state":"running","api_url":"http://10.0.0.11:8008/patroni","host":"10.0.0.11","port":5432,"timeline":7},
          {"name":"n2","role":"replica","state":"streaming","host":"n2.example","port":"5432","timeline":7,"lag":16,"receive_lag":0},
          {"name":"n3","role":"sync_standby","state":"start failed","api_url":"http://10.0.0.13:8008/patroni","host":"10.0.0.13","lag":"unknown"},
          {"role":"replica"}, 7],
          "scope":"main","pause":true}"#,
    )
    .unwrap();
    assert_eq!((view.scope.as_deref(), view.pause, view.members.len()), (Some("main"), true, 3));
    assert_eq!(view.members[0].timeline, Some(7));
    assert_eq!((view.members[1].port, view.members[1].lag_bytes), (0, Some(16)));
    assert_eq!((view.members[2].state.as_str(), view.members[2].lag_bytes), ("start failed", None));
}

#[test]
fn member_keys() {
    let address = member_key(
        "n1",
        br#"{"conn_url":"postgres://10.0.0.11:5433/postgres","api_url":"https://10.0.0.11:8008/patroni","state":"running"}"#,
    )
    .unwrap();
    assert_eq!((address.host.as_str(), address.port), ("10.0.0.11", 5433));
    assert_eq!(address.rest_url.as_deref(), Some("https://10.0.0.11:8008"));
    let v6 = member_key("n1", br#"{"conn_url":"postgres://[::1]/postgres"}"#).unwrap();
    assert_eq!((v6.host.as_str(), v6.port, v6.rest_url), ("::1", 5432, None));
    assert!(member_key("n1", b"{}").is_err());
}

#[test]
fn history_and_config() {
    let lines = history(
        br#"[[1,83886240,"no recovery target specified"],[2,100663456,"no recovery target specified","2026-11-23T05:50:00.123456+01:00","n2"],["x"]]"#,
    )
    .unwrap();
    assert_eq!(lines.iter().map(|line| line.timeline).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(lines[1].at.unwrap().to_string(), "2026-11-23T04:50:00.123456Z");
    let config = config(br#"{"ttl":30,"loop_wait":10,"retry_timeout":"x","postgresql":{}}"#).unwrap();
    assert_eq!(config, [("patroni_ttl", 30.0), ("patroni_loop_wait", 10.0)]);
}

/// Any JSON value, with the keys Patroni uses more often than others.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.+]{0,20}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        proptest::sample::select(vec![
            "state",
            "role",
            "xlog",
            "wal",
            "location",
            "timeline",
            "members",
            "name",
            "host",
            "port",
            "lag",
            "tags",
            "conn_url",
            "api_url",
            "patroni",
            "version",
            "scope",
            "postmaster_start_time",
            "dcs_last_seen",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..8)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_body_panics(value in any_json(), cut in any::<proptest::sample::Index>()) {
        let body = value.to_string();
        for bytes in [body.as_bytes(), &body.as_bytes()[..cut.index(body.len() + 1)]] {
            drop(status(bytes));
            drop(cluster(bytes));
            drop(member_key("m", bytes));
            drop(history(bytes));
            drop(config(bytes));
        }
    }
}
