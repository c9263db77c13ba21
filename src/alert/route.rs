//! The routing tree: which receivers hear of an alert, and how alerts are grouped.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::model::{Labels, MatchOp, Matcher};
use crate::platform::units::deserialize_optional_duration;

use super::matchers::{MatcherList, all_match};

/// Time for related alerts to arrive before the first notification of a group.
pub const GROUP_WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// Time between notifications of changes of a group.
pub const GROUP_INTERVAL_DEFAULT: Duration = Duration::from_mins(5);
/// Time after which an unchanged group is notified again.
pub const REPEAT_INTERVAL_DEFAULT: Duration = Duration::from_hours(4);
/// Groups when the root names none: one per cluster.
const GROUP_BY_DEFAULT: &str = "cluster";

/// `route` as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    pub receiver: Option<String>,
    pub group_by: Option<Vec<String>>,
    #[serde(default, deserialize_with = "deserialize_optional_duration")]
    pub group_wait: Option<Duration>,
    #[serde(default, deserialize_with = "deserialize_optional_duration")]
    pub group_interval: Option<Duration>,
    #[serde(default, deserialize_with = "deserialize_optional_duration")]
    pub repeat_interval: Option<Duration>,
    #[serde(default)]
    pub matchers: MatcherList,
    #[serde(default, rename = "match")]
    pub match_equal: BTreeMap<String, String>,
    #[serde(default)]
    pub match_re: BTreeMap<String, String>,
    #[serde(default, rename = "continue")]
    pub continues: bool,
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
    #[serde(default, deserialize_with = "no_time_intervals")]
    pub mute_time_intervals: (),
    #[serde(default, deserialize_with = "no_time_intervals")]
    pub active_time_intervals: (),
}

/// Refuses what is not built, rather than ignoring it and paging at night.
pub fn no_time_intervals<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer)?;
    Err(serde::de::Error::custom("time intervals are not supported yet; remove them, or silence by hand"))
}

/// One way out of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integration {
    /// `email` or `webhook`.
    pub kind: &'static str,
    /// Place among the receiver's integrations of this kind.
    pub index: usize,
    pub send_resolved: bool,
}

/// How a node groups alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum GroupBy {
    Names(Vec<String>),
    /// `...`: every alert is a group of its own.
    All,
}

/// One node of the tree, with everything inherited filled in.
#[derive(Clone, Debug)]
pub struct Route {
    pub receiver: String,
    pub group_wait: Duration,
    pub group_interval: Duration,
    pub repeat_interval: Duration,
    /// The matchers from the root to here, as Alertmanager writes them in a group key.
    pub key: String,
    group_by: GroupBy,
    matchers: Vec<Matcher>,
    continues: bool,
    routes: Vec<Route>,
}

impl Route {
    /// Builds the tree. All that is wrong with it, each with the path of the node: `route.routes[0]`.
    pub fn build(config: &RouteConfig, receivers: &[String]) -> Result<Self, Vec<(String, String)>> {
        let mut problems = Vec::new();
        let has_matchers =
            !(config.matchers.0.is_empty() && config.match_equal.is_empty() && config.match_re.is_empty());
        if has_matchers || config.continues {
            problems.push(("route".to_owned(), "the root takes every alert: no matchers and no continue".to_owned()));
        }
        if config.receiver.is_none() {
            problems.push(("route".to_owned(), "the root needs a receiver".to_owned()));
        }
        let top = Self {
            receiver: String::new(),
            group_wait: GROUP_WAIT_DEFAULT,
            group_interval: GROUP_INTERVAL_DEFAULT,
            repeat_interval: REPEAT_INTERVAL_DEFAULT,
            key: String::new(),
            group_by: GroupBy::Names(vec![GROUP_BY_DEFAULT.to_owned()]),
            matchers: Vec::new(),
            continues: false,
            routes: Vec::new(),
        };
        let root = top.child(config, receivers, "route", &mut problems);
        if problems.is_empty() { Ok(root) } else { Err(problems) }
    }

