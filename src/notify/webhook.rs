//! Webhooks: Alertmanager's payload, byte for byte, plus `incident` when there is one.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::alert::NotificationDraft;
use crate::model::alert::{Annotations, IncidentNotice};
use crate::model::{Alert, Labels, Timestamp};
use crate::platform::error::chain;
use crate::platform::http_client::HttpClient;

use super::config::{HttpConfig, WebhookConfig, secret_of};
use super::outbox::Message;
use super::retry::Outcome;

/// The whole exchange, unless the configuration says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// More of an answer is not read: only its status counts.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What Go writes for a time that is not set.
const GO_ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// The body of a webhook's request.
pub fn body(draft: &NotificationDraft, external_url: &str, max_alerts: usize) -> String {
    let count = draft.alerts().count();
    let kept = if max_alerts == 0 { count } else { max_alerts.min(count) };
    let alerts: Vec<Value> = draft.alerts().take(kept).map(|alert| one_alert(alert, draft.at)).collect();
    let mut body = Map::new();
    body.insert("receiver".into(), quote_meta(&draft.receiver).into());
    body.insert("status".into(), draft.status().into());
    body.insert("alerts".into(), alerts.into());
    body.insert("notification_reason".into(), draft.reason.into());
    body.insert("groupLabels".into(), labels(&draft.group_labels));
    body.insert("commonLabels".into(), common_labels(draft));
    body.insert("commonAnnotations".into(), common_annotations(draft));
    body.insert("routeLabels".into(), json!({}));
    body.insert("externalURL".into(), external_url.into());
    body.insert("version".into(), "4".into());
    body.insert("groupKey".into(), draft.group_key.as_str().into());
    body.insert("truncatedAlerts".into(), (count - kept).into());
    if let Some(notice) = &draft.incident {
        body.insert("incident".into(), incident(notice, external_url));
    }
    let text = Value::Object(body).to_string();
    // Go's encoder escapes these, which stand only inside strings, and ends with a line end.
    let escaped = text
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029");
    escaped + "\n"
}

fn one_alert(alert: &Alert, now: Timestamp) -> Value {
    let resolved = alert.is_resolved(now);
    let ends_at = alert.ends_at.filter(|_| resolved).map_or_else(|| GO_ZERO_TIME.to_owned(), go_time);
    json!({
        "status": if resolved { "resolved" } else { "firing" },
        "labels": labels(&alert.labels),
        "annotations": alert.annotations,
        "startsAt": go_time(alert.starts_at),
        "endsAt": ends_at,
        "generatorURL": alert.generator_url,
        "fingerprint": alert.fingerprint,
    })
}

