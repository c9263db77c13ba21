//! Unit tests of rules in the format of `promtool test rules`.
//!
//! Time is virtual and starts at the epoch. Which language engine evaluates is the caller's choice.

mod series;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::model::alert::ALERT_NAME;
use crate::model::{Labels, Sample, Timestamp};
use crate::platform::units::{deserialize_duration, deserialize_optional_duration};
use crate::platform::yaml::{self, Problem};

use super::evaluate::{AlertPhase, RuleData, RuleOptions, RuleSet};
use super::file::{CheckFn, RuleGroup, load};

/// Evaluations of one test; a test of a year at one second is a mistake.
const EVALUATIONS_MAX: u128 = 2_000_000;

/// What runs the expressions.
pub struct TestEngine<'a> {
    /// An empty store with its query engine, made anew for each test.
    pub new_store: &'a dyn Fn() -> Box<dyn RuleData>,
    /// Checks an expression when the rule file is read.
    pub check: CheckFn<'a>,
    /// The text of a file that is named relative to the test file.
    pub read_file: &'a dyn Fn(&str) -> Result<String, String>,
}

impl std::fmt::Debug for TestEngine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestEngine")
    }
}

/// How the tests of a file went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestReport {
    /// Tests that ran.
    pub tests: usize,
    /// What was not as expected, one text for each expectation.
    pub failures: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestFile {
    #[serde(default)]
    rule_files: Vec<String>,
    #[serde(default, deserialize_with = "deserialize_optional_duration")]
    evaluation_interval: Option<Duration>,
    #[serde(default)]
    group_eval_order: Vec<String>,
    #[serde(default)]
    tests: Vec<TestCase>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TestCase {
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "deserialize_optional_duration")]
    interval: Option<Duration>,
    #[serde(default)]
    input_series: Vec<InputSeries>,
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
    #[serde(default)]
    promql_expr_test: Vec<ExprTest>,
    #[serde(default)]
    external_labels: Labels,
    #[serde(default)]
    external_url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputSeries {
    series: SeriesName,
    values: SeriesValues,
}

/// A series as it is written in a selector with equal signs only.
#[derive(Debug)]
struct SeriesName(Labels);

