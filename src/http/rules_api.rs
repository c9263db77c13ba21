//! Prometheus' `/api/v1/rules` and `/api/v1/alerts`, and the same for rules over logs where Grafana's Loki data source
//! looks for them.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use crate::model::Timestamp;
use crate::notify::Alerting;
use crate::rules::evaluate::GroupState;
use crate::rules::template::go_float;
use crate::rules::{ActiveAlert, AlertPhase, Language, Rule, RuleHealth, RuleKind, RuleState};

use super::alertmanager_api::pairs;

/// What Prometheus writes for "never".
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// The routes.
pub fn router(alerting: Arc<Alerting>) -> Router {
    Router::new()
        .route("/api/v1/rules", get(prom_rules))
        .route("/api/v1/alerts", get(prom_alerts))
        .route("/prometheus/api/v1/rules", get(log_rules))
        .route("/prometheus/api/v1/alerts", get(log_alerts))
        .with_state(alerting)
}

async fn prom_rules(State(alerting): State<Arc<Alerting>>, RawQuery(query): RawQuery) -> Response {
    rules(&alerting, Language::PromQl, query.as_deref())
}

async fn log_rules(State(alerting): State<Arc<Alerting>>, RawQuery(query): RawQuery) -> Response {
    rules(&alerting, Language::LogQl, query.as_deref())
}

async fn prom_alerts(State(alerting): State<Arc<Alerting>>) -> Response {
    alerts(&alerting, Language::PromQl)
}

async fn log_alerts(State(alerting): State<Arc<Alerting>>) -> Response {
    alerts(&alerting, Language::LogQl)
}

/// What the query string of the rules asks for; an empty list asks for all.
#[derive(Debug, Default)]
struct RuleFilter {
    kind: Option<&'static str>,
    names: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    without_alerts: bool,
}

impl RuleFilter {
    fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut filter = Self::default();
        for (name, value) in pairs(query) {
            match (name.trim_end_matches("[]"), value.as_str()) {
                ("type", "alert") => filter.kind = Some("alerting"),
                ("type", "record") => filter.kind = Some("recording"),
                ("type", "") => {}
                ("type", other) => return Err(format!("invalid parameter \"type\": not supported value {other:?}")),
                ("rule_name", _) => filter.names.push(value),
                ("rule_group", _) => filter.groups.push(value),
                ("file", _) => filter.files.push(value),
                ("exclude_alerts", _) => filter.without_alerts = value == "true",
                _ => {}
            }
        }
        Ok(filter)
    }
}

fn accepted(wanted: &[String], value: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|one| one == value)
}

fn rules(alerting: &Alerting, language: Language, query: Option<&str>) -> Response {
    let filter = match RuleFilter::parse(query) {
        Ok(filter) => filter,
        Err(message) => {
            let body = json!({"status": "error", "errorType": "bad_data", "error": message});
            return (StatusCode::BAD_REQUEST, Json(body)).into_response();
        }
    };
    let states = alerting.rule_groups();
    let mut groups: Vec<&GroupState> = states.iter().filter(|state| state.group.language == language).collect();
    groups.sort_by(|a, b| (&a.group.file, &a.group.name).cmp(&(&b.group.file, &b.group.name)));
    let mut shown = Vec::new();
    for state in groups {
        if !accepted(&filter.groups, &state.group.name) || !accepted(&filter.files, &state.group.file) {
            continue;
        }
        let rules: Vec<Value> = state
            .group
            .rules
            .iter()
            .zip(&state.rules)
            .filter(|(rule, _)| accepted(&filter.names, &rule.name))
            .filter(|(rule, _)| filter.kind.is_none_or(|kind| kind == kind_of(rule)))
            .map(|(rule, rule_state)| rule_json(rule, rule_state, &filter))
            .collect();
        if rules.is_empty() && !(filter.names.is_empty() && filter.kind.is_none()) {
            continue;
        }
        shown.push(json!({
            "name": state.group.name,
            "file": state.group.file,
            "rules": rules,
            "interval": state.group.interval.as_secs_f64(),
            "limit": state.group.limit,
            "evaluationTime": state.rules.iter().map(|rule| rule.evaluation_time.as_secs_f64()).sum::<f64>(),
            "lastEvaluation": time(state.last_evaluation),
        }));
    }
    Json(json!({"status": "success", "data": {"groups": shown}})).into_response()
}

fn kind_of(rule: &Rule) -> &'static str {
    if rule.kind == RuleKind::Recording { "recording" } else { "alerting" }
}

fn rule_json(rule: &Rule, state: &RuleState, filter: &RuleFilter) -> Value {
    let mut object = Map::new();
    if let RuleKind::Alerting { hold, keep_firing } = rule.kind {
        // "unknown" is new in Prometheus 3; older clients know only these.
        object.insert("state".into(), state.phase().as_str().into());
        object.insert("name".into(), rule.name.as_str().into());
        object.insert("query".into(), rule.expr.as_str().into());
        object.insert("duration".into(), hold.as_secs_f64().into());
        object.insert("keepFiringFor".into(), keep_firing.as_secs_f64().into());
        object.insert("labels".into(), json!(rule.labels));
        object.insert("annotations".into(), json!(rule.annotations));
        if !filter.without_alerts {
            object.insert("alerts".into(), active(state).map(alert_json).collect());
        }
    } else {
        object.insert("name".into(), rule.name.as_str().into());
        object.insert("query".into(), rule.expr.as_str().into());
        if !rule.labels.is_empty() {
            object.insert("labels".into(), json!(rule.labels));
        }
    }
    object.insert("health".into(), state.health.as_str().into());
    if let (RuleHealth::Err, Some(error)) = (state.health, &state.last_error) {
        object.insert("lastError".into(), error.as_str().into());
    }
    object.insert("evaluationTime".into(), state.evaluation_time.as_secs_f64().into());
    object.insert("lastEvaluation".into(), time(state.last_evaluation).into());
    object.insert("type".into(), kind_of(rule).into());
    Value::Object(object)
}

/// Alerts that pend or fire.
fn active(state: &RuleState) -> impl Iterator<Item = &ActiveAlert> {
    state.alerts.values().filter(|alert| alert.phase != AlertPhase::Inactive)
}

fn alert_json(alert: &ActiveAlert) -> Value {
    let mut object = Map::new();
    object.insert("labels".into(), json!(alert.labels));
    object.insert("annotations".into(), json!(alert.annotations));
    object.insert("state".into(), alert.phase.as_str().into());
    object.insert("activeAt".into(), json!(alert.active_at));
    if let Some(since) = alert.keep_firing_since {
        object.insert("keepFiringSince".into(), json!(since));
    }
    object.insert("value".into(), go_float(alert.value, 'e', None).into());
    Value::Object(object)
}

fn alerts(alerting: &Alerting, language: Language) -> Response {
    let states = alerting.rule_groups();
    let groups = states.iter().filter(|state| state.group.language == language);
    let alerts: Vec<Value> = groups.flat_map(|state| &state.rules).flat_map(active).map(alert_json).collect();
    Json(json!({"status": "success", "data": {"alerts": alerts}})).into_response()
}

fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| ZERO_TIME.to_owned(), |at| at.to_string())
}
