use super::*;
use crate::model::sample::is_stale;

/// Knows series by name and `name == number`, with a look back of five minutes.
#[derive(Default)]
struct Tiny(Vec<Sample>);

impl RuleData for Tiny {
    fn query(&self, expr: &str, now: Timestamp) -> Result<Vec<(Labels, f64)>, String> {
        let (name, wanted) = match expr.split_once(" == ") {
            Some((name, wanted)) => (name, Some(wanted.parse::<f64>().map_err(|error| error.to_string())?)),
            None => (expr, None),
        };
        let mut latest: BTreeMap<Labels, f64> = BTreeMap::new();
        for sample in &self.0 {
            if sample.labels.metric_name() == name && sample.at <= now && now.since(sample.at).as_secs() < 300 {
                latest.insert(sample.labels.clone(), sample.value);
            }
        }
        let keep = |value: f64| !is_stale(value) && wanted.is_none_or(|wanted| (wanted - value).abs() < 1e-9);
        Ok(latest.into_iter().filter(|(_, value)| keep(*value)).collect())
    }

    fn append(&mut self, samples: Vec<Sample>) {
        self.0.extend(samples);
    }
}

const RULES: &str = "
groups:
  - name: g
    rules:
      - {record: 'copy', expr: up}
      - {alert: Down, expr: up == 0, for: 1m, labels: {severity: page}, annotations: {summary: '{{ $labels.job }}'}}
";

fn run_text(text: &str) -> Result<TestReport, Vec<String>> {
    let engine = TestEngine {
        new_store: &|| Box::new(Tiny::default()),
        check: &|_| Ok(()),
        read_file: &|path| if path == "rules.yml" { Ok(RULES.to_owned()) } else { Err("no such file".to_owned()) },
    };
    run("t.yml", text, &engine).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn tests_pass_and_fail_as_with_promtool() {
    let text = "
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'up{job=\"a\"}', values: '1 0x5 1'}
    alert_rule_test:
      - {eval_time: 1m, alertname: Down, exp_alerts: []}
      - {eval_time: 2m30s, alertname: Down, exp_alerts: [{exp_labels: {job: a, severity: page}, exp_annotations: {summary: a}}]}
      - {eval_time: 7m, alertname: Down}
    promql_expr_test:
      - {expr: copy, eval_time: 3m, exp_samples: [{labels: 'copy{job=\"a\"}', value: 0}]}
      - {expr: up == 1, eval_time: 3m}
";
    assert_eq!(run_text(text), Ok(TestReport { tests: 1, failures: Vec::new() }));
    let wrong = text.replace("summary: a", "summary: b").replace("value: 0", "value: 3").replace("[]", "[{}]");
    let failures = run_text(&wrong).unwrap().failures;
    assert_eq!(failures.len(), 3, "{failures:?}");
    assert!(failures[0].starts_with("test 1: alert Down at 60s"), "{failures:?}");
    assert!(failures[0].ends_with("found:    no alert"), "{failures:?}");
    assert!(failures[2].contains("expr \"copy\" at 180s"), "{failures:?}");
}

#[test]
fn broken_files_are_named_with_place() {
    assert_eq!(
        run_text("rule_files: [nope.yml]\ntests: []\n"),
        Err(vec!["t.yml:1:13: read rule file \"nope.yml\": no such file".to_owned()])
    );
    let problems = run_text("tests: [{input_series: [{series: 'a', values: '1 b'}], inteval: 1m}]\n").unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[1].contains("did you mean \"interval\""), "{problems:?}");
}
