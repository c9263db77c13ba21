//! What records tell about their host: its name, its addresses, and happenings that another log knows too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;

use crate::model::{LogRecord, Lsn, Timestamp};

/// Different names, addresses, or marks of a kind that are kept of a part at most.
const KEPT_MAX: usize = 2000;

/// Something that happened and that two logs may tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Happening {
    /// Patroni and its PostgreSQL, on one host.
    PostmasterStarted,
    Promoted,
    ShutDownRequested,
    Reloaded,
    PatroniConnected,
    /// etcd on every host.
    EtcdLeaderKnown,
    /// The sender's host and the receiver's.
    WalSendStarted,
    WalSendAuthorized,
    WalReceiveStarted,
}

/// A happening at its time as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) at: Timestamp,
    pub(super) what: Happening,
    /// Equal for the same happening; empty where nothing tells them apart.
    pub(super) key: String,
    /// The member on the other side, where one is named.
    pub(super) who: String,
}

/// Names and addresses, with how often they were said.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// What the program calls itself.
    pub(super) own: BTreeMap<String, u32>,
    /// Addresses of its own.
    pub(super) own_addresses: BTreeMap<IpAddr, u32>,
    /// Members of the cluster.
    pub(super) members: BTreeSet<String>,
    /// Who has which address.
    pub(super) addresses: BTreeMap<(String, IpAddr), u32>,
    /// etcd's number of this member, and which number has which address.
    pub(super) own_etcd_ids: BTreeMap<String, u32>,
    pub(super) etcd_addresses: BTreeMap<(String, IpAddr), u32>,
    /// Names of the cluster.
    pub(super) scopes: BTreeMap<String, u32>,
    /// etcd has just started: what it learns then happened before.
    etcd_started_at: Option<Timestamp>,
}

static SCOPE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"/[\w-]+/(?P<scope>[\w.-]+)/(?:leader|members/|status|failover|history|sync|initialize|optime|failsafe)",
    )
    .ok()
});
static APPLICATION: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"application_name=(\S+)").ok());
static START_REPLICATION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"START_REPLICATION .*?([0-9A-F]+/[0-9A-F]+) TIMELINE (\d+)").ok());
static POSTMASTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"postmaster pid=(\d+)").ok());
static ETCD_NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#""--name[=",]+([^",]+)""#).ok());
static DIALLED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"dial tcp (\S+):\d+:").ok());

/// What etcd learns so soon after its start is not new.
const ETCD_SETTLES_NANOS: i64 = 30_000_000_000;

/// Takes what one record tells.
pub(super) fn note(record: &LogRecord, source: &str, names: &mut Names, marks: &mut Vec<Mark>) {
    let mark = match source {
        "patroni" => patroni(record, names),
        "postgresql" => postgresql(record, names),
        "etcd" => etcd(record, names),
        _ => None,
    };
    if let Some((what, key, who)) = mark
        && marks.iter().filter(|known| known.what == what).count() < KEPT_MAX
    {
        marks.push(Mark { at: record.at, what, key, who });
    }
}

type Found = Option<(Happening, String, String)>;

/// One without a key, of nobody else.
fn bare(what: Happening) -> (Happening, String, String) {
    (what, String::new(), String::new())
}

fn field<'a>(record: &'a LogRecord, name: &str) -> &'a str {
    record.field(name).unwrap_or("")
}

fn vote<K: Ord>(votes: &mut BTreeMap<K, u32>, key: K) {
    if votes.len() < KEPT_MAX || votes.contains_key(&key) {
        *votes.entry(key).or_default() += 1;
    }
}

fn member(names: &mut Names, name: &str) {
    if !name.is_empty() && name != "None" && names.members.len() < KEPT_MAX && !names.members.contains(name) {
        names.members.insert(name.to_owned());
    }
}

fn scope(record: &LogRecord, names: &mut Names) {
    if ["/members/", "/leader", "/status", "/history", "/initialize"].iter().any(|word| record.line.contains(word))
        && let Some(found) = SCOPE.as_ref().and_then(|regex| regex.captures(&record.line)?.name("scope"))
    {
        vote(&mut names.scopes, found.as_str().to_owned());
    }
}

fn patroni(record: &LogRecord, names: &mut Names) -> Found {
    scope(record, names);
    let event = field(record, "event");
    match event {
        "hb_leader" | "hb_standby_leader" | "hb_replica" | "hb_idle" | "lock_owner" => {
            vote(&mut names.own, field(record, "node").to_owned());
            for name in ["node", "leader", "owner"] {
                member(names, field(record, name));
            }
            None
        }
        "peer_status" | "peer_unreachable" => {
            let peer = field(record, "peer");
            member(names, peer);
            if let Some(address) = host_of_url(field(record, "url")) {
                vote(&mut names.addresses, (peer.to_owned(), address));
            }
            None
        }
        "promote_started" => Some(bare(Happening::Promoted)),
        "demote_started" => Some(bare(Happening::ShutDownRequested)),
        "config_reloaded" => Some(bare(Happening::Reloaded)),
        "pg_reconnect" => Some(bare(Happening::PatroniConnected)),
        _ => {
            let found = POSTMASTER.as_ref()?.captures(&record.line)?;
            Some((Happening::PostmasterStarted, found.get(1)?.as_str().to_owned(), String::new()))
        }
    }
}

