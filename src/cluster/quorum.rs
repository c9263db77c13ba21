//! The DCS itself: does it have a quorum, which of its members are down, can we see it at all.
//!
//! A quorum is missing only by testimony: members that refuse (their process is dead) or that say themselves that they
//! have no leader. Members that merely do not answer us may be fine behind a broken network: that is blindness.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::demotion::demotion;
use crate::cluster::draft::Draft;
use crate::cluster::member::{Probe, kind_word};
use crate::cluster::options::JudgeOptions;
use crate::cluster::state::{ClusterState, Drafts};
use crate::model::Timestamp;
use crate::model::observation::{DcsHealth, Failure, FailureKind};

/// Takes in a DCS member's word about itself.
pub(super) fn health(state: &mut ClusterState, url: &str, probe: Probe, health: &DcsHealth, out: &mut Drafts) {
    let Some(peer) = state.dcs.peer(url) else { return };
    peer.tried_at = Some(probe.received);
    peer.failing = None;
    peer.health = Some((probe.received, health.clone()));
    if health.is_leader == Some(true) {
        leads(state, url, (probe.received, health), out);
    }
    alarms(state, probe.received, out);
}

/// Terms only grow: a member that leads in a later one than the leader before was elected after it.
fn leads(state: &mut ClusterState, url: &str, (at, health): (Timestamp, &DcsHealth), out: &mut Drafts) {
    let Some(term) = health.raft_term else { return };
    let known = state.memory.dcs_leader.as_ref();
    if known.is_some_and(|(before, _)| *before >= term) {
        return;
    }
    let old = state.memory.dcs_leader.replace((term, url.to_owned())).map(|(_, old)| old);
    if let Some(old) = old.filter(|old| old != url) {
        let text = format!("the DCS elected another leader: {url} after {old}");
        let draft = Draft::notice("dcs_leader_changed", at).by("dcs").text(text).field("term", term);
        out.push(draft.field("old_url", old).field("url", url).keyed(url, at));
    }
}

/// etcd refuses every write while an alarm is raised, and says so in the status of each member.
fn alarms(state: &mut ClusterState, at: Timestamp, out: &mut Drafts) {
    let word = |alarm: &String| alarm.rsplit_once("alarm:").map_or(alarm.as_str(), |(_, word)| word).trim().to_owned();
    let healths = state.dcs.peers.values().filter_map(|peer| peer.health.as_ref());
    let raised: BTreeSet<String> = healths.flat_map(|(_, health)| health.alarms.iter().map(word)).collect();
    for alarm in raised.difference(&state.memory.dcs_alarms) {
        let text = format!("the DCS raised the alarm {alarm}: it refuses writes, and no failover is possible");
        out.push(Draft::warning("dcs_alarm", at).by("dcs").text(text).field("alarm", alarm).keyed(alarm, at));
    }
    for alarm in state.memory.dcs_alarms.difference(&raised) {
        let text = format!("the alarm {alarm} of the DCS is over");
        out.push(Draft::info("dcs_alarm_ended", at).by("dcs").text(text).field("alarm", alarm).keyed(alarm, at));
    }
    state.memory.dcs_alarms = raised;
}

pub(super) fn failed(state: &mut ClusterState, url: &str, probe: Probe, failure: &Failure) {
    if let Some(peer) = state.dcs.peer(url) {
        peer.tried_at = Some(probe.received);
        let since = peer.failing.as_ref().map_or(probe.sent, |(since, _)| *since);
        peer.failing = Some((since, failure.clone()));
    }
}

/// What the members' words add up to.
fn testimony(state: &ClusterState, now: Timestamp, options: &JudgeOptions) -> Option<bool> {
    let peers = &state.dcs.peers;
    if peers.is_empty() {
        return None;
    }
    let majority = peers.len() / 2 + 1;
    let (mut healthy, mut without) = (0, 0);
    for peer in peers.values() {
        match (&peer.failing, &peer.health) {
            (Some((_, failure)), _) if failure.kind == FailureKind::Refused => without += 1,
            (None, Some((at, health))) if now.since(*at) <= options.dcs_fresh => {
                if health.healthy && health.has_leader != Some(false) {
                    healthy += 1;
                } else {
                    without += 1;
                }
            }
            _ => {}
        }
    }
    if healthy >= majority {
        Some(true)
    } else if without > peers.len() - majority {
        Some(false)
    } else {
        None
    }
}

/// The members' words, unless a read that needs a quorum has succeeded after they turned bad.
fn judged(state: &ClusterState, now: Timestamp, options: &JudgeOptions) -> Option<bool> {
    match testimony(state, now, options) {
        Some(false) if proven_since(state) => Some(true),
        None if state.dcs.is_current(now, options) => Some(true),
        word => word,
    }
}

