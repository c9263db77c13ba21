//! The belief as the API shows it. Everything that is not known now is `None`.

use std::collections::BTreeMap;

use crate::cluster::demotion::demotion;
use crate::cluster::health::health;
use crate::cluster::lag::{lag_of, source_of_truth, upstream_lag_bytes};
use crate::cluster::member::{MemberState, SourceState, kind_word};
use crate::cluster::options::JudgeOptions;
use crate::cluster::quorum;
use crate::cluster::reach;
use crate::cluster::readiness::readiness;
use crate::cluster::state::ClusterState;
use crate::model::cluster::{Cluster, Dcs, DcsMember, Lock, Member, Role, SourceView, postgres_version_text};
use crate::model::observation::{PatroniStatus, PostgresStatus};
use crate::model::{Lsn, Timestamp};

pub(super) fn cluster(name: &str, state: &ClusterState, now: Timestamp, options: &JudgeOptions) -> Cluster {
    let (health, reasons) = health(state, now, options);
    let current = !state.has_dcs() || state.dcs.is_current(now, options);
    let in_dcs = |known: Option<bool>| if current { known } else { None };
    Cluster {
        name: name.to_owned(),
        health,
        reasons,
        leader: state.leader(now, options).map(str::to_owned),
        writable: state.writable_members(now, options),
        timeline: timeline(state, now, options),
        system_identifier: state.memory.system_identifier.clone(),
        paused: in_dcs(state.memory.paused),
        switching: state.switching(now),
        failsafe: state.memory.failsafe,
        sync_mode: if current { state.dcs.sync_mode() } else { None },
        standby_of: state.dcs.standby_of(),
        split_brain: state.memory.split_brain.clone(),
        lock: lock(state, current),
        dcs: dcs(state, now, options),
        config: state.dcs.config(),
        demotion: demotion(state, now, options),
        readiness: readiness(state, now, options),
        reachability: reach::matrix(state, now),
        requests: state.memory.requests.clone(),
        members: state.members.keys().filter_map(|member| one(state, member, now, options)).collect(),
    }
}

/// The timeline that the leader is on, as of now.
fn timeline(state: &ClusterState, now: Timestamp, options: &JudgeOptions) -> Option<u32> {
    let source = source_of_truth(state, now, options)?;
    state.members.get(&source)?.timeline(now, options)
}

/// The leader key as last read, with its time. Only `Cluster::leader` is a statement about now.
fn lock(state: &ClusterState, current: bool) -> Option<Lock> {
    let seen_at = state.dcs.proven_at?;
    let key = state.dcs.keys.get("leader");
    let lease = state.dcs.lease.as_ref().map(|(_, lease)| *lease).filter(|_| current && key.is_some());
    Some(Lock {
        owner: state.dcs.leader().map(str::to_owned),
        lease_ttl_seconds: lease.map(|lease| lease.ttl_seconds).filter(|ttl| *ttl >= 0),
        lease_granted_ttl_seconds: lease.map(|lease| lease.granted_ttl_seconds),
        revision: key.map(|key| key.mod_revision),
        seen_at,
    })
}

fn dcs(state: &ClusterState, now: Timestamp, options: &JudgeOptions) -> Option<Dcs> {
    if !state.has_dcs() && state.dcs.peers.is_empty() {
        return None;
    }
    let members = state.dcs.peers.iter().map(|(url, peer)| {
        let health = peer.health.as_ref().map(|(_, health)| health);
        let failure = peer.failing.as_ref().map(|(_, failure)| failure);
        let heard = peer.health.as_ref().is_some_and(|(at, _)| now.since(*at) <= options.dcs_fresh);
        let healthy = match failure {
            Some(_) => Some(false),
            None => health.filter(|_| heard).map(|health| health.healthy),
        };
        DcsMember {
            name: health.and_then(|health| health.name.clone()).unwrap_or_else(|| url.clone()),
            url: url.clone(),
            healthy,
            leader: health.filter(|_| healthy == Some(true)).and_then(|health| health.is_leader),
            version: health.and_then(|health| health.version.clone()),
            db_size_bytes: health.and_then(|health| health.database_bytes),
            seen_at: peer.health.as_ref().map(|(at, _)| *at),
            error: failure.map(|failure| failure.error.clone()).or_else(|| health?.reason.clone()),
        }
    });
    Some(Dcs {
        kind: "etcd".to_owned(),
        quorum: quorum::quorum(state, now, options),
        stale: !state.dcs.is_current(now, options),
        seen_at: state.dcs.proven_at,
        members: members.collect(),
    })
}

