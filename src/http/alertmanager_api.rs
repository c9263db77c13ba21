//! Alertmanager's API v2, as `amtool` and Grafana's Alertmanager data source use it.
//!
//! Lists are never null. Errors are a JSON string with a fitting status, as Alertmanager's. Writing needs the role
//! operator; the caller's middleware sees to that.

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::alert::matchers::{ApiMatcher, all_match, parse};
use crate::alert::posted::PostedAlert;
use crate::alert::{AlertStatus, Silence, SilenceError};
use crate::http::form::decode_form;
use crate::model::alert::Annotations;
use crate::model::matcher::anchored_regex;
use crate::model::{Labels, Matcher, Timestamp};
use crate::notify::Alerting;
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::blocking;

/// Alerts in one request.
const POSTED_MAX: usize = 10_000;

/// What the handlers need.
#[derive(Clone, Debug)]
pub struct AlertmanagerApi {
    pub alerting: Arc<Alerting>,
    pub clock: Clock,
    pub started_at: Timestamp,
    /// Commit that the program was built from, or "".
    pub revision: &'static str,
}

/// Routes below `/api/v2`.
pub fn router(api: AlertmanagerApi) -> Router {
    Router::new()
        .route("/api/v2/status", get(status))
        .route("/api/v2/receivers", get(receivers))
        .route("/api/v2/alerts", get(alerts).post(post_alerts))
        .route("/api/v2/alerts/groups", get(groups))
        .route("/api/v2/silences", get(silences).post(set_silence))
        .route("/api/v2/silence/{id}", get(silence).delete(expire_silence))
        .with_state(api)
}

fn error(status: StatusCode, message: impl Into<String>) -> Response {
    (status, Json(Value::String(message.into()))).into_response()
}

async fn status(State(api): State<AlertmanagerApi>) -> Json<Value> {
    Json(json!({
        "cluster": {"name": "", "status": "disabled", "peers": []},
        "versionInfo": {
            "version": env!("CARGO_PKG_VERSION"),
            "revision": api.revision,
            "branch": "",
            "buildUser": "",
            "buildDate": "",
            "goVersion": "",
        },
        "config": {"original": api.alerting.original_config().as_str()},
        "uptime": api.started_at,
    }))
}

async fn receivers(State(api): State<AlertmanagerApi>) -> Json<Value> {
    Json(api.alerting.receiver_names().into_iter().map(|name| json!({"name": name})).collect())
}

/// What the query string of the alert lists asks for.
#[derive(Debug)]
struct AlertFilter {
    active: bool,
    silenced: bool,
    inhibited: bool,
    matchers: Vec<Matcher>,
    receiver: Option<regex::Regex>,
}

impl AlertFilter {
    fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut filter = Self { active: true, silenced: true, inhibited: true, matchers: Vec::new(), receiver: None };
        for (name, value) in pairs(query) {
            match name.as_str() {
                "active" => filter.active = flag(&name, &value)?,
                "silenced" => filter.silenced = flag(&name, &value)?,
                "inhibited" => filter.inhibited = flag(&name, &value)?,
                "filter" => filter.matchers.extend(parse(&value).map_err(|error| error.to_string())?),
                "receiver" => filter.receiver = Some(anchored_regex(&value).map_err(|error| error.to_string())?),
                _ => {}
            }
        }
        Ok(filter)
    }

    fn accepts(&self, status: &AlertStatus, now: Timestamp) -> bool {
        let silenced = !status.silenced_by.is_empty();
        let inhibited = !status.inhibited_by.is_empty();
        !status.alert.is_resolved(now)
            && (self.active || silenced || inhibited)
            && (self.silenced || !silenced)
            && (self.inhibited || !inhibited)
            && all_match(&self.matchers, &status.alert.labels)
            && self.receiver.as_ref().is_none_or(|regex| status.receivers.iter().any(|name| regex.is_match(name)))
    }
}

/// The pairs of a query string, decoded, in order.
pub(super) fn pairs(query: Option<&str>) -> Vec<(String, String)> {
    decode_form(query.unwrap_or("").as_bytes())
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("parameter {name:?} is true or false, not {value:?}")),
    }
}