fn labels(labels: &Labels) -> Value {
    Value::Object(labels.iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
}

fn common_labels(draft: &NotificationDraft) -> Value {
    let mut alerts = draft.alerts();
    let Some(first) = alerts.next() else { return json!({}) };
    let shared = |(name, value): &(&str, &str)| draft.alerts().all(|alert| alert.labels.get(name) == Some(value));
    labels(&Labels::from_pairs(first.labels.iter().filter(shared)))
}

fn common_annotations(draft: &NotificationDraft) -> Value {
    let Some(first) = draft.alerts().next() else { return json!({}) };
    let shared =
        |(name, text): &(&String, &String)| draft.alerts().all(|alert| alert.annotations.get(*name) == Some(*text));
    let common: Annotations =
        first.annotations.iter().filter(shared).map(|(name, text)| (name.clone(), text.clone())).collect();
    json!(common)
}

fn incident(notice: &IncidentNotice, external_url: &str) -> Value {
    json!({
        "id": notice.id,
        "cluster": notice.cluster,
        "title": notice.title,
        "severity": notice.severity,
        "state": notice.state().as_str(),
        "cause": notice.cause,
        "opened_at": notice.opened_at,
        "settled_at": notice.settled_at,
        "reopened_at": notice.reopened_at,
        "acknowledged_by": notice.acknowledged_by,
        "write_outage_seconds": notice.report.impact.write_outage_seconds,
        "report": notice.report,
        "timeline": notice.timeline,
        "members": notice.members,
        "url": format!("{}/incidents/{}", external_url.trim_end_matches('/'), notice.id),
    })
}

/// RFC 3339 as Go writes it: no more decimals than needed.
pub(super) fn go_time(at: Timestamp) -> String {
    let text = at.to_string();
    match text.strip_suffix('Z') {
        Some(digits) if digits.contains('.') => {
            format!("{}Z", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// Alertmanager quotes the receiver's name as for a regular expression.
fn quote_meta(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len());
    for c in name.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

/// Sends one message. Redirects are not followed, so credentials stay with the host they are for.
pub async fn deliver(config: &WebhookConfig, message: &Message) -> Outcome {
    let url = match secret_of(config.url.as_ref(), config.url_file.as_ref()) {
        Ok(Some(url)) => url,
        Ok(None) => return Outcome::Misconfigured { error: "the webhook has no url".to_owned() },
        Err(error) => return Outcome::Misconfigured { error: chain(&error) },
    };
    let http = config.http_config.clone().unwrap_or_default();
    let ca_file = http.tls_config.as_ref().and_then(|tls| tls.ca_file.as_deref());
    let client = match HttpClient::new(config.timeout.unwrap_or(TIMEOUT_DEFAULT), ANSWER_BYTES_MAX, ca_file) {
        Ok(client) => client,
        Err(error) => return Outcome::Misconfigured { error: chain(&error) },
    };
    let mut request = client
        .request(Method::POST, url.expose().trim())
        .header("content-type", "application/json")
        .header("webhook-id", &message.key)
        .body(message.body.clone());
    match authorization(&http) {
        Ok(Some(value)) => request = request.header("authorization", value),
        Ok(None) => {}
        Err(error) => return Outcome::Misconfigured { error },
    }
    match client.send(request, &message.notification.target).await {
        Ok(answer) => judge(&answer),
        Err(error) => Outcome::Retry { error: hide(&chain(&error), url.expose().trim()), after: None },
    }
}

fn judge(answer: &crate::platform::http_client::HttpAnswer) -> Outcome {
    let text: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
    let error = format!("the receiver answered {}: {}", answer.status, text.trim());
    match answer.status {
        200..=299 => Outcome::Delivered,
        408 | 425 | 429 | 500..=599 => Outcome::Retry { error, after: answer.retry_after },
        410 => Outcome::Dead { error },
        401 | 403 | 407 => Outcome::Misconfigured { error },
        _ => Outcome::Refused { error },
    }
}

/// The value of the `authorization` header.
fn authorization(http: &HttpConfig) -> Result<Option<String>, String> {
    use base64::Engine as _;
    let read = |inline, file| secret_of(inline, file).map_err(|error| chain(&error));
    if let Some(basic) = &http.basic_auth {
        let password = read(basic.password.as_ref(), basic.password_file.as_ref())?;
        let pair = format!("{}:{}", basic.username, password.as_ref().map_or("", |password| password.expose()));
        return Ok(Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))));
    }
    if let Some(authorization) = &http.authorization {
        let credentials = read(authorization.credentials.as_ref(), authorization.credentials_file.as_ref())?;
        let credentials = credentials.ok_or("authorization without credentials: set 'credentials_file'")?;
        return Ok(Some(format!("{} {}", authorization.kind, credentials.expose())));
    }
    let token = read(http.bearer_token.as_ref(), http.bearer_token_file.as_ref())?;
    Ok(token.map(|token| format!("Bearer {}", token.expose())))
}

/// A webhook's URL may be a secret in itself: what is shown is its scheme and host.
pub fn shown_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}/…")
}

