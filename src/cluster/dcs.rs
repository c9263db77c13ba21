//! The cluster's keys in the DCS, how current they are, and what the DCS members say about themselves.
//!
//! Invariant: keys are shown as current only while something proved them so a moment ago: a linearizable snapshot, a
//! change, or a lease, which the collector asks for only after a linearizable read.

use serde_json::Value;
use std::collections::BTreeMap;

use crate::cluster::member::{MemberKey, Probe};
use crate::cluster::options::JudgeOptions;
use crate::model::cluster::HaConfig;
use crate::model::observation::{DcsChange, DcsHealth, DcsKey, DcsSnapshot, Failure, LeaseStatus};
use crate::model::{Lsn, Timestamp};

const KEYS_MAX: usize = 1_000;
const JSON_KEYS: [&str; 5] = ["config", "failsafe", "history", "status", "sync"];
const DCS_MEMBERS_MAX: usize = 32;
/// Other members may write their own keys between a leader's first two writes.
const CLEARED_WITHIN_REVISIONS: i64 = 6;

/// One member of the DCS as last heard.
#[derive(Clone, Debug, Default)]
pub(super) struct DcsPeer {
    pub(super) health: Option<(Timestamp, DcsHealth)>,
    pub(super) failing: Option<(Timestamp, Failure)>,
    pub(super) tried_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct DcsState {
    pub(super) keys: BTreeMap<String, DcsKey>,
    /// Texts of the keys that hold JSON, and what they say.
    parsed: BTreeMap<&'static str, (String, Option<Value>)>,
    pub(super) loaded: bool,
    pub(super) revision: Option<i64>,
    /// When the keys were last proven to be what the DCS holds.
    pub(super) proven_at: Option<Timestamp>,
    /// When the last change was taken in; an older snapshot may have overtaken it.
    changed_at: Option<Timestamp>,
    pub(super) failing: Option<(Timestamp, Failure)>,
    pub(super) lease: Option<(Probe, LeaseStatus)>,
    pub(super) peers: BTreeMap<String, DcsPeer>,
    /// Since when the peers' words lack a quorum.
    pub(super) quorum_missing_since: Option<Timestamp>,
}

impl DcsState {
    /// The keys are what the DCS holds now.
    pub(super) fn is_current(&self, now: Timestamp, options: &JudgeOptions) -> bool {
        self.loaded
            && self.proven_at.is_some_and(|at| now.since(at) <= options.dcs_fresh)
            && self.quorum_missing_since.is_none_or(|since| now.since(since) < options.quorum_lost_after)
    }

    fn proven(&mut self, at: Timestamp) {
        self.proven_at = Some(self.proven_at.map_or(at, |before| before.max(at)));
        self.failing = None;
    }

    /// Takes in a full read; false when it is older than what is known.
    pub(super) fn load(&mut self, probe: Probe, snapshot: &DcsSnapshot) -> bool {
        let behind = self.revision.is_some_and(|revision| snapshot.revision < revision);
        // A linearizable read that was sent after a change cannot be behind it, unless the DCS was replaced.
        if self.loaded && behind && self.changed_at.is_some_and(|at| probe.sent <= at) {
            return false;
        }
        self.keys = snapshot.keys.iter().take(KEYS_MAX).map(|key| (key.key.clone(), key.clone())).collect();
        self.parse();
        self.revision = Some(snapshot.revision);
        self.loaded = true;
        self.proven(probe.received);
        true
    }

    /// Takes in one transaction; false when it is known already.
    pub(super) fn apply(&mut self, probe: Probe, change: &DcsChange) -> bool {
        self.proven(probe.received);
        if self.revision.is_some_and(|revision| change.revision <= revision) || !self.loaded {
            return false;
        }
        for key in &change.deletes {
            self.keys.remove(key);
        }
        for key in &change.puts {
            if self.keys.len() < KEYS_MAX || self.keys.contains_key(&key.key) {
                self.keys.insert(key.key.clone(), key.clone());
            }
        }
        self.parse();
        self.revision = Some(change.revision);
        self.changed_at = Some(probe.received);
        true
    }

    pub(super) fn lease_answered(&mut self, probe: Probe, lease: LeaseStatus) {
        self.lease = Some((probe, lease));
        if self.loaded {
            self.proven(probe.sent);
        }
    }

    pub(super) fn failed(&mut self, probe: Probe, failure: &Failure) {
        let since = self.failing.as_ref().map_or(probe.sent, |(since, _)| *since);
        self.failing = Some((since, failure.clone()));
    }