impl<'de> Deserialize<'de> for SeriesName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        series::parse_name(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Values one interval apart; `None` is no sample.
#[derive(Debug)]
struct SeriesValues(Vec<Option<f64>>);

impl<'de> Deserialize<'de> for SeriesValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        series::parse_values(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertTest {
    #[serde(deserialize_with = "deserialize_duration")]
    eval_time: Duration,
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<ExpectedAlert>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedAlert {
    #[serde(default)]
    exp_labels: Labels,
    #[serde(default)]
    exp_annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExprTest {
    expr: String,
    #[serde(deserialize_with = "deserialize_duration")]
    eval_time: Duration,
    #[serde(default)]
    exp_samples: Vec<ExpectedSample>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedSample {
    labels: SeriesName,
    value: f64,
}

/// Runs the tests of a file. `Err`: the file or a rule file cannot be read.
pub fn run(file: &str, text: &str, engine: &TestEngine<'_>) -> Result<TestReport, Vec<Problem>> {
    let root = yaml::parse(file, text)?;
    let tests: TestFile = yaml::from_node(file, &root)?;
    let interval = tests.evaluation_interval.unwrap_or(super::file::INTERVAL_DEFAULT);
    let place = root.get("rule_files").unwrap_or(&root);
    let mut problems = Vec::new();
    let mut groups = Vec::new();
    for path in &tests.rule_files {
        match (engine.read_file)(path) {
            Ok(text) => match load(path, &text, interval, engine.check) {
                Ok(more) => groups.extend(more),
                Err(more) => problems.extend(more),
            },
            Err(error) => problems.push(Problem {
                file: file.to_owned(),
                line: place.line,
                column: place.column,
                message: format!("read rule file {path:?}: {error}"),
            }),
        }
    }
    if interval.is_zero() {
        problems.push(Problem {
            file: file.to_owned(),
            line: 1,
            column: 1,
            message: "evaluation_interval is zero".to_owned(),
        });
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    for group in &mut groups {
        group.interval = interval;
    }
    let order =
        |group: &RuleGroup| tests.group_eval_order.iter().position(|name| *name == group.name).unwrap_or(usize::MAX);
    groups.sort_by_key(order);
    let mut report = TestReport::default();
    for (number, case) in (1..).zip(&tests.tests) {
        report.tests += 1;
        let name = if case.name.is_empty() { format!("test {number}") } else { case.name.clone() };
        let mut failures = Vec::new();
        case.run(groups.clone(), interval, engine, &mut failures);
        report.failures.extend(failures.into_iter().map(|failure| format!("{name}: {failure}")));
    }
    Ok(report)
}

fn at(offset: Duration) -> Timestamp {
    Timestamp(0) + offset
}

impl TestCase {
    fn run(&self, groups: Vec<RuleGroup>, interval: Duration, engine: &TestEngine<'_>, failures: &mut Vec<String>) {
        let mut store = (engine.new_store)();
        store.append(self.samples(self.interval.unwrap_or(interval)));
        let options =
            RuleOptions { external_url: self.external_url.clone(), external_labels: self.external_labels.clone() };
        let mut rules = RuleSet::new(groups, options);
        let alert_times = self.alert_rule_test.iter().map(|test| test.eval_time);
        let last = alert_times.chain(self.promql_expr_test.iter().map(|test| test.eval_time)).max().unwrap_or_default();
        if last.as_nanos() / interval.as_nanos() > EVALUATIONS_MAX {
            failures.push(format!("more than {EVALUATIONS_MAX} evaluations until the last eval_time"));
            return;
        }
        let mut now = Duration::ZERO;
        while now <= last {
            let evaluation = rules.evaluate(at(now), store.as_mut());
            failures.extend(evaluation.errors.into_iter().map(|error| format!("at {}s: {error}", now.as_secs_f64())));
            let next = now + interval;
            for test in self.alert_rule_test.iter().filter(|test| test.eval_time >= now && test.eval_time < next) {
                test.check(&rules, failures);
            }
            now = next;
        }
        for test in &self.promql_expr_test {
            test.check(store.as_ref(), failures);
        }
    }

    /// All input samples, in order of time.
    fn samples(&self, interval: Duration) -> Vec<Sample> {
        let mut samples = Vec::new();
        for input in &self.input_series {
            let mut time = Duration::ZERO;
            for value in &input.values.0 {
                samples.extend(value.map(|value| Sample::new(input.series.0.clone(), at(time), value)));
                time += interval;
            }
        }
        samples.sort_by_key(|sample| sample.at);
        samples
    }
}

type ShownAlert = (String, BTreeMap<String, String>);

impl AlertTest {
    fn check(&self, rules: &RuleSet, failures: &mut Vec<String>) {
        let mut expected: Vec<ShownAlert> = self
            .exp_alerts
            .iter()
            .map(|alert| {
                (alert.exp_labels.with(ALERT_NAME, &self.alertname).to_string(), alert.exp_annotations.clone())
            })
            .collect();
        let states = rules.rules().filter(|(_, rule, _)| rule.name == self.alertname);
        let firing = states.flat_map(|(_, _, state)| state.alerts.values()).filter(|a| a.phase == AlertPhase::Firing);
        let mut found: Vec<ShownAlert> =
            firing.map(|alert| (alert.labels.to_string(), alert.annotations.clone())).collect();
        expected.sort();
        found.sort();
        if expected != found {
            failures.push(format!(
                "alert {} at {}s\n    expected: {}\n    found:    {}",
                self.alertname,
                self.eval_time.as_secs_f64(),
                show(&expected),
                show(&found)
            ));
        }
    }
}

fn show(alerts: &[ShownAlert]) -> String {
    if alerts.is_empty() {
        return "no alert".to_owned();
    }
    alerts
        .iter()
        .map(|(labels, annotations)| format!("{labels} {annotations:?}"))
        .collect::<Vec<_>>()
        .join("\n              ")
}

impl ExprTest {
    fn check(&self, store: &dyn RuleData, failures: &mut Vec<String>) {
        let found = match store.query(&self.expr, at(self.eval_time)) {
            Ok(found) => found,
            Err(error) => {
                failures.push(format!("expr {:?} at {}s: {error}", self.expr, self.eval_time.as_secs_f64()));
                return;
            }
        };
        let expected = self.exp_samples.iter().map(|sample| (sample.labels.0.clone(), sample.value));
        let (mut expected, mut found): (Vec<_>, _) = (expected.collect(), found);
        let by_labels = |a: &(Labels, f64), b: &(Labels, f64)| a.0.cmp(&b.0);
        expected.sort_by(by_labels);
        found.sort_by(by_labels);
        let same = expected.len() == found.len()
            && expected.iter().zip(&found).all(|(a, b)| a.0 == b.0 && (nearly_equal(a.1, b.1)));
        if !same {
            failures.push(format!(
                "expr {:?} at {}s\n    expected: {expected:?}\n    found:    {found:?}",
                self.expr,
                self.eval_time.as_secs_f64()
            ));
        }
    }
}

/// Equal up to the last digits, in which engines may differ by the order of their additions.
fn nearly_equal(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}
