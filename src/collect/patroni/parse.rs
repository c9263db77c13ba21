//! Bodies of Patroni's REST API and of its member keys, all versions from 2.1 on.
//!
//! Invariant: total. Missing keys and wrong types are "unknown", `master` is `primary`; only a body that is no JSON
//! object of Patroni's kind at all is an error. What a health check says by its HTTP status is ignored: the bodies of
//! 200 and 503 are the same.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::model::observation::{ClusterView, ClusterViewMember, MemberAddress, PatroniStatus};
use crate::model::{Lsn, Timestamp};

/// Members read from one answer; more are left out.
const MEMBERS_MAX: usize = 1000;
/// Lines read from one history; the newest are kept.
const HISTORY_MAX: usize = 1000;
/// Tags kept of one member.
const TAGS_MAX: usize = 64;

/// A body that is not Patroni's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatroniParseError {
    #[error("the body is not JSON")]
    NotJson(#[source] serde_json::Error),
    #[error("the body has none of the expected keys: {keys}")]
    Foreign { keys: &'static str },
}

/// Who answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) scope: Option<String>,
    /// Since Patroni 3.2.
    pub(crate) name: Option<String>,
}

/// One line of `/history`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HistoryLine {
    /// The timeline that ended.
    pub(crate) timeline: u32,
    pub(crate) at: Option<Timestamp>,
}

/// Reads `GET /patroni` (and the health checks, which answer the same).
pub(crate) fn status(body: &[u8]) -> Result<(PatroniStatus, Identity), PatroniParseError> {
    let root = object(body, "state, role")?;
    let state = text(&root, "state");
    let role = text(&root, "role");
    if state.is_none() && role.is_none() {
        return Err(PatroniParseError::Foreign { keys: "state, role" });
    }
    let empty = Map::new();
    let nested = |key: &str| root.get(key).and_then(Value::as_object).unwrap_or(&empty);
    // Patroni accepts both spellings when it reads another member; the new one may come.
    let xlog = if root.contains_key("wal") { nested("wal") } else { nested("xlog") };
    let patroni = nested("patroni");
    let status = PatroniStatus {
        state: state.unwrap_or_else(unknown),
        role: role.map_or_else(unknown, primary_word),
        timeline: timeline(&root),
        location: lsn(xlog, "location"),
        received_location: lsn(xlog, "received_location"),
        replayed_location: lsn(xlog, "replayed_location"),
        replay_paused: xlog.get("paused").and_then(Value::as_bool),
        replication_state: text(&root, "replication_state"),
        postmaster_start_time: text(&root, "postmaster_start_time").and_then(|text| time(&text)),
        server_version: integer(&root, "server_version").and_then(|version| u32::try_from(version).ok()),
        system_identifier: text(&root, "database_system_identifier"),
        patroni_version: text(patroni, "version"),
        dcs_last_seen: integer(&root, "dcs_last_seen").filter(|secs| *secs > 0).map(Timestamp::from_secs),
        pause: truth(&root, "pause"),
        cluster_unlocked: truth(&root, "cluster_unlocked"),
        watchdog_failed: truth(&root, "watchdog_failed"),
        failsafe_mode_is_active: truth(&root, "failsafe_mode_is_active"),
        sync_standby: truth(&root, "sync_standby"),
        quorum_standby: truth(&root, "quorum_standby"),
        pending_restart: truth(&root, "pending_restart"),
        tags: tags(root.get("tags")),
    };
    Ok((status, Identity { scope: text(patroni, "scope"), name: text(patroni, "name") }))
}

/// Reads `GET /cluster`.
pub(crate) fn cluster(body: &[u8]) -> Result<ClusterView, PatroniParseError> {
    let root = object(body, "members")?;
    let Some(members) = root.get("members").and_then(Value::as_array) else {
        return Err(PatroniParseError::Foreign { keys: "members" });
    };
    let members = members.iter().filter_map(Value::as_object).filter_map(view_member).take(MEMBERS_MAX).collect();
    Ok(ClusterView { scope: text(&root, "scope"), pause: truth(&root, "pause"), members })
}

fn view_member(member: &Map<String, Value>) -> Option<ClusterViewMember> {
    Some(ClusterViewMember {
        name: text(member, "name").filter(|name| !name.is_empty())?,
        role: text(member, "role").map_or_else(unknown, |role| if role == "master" { "leader".into() } else { role }),
        state: text(member, "state").unwrap_or_else(unknown),
        timeline: timeline(member),
        host: text(member, "host").unwrap_or_default(),
        port: integer(member, "port").and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
        api_url: text(member, "api_url"),
        // "unknown" where Patroni does not know.
        lag_bytes: integer(member, "lag").and_then(|lag| u64::try_from(lag).ok()),
    })
}