    pub(super) fn peer(&mut self, url: &str) -> Option<&mut DcsPeer> {
        if self.peers.len() >= DCS_MEMBERS_MAX && !self.peers.contains_key(url) {
            return None;
        }
        Some(self.peers.entry(url.to_owned()).or_default())
    }

    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(|key| key.value.as_str())
    }

    pub(super) fn leader(&self) -> Option<&str> {
        self.value("leader").filter(|owner| !owner.is_empty())
    }

    fn json(&self, key: &str) -> Option<&Value> {
        self.parsed.get(key)?.1.as_ref()
    }

    /// Reads the keys that hold JSON, once for each version of them: they are asked for at every look.
    fn parse(&mut self) {
        for name in JSON_KEYS {
            let Some(key) = self.keys.get(name) else {
                self.parsed.remove(name);
                continue;
            };
            if self.parsed.get(name).is_none_or(|(text, _)| *text != key.value) {
                self.parsed.insert(name, (key.value.clone(), serde_json::from_str(&key.value).ok()));
            }
        }
    }

    pub(super) fn config(&self) -> Option<HaConfig> {
        let config = self.json("config")?;
        let number = |name: &str| number(config, name);
        Some(HaConfig {
            ttl: number("ttl").and_then(|n| u32::try_from(n).ok()),
            loop_wait: number("loop_wait").and_then(|n| u32::try_from(n).ok()),
            retry_timeout: number("retry_timeout").and_then(|n| u32::try_from(n).ok()),
            maximum_lag_on_failover: number("maximum_lag_on_failover"),
            failsafe_mode: Some(truthy(config.get("failsafe_mode"))),
            synchronous_mode_strict: Some(truthy(config.get("synchronous_mode_strict"))),
            check_timeline: Some(truthy(config.get("check_timeline"))),
        })
    }

    /// Whether Patroni is told to pause; `None` without the `config` key.
    pub(super) fn pause(&self) -> Option<bool> {
        self.json("config").map(|config| truthy(config.get("pause")))
    }

    /// The remote host that a standby cluster follows, with its port where one is given.
    pub(super) fn standby_of(&self) -> Option<String> {
        let config = self.json("config")?;
        let remote = config.get("standby_cluster").filter(|remote| remote.is_object())?;
        let host = text(remote, "host").unwrap_or_else(|| "an archive".to_owned());
        Some(number(remote, "port").map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
    }

    /// `off`, `on` or `quorum`.
    pub(super) fn sync_mode(&self) -> Option<String> {
        let config = self.json("config")?;
        let mode = match config.get("synchronous_mode") {
            Some(Value::String(word)) if word == "quorum" => "quorum",
            value if truthy(value) => "on",
            _ => "off",
        };
        Some(mode.to_owned())
    }

    /// Names of the synchronous standbys.
    pub(super) fn sync_standbys(&self) -> Vec<String> {
        let names = self.json("sync").and_then(|sync| sync.get("sync_standby")?.as_str().map(str::to_owned));
        names.map_or_else(Vec::new, |names| names.split(',').map(|name| name.trim().to_owned()).collect())
    }

    /// The leader keeps the list: without its name in it, synchronous replication is off.
    pub(super) fn sync_is_active(&self) -> bool {
        self.json("sync").and_then(|sync| sync.get("leader")?.as_str().map(|leader| !leader.is_empty())) == Some(true)
    }

    /// Members that the leader asks in failsafe mode; `None` without the key.
    pub(super) fn failsafe_members(&self) -> Option<Vec<String>> {
        let members = self.json("failsafe")?;
        Some(members.as_object()?.keys().cloned().collect())
    }

    pub(super) fn system_identifier(&self) -> Option<String> {
        self.value("initialize").filter(|id| !id.is_empty()).map(str::to_owned)
    }

    /// The last published WAL position of the leader.
    pub(super) fn optime(&self) -> Option<Lsn> {
        let status = self.json("status").and_then(|status| number(status, "optime"));
        status.or_else(|| self.value("optime/leader")?.trim().parse().ok()).map(Lsn)
    }

    /// Where the timeline ended, by the `history` key.
    pub(super) fn switch_lsn(&self, ended: u32) -> Option<Lsn> {
        let history = self.json("history")?;
        let row =
            history.as_array()?.iter().rev().find(|row| row.get(0).and_then(Value::as_u64) == Some(ended.into()))?;
        row.get(1)?.as_u64().map(Lsn)
    }

    /// A new leader empties a `failover` key that asked for it right after it took the lock, and only then.
    pub(super) fn request_was_cleared_by_leader(&self) -> bool {
        let (Some(leader), Some(failover)) = (self.keys.get("leader"), self.keys.get("failover")) else { return false };
        let after = failover.mod_revision - leader.mod_revision;
        parse_failover(&failover.value).is_none() && (1..=CLEARED_WITHIN_REVISIONS).contains(&after)
    }

    pub(super) fn member_key(&self, member: &str) -> Option<MemberKey> {
        parse_member_key(self.value(&format!("members/{member}"))?)
    }

    pub(super) fn member_names(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().filter_map(|key| key.strip_prefix("members/"))
    }
}

/// A number that may be written as text.
fn number(value: &Value, name: &str) -> Option<u64> {
    match value.get(name)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn truthy(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(word)) => ["true", "on", "yes", "1"].contains(&word.to_ascii_lowercase().as_str()),
        Some(Value::Number(number)) => number.as_u64() == Some(1),
        _ => false,
    }
}

