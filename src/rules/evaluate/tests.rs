use std::cell::RefCell;

use super::*;
use crate::model::sample::is_stale;
use crate::rules::file::load;

/// Answers each expression with what the test put there, and keeps what is written.
#[derive(Default)]
struct Fake {
    answers: BTreeMap<String, Result<Vec<(Labels, f64)>, String>>,
    written: Vec<Sample>,
    asked: RefCell<Vec<Timestamp>>,
}

impl RuleData for Fake {
    fn query(&self, expr: &str, at: Timestamp) -> Result<Vec<(Labels, f64)>, String> {
        self.asked.borrow_mut().push(at);
        if let Some(name) = expr.strip_prefix("written ") {
            let mut found: Vec<(Labels, f64)> = Vec::new();
            for sample in self.written.iter().filter(|sample| sample.labels.metric_name() == name && sample.at == at) {
                found.push((sample.labels.without(&["alertstate"]), sample.value));
            }
            return Ok(found);
        }
        self.answers.get(expr).cloned().unwrap_or_else(|| Ok(Vec::new()))
    }

    fn append(&mut self, samples: Vec<Sample>) {
        self.written.extend(samples);
    }
}

impl Fake {
    fn set(&mut self, expr: &str, instances: &[&str]) {
        let answer = instances.iter().map(|i| (Labels::metric("up", &[("instance", i)]), 0.0)).collect();
        self.answers.insert(expr.to_owned(), Ok(answer));
    }
}

const HOLD: &str = "
groups:
  - name: g
    interval: 10s
    rules:
      - alert: Down
        expr: down
        for: 20s
        keep_firing_for: 15s
        labels: {severity: critical}
        annotations: {summary: '{{ $labels.instance }} {{ $value }}'}
";

fn rule_set(text: &str) -> RuleSet {
    let groups = load("r.yml", text, Duration::from_mins(1), &|_| Ok(())).unwrap();
    RuleSet::new(groups, RuleOptions { external_url: "http://d/".to_owned(), ..RuleOptions::default() })
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + seconds)
}

fn phases(set: &RuleSet) -> Vec<&'static str> {
    set.rules().flat_map(|(_, _, state)| state.alerts.values().map(|alert| alert.phase.as_str())).collect()
}

#[test]
fn pending_firing_kept_and_resolved() {
    let mut set = rule_set(HOLD);
    let mut data = Fake::default();
    // Time, whether the expression holds, expected phases, expected number of stored changes.
    for (seconds, holds, expected, changes) in [
        (0, true, vec!["pending"], 1),
        (10, true, vec!["pending"], 0),
        (20, true, vec!["firing"], 1),
        (30, false, vec!["firing"], 1),
        (40, false, vec!["firing"], 0),
        (50, false, vec!["inactive"], 1),
        (60, false, vec!["inactive"], 0),
        (70, true, vec!["pending"], 1),
        (80, false, vec![], 1),
        (90, false, vec![], 0),
    ] {
        data.set("down", if holds { &["a"] } else { &[] });
        let evaluation = set.evaluate(at(seconds), &mut data);
        assert_eq!(phases(&set), expected, "at {seconds}");
        assert_eq!(evaluation.changes.len(), changes, "at {seconds}: {:?}", evaluation.changes);
    }
    let series = |name: &str, state: &str| {
        let matching = data.written.iter().filter(|sample| {
            sample.labels.metric_name() == name && sample.labels.get("alertstate").unwrap_or("") == state
        });
        matching.map(|sample| (sample.at.millis() / 1000 - 1_000_000, is_stale(sample.value))).collect::<Vec<_>>()
    };
    assert_eq!(series("ALERTS", "pending"), [(0, false), (10, false), (20, true), (70, false), (80, true)]);
    assert_eq!(series("ALERTS", "firing"), [(20, false), (30, false), (40, false), (50, true)]);
    assert_eq!(series("ALERTS_FOR_STATE", "").len(), 8);
}