fn role(state: &ClusterState, name: &str, now: Timestamp, options: &JudgeOptions) -> Role {
    let Some(member) = state.members.get(name) else { return Role::Unknown };
    let sql = member.current_sql(now, options);
    let rest = member.current_rest(now, options);
    match (state.writable(name, now, options), sql) {
        (Some(true), _) => return Role::Primary,
        (None, Some(sql)) if !sql.in_recovery => return Role::Unknown,
        (Some(false), Some(sql)) if !sql.in_recovery => return Role::Primary,
        _ => {}
    }
    let standby = sql.is_some_and(|sql| sql.in_recovery) || rest.is_some_and(|rest| rest.replayed_location.is_some());
    if !standby {
        return Role::Unknown;
    }
    let leads = state.memory.leader.as_deref() == Some(name);
    let listed = state.dcs.sync_standbys().iter().any(|standby| standby == name || standby == "*");
    match rest {
        _ if leads && state.dcs.standby_of().is_some() => Role::StandbyLeader,
        Some(rest) if rest.role == "standby_leader" && leads => Role::StandbyLeader,
        Some(rest) if rest.quorum_standby => Role::QuorumStandby,
        Some(rest) if rest.sync_standby => Role::SyncStandby,
        _ if listed && state.dcs.sync_mode().as_deref() == Some("quorum") => Role::QuorumStandby,
        _ if listed => Role::SyncStandby,
        _ => Role::Replica,
    }
}

/// Patroni's word as `/cluster` would put it; what PostgreSQL shows where Patroni is silent.
fn patroni_state(member: &MemberState, now: Timestamp, options: &JudgeOptions) -> String {
    if let Some(rest) = member.current_rest(now, options) {
        return match (&rest.replication_state, rest.state.as_str()) {
            (Some(replication), "running") => replication.clone(),
            _ => rest.state.clone(),
        };
    }
    match member.current_sql(now, options) {
        Some(sql) if sql.receiver.as_ref().is_some_and(|receiver| receiver.status == "streaming") => {
            "streaming".to_owned()
        }
        Some(_) => "running".to_owned(),
        None => "unknown".to_owned(),
    }
}

/// Whom it streams from: by the address that its receiver names, or else by who names it among the senders.
fn upstream(state: &ClusterState, name: &str, now: Timestamp, options: &JudgeOptions) -> Option<String> {
    let receiver = state.members.get(name)?.current_sql(now, options)?.receiver.as_ref()?;
    let at = |member: &MemberState| {
        receiver.sender_host.as_ref() == Some(&member.address.host)
            && receiver.sender_port.is_none_or(|port| port == member.address.port)
    };
    let sends = |member: &MemberState| {
        let senders = member.current_sql(now, options).map_or(&[][..], |sql| &sql.senders[..]);
        senders.iter().any(|sender| sender.application_name == name && sender.state == "streaming")
    };
    let others = || state.members.iter().filter(|(other, _)| *other != name);
    let found = others().find(|(_, member)| at(member)).or_else(|| others().find(|(_, member)| sends(member)));
    found.map(|(name, _)| name.clone())
}

