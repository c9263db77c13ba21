use super::*;
use crate::model::incident::{Cause, IncidentAlert};
use crate::model::{Event, EventSeverity, Labels};

const CAUSES: &str = r#"
causes:
  - name: cut
    title: "$member was cut off"
    about: leader
    explains: [leader_changed]
    signs:
      - {id: cut, says: "no DCS", logql: '{source="patroni", member="$member"} | event="dcs_error"', required: true, weight: 2}
      - {id: alone, says: "others were fine", logql: '{source="patroni", member!="$member"} | event="dcs_error"', absent: true, weight: 2}
    against:
      - {id: asked, says: "asked for", logql: '{source="patroni"} | event="manual_request"', strong: true}
    advice: "mend it"
  - name: archive
    title: "archive of $member"
    about: member
    explains: [archive_failing]
    signs:
      - {id: failed, says: "failed", logql: '{source="postgresql", member="$member"} | event="archive_failed"', required: true}
    advice: "mend it"
"#;

fn record(seconds: i64, member: &str, source: &str, event: &str, fields: &[(&str, &str)]) -> LogRecord {
    let stream = Labels::from_pairs([("cluster", "c"), ("member", member), ("source", source), ("severity", "info")]);
    let mut all = vec![("event".to_owned(), event.to_owned())];
    all.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    LogRecord { at: Timestamp::from_secs(seconds), stream, line: format!("{event} of {member}"), fields: all }
}

/// n1 leads, loses the DCS, and n2 takes over.
fn failover() -> Vec<LogRecord> {
    let mut records = vec![
        record(10, "n1", "patroni", "hb_leader", &[]),
        record(10, "n2", "patroni", "hb_replica", &[("leader", "n1")]),
        record(20, "n1", "patroni", "hb_leader", &[]),
        record(30, "n1", "patroni", "dcs_error", &[]),
        record(40, "n2", "patroni", "promote_started", &[]),
        record(50, "n1", "patroni", "hb_idle", &[]),
        record(50, "n2", "patroni", "hb_leader", &[]),
        record(60, "n2", "postgresql", "archive_failed", &[]),
    ];
    records.sort_by_key(|record| record.at);
    records
}

fn verdict(records: &[LogRecord], events: &[Event]) -> Verdict {
    let catalogue = Catalogue::load([("c.yml", CAUSES)]).unwrap();
    let (start, end) = (Timestamp::from_secs(0), Timestamp::from_secs(100));
    let case =
        Case { cluster: "c", opened_at: None, start, end, began_at: None, calm_since: None, events, alerts: &[] };
    catalogue.explain(&case, records, None).unwrap()
}

fn shown(causes: &[Cause]) -> Vec<(&str, &str, Confidence)> {
    causes.iter().map(|c| (c.name.as_str(), c.member.as_deref().unwrap_or(""), c.confidence)).collect()
}

#[test]
fn the_gravest_effect_is_explained_first_and_the_rest_is_an_aside() {
    let verdict = verdict(&failover(), &[]);
    assert_eq!(shown(&verdict.causes), [("cut", "n1", Confidence::High), ("archive", "n2", Confidence::Low)]);
    assert_eq!(verdict.text, "n1 was cut off");
    let proof = &verdict.causes[0].evidence[0];
    assert_eq!((proof.sign.as_str(), proof.text.as_str()), ("no DCS", "n1: dcs_error of n1"));
}

/// The failover was an incident of its own, and is over; its lines are no evidence of what came a minute later.
#[test]
fn the_trouble_before_explains_nothing_that_came_after_it_was_over() {
    let catalogue = Catalogue::load([("c.yml", CAUSES)]).unwrap();
    let mut records = failover();
    records.extend((7..13).map(|n| record(n * 10, "n2", "patroni", "hb_leader", &[])));
    let alert = IncidentAlert {
        name: "NoWritableMember".to_owned(),
        severity: EventSeverity::Critical,
        firing_since: Timestamp::from_secs(110),
        resolved_at: None,
    };
    let began = Some(Timestamp::from_secs(105));
    let cut = || vec![("cut", "n1", Confidence::High)];
    for (began_at, calm_since, expected) in [(None, None, cut()), (None, Some(70), vec![]), (began, None, vec![])] {
        let case = Case {
            cluster: "c",
            opened_at: Some(Timestamp::from_secs(110)),
            start: Timestamp::from_secs(0),
            end: Timestamp::from_secs(130),
            began_at,
            calm_since: calm_since.map(Timestamp::from_secs),
            events: &[],
            alerts: std::slice::from_ref(&alert),
        };
        let verdict = catalogue.explain(&case, &records[..], None).unwrap();
        let found: Vec<_> = shown(&verdict.causes).into_iter().filter(|(name, ..)| *name == "cut").collect();
        assert_eq!(found, expected, "{began_at:?} {calm_since:?}");
    }
}