/// Takes the secret URL out of an error's text, as it was written and as the HTTP client writes it.
fn hide(text: &str, url: &str) -> String {
    let shown = shown_url(url);
    match reqwest::Url::parse(url) {
        Ok(parsed) => text.replace(parsed.as_str(), &shown).replace(url, &shown),
        Err(_) => text.replace(url, &shown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Integration;

    fn draft() -> NotificationDraft {
        let at = Timestamp::from_millis(1_700_000_000_500);
        let alert = |member: &str| {
            let labels = Labels::from_pairs([("alertname", "Down"), ("cluster", "demo"), ("member", member)]);
            let annotations = Annotations::from([
                ("summary".to_owned(), "a < b & c".to_owned()),
                ("member".to_owned(), member.to_owned()),
            ]);
            Alert::firing(labels, annotations, Timestamp::from_secs(1_700_000_000))
        };
        let mut over = alert("n2");
        over.ends_at = Some(at);
        NotificationDraft {
            receiver: "web.hook".into(),
            integration: Integration { kind: "webhook", index: 0, send_resolved: true },
            group_key: r#"{}:{cluster="demo"}"#.into(),
            group_labels: Labels::from_pairs([("cluster", "demo")]),
            firing: vec![alert("n1")],
            resolved: vec![over],
            reason: "first notification",
            at,
            opened_at: at,
            thread_title: None,
            incident: None,
            held_back: Vec::new(),
        }
    }

    #[test]
    fn the_body_is_alertmanagers() {
        let expected = concat!(
            r#"{"receiver":"web\\.hook","status":"firing","alerts":["#,
            r#"{"status":"firing","labels":{"alertname":"Down","cluster":"demo","member":"n1"},"#,
            r#""annotations":{"member":"n1","summary":"a \u003c b \u0026 c"},"startsAt":"2023-11-14T22:13:20Z","#,
            r#""endsAt":"0001-01-01T00:00:00Z","generatorURL":"","fingerprint":"FP1"},"#,
            r#"{"status":"resolved","labels":{"alertname":"Down","cluster":"demo","member":"n2"},"#,
            r#""annotations":{"member":"n2","summary":"a \u003c b \u0026 c"},"startsAt":"2023-11-14T22:13:20Z","#,
            r#""endsAt":"2023-11-14T22:13:20.5Z","generatorURL":"","fingerprint":"FP2"}],"#,
            r#""notification_reason":"first notification","groupLabels":{"cluster":"demo"},"#,
            r#""commonLabels":{"alertname":"Down","cluster":"demo"},"commonAnnotations":{"summary":"a \u003c b \u0026 c"},"#,
            r#""routeLabels":{},"externalURL":"http://d","version":"4","groupKey":"{}:{cluster=\"demo\"}","truncatedAlerts":0}"#,
            "\n"
        );
        let draft = draft();
        let expected = expected
            .replace("FP1", &draft.firing[0].fingerprint.to_string())
            .replace("FP2", &draft.resolved[0].fingerprint.to_string());
        assert_eq!(body(&draft, "http://d", 0), expected);
        let cut: Value = serde_json::from_str(&body(&draft, "http://d", 1)).unwrap();
        assert_eq!((cut["alerts"].as_array().unwrap().len(), cut["truncatedAlerts"].as_u64()), (1, Some(1)));
    }

    #[test]
    fn an_incident_comes_last() {
        let mut draft = draft();
        draft.incident = Some(IncidentNotice { id: "7".into(), cluster: "demo".into(), ..IncidentNotice::default() });
        let value: Value = serde_json::from_str(&body(&draft, "http://d/", 0)).unwrap();
        assert_eq!(value.as_object().unwrap().keys().next_back().unwrap(), "incident");
        assert_eq!(value["incident"]["url"], "http://d/incidents/7");
    }

    #[test]
    fn urls_are_shown_without_their_secrets() {
        for (url, shown) in [
            ("https://hooks.example.org/services/T0/SECRET", "https://hooks.example.org/…"),
            ("http://u:p@h:80?SECRET", "http://h:80/…"),
        ] {
            assert_eq!(shown_url(url), shown);
            let parsed = reqwest::Url::parse(url).unwrap();
            assert!(!hide(&format!("request to {url} failed: for url ({parsed})"), url).contains("SECRET"));
        }
    }
}
