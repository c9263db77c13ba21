//! Reading rule files. All problems of a file are reported at once, each with its place.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use crate::model::labels::{METRIC_NAME, is_label_name};
use crate::platform::units::deserialize_optional_duration;
use crate::platform::yaml::{self, Node, Problem};

use super::template::Template;

/// Interval of groups that name none, unless the configuration says otherwise.
pub const INTERVAL_DEFAULT: Duration = Duration::from_mins(1);

/// Variables of the templates in labels and annotations.
pub(super) const TEMPLATE_VARIABLES: [&str; 4] = ["labels", "externalLabels", "externalURL", "value"];

/// Rules that are evaluated together, in order.
#[derive(Clone, Debug)]
pub struct RuleGroup {
    pub file: String,
    pub name: String,
    pub interval: Duration,
    /// The expressions see the data of this much earlier.
    pub query_offset: Duration,
    pub language: Language,
    /// Alerts that one rule may have at once; 0 is no limit.
    pub limit: usize,
    pub rules: Vec<Rule>,
}

/// Language of a group's expressions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    #[default]
    PromQl,
    LogQl,
}

/// Log lines arrive later than samples: rules over logs look back by this much unless they say otherwise.
const LOG_QUERY_OFFSET: Duration = Duration::from_secs(5);

impl RuleGroup {
    /// The same group with expressions in LogQL.
    #[must_use]
    pub fn over_logs(mut self) -> Self {
        self.language = Language::LogQl;
        if self.query_offset.is_zero() {
            self.query_offset = LOG_QUERY_OFFSET;
        }
        self
    }
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The recorded metric or the alert.
    pub name: String,
    pub expr: String,
    pub kind: RuleKind,
    /// Labels with the group's merged under them; templates in alerting rules.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Parsed forms of `labels` and `annotations`; empty in recording rules.
    pub(super) label_templates: BTreeMap<String, Template>,
    pub(super) annotation_templates: BTreeMap<String, Template>,
}

/// What a rule does with its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleKind {
    Recording,
    /// Fires after its expression held for `hold` (`for`), and for `keep_firing` longer than it holds.
    Alerting {
        hold: Duration,
        keep_firing: Duration,
    },
}

/// Checks an expression; the text says what is wrong.
pub type CheckFn<'a> = &'a dyn Fn(&str) -> Result<(), String>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    groups: Vec<RawGroup>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGroup {
    name: String,
    #[serde(default, deserialize_with = "deserialize_optional_duration")]
    interval: Option<Duration>,
    #[serde(default, deserialize_with = "deserialize_optional_duration")]
    query_offset: Option<Duration>,
    #[serde(default)]
    limit: usize,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    rules: Vec<RawRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    record: Option<String>,
    alert: Option<String>,
    expr: Option<String>,
    #[serde(rename = "for", default, deserialize_with = "deserialize_optional_duration")]
    hold: Option<Duration>,
    #[serde(default, deserialize_with = "deserialize_optional_duration")]
    keep_firing_for: Option<Duration>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Reads the text of a rule file. `check` knows the language of the expressions.
pub fn load(
    file: &str,
    text: &str,
    interval_default: Duration,
    check: CheckFn<'_>,
) -> Result<Vec<RuleGroup>, Vec<Problem>> {
    let root = yaml::parse(file, text)?;
    let mut loader = Loader { file, check, problems: Vec::new() };
    let nodes = root.get("groups").map_or(&[][..], Node::items);
    let raw: RawFile = match yaml::from_node(file, &root) {
        Ok(raw) => raw,
        Err(problems) => {
            loader.problems = problems;
            loader.check_readable_rules(nodes);
            return Err(loader.into_problems());
        }
    };
    let mut names = BTreeSet::new();
    let mut groups = Vec::new();
    for (group, node) in raw.groups.into_iter().zip(nodes) {
        let name_node = node.get("name").unwrap_or(node);
        if group.name.is_empty() {
            loader.problem(name_node, "group name is empty");
        }
        if !names.insert(group.name.clone()) {
            loader.name_stands_twice(name_node, &group.name);
        }
        if group.interval.is_some_and(|interval| interval.is_zero()) {
            loader.problem(node.get("interval").unwrap_or(node), "interval is zero; leave it out for the default");
        }
        groups.push(loader.group(group, node, interval_default));
    }
    if loader.problems.is_empty() { Ok(groups) } else { Err(loader.into_problems()) }
}

/// Where a rule stands, in the words of its author.
fn rule_context(group: &str, number: usize, rule: &RawRule) -> String {
    let name = rule.alert.as_deref().or(rule.record.as_deref()).unwrap_or("");
    format!("group {group:?}, rule {number}, {name:?}")
}

struct Loader<'a> {
    file: &'a str,
    check: CheckFn<'a>,
    problems: Vec<Problem>,
}