fn text(value: &Value, name: &str) -> Option<String> {
    value.get(name)?.as_str().map(str::to_owned)
}

/// Reads the JSON of `members/NAME`; anything missing or of a wrong type is left out.
fn parse_member_key(value: &str) -> Option<MemberKey> {
    let value: Value = serde_json::from_str(value).ok()?;
    let tag = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let tags = value.get("tags").and_then(Value::as_object);
    Some(MemberKey {
        state: text(&value, "state").unwrap_or_default(),
        role: text(&value, "role")
            .map(|role| if role == "master" { "primary".to_owned() } else { role })
            .unwrap_or_default(),
        timeline: number(&value, "timeline").and_then(|n| u32::try_from(n).ok()),
        patroni_version: text(&value, "version"),
        pending_restart: truthy(value.get("pending_restart")),
        tags: tags.map(|tags| tags.iter().map(|(k, v)| (k.clone(), tag(v))).collect()).unwrap_or_default(),
    })
}

/// A request in the `failover` key: JSON with any of leader, member, scheduled_at, or the old `leader:member`.
/// `None` for the emptied key.
pub(super) fn parse_failover(value: &str) -> Option<(Option<String>, Option<String>, Option<Timestamp>)> {
    let value = value.trim();
    let named = |name: Option<String>| name.filter(|name| !name.is_empty());
    if let Ok(json) = serde_json::from_str::<Value>(value) {
        let leader = named(text(&json, "leader"));
        let candidate = named(text(&json, "member"));
        let scheduled_at = text(&json, "scheduled_at").and_then(|at| Timestamp::parse_rfc3339(&at).ok());
        return (leader.is_some() || candidate.is_some()).then_some((leader, candidate, scheduled_at));
    }
    let (leader, candidate) = value.split_once(':')?;
    let request = (named(Some(leader.to_owned())), named(Some(candidate.to_owned())), None);
    (request.0.is_some() || request.1.is_some()).then_some(request)
}

/// What differs between two versions of the dynamic configuration, as `name: old -> new`, one level of nesting deep.
pub(super) fn config_diff(old: &str, new: &str) -> Vec<String> {
    let flat = |text: &str| {
        let mut flat = BTreeMap::new();
        let Ok(Value::Object(top)) = serde_json::from_str::<Value>(text) else { return flat };
        for (name, value) in top {
            match value {
                Value::Object(inner) => flatten(&name, inner, 2, &mut flat),
                value => drop(flat.insert(name, value.to_string())),
            }
        }
        flat
    };
    let (old, new) = (flat(old), flat(new));
    let mut names: Vec<_> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let shown = |value: Option<&String>| value.map_or("unset", String::as_str).to_owned();
    let differs = names.into_iter().filter(|name| old.get(*name) != new.get(*name));
    differs.take(32).map(|name| format!("{name}: {} -> {}", shown(old.get(name)), shown(new.get(name)))).collect()
}

fn flatten(prefix: &str, object: serde_json::Map<String, Value>, depth: usize, flat: &mut BTreeMap<String, String>) {
    for (name, value) in object {
        let name = format!("{prefix}.{name}");
        match value {
            Value::Object(inner) if depth > 1 => flatten(&name, inner, depth - 1, flat),
            value => drop(flat.insert(name, value.to_string())),
        }
    }
}