fn alert_json(status: &AlertStatus, now: Timestamp, resolve_after: std::time::Duration) -> Value {
    let alert = &status.alert;
    json!({
        "annotations": alert.annotations,
        "endsAt": alert.ends_at.unwrap_or(now + resolve_after),
        "fingerprint": alert.fingerprint,
        "receivers": status.receivers.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
        "startsAt": alert.starts_at,
        "status": {
            "inhibitedBy": status.inhibited_by,
            "mutedBy": [],
            "silencedBy": status.silenced_by,
            "state": if status.is_muted() { "suppressed" } else { "active" },
        },
        "updatedAt": alert.updated_at,
        "generatorURL": alert.generator_url,
        "labels": alert.labels,
    })
}

const RESOLVE_AFTER: std::time::Duration = crate::alert::posted::RESOLVE_TIMEOUT_DEFAULT;

async fn alerts(State(api): State<AlertmanagerApi>, RawQuery(query): RawQuery) -> Response {
    let filter = match AlertFilter::parse(query.as_deref()) {
        Ok(filter) => filter,
        Err(message) => return error(StatusCode::BAD_REQUEST, message),
    };
    let now = api.clock.now();
    let mut statuses = api.alerting.alert_statuses();
    statuses.retain(|status| filter.accepts(status, now));
    statuses.sort_by_key(|status| status.alert.fingerprint);
    Json(statuses.iter().map(|status| alert_json(status, now, RESOLVE_AFTER)).collect::<Vec<_>>()).into_response()
}