impl Loader<'_> {
    fn problem(&mut self, node: &Node, message: impl Into<String>) {
        let (line, column) = (node.line, node.column);
        self.problems.push(Problem { file: self.file.to_owned(), line, column, message: message.into() });
    }

    fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems
    }

    /// In a file that cannot be read as a whole: checks the rules that can be read, so that their problems are not
    /// found only once the others are mended.
    fn check_readable_rules(&mut self, groups: &[Node]) {
        let text = |node: &Node, key| node.get(key).and_then(|node| yaml::from_node::<String>(self.file, node).ok());
        let names: Vec<String> = groups.iter().map(|group| text(group, "name").unwrap_or_default()).collect();
        let exprs: Vec<Vec<Option<String>>> = groups
            .iter()
            .map(|group| {
                group.get("rules").map_or(&[][..], Node::items).iter().map(|rule| text(rule, "expr")).collect()
            })
            .collect();
        for (index, (group, name)) in groups.iter().zip(&names).enumerate() {
            if !name.is_empty() && names.iter().take(index).any(|earlier| earlier == name) {
                self.name_stands_twice(group.get("name").unwrap_or(group), name);
            }
            let rules = group.get("rules").map_or(&[][..], Node::items);
            let exprs = exprs.get(index).map_or(&[][..], Vec::as_slice);
            for (number, (node, expr)) in (1..).zip(rules.iter().zip(exprs)) {
                match yaml::from_node::<RawRule>(self.file, node) {
                    Ok(rule) => {
                        let context = rule_context(name, number, &rule);
                        self.rule(rule, node, &BTreeMap::new(), &context);
                    }
                    Err(_) => {
                        if let Some(expr) = expr.as_ref().filter(|expr| !expr.trim().is_empty()) {
                            self.check_expr(expr, node, &format!("group {name:?}, rule {number}"));
                        }
                    }
                }
            }
        }
    }

    fn name_stands_twice(&mut self, node: &Node, name: &str) {
        self.problem(node, format!("group name {name:?} stands twice in this file"));
    }

    fn check_expr(&mut self, expr: &str, node: &Node, context: &str) {
        if let Err(message) = (self.check)(expr) {
            let place = node.get("expr").unwrap_or(node);
            self.problem(place, format!("{context}: could not parse expression: {message}"));
        }
    }

    fn group(&mut self, raw: RawGroup, node: &Node, interval_default: Duration) -> RuleGroup {
        let rule_nodes = node.get("rules").map_or(&[][..], Node::items);
        let mut rules = Vec::new();
        for (number, (rule, rule_node)) in (1..).zip(raw.rules.into_iter().zip(rule_nodes)) {
            let context = rule_context(&raw.name, number, &rule);
            rules.extend(self.rule(rule, rule_node, &raw.labels, &context));
        }
        RuleGroup {
            file: self.file.to_owned(),
            name: raw.name,
            interval: raw.interval.unwrap_or(interval_default),
            query_offset: raw.query_offset.unwrap_or_default(),
            language: Language::PromQl,
            limit: raw.limit,
            rules,
        }
    }

    fn rule(
        &mut self,
        raw: RawRule,
        node: &Node,
        group_labels: &BTreeMap<String, String>,
        context: &str,
    ) -> Option<Rule> {
        let before = self.problems.len();
        let expr = raw.expr.unwrap_or_default();
        if expr.trim().is_empty() {
            self.problem(node, format!("{context}: field 'expr' is missing or empty"));
        } else {
            self.check_expr(&expr, node, context);
        }
        let (name, kind) = match (raw.record, raw.alert) {
            (Some(name), None) => {
                self.check_recording(node, &name, context);
                (name, RuleKind::Recording)
            }
            (None, Some(name)) => {
                if name.is_empty() {
                    self.problem(node.get("alert").unwrap_or(node), format!("{context}: the alert's name is empty"));
                }
                let hold = raw.hold.unwrap_or_default();
                let keep_firing = raw.keep_firing_for.unwrap_or_default();
                (name, RuleKind::Alerting { hold, keep_firing })
            }
            _ => {
                self.problem(node, format!("{context}: exactly one of 'record' and 'alert' must be set"));
                return None;
            }
        };
        let alerting = kind != RuleKind::Recording;
        let mut labels = group_labels.clone();
        labels.extend(raw.labels);
        for label in labels.keys().filter(|label| !is_label_name(label) || *label == METRIC_NAME) {
            self.problem(node.get("labels").unwrap_or(node), format!("{context}: {label:?} cannot be a label's name"));
        }
        for name in raw.annotations.keys().filter(|name| !is_label_name(name)) {
            let place = node.get("annotations").unwrap_or(node);
            self.problem(place, format!("{context}: {name:?} cannot be an annotation's name"));
        }
        let (label_templates, annotation_templates) = if alerting {
            (
                self.templates(&labels, node.get("labels").unwrap_or(node), context, "label"),
                self.templates(&raw.annotations, node.get("annotations").unwrap_or(node), context, "annotation"),
            )
        } else {
            (BTreeMap::new(), BTreeMap::new())
        };
        if self.problems.len() > before {
            return None;
        }
        let annotations = raw.annotations;
        Some(Rule { name, expr, kind, labels, annotations, label_templates, annotation_templates })
    }

    fn check_recording(&mut self, node: &Node, name: &str, context: &str) {
        if !is_metric_name(name) {
            let place = node.get("record").unwrap_or(node);
            self.problem(place, format!("{context}: {name:?} cannot be a metric's name"));
        }
        for key in ["annotations", "for", "keep_firing_for"] {
            if let Some(place) = node.get(key) {
                self.problem(place, format!("{context}: {key:?} has no meaning in a recording rule"));
            }
        }
    }

    fn templates(
        &mut self,
        texts: &BTreeMap<String, String>,
        node: &Node,
        context: &str,
        what: &str,
    ) -> BTreeMap<String, Template> {
        let mut templates = BTreeMap::new();
        for (name, text) in texts {
            match Template::parse(text, &TEMPLATE_VARIABLES) {
                Ok(template) => {
                    templates.insert(name.clone(), template);
                }
                Err(error) => {
                    let place = node.get(name).unwrap_or(node);
                    self.problem(place, format!("{context}: {what} {name:?}: {error}"));
                }
            }
        }
        templates
    }
}