    fn child(
        &self,
        config: &RouteConfig,
        receivers: &[String],
        path: &str,
        problems: &mut Vec<(String, String)>,
    ) -> Self {
        let receiver = config.receiver.clone().unwrap_or_else(|| self.receiver.clone());
        if config.receiver.is_some() && !receivers.contains(&receiver) {
            let hint = crate::platform::yaml::nearest(&receiver, receivers.iter().map(String::as_str));
            let hint = hint.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
            problems.push((format!("{path}.receiver"), format!("there is no receiver {receiver:?}{hint}")));
        }
        if config.group_interval.is_some_and(|interval| interval.is_zero()) {
            problems.push((format!("{path}.group_interval"), "group_interval cannot be zero".to_owned()));
        }
        if config.repeat_interval.is_some_and(|interval| interval.is_zero()) {
            problems.push((format!("{path}.repeat_interval"), "repeat_interval cannot be zero".to_owned()));
        }
        let mut matchers = config.matchers.0.clone();
        matchers.extend(config.match_equal.iter().map(|(name, value)| Matcher::equal(name.as_str(), value.as_str())));
        for (name, value) in &config.match_re {
            match Matcher::new(name.as_str(), MatchOp::Regex, value.as_str()) {
                Ok(matcher) => matchers.push(matcher),
                Err(error) => {
                    problems.push((format!("{path}.match_re"), crate::platform::error::chain(&error)));
                }
            }
        }
        matchers.sort_by(|a, b| (&a.name, a.op.symbol(), &a.value).cmp(&(&b.name, b.op.symbol(), &b.value)));
        let own_key = matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let key = if path == "route" { format!("{{{own_key}}}") } else { format!("{}/{{{own_key}}}", self.key) };
        let group_by = match &config.group_by {
            None => self.group_by.clone(),
            Some(names) if names.iter().any(|name| name == "...") => GroupBy::All,
            Some(names) => GroupBy::Names(names.clone()),
        };
        let mut node = Self {
            receiver,
            group_wait: config.group_wait.unwrap_or(self.group_wait),
            group_interval: config.group_interval.unwrap_or(self.group_interval),
            repeat_interval: config.repeat_interval.unwrap_or(self.repeat_interval),
            key,
            group_by,
            matchers,
            continues: config.continues,
            routes: Vec::new(),
        };
        node.routes = config
            .routes
            .iter()
            .enumerate()
            .map(|(i, child)| node.child(child, receivers, &format!("{path}.routes[{i}]"), problems))
            .collect();
        node
    }

    /// The nodes that take an alert with these labels, in order of the tree.
    pub fn matching(&self, labels: &Labels) -> Vec<&Self> {
        if !all_match(&self.matchers, labels) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for child in &self.routes {
            let taken = child.matching(labels);
            let stops = !taken.is_empty() && !child.continues;
            found.extend(taken);
            if stops {
                break;
            }
        }
        if found.is_empty() {
            found.push(self);
        }
        found
    }

    /// Labels that name the group of an alert in this node.
    pub fn group_labels(&self, labels: &Labels) -> Labels {
        match &self.group_by {
            GroupBy::All => labels.clone(),
            GroupBy::Names(names) => labels.only(&names.iter().map(String::as_str).collect::<Vec<_>>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::yaml::from_yaml;

    fn tree(text: &str) -> Result<Route, Vec<(String, String)>> {
        let config: RouteConfig = from_yaml("c.yml", text).unwrap();
        Route::build(&config, &["a", "b", "c"].map(str::to_owned))
    }

    #[test]
    fn the_deepest_match_wins_and_continue_goes_on() {
        let root = tree(
            "
receiver: a
group_by: [cluster]
routes:
  - matchers: ['severity=~\"critical|page\"']
    receiver: b
    group_wait: 1s
    routes:
      - {match: {team: x}, receiver: c, group_by: ['...']}
  - {matchers: ['x=1'], receiver: b, continue: true}
  - {matchers: ['x=1', 'y!=2'], receiver: c}
",
        )
        .unwrap();
        for (labels, expected) in [
            (vec![("severity", "info")], vec!["a {}"]),
            (vec![("severity", "page")], vec![r#"b {}/{severity=~"critical|page"}"#]),
            (vec![("severity", "critical"), ("team", "x")], vec![r#"c {}/{severity=~"critical|page"}/{team="x"}"#]),
            (vec![("x", "1")], vec![r#"b {}/{x="1"}"#, r#"c {}/{x="1",y!="2"}"#]),
            (vec![("x", "1"), ("y", "2")], vec![r#"b {}/{x="1"}"#]),
        ] {
            let labels = Labels::from_pairs(labels);
            let found: Vec<String> =
                root.matching(&labels).iter().map(|route| format!("{} {}", route.receiver, route.key)).collect();
            assert_eq!(found, expected, "{labels}");
        }
        let labels = Labels::from_pairs([("severity", "critical"), ("team", "x"), ("cluster", "demo")]);
        let deep = root.matching(&labels)[0];
        assert_eq!(deep.group_wait, Duration::from_secs(1), "inherited");
        assert_eq!(deep.group_labels(&labels), labels);
        assert_eq!(root.group_labels(&labels).to_string(), r#"{cluster="demo"}"#);
    }

    #[test]
    fn every_mistake_is_named_with_its_path() {
        let problems = tree("{matchers: ['a=b'], routes: [{receiver: bb}, {match_re: {a: '('}, group_interval: 0s}]}");
        let paths: Vec<String> = problems.unwrap_err().into_iter().map(|(path, _)| path).collect();
        assert_eq!(
            paths,
            [
                "route",
                "route",
                "route.routes[0].receiver",
                "route.routes[1].group_interval",
                "route.routes[1].match_re"
            ]
        );
        let muted = from_yaml::<RouteConfig>("c.yml", "receiver: a\nmute_time_intervals: [night]\n").unwrap_err();
        assert!(muted[0].to_string().starts_with("c.yml:2:"), "{muted:?}");
        assert!(muted[0].message.contains("not supported yet"), "{muted:?}");
    }
}