async fn groups(State(api): State<AlertmanagerApi>, RawQuery(query): RawQuery) -> Response {
    let filter = match AlertFilter::parse(query.as_deref()) {
        Ok(filter) => filter,
        Err(message) => return error(StatusCode::BAD_REQUEST, message),
    };
    let now = api.clock.now();
    let statuses = api.alerting.alert_statuses();
    let mut groups = api.alerting.alert_groups();
    groups.sort_by(|a, b| (&a.labels, &a.receiver).cmp(&(&b.labels, &b.receiver)));
    let mut shown = Vec::new();
    for group in groups {
        if filter.receiver.as_ref().is_some_and(|regex| !regex.is_match(&group.receiver)) {
            continue;
        }
        let members = statuses.iter().filter(|status| group.members.contains(&status.alert.fingerprint));
        let alerts: Vec<Value> = members
            .filter(|status| filter.accepts(status, now))
            .map(|status| alert_json(status, now, RESOLVE_AFTER))
            .collect();
        if !alerts.is_empty() {
            shown.push(json!({
                "alerts": alerts,
                "labels": group.labels,
                "receiver": {"name": group.receiver},
                "routeLabels": {},
            }));
        }
    }
    Json(shown).into_response()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiAlert {
    labels: Labels,
    #[serde(default)]
    annotations: Option<Annotations>,
    starts_at: Option<String>,
    ends_at: Option<String>,
    #[serde(rename = "generatorURL")]
    generator_url: Option<String>,
}

impl ApiAlert {
    fn into_posted(self) -> Result<PostedAlert, String> {
        Ok(PostedAlert {
            labels: self.labels,
            annotations: self.annotations.unwrap_or_default(),
            starts_at: time(self.starts_at.as_deref())?,
            ends_at: time(self.ends_at.as_deref())?,
            generator_url: self.generator_url.unwrap_or_default(),
        })
    }
}

/// Go programs send their zero time, in year 1, for "not set".
fn time(text: Option<&str>) -> Result<Option<Timestamp>, String> {
    match text {
        None | Some("") => Ok(None),
        Some(text) if text.starts_with("0001-") => Ok(None),
        Some(text) => Timestamp::parse_rfc3339(text).map(Some).map_err(|error| error.to_string()),
    }
}

async fn post_alerts(State(api): State<AlertmanagerApi>, body: axum::body::Bytes) -> Response {
    let posted: Vec<ApiAlert> = match serde_json::from_slice(&body) {
        Ok(posted) => posted,
        Err(cause) => return error(StatusCode::BAD_REQUEST, format!("body is not a list of alerts: {cause}")),
    };
    if posted.len() > POSTED_MAX {
        return error(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {POSTED_MAX} alerts in one request"));
    }
    let mut refused = Vec::new();
    let mut good = Vec::new();
    for alert in posted {
        match alert.into_posted() {
            Ok(alert) => good.push(alert),
            Err(message) => refused.push(message),
        }
    }
    let now = api.clock.now();
    match blocking(move || api.alerting.post_alerts(good, now)).await {
        Ok(more) => refused.extend(more),
        Err(cause) => return error(StatusCode::INTERNAL_SERVER_ERROR, chain(&cause)),
    }
    if refused.is_empty() { StatusCode::OK.into_response() } else { error(StatusCode::BAD_REQUEST, refused.join("; ")) }
}

fn silence_json(silence: &Silence, now: Timestamp) -> Value {
    let mut value = serde_json::to_value(silence).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("status".into(), json!({"state": silence.state(now)}));
    }
    value
}

async fn silences(State(api): State<AlertmanagerApi>, RawQuery(query): RawQuery) -> Response {
    let mut matchers = Vec::new();
    let mut hidden = Vec::new();
    for (name, value) in pairs(query.as_deref()) {
        match name.as_str() {
            "filter" => match parse(&value) {
                Ok(more) => matchers.extend(more),
                Err(cause) => return error(StatusCode::BAD_REQUEST, cause.to_string()),
            },
            "active" | "pending" | "expired" => match flag(&name, &value) {
                Ok(true) => {}
                Ok(false) => hidden.push(name),
                Err(message) => return error(StatusCode::BAD_REQUEST, message),
            },
            _ => {}
        }
    }
    let now = api.clock.now();
    let mut silences = api.alerting.silences();
    silences.retain(|silence| {
        let values = silence.matchers.iter().map(|matcher| (matcher.name.as_str(), matcher.value.as_str()));
        let labels = Labels::from_pairs(values);
        all_match(&matchers, &labels) && !hidden.iter().any(|state| state == silence.state(now))
    });
    let rank = |silence: &Silence| match silence.state(now) {
        "active" => 0,
        "pending" => 1,
        _ => 2,
    };
    silences.sort_by_key(|silence| (rank(silence), silence.ends_at));
    Json(silences.iter().map(|silence| silence_json(silence, now)).collect::<Vec<_>>()).into_response()
}

async fn silence(State(api): State<AlertmanagerApi>, Path(id): Path<String>) -> Response {
    match api.alerting.silence(&id) {
        Some(silence) => Json(silence_json(&silence, api.clock.now())).into_response(),
        None => error(StatusCode::NOT_FOUND, format!("there is no silence {id:?}")),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ApiSilence {
    #[serde(default)]
    id: Option<String>,
    matchers: Vec<ApiMatcher>,
    starts_at: Timestamp,
    ends_at: Timestamp,
    created_by: String,
    comment: String,
    #[serde(default)]
    annotations: Option<Annotations>,
}

async fn set_silence(State(api): State<AlertmanagerApi>, body: axum::body::Bytes) -> Response {
    let posted: ApiSilence = match serde_json::from_slice(&body) {
        Ok(posted) => posted,
        Err(cause) => return error(StatusCode::BAD_REQUEST, format!("body is not a silence: {cause}")),
    };
    let now = api.clock.now();
    let silence = Silence {
        id: posted.id.unwrap_or_default(),
        matchers: posted.matchers,
        starts_at: posted.starts_at,
        ends_at: posted.ends_at,
        updated_at: now,
        created_by: posted.created_by,
        comment: posted.comment,
        annotations: posted.annotations.unwrap_or_default(),
    };
    match blocking(move || api.alerting.set_silence(silence, now)).await {
        Ok(id) => Json(json!({"silenceID": id})).into_response(),
        Err(cause) => silence_error(&cause),
    }
}

async fn expire_silence(State(api): State<AlertmanagerApi>, Path(id): Path<String>) -> Response {
    let now = api.clock.now();
    match blocking(move || api.alerting.expire_silence(&id, now)).await {
        Ok(_) => StatusCode::OK.into_response(),
        Err(cause) => silence_error(&cause),
    }
}

fn silence_error(cause: &SilenceError) -> Response {
    let status = match cause {
        SilenceError::NotFound(_) => StatusCode::NOT_FOUND,
        SilenceError::Id(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    error(status, chain(cause))
}