impl Rule {
    /// Identity that does not depend on file, group or place: a moved rule keeps its alerts.
    pub fn id(&self) -> String {
        use sha2::Digest as _;
        let mut hash = sha2::Sha256::new();
        let kind = if self.kind == RuleKind::Recording { "record" } else { "alert" };
        let labels = self.labels.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        for part in [kind, self.name.as_str(), self.expr.as_str()].into_iter().chain(labels) {
            hash.update(part.as_bytes());
            hash.update([0xff]);
        }
        crate::platform::random::hex(hash.finalize().get(..12).unwrap_or(&[]))
    }
}

fn is_metric_name(name: &str) -> bool {
    is_label_name(&name.replace(':', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expr: &str) -> Result<(), String> {
        if expr.contains("((") { Err("unclosed left parenthesis".to_owned()) } else { Ok(()) }
    }

    fn problems(text: &str) -> Vec<String> {
        load("r.yml", text, INTERVAL_DEFAULT, &check).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_file() {
        let text = "
groups:
  - name: a
    interval: 5s
    limit: 3
    labels: {team: db, severity: info}
    rules:
      - record: a:b:c
        expr: sum(x)
      - alert: Down
        expr: up == 0
        for: 1m
        keep_firing_for: 30s
        labels: {severity: critical}
        annotations: {summary: '{{ $labels.instance }} is down'}
";
        let groups = load("r.yml", text, INTERVAL_DEFAULT, &check).unwrap();
        assert_eq!((groups[0].interval, groups[0].limit), (Duration::from_secs(5), 3));
        let rule = &groups[0].rules[1];
        let minute = Duration::from_mins(1);
        assert_eq!(rule.kind, RuleKind::Alerting { hold: minute, keep_firing: minute / 2 });
        assert_eq!(
            rule.labels,
            BTreeMap::from([("severity", "critical"), ("team", "db")].map(|(a, b)| (a.into(), b.into())))
        );
        assert_ne!(rule.id(), groups[0].rules[0].id());
        assert!(load("r.yml", "", INTERVAL_DEFAULT, &check).unwrap().is_empty());
    }

    #[test]
    fn every_problem_at_once_with_its_place() {
        let text = "
groups:
  - name: a
    rules:
      - record: 'a b'
        expr: x
        for: 5m
      - alert: A
        expr: ((x
      - alert: A
        record: b
        expr: x
      - alert: A
        expr: ''
      - alert: A
        expr: x
        labels: {'a-b': x, __name__: y}
        annotations: {summary: '{{ $label.x }}', b: '{{ nope }}'}
  - name: a
";
        assert_eq!(
            problems(text),
            [
                "r.yml:5:17: group \"a\", rule 1, \"a b\": \"a b\" cannot be a metric's name",
                "r.yml:7:14: group \"a\", rule 1, \"a b\": \"for\" has no meaning in a recording rule",
                "r.yml:9:15: group \"a\", rule 2, \"A\": could not parse expression: unclosed left parenthesis",
                "r.yml:10:9: group \"a\", rule 3, \"A\": exactly one of 'record' and 'alert' must be set",
                "r.yml:13:9: group \"a\", rule 4, \"A\": field 'expr' is missing or empty",
                "r.yml:17:17: group \"a\", rule 5, \"A\": \"__name__\" cannot be a label's name",
                "r.yml:17:17: group \"a\", rule 5, \"A\": \"a-b\" cannot be a label's name",
                "r.yml:18:32: group \"a\", rule 5, \"A\": annotation \"summary\": template line 1: undefined variable \"$label\"",
                "r.yml:18:53: group \"a\", rule 5, \"A\": annotation \"b\": template line 1: function \"nope\" not defined",
                "r.yml:19:11: group name \"a\" stands twice in this file",
            ]
        );
        assert_eq!(
            problems("groups:\n  - name: a\n    rule: []\n"),
            ["r.yml:3:5: unknown key \"rule\"; did you mean \"rules\"?"]
        );
    }
}
