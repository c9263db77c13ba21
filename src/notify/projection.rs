//! The configuration as Alertmanager's strict loader accepts it, for `amtool config` and Grafana's policies page.
//!
//! Without secrets and without keys of ours. Written as JSON, which is YAML.

use serde_json::{Map, Value, json};

use crate::alert::route::{GROUP_INTERVAL_DEFAULT, GROUP_WAIT_DEFAULT, REPEAT_INTERVAL_DEFAULT};
use crate::alert::{InhibitRule, RouteConfig};
use crate::model::Matcher;
use crate::platform::units::format_duration;

use super::config::{AlertingConfig, EmailConfig, GlobalConfig, ReceiverConfig};

/// Alertmanager wants a receiver even if nobody is to be told.
const NOBODY: &str = "nobody";

pub(super) fn alertmanager_yaml(config: &AlertingConfig) -> String {
    let mut receivers: Vec<Value> = config.receivers.iter().map(|one| receiver(one, &config.global)).collect();
    let route = if let Some(route) = &config.route {
        root(route)
    } else {
        receivers.push(json!({"name": NOBODY}));
        json!({"receiver": NOBODY})
    };
    let document = json!({
        "global": {"resolve_timeout": format_duration(config.global.resolve_timeout())},
        "route": route,
        "inhibit_rules": config.inhibit_rules.iter().cloned().map(inhibit_rule).collect::<Vec<_>>(),
        "receivers": receivers,
    });
    format!("{document:#}\n")
}

fn root(config: &RouteConfig) -> Value {
    let mut root = config.clone();
    root.group_wait.get_or_insert(GROUP_WAIT_DEFAULT);
    root.group_interval.get_or_insert(GROUP_INTERVAL_DEFAULT);
    root.repeat_interval.get_or_insert(REPEAT_INTERVAL_DEFAULT);
    root.group_by.get_or_insert_with(|| vec!["cluster".to_owned()]);
    route(&root)
}

fn route(config: &RouteConfig) -> Value {
    let mut node = Map::new();
    if let Some(receiver) = &config.receiver {
        node.insert("receiver".into(), receiver.as_str().into());
    }
    if let Some(names) = &config.group_by {
        node.insert("group_by".into(), json!(names));
    }
    let mut all = config.matchers.0.clone();
    all.extend(config.match_equal.iter().map(|(name, value)| Matcher::equal(name.as_str(), value.as_str())));
    if !all.is_empty() {
        node.insert("matchers".into(), matchers(&all));
    }
    if !config.match_re.is_empty() {
        node.insert("match_re".into(), json!(config.match_re));
    }
    if config.continues {
        node.insert("continue".into(), true.into());
    }
    let durations = [
        ("group_wait", config.group_wait),
        ("group_interval", config.group_interval),
        ("repeat_interval", config.repeat_interval),
    ];
    for (name, duration) in durations {
        if let Some(duration) = duration {
            node.insert(name.into(), format_duration(duration).into());
        }
    }
    if !config.routes.is_empty() {
        node.insert("routes".into(), config.routes.iter().map(route).collect());
    }
    Value::Object(node)
}

fn matchers(matchers: &[Matcher]) -> Value {
    matchers.iter().map(|matcher| Value::from(matcher.to_string())).collect()
}

fn inhibit_rule(rule: InhibitRule) -> Value {
    let rule = rule.compiled();
    json!({
        "source_matchers": matchers(&rule.source_matchers.0),
        "target_matchers": matchers(&rule.target_matchers.0),
        "equal": rule.equal,
    })
}

fn receiver(config: &ReceiverConfig, global: &GlobalConfig) -> Value {
    let mut node = Map::new();
    node.insert("name".into(), config.name.as_str().into());
    if !config.webhook_configs.is_empty() {
        // The loader refuses `<secret>` as a URL.
        let webhooks = config.webhook_configs.iter();
        let shown = webhooks.map(|one| json!({"url": "http://redacted.invalid/", "send_resolved": one.send_resolved}));
        node.insert("webhook_configs".into(), shown.collect());
    }
    if !config.email_configs.is_empty() {
        node.insert("email_configs".into(), config.email_configs.iter().map(|one| email(one, global)).collect());
    }
    Value::Object(node)
}

fn email(config: &EmailConfig, global: &GlobalConfig) -> Value {
    json!({
        "to": config.to,
        "from": config.from.as_ref().or(global.smtp_from.as_ref()),
        "smarthost": config.smarthost.as_ref().or(global.smtp_smarthost.as_ref()),
        "send_resolved": config.send_resolved,
    })
}