#[test]
fn what_was_not_observed_is_missing_and_never_absent() {
    // Nothing of n1 after the trouble began: its Patroni may have said anything.
    let records: Vec<_> = failover()
        .into_iter()
        .filter(|one| one.stream.get("member") == Some("n2") || one.at.0 < 25_000_000_000)
        .collect();
    let verdict = verdict(&records, &[]);
    assert_eq!(shown(&verdict.causes), [("cut", "n1", Confidence::Low), ("archive", "n2", Confidence::Low)]);
    assert!(verdict.text.starts_with("Not enough evidence"), "{}", verdict.text);
    assert!(verdict.causes[0].missing[0].contains("nothing of n1's patroni log after 00:00:20.000"), "{verdict:?}");
    assert_eq!(verdict.missing, ["nothing of n1's patroni log after 00:00:20.000"]);
}

#[test]
fn what_speaks_strongly_against_a_cause_keeps_it_low() {
    let mut records = failover();
    records.insert(4, record(35, "n1", "patroni", "manual_request", &[]));
    let verdict = verdict(&records, &[]);
    assert_eq!(verdict.causes[0].confidence, Confidence::Low);
    assert_eq!(verdict.causes[0].against.len(), 1);
}

#[test]
fn a_required_sign_that_is_not_there_puts_the_cause_out() {
    let records: Vec<_> = failover().into_iter().filter(|one| one.field("event") != Some("dcs_error")).collect();
    assert_eq!(shown(&verdict(&records, &[]).causes), [("archive", "n2", Confidence::Low)]);
}

#[test]
fn nothing_happened_nothing_is_said() {
    let records: Vec<_> = failover().into_iter().take(3).collect();
    let verdict = verdict(&records, &[]);
    assert_eq!((verdict.causes.len(), verdict.text.as_str()), (0, "Nothing that needs a cause was found"));
}

#[test]
fn every_problem_of_a_file_has_its_place() {
    let text = r#"
causes:
  - name: Bad Name
    title: "$membr"
    about: cluster
    explains: [leader_lots]
    signs:
      - {id: a, says: "$member", logql: '{source="x"', weight: 0}
      - {id: a, says: "b", logql: 'rate({a="b"}[1m])', promql: 'up'}
      - {id: c, says: "b", silent: '{a="b"}', from: 5m, to: 1m}
    order: [z]
    advice: ""
  - name: other
    absnt: true
"#;
    let problems: Vec<String> = load("f.yml", text).unwrap_err().iter().map(ToString::to_string).collect();
    for wanted in [
        "f.yml:3:11: a cause's name has",
        "f.yml:4:12: \"$membr\" is no variable; did you mean \"$member\"?",
        "f.yml:6:16: \"leader_lots\" is neither an effect nor an alert; did you mean \"leader_lost\"?",
        "f.yml:8:23: a cause about the cluster has no $member",
        "could not parse expression",
        "a weight is above 0",
        "exactly one of `logql`, `promql` and `silent`",
        "the window is empty",
        "\"z\" is no sign of this cause",
        "f.yml:14:5: unknown key \"absnt\"",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(wanted)), "{wanted}: {problems:#?}");
    }
}

#[test]
fn causes_name_only_causes_that_exist() {
    let text = CAUSES.replace("    about: leader", "    about: leader\n    supersedes: [archve]");
    let problems = Catalogue::load([("c.yml", text.as_str())]).unwrap_err();
    assert!(problems[0].message.contains("did you mean \"archive\"?"), "{problems:?}");
}

#[test]
fn the_shipped_catalogue_loads_and_covers_the_known_scenarios() {
    let catalogue = shipped::catalogue().unwrap();
    assert!(catalogue.names().count() >= 36);
    for wanted in ["host_lost", "patroni_killed", "patroni_hung", "leader_partitioned", "dcs_quorum_lost", "switchover"]
    {
        assert!(catalogue.names().any(|name| name == wanted), "{wanted}");
    }
}