fn host_of_url(url: &str) -> Option<IpAddr> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split('/').next()?;
    address(authority)
}

/// An address with or without a port, as `1.2.3.4`, `1.2.3.4:5`, `1.2.3.4(5)` or `[::1]:5`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.split('(').next()?;
    let with_port = || text.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']']));
    text.parse().ok().or_else(|| with_port()?.parse().ok())
}

fn postgresql(record: &LogRecord, names: &mut Names) -> Found {
    let application = field(record, "application");
    let client = address(field(record, "client"));
    if application.starts_with("Patroni")
        && let Some(own) = client.filter(|own| !own.to_string().ends_with("127.0.0.1") && !own.to_string().eq("::1"))
    {
        vote(&mut names.own_addresses, own);
    }
    match field(record, "event") {
        "promote_requested" => return Some(bare(Happening::Promoted)),
        "pg_shutdown_req" => return Some(bare(Happening::ShutDownRequested)),
        "pg_reload" => return Some(bare(Happening::Reloaded)),
        "pg_starting_up" => {
            return Some((Happening::PostmasterStarted, field(record, "pid").to_owned(), String::new()));
        }
        "wal_stream_started" | "wal_stream_restarted" => {
            let key = position(field(record, "lsn"), field(record, "tl"))?;
            return Some((Happening::WalReceiveStarted, key, String::new()));
        }
        _ => {}
    }
    if record.line.contains("connection authorized") {
        let standby = APPLICATION.as_ref().and_then(|regex| regex.captures(&record.line)?.get(1));
        let standby = standby.map_or("", |name| name.as_str());
        if record.line.contains("replication connection authorized") {
            if let (Some(client), false) = (client, standby.is_empty()) {
                vote(&mut names.addresses, (standby.to_owned(), client));
            }
            return Some((Happening::WalSendAuthorized, String::new(), standby.to_owned()));
        }
        return if standby == "Patroni" || application.starts_with("Patroni") {
            Some(bare(Happening::PatroniConnected))
        } else {
            None
        };
    }
    if record.line.contains("START_REPLICATION") {
        let found = START_REPLICATION.as_ref()?.captures(&record.line)?;
        let key = position(found.get(1)?.as_str(), found.get(2)?.as_str())?;
        if let (Some(client), false) = (client, application.is_empty()) {
            vote(&mut names.addresses, (application.to_owned(), client));
        }
        return Some((Happening::WalSendStarted, key, application.to_owned()));
    }
    None
}

/// A place in the WAL, written one way.
fn position(lsn: &str, timeline: &str) -> Option<String> {
    Some(format!("{timeline} {}", lsn.parse::<Lsn>().ok()?))
}

fn etcd(record: &LogRecord, names: &mut Names) -> Found {
    scope(record, names);
    if record.line.contains("starting an etcd server") || record.line.contains("restarting local member") {
        names.etcd_started_at = Some(record.at);
    }
    if record.line.contains("starting an etcd server") && record.field("name").is_some() {
        vote(&mut names.own, field(record, "name").to_owned());
    }
    if record.line.contains("\"--name")
        && let Some(found) = ETCD_NAME.as_ref().and_then(|regex| regex.captures(&record.line)?.get(1))
    {
        names.etcd_started_at = Some(record.at);
        vote(&mut names.own, found.as_str().to_owned());
    }
    let local = field(record, "local_member_id");
    if !local.is_empty() {
        vote(&mut names.own_etcd_ids, local.to_owned());
    }
    let remote = field(record, "remote_peer_id");
    if !remote.is_empty()
        && let Some(found) = DIALLED.as_ref().and_then(|regex| regex.captures(&record.line)?.get(1))
        && let Some(address) = address(found.as_str())
    {
        vote(&mut names.etcd_addresses, (remote.to_owned(), address));
    }
    match field(record, "event") {
        "etcd_leader_known" | "etcd_leader_changed" => {
            vote(&mut names.own_etcd_ids, field(record, "id").to_owned());
            let is_new = names
                .etcd_started_at
                .is_none_or(|started| record.at.nanos().saturating_sub(started.nanos()) > ETCD_SETTLES_NANOS);
            let leader = if record.field("l").is_some() { field(record, "l") } else { field(record, "b") };
            is_new.then(|| (Happening::EtcdLeaderKnown, format!("{leader} {}", field(record, "t")), String::new()))
        }
        "etcd_leader_lost" | "etcd_election_started" | "etcd_became_candidate" | "etcd_leader_elected" => {
            vote(&mut names.own_etcd_ids, field(record, "id").to_owned());
            None
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("10.0.0.1:5432", Some("10.0.0.1")),
            ("10.0.0.1(5432)", Some("10.0.0.1")),
            ("[::1]:5432", Some("::1")),
            ("fe80::1", Some("fe80::1")),
            ("[local]", None),
            ("pg1:8008", None),
            ("", None),
        ] {
            assert_eq!(address(text).map(|found| found.to_string()).as_deref(), expected, "{text}");
        }
        assert_eq!(host_of_url("http://10.0.0.1:8008/patroni"), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(host_of_url("nonsense"), None);
    }
}