/// Whether the DCS has a quorum. One that has just gone missing is in doubt for the time of an election.
pub(super) fn quorum(state: &ClusterState, now: Timestamp, options: &JudgeOptions) -> Option<bool> {
    match judged(state, now, options) {
        Some(false) => {
            let lasted =
                state.dcs.quorum_missing_since.is_some_and(|since| now.since(since) >= options.quorum_lost_after);
            (state.memory.quorum_lost || lasted).then_some(false)
        }
        word => word,
    }
}

fn proven_since(state: &ClusterState) -> bool {
    state.dcs.quorum_missing_since.zip(state.dcs.proven_at).is_some_and(|(since, proven)| proven > since)
}

pub(super) fn tick(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    match judged(state, now, options) {
        Some(false) => {
            let since = *state.dcs.quorum_missing_since.get_or_insert(now);
            if !state.memory.quorum_lost && now.since(since) >= options.quorum_lost_after {
                state.memory.quorum_lost = true;
                let words = words(state);
                let text = format!(
                    "the DCS has no quorum: {words}; no failover is possible, and without failsafe mode Patroni demotes the leader"
                );
                let draft = Draft::critical("dcs_quorum_lost", now).by("dcs").text(text).field("members", words);
                out.push(countdown(draft.field("since", since), state, now, options));
            }
        }
        Some(true) => {
            state.dcs.quorum_missing_since = None;
            if std::mem::take(&mut state.memory.quorum_lost) {
                out.push(Draft::notice("dcs_quorum_restored", now).by("dcs").text("the DCS has a quorum again"));
            }
        }
        None => {}
    }
    members(state, now, options, out);
    blindness(state, now, options, out);
}

/// By when the leader must have given up.
fn countdown(draft: Draft, state: &ClusterState, now: Timestamp, options: &JudgeOptions) -> Draft {
    let Some(demotion) = demotion(state, now, options) else { return draft };
    draft
        .field("leader", demotion.member)
        .field("demotion_due_at", demotion.due_at)
        .field("demotion_certain", demotion.certain)
        .field_if("lease_ends_at", demotion.lease_ends_at)
}

fn words(state: &ClusterState) -> String {
    let word = |(url, peer): (&String, &crate::cluster::dcs::DcsPeer)| {
        let word = match (&peer.failing, &peer.health) {
            (Some((_, failure)), _) => kind_word(failure.kind).to_owned(),
            (None, Some((_, health))) if health.healthy => "healthy".to_owned(),
            (None, Some((_, health))) => health.reason.clone().unwrap_or_else(|| "unhealthy".to_owned()),
            (None, None) => "unknown".to_owned(),
        };
        format!("{url} {word}")
    };
    state.dcs.peers.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// A member of the DCS that nobody asks any more was removed from it.
const PEER_FORGOTTEN_AFTER: Duration = Duration::from_mins(2);

fn members(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    state.dcs.peers.retain(|_, peer| peer.tried_at.is_some_and(|at| now.since(at) <= PEER_FORGOTTEN_AFTER));
    for (url, peer) in &state.dcs.peers {
        let name = peer.health.as_ref().and_then(|(_, health)| health.name.clone());
        match &peer.failing {
            Some((since, failure))
                if now.since(*since) >= options.source_down_after && state.memory.dcs_down.insert(url.clone()) =>
            {
                let text = format!("DCS member {url} does not answer: {}", kind_word(failure.kind));
                let draft = Draft::warning("dcs_member_down", now).by("dcs").text(text).field("url", url);
                let draft = draft.field("reason", kind_word(failure.kind)).field("error", &failure.error);
                out.push(draft.field_if("name", name).keyed(url, *since));
            }
            None if peer.health.is_some() && state.memory.dcs_down.remove(url) => {
                let text = format!("DCS member {url} answers again");
                let draft = Draft::info("dcs_member_up", now).by("dcs").text(text).field("url", url);
                out.push(draft.field_if("name", name).keyed(url, now));
            }
            _ => {}
        }
    }
}

/// The keys cannot be read although nothing says that the quorum is lost.
fn blindness(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    if !state.has_dcs() {
        return;
    }
    let unproven = state.dcs.proven_at.or(state.dcs.failing.as_ref().map(|(since, _)| *since));
    let dark = unproven.is_some_and(|at| now.since(at) > options.dcs_blind_after);
    if dark && !state.memory.blind && !state.memory.quorum_lost {
        state.memory.blind = true;
        let why = state.dcs.failing.as_ref().map_or("nothing was heard", |(_, failure)| kind_word(failure.kind));
        let text = format!("the DCS cannot be read ({why}): the leader key is unknown to us");
        let error = state.dcs.failing.as_ref().map(|(_, failure)| failure.error.clone());
        let draft = Draft::warning("dcs_blind", now).by("dcs").text(text).field_if("error", error);
        out.push(countdown(draft, state, now, options));
    } else if !dark && state.memory.blind && state.dcs.is_current(now, options) {
        state.memory.blind = false;
        out.push(Draft::info("dcs_visible", now).by("dcs").text("the DCS can be read again"));
    }
}