fn one(state: &ClusterState, name: &str, now: Timestamp, options: &JudgeOptions) -> Option<Member> {
    let member = state.members.get(name)?;
    let sql = member.current_sql(now, options);
    let rest = member.current_rest(now, options);
    let lag = lag_of(state, name, now, options);
    let version = sql.and_then(|sql| sql.server_version).or_else(|| rest.and_then(|rest| rest.server_version));
    let upstream = upstream(state, name, now, options);
    let hop = upstream.as_ref().and_then(|upstream| upstream_lag_bytes(state, (name, upstream), now, options));
    let skew = member.skew.estimate(now);
    let last_rest = member.rest.answer.as_ref().map(|(_, rest)| rest);
    Some(Member {
        name: name.to_owned(),
        role: role(state, name, now, options),
        state: patroni_state(member, now, options),
        writable: state.writable(name, now, options),
        timeline: member.timeline(now, options),
        lag_bytes: lag.bytes,
        lag_seconds: lag.seconds,
        receive_lag_bytes: lag.receive_bytes,
        upstream_lag_bytes: hop,
        apply_delay_seconds: sql.and_then(|sql| sql.apply_delay_seconds),
        clock_skew_seconds: skew.map(|skew| skew.seconds),
        clock_skew_error_seconds: skew.map(|skew| skew.error_seconds),
        lsn: lsn(sql, rest),
        seen_at: member.seen_at(),
        host: member.address.host.clone(),
        port: member.address.port,
        rest_url: member.address.rest_url.clone(),
        postgres_version: version.map(postgres_version_text),
        patroni_version: last_rest
            .and_then(|rest| rest.patroni_version.clone())
            .or_else(|| member.key.as_ref()?.patroni_version.clone()),
        postmaster_start_time: member.postmaster_start(),
        upstream,
        replication_state: replication_state(sql, rest),
        pending_restart: rest.map(|rest| rest.pending_restart).or(member.key.as_ref().map(|key| key.pending_restart)),
        tags: tags(member),
        connections: sql.and_then(|sql| sql.connections),
        present: member.address.present,
        sources: sources(state, member, now, options),
    })
}

fn lsn(sql: Option<&PostgresStatus>, rest: Option<&PatroniStatus>) -> Option<Lsn> {
    let by_sql = sql.and_then(|sql| if sql.in_recovery { sql.replay_lsn } else { sql.current_lsn });
    by_sql.or_else(|| rest.and_then(|rest| rest.location.or(rest.replayed_location)))
}

fn replication_state(sql: Option<&PostgresStatus>, rest: Option<&PatroniStatus>) -> Option<String> {
    let receiver = sql.and_then(|sql| sql.receiver.as_ref()).map(|receiver| receiver.status.clone());
    receiver.filter(|status| !status.is_empty()).or_else(|| rest?.replication_state.clone())
}

pub(super) fn tags(member: &MemberState) -> BTreeMap<String, String> {
    match (&member.rest.answer, &member.key) {
        (Some((_, rest)), _) if !rest.tags.is_empty() => rest.tags.clone(),
        (_, Some(key)) => key.tags.clone(),
        _ => BTreeMap::new(),
    }
}

fn source<T>(name: &str, source: &SourceState<T>, says: String) -> Option<SourceView> {
    source.tried_at?;
    Some(SourceView {
        source: name.to_owned(),
        seen_at: source.answered_at(),
        up: Some(source.failing.is_none()),
        error: source.failing.as_ref().map(|(_, failure)| failure.error.clone()),
        says: match &source.failing {
            Some((_, failure)) => kind_word(failure.kind).to_owned(),
            None => says,
        },
    })
}

fn timeline_words(timeline: Option<u32>) -> String {
    timeline.map_or_else(String::new, |timeline| format!(", timeline {timeline}"))
}

fn sources(state: &ClusterState, member: &MemberState, now: Timestamp, options: &JudgeOptions) -> Vec<SourceView> {
    let rest_says = member.rest.answer.as_ref().map_or_else(String::new, |(_, rest)| {
        let replication = rest.replication_state.as_ref().map_or_else(String::new, |word| format!(", {word}"));
        format!("{} {}{replication}{}", rest.role, rest.state, timeline_words(rest.timeline))
    });
    let sql_says =
        member.sql.answer.as_ref().map_or_else(String::new, |(_, sql)| match (sql.in_recovery, sql.read_only) {
            (true, _) => format!("in recovery{}", timeline_words(member.timeline(now, options))),
            (false, true) => format!("not in recovery, read only{}", timeline_words(sql.timeline)),
            (false, false) => format!("writable{}", timeline_words(sql.timeline)),
        });
    let by_dcs = state.dcs.loaded.then(|| {
        let key = member.key.as_ref();
        SourceView {
            source: "dcs".to_owned(),
            seen_at: if key.is_some() { state.dcs.proven_at } else { member.key_seen_at },
            // The key lives as long as its lease; a DCS that cannot be read says nothing about now.
            up: state.dcs.is_current(now, options).then_some(key.is_some()),
            error: None,
            says: key.map_or_else(
                || "not in the DCS".to_owned(),
                |key| format!("{} {}{}", key.role, key.state, timeline_words(key.timeline)),
            ),
        }
    });
    [
        source("rest", &member.rest, rest_says),
        source("sql", &member.sql, sql_says),
        by_dcs,
        source("agent", &member.agent, "up".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect()
}
