//! etcd's JSON: numbers are strings, bytes are base64, and zero values are left out.
//!
//! Invariant: total. A shape that is not etcd's is an error, a missing field its zero value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::collect::poll::CollectError;
use crate::model::observation::{DcsChange, DcsKey, FailureKind, LeaseStatus};

/// Keys read of one cluster, or scopes found in one namespace.
pub(crate) const KEYS_MAX: usize = 20_000;
/// Bytes kept of one value.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// The answer to a range request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) revision: i64,
    pub(crate) keys: Vec<DcsKey>,
}

/// One line of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WatchLine {
    /// The watch stands.
    Created,
    /// Changes in order of their revisions, which may be none (a sign of life).
    Changes { revision: i64, changes: Vec<DcsChange> },
    /// The watch is over: compacted, or refused.
    Canceled(String),
}

/// One etcd member as the member list has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListedMember {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) client_urls: Vec<String>,
}

/// Base64 of a key.
pub(crate) fn encode(key: impl AsRef<[u8]>) -> String {
    STANDARD.encode(key)
}

/// The first key after all that start with the prefix.
pub(crate) fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// Reads the answer to a range request.
pub(crate) fn range(value: &Value, prefix: &str) -> Result<Range, CollectError> {
    let header = value.get("header").ok_or_else(foreign)?;
    let list = value.get("kvs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let keys = list.iter().take(KEYS_MAX).filter_map(|kv| key(kv, prefix)).collect();
    Ok(Range { revision: integer(header, "revision"), keys })
}

/// Reads one line of a watch.
pub(crate) fn watch_line(line: &[u8], prefix: &str) -> Result<WatchLine, CollectError> {
    let value: Value = serde_json::from_slice(line).map_err(|_| foreign())?;
    if let Some(message) = error_message(&value) {
        return Ok(WatchLine::Canceled(message));
    }
    let result = value.get("result").ok_or_else(foreign)?;
    if truth(result, "canceled") {
        let compacted = integer(result, "compact_revision");
        let reason = result.get("cancel_reason").and_then(Value::as_str).unwrap_or("no reason given");
        return Ok(WatchLine::Canceled(format!("{reason} (compacted up to {compacted})")));
    }
    if truth(result, "created") {
        return Ok(WatchLine::Created);
    }
    let revision = result.get("header").map_or(0, |header| integer(header, "revision"));
    let events = result.get("events").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    Ok(WatchLine::Changes { revision, changes: group(events, prefix) })
}

/// Events of one revision are one change: keys that vanish together vanish in one transaction.
fn group(events: &[Value], prefix: &str) -> Vec<DcsChange> {
    let mut changes: Vec<DcsChange> = Vec::new();
    for event in events {
        let Some(key) = event.get("kv").and_then(|kv| key(kv, prefix)) else { continue };
        if changes.last().is_none_or(|last| last.revision != key.mod_revision) {
            changes.push(DcsChange { revision: key.mod_revision, ..DcsChange::default() });
        }
        let Some(change) = changes.last_mut() else { continue };
        if event.get("type").and_then(Value::as_str) == Some("DELETE") {
            change.deletes.push(key.key);
        } else {
            change.puts.push(key);
        }
    }
    changes
}

fn key(kv: &Value, prefix: &str) -> Option<DcsKey> {
    let full = bytes(kv, "key");
    let key = String::from_utf8_lossy(&full).strip_prefix(prefix)?.to_owned();
    let mut value = bytes(kv, "value");
    value.truncate(VALUE_BYTES_MAX);
    Some(DcsKey {
        key,
        value: String::from_utf8_lossy(&value).into_owned(),
        mod_revision: integer(kv, "mod_revision"),
        create_revision: integer(kv, "create_revision"),
        lease: integer(kv, "lease"),
    })
}

/// Reads the answer to "how long does this lease live".
pub(crate) fn lease(value: &Value, lease: i64) -> LeaseStatus {
    // A lease that is gone has TTL -1; zero values are left out.
    LeaseStatus { lease, ttl_seconds: integer(value, "TTL"), granted_ttl_seconds: integer(value, "grantedTTL") }
}

/// Reads the member list.
pub(crate) fn members(value: &Value) -> Vec<ListedMember> {
    let list = value.get("members").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let member = |member: &Value| ListedMember {
        id: text(member, "ID").unwrap_or_default(),
        name: text(member, "name").unwrap_or_default(),
        client_urls: member
            .get("clientURLs")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    };
    list.iter().take(64).map(member).collect()
}

/// etcd's error text, wherever its version puts it.
pub(crate) fn error_message(value: &Value) -> Option<String> {
    // Some versions have the message inside of an error, some beside one, some alone.
    let error = value.get("error");
    let inside = error.and_then(|error| error.as_str().or_else(|| error.get("message").and_then(Value::as_str)));
    let message = inside.or_else(|| value.get("message").and_then(Value::as_str))?;
    Some(message.chars().take(500).collect())
}

/// A string, or a number as text.
pub(crate) fn text(value: &Value, key: &str) -> Option<String> {
    match value.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A number, or a string that is one; 0 when left out.
pub(crate) fn integer(value: &Value, key: &str) -> i64 {
    match value.get(key) {
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(Value::Number(number)) => number.as_i64().unwrap_or(0),
        _ => 0,
    }
}

fn truth(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn bytes(value: &Value, key: &str) -> Vec<u8> {
    value.get(key).and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default()
}

fn foreign() -> CollectError {
    CollectError::new(FailureKind::Other, "the answer is not etcd's")
        .with_hint("dcs.etcd must list etcd's client URLs (default port 2379)")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PREFIX: &str = "/service/main/";

    fn kv(key: &str, value: &str, revision: i64, lease: i64) -> Value {
        json!({"key": encode(format!("{PREFIX}{key}")), "value": encode(value), "mod_revision": revision.to_string(),
            "create_revision": "3", "lease": lease.to_string()})
    }

    fn dcs_key(key: &str, value: &str, revision: i64, lease: i64) -> DcsKey {
        DcsKey { key: key.into(), value: value.into(), mod_revision: revision, create_revision: 3, lease }
    }

    #[test]
    fn ranges() {
        let answer = json!({"header": {"revision": "42"}, "kvs": [kv("leader", "n1", 7, 99)], "count": "1"});
        let range = range(&answer, PREFIX).unwrap();
        assert_eq!(range, Range { revision: 42, keys: vec![dcs_key("leader", "n1", 7, 99)] });
        assert!(super::range(&json!({"hello": 1}), PREFIX).is_err());
        assert_eq!(prefix_end("/a/"), b"/a0");
    }

    #[test]
    fn keys_that_vanish_together_are_one_change() {
        let line = json!({"result": {"header": {"revision": "50"}, "events": [
            {"kv": kv("status", "{}", 48, 0)},
            {"type": "DELETE", "kv": {"key": encode("/service/main/leader"), "mod_revision": "50"}},
            {"type": "DELETE", "kv": {"key": encode("/service/main/members/n1"), "mod_revision": "50"}},
            {"kv": {"key": encode("/service/other/leader"), "mod_revision": "50"}},
        ]}});
        let expected = vec![
            DcsChange { revision: 48, puts: vec![dcs_key("status", "{}", 48, 0)], deletes: vec![] },
            DcsChange { revision: 50, puts: vec![], deletes: vec!["leader".into(), "members/n1".into()] },
        ];
        let line = watch_line(line.to_string().as_bytes(), PREFIX).unwrap();
        assert_eq!(line, WatchLine::Changes { revision: 50, changes: expected });
    }

    #[test]
    fn ends_of_watches() {
        for (line, expected) in [
            (json!({"result": {"created": true}}), WatchLine::Created),
            (
                json!({"result": {"canceled": true, "compact_revision": "9", "cancel_reason": "compacted"}}),
                WatchLine::Canceled("compacted (compacted up to 9)".into()),
            ),
            (
                json!({"error": {"grpc_code": 14, "message": "etcdserver: no leader"}}),
                WatchLine::Canceled("etcdserver: no leader".into()),
            ),
        ] {
            assert_eq!(watch_line(line.to_string().as_bytes(), PREFIX).unwrap(), expected);
        }
        for garbage in ["", "{}", "[1", "5"] {
            assert!(watch_line(garbage.as_bytes(), PREFIX).is_err());
        }
    }

    #[test]
    fn leases_and_members() {
        let gone = lease(&json!({"ID": "5", "TTL": "-1"}), 5);
        assert_eq!(gone, LeaseStatus { lease: 5, ttl_seconds: -1, granted_ttl_seconds: 0 });
        let list = json!({"members": [{"ID": "7", "name": "e1", "clientURLs": ["http://a:2379"]}, {"ID": 8}]});
        assert_eq!(members(&list).len(), 2);
        assert_eq!(members(&list)[0].client_urls, ["http://a:2379"]);
    }
}