#[test]
fn alerts_carry_labels_annotations_and_their_end() {
    let mut set = rule_set(HOLD);
    let mut data = Fake::default();
    data.set("down", &["a", "b"]);
    for seconds in [0, 10, 20] {
        set.evaluate(at(seconds), &mut data);
    }
    data.set("down", &["b"]);
    for seconds in [30, 40, 50] {
        set.evaluate(at(seconds), &mut data);
    }
    let alerts = set.alerts();
    let resolved = alerts.iter().find(|alert| alert.label("instance") == "a").unwrap();
    assert_eq!(resolved.labels.to_string(), r#"{alertname="Down", instance="a", severity="critical"}"#);
    assert_eq!((resolved.starts_at, resolved.ends_at), (at(20), Some(at(50))));
    assert_eq!(resolved.annotation("summary"), "a 0");
    assert_eq!(resolved.generator_url, "http://d/graph?g0.expr=down&g0.tab=1");
    assert!(alerts.iter().any(|alert| alert.label("instance") == "b" && alert.ends_at.is_none()));
    for seconds in (60..1000).step_by(10) {
        set.evaluate(at(seconds), &mut data);
    }
    assert_eq!(phases(&set), ["firing"], "the resolved one is forgotten after 15 minutes");
}

#[test]
fn a_failing_query_changes_nothing() {
    let mut set = rule_set(HOLD);
    let mut data = Fake::default();
    data.set("down", &["a"]);
    for seconds in [0, 10, 20] {
        set.evaluate(at(seconds), &mut data);
    }
    data.answers.insert("down".to_owned(), Err("store is closed".to_owned()));
    let written = data.written.len();
    let evaluation = set.evaluate(at(30), &mut data);
    assert_eq!(evaluation.errors, [r#"r.yml: group "g": rule "Down": store is closed"#]);
    assert_eq!((phases(&set), data.written.len()), (vec!["firing"], written));
    assert_eq!(set.groups[0].rules[0].health, RuleHealth::Err);
}

#[test]
fn everything_survives_a_restart() {
    let mut data = Fake::default();
    data.set("down", &["a"]);
    let mut set = rule_set(HOLD);
    let mut stored = BTreeMap::new();
    for seconds in [0, 10] {
        stored.extend(set.evaluate(at(seconds), &mut data).changes);
    }
    let rows = |stored: &BTreeMap<String, Option<ActiveAlert>>| {
        stored.iter().filter_map(|(key, alert)| alert.clone().map(|alert| (key.clone(), alert))).collect::<Vec<_>>()
    };
    let mut set = rule_set(HOLD);
    assert_eq!(set.restore(rows(&stored)), []);
    stored.extend(set.evaluate(at(21), &mut data).changes);
    assert_eq!(phases(&set), ["firing"], "the time before the restart counts for `for`");
    data.set("down", &[]);
    let mut set = rule_set(HOLD);
    set.restore(rows(&stored));
    assert_eq!(set.alerts().len(), 1, "it fires before the first evaluation");
    set.evaluate(at(30), &mut data);
    assert_eq!(phases(&set), ["firing"], "keep_firing_for holds across the restart");
    let other = HOLD.replace("down\n", "elsewhere\n");
    let orphans = rule_set(&other).restore(rows(&stored));
    assert_eq!(orphans.len(), 1, "rows of a rule that is gone are to be deleted");
}

#[test]
fn a_restored_alert_is_not_over_before_its_sources_were_asked() {
    let text = HOLD.replace("keep_firing_for: 15s", "keep_firing_for: 0s");
    let mut data = Fake::default();
    data.set("down", &["a"]);
    let mut set = rule_set(&text);
    let mut stored = BTreeMap::new();
    for seconds in [0, 10, 20] {
        stored.extend(set.evaluate(at(seconds), &mut data).changes);
    }
    let mut set = rule_set(&text);
    set.restore(stored.into_iter().filter_map(|(key, alert)| Some((key, alert?))).collect());
    data.set("down", &[]);
    for seconds in [600, 610, 640] {
        set.evaluate(at(seconds), &mut data);
        assert_eq!(phases(&set), ["firing"], "{seconds} s");
    }
    set.evaluate(at(650), &mut data);
    assert_eq!(phases(&set), ["inactive"]);
}

#[test]
fn rules_of_a_group_see_each_other_and_limits_hold() {
    let text = "
groups:
  - name: g
    interval: 10s
    limit: 1
    query_offset: 5s
    rules:
      - {record: 'job:x', expr: source, labels: {a: b}}
      - {alert: A, expr: 'written job:x', labels: {name: '{{ $labels.__name__ }}'}}
      - {alert: Twice, expr: two, labels: {instance: same}}
      - {alert: Many, expr: two}
      - {alert: Broken, expr: one, labels: {x: '{{ gt $value 1 }}'}}
";
    let mut set = rule_set(text);
    let mut data = Fake::default();
    data.set("source", &["a"]);
    data.set("one", &["a"]);
    data.set("two", &["a", "b"]);
    let evaluation = set.evaluate(at(0), &mut data);
    let firing: Vec<String> = set.alerts().iter().map(|alert| alert.labels.to_string()).collect();
    assert_eq!(firing[0], r#"{a="b", alertname="A", instance="a", name="job:x"}"#);
    assert!(firing[1].contains("<error expanding template:"), "{firing:?}");
    assert_eq!(firing.len(), 2);
    assert_eq!(
        evaluation.errors,
        [
            r#"r.yml: group "g": rule "Twice": vector contains metrics with the same labelset after applying alert labels"#,
            r#"r.yml: group "g": rule "Many": exceeded limit of 1 with 2 alerts"#,
        ]
    );
    assert!(data.asked.borrow().iter().all(|time| *time == at(-5)));
}

#[test]
fn slots_are_kept_skipped_and_survive_a_clock_set_back() {
    let mut set = rule_set(HOLD);
    let mut data = Fake::default();
    for (seconds, evaluated) in
        [(3, 1), (4, 0), (9, 0), (10, 1), (12, 0), (45, 1), (49, 0), (50, 1), (-7200, 1), (-7199, 0)]
    {
        assert_eq!(set.evaluate(at(seconds), &mut data).groups_evaluated, evaluated, "at {seconds}");
    }
    assert_eq!(set.groups[0].iterations_missed, 2);
}

#[test]
fn a_reload_keeps_the_state_of_rules_that_are_the_same() {
    let mut set = rule_set(HOLD);
    let mut data = Fake::default();
    data.set("down", &["a"]);
    for seconds in [0, 20] {
        set.evaluate(at(seconds), &mut data);
    }
    let mut set = rule_set(&HOLD.replace("for: 20s", "for: 60s")).inherit(&set);
    assert_eq!(phases(&set), ["firing"]);
    set.evaluate(at(30), &mut data);
    assert_eq!(phases(&set), ["pending"], "`for` was raised");
}