/// Reads a `members/NAME` key of the DCS.
pub(crate) fn member_key(name: &str, value: &[u8]) -> Result<MemberAddress, PatroniParseError> {
    let root = object(value, "conn_url")?;
    let Some(url) = text(&root, "conn_url").and_then(|url| reqwest::Url::parse(&url).ok()) else {
        return Err(PatroniParseError::Foreign { keys: "conn_url" });
    };
    Ok(MemberAddress {
        member: name.to_owned(),
        host: url.host_str().unwrap_or("").trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(5432),
        rest_url: text(&root, "api_url").and_then(|url| base_url(&url)),
        present: true,
    })
}

/// Reads `GET /config` into the numbers worth a series, under pgSCV's names.
pub(crate) fn config(body: &[u8]) -> Result<Vec<(&'static str, f64)>, PatroniParseError> {
    let root = object(body, "ttl, loop_wait")?;
    let numbers = [
        ("patroni_ttl", "ttl"),
        ("patroni_loop_wait", "loop_wait"),
        ("patroni_retry_timeout", "retry_timeout"),
        ("patroni_maximum_lag_on_failover", "maximum_lag_on_failover"),
    ];
    Ok(numbers
        .iter()
        .filter_map(|(name, key)| Some((*name, root.get(*key)?.as_f64()?)))
        .filter(|(_, value)| value.is_finite())
        .collect())
}

/// Reads `GET /history`, oldest first.
pub(crate) fn history(body: &[u8]) -> Result<Vec<HistoryLine>, PatroniParseError> {
    let value: Value = serde_json::from_slice(body).map_err(PatroniParseError::NotJson)?;
    let Some(lines) = value.as_array() else {
        return Err(PatroniParseError::Foreign { keys: "a list" });
    };
    let line = |line: &Value| {
        let timeline = line.get(0).and_then(Value::as_u64).and_then(|timeline| u32::try_from(timeline).ok())?;
        Some(HistoryLine { timeline, at: line.get(3).and_then(Value::as_str).and_then(time) })
    };
    Ok(lines.iter().skip(lines.len().saturating_sub(HISTORY_MAX)).filter_map(line).collect())
}

/// `http://host:8008/patroni` without its path.
pub(crate) fn base_url(api_url: &str) -> Option<String> {
    let url = reqwest::Url::parse(api_url).ok()?;
    let host = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https"))?;
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    Some(format!("{}://{host}{port}", url.scheme()))
}

fn object(body: &[u8], keys: &'static str) -> Result<Map<String, Value>, PatroniParseError> {
    match serde_json::from_slice(body).map_err(PatroniParseError::NotJson)? {
        Value::Object(root) => Ok(root),
        _ => Err(PatroniParseError::Foreign { keys }),
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// Before version 4 a primary was called master.
fn primary_word(role: String) -> String {
    if role == "master" { "primary".to_owned() } else { role }
}

fn text(map: &Map<String, Value>, key: &str) -> Option<String> {
    map.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn integer(map: &Map<String, Value>, key: &str) -> Option<i64> {
    map.get(key).and_then(Value::as_i64)
}

fn truth(map: &Map<String, Value>, key: &str) -> bool {
    map.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// 0 means "unknown" to Patroni.
fn timeline(map: &Map<String, Value>) -> Option<u32> {
    integer(map, "timeline").and_then(|timeline| u32::try_from(timeline).ok()).filter(|timeline| *timeline > 0)
}

fn lsn(map: &Map<String, Value>, key: &str) -> Option<Lsn> {
    map.get(key).and_then(Value::as_u64).map(Lsn)
}

fn tags(value: Option<&Value>) -> BTreeMap<String, String> {
    let Some(tags) = value.and_then(Value::as_object) else { return BTreeMap::new() };
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    tags.iter().take(TAGS_MAX).map(|(key, value)| (key.clone(), plain(value))).collect()
}

/// `2024-08-28 19:39:26.352526+00:00`, also with a `T` or, from old versions, ` UTC`.
fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim().replacen(' ', "T", 1);
    let text = text.strip_suffix(" UTC").map_or_else(|| text.clone(), |head| format!("{head}Z"));
    Timestamp::parse_rfc3339(&text).ok()
}

#[cfg(test)]
mod tests;
