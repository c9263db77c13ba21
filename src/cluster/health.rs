//! How a cluster is, and why, in plain words, worst first.

use crate::cluster::clients;
use crate::cluster::demotion::demotion;
use crate::cluster::member::kind_word;
use crate::cluster::options::JudgeOptions;
use crate::cluster::quorum;
use crate::cluster::state::ClusterState;
use crate::model::cluster::{Health, Reason, SplitBrainState};
use crate::model::observation::FailureKind;
use crate::model::{EventSeverity, Timestamp};

#[derive(Debug, Default)]
struct Findings(Vec<(Health, String)>);

impl Findings {
    fn has(&self, text: &str) -> bool {
        self.0.iter().any(|(_, known)| known == text)
    }

    fn critical(&mut self, text: impl Into<String>) {
        self.0.push((Health::Critical, text.into()));
    }

    fn warning(&mut self, text: impl Into<String>) {
        self.0.push((Health::Warning, text.into()));
    }

    fn unknown(&mut self, text: impl Into<String>) {
        self.0.push((Health::Unknown, text.into()));
    }
}

/// Overall health and its reasons.
pub(super) fn health(state: &ClusterState, now: Timestamp, options: &JudgeOptions) -> (Health, Vec<Reason>) {
    let mut found = Findings::default();
    split_brain(state, &mut found);
    dcs(state, now, options, &mut found);
    leader(state, now, options, &mut found);
    members(state, now, options, &mut found);
    for (address, failure) in clients::failing(state) {
        if !state.switching(now) {
            found.warning(format!("clients cannot write through {address}: {failure}"));
        }
    }
    if state.memory.paused == Some(true) {
        found.warning("Patroni is paused: nobody fails over");
    }
    let mut findings = found.0;
    findings.sort_by(|(a, _), (b, _)| b.cmp(a));
    let worst = findings.first().map_or(Health::Ok, |(health, _)| *health);
    let severity = |health| match health {
        Health::Critical => EventSeverity::Critical,
        Health::Warning => EventSeverity::Warning,
        Health::Unknown | Health::Ok => EventSeverity::Notice,
    };
    (worst, findings.into_iter().map(|(health, text)| Reason { severity: severity(health), text }).collect())
}

fn split_brain(state: &ClusterState, found: &mut Findings) {
    let Some(split) = &state.memory.split_brain else { return };
    let members = split.members.join(" and ");
    match split.state {
        SplitBrainState::Confirmed => found.critical(format!("split brain: {members} take writes at the same time")),
        SplitBrainState::Possible => {
            found.warning(format!(
                "split brain is possible: of {members} one cannot be seen and nothing shows that it stopped"
            ));
        }
    }
}

fn dcs(state: &ClusterState, now: Timestamp, options: &JudgeOptions, found: &mut Findings) {
    if !state.has_dcs() {
        return;
    }
    if quorum::quorum(state, now, options) == Some(false) {
        found.critical("the DCS has no quorum: no failover is possible");
    } else if !state.dcs.is_current(now, options) {
        let age = state.dcs.proven_at.map(|at| now.since(at).as_secs());
        found.unknown(age.map_or_else(
            || "the DCS was never read".to_owned(),
            |age| format!("the DCS was last read {age} s ago: the leader key is not known now"),
        ));
    }
    if let Some(late) = demotion(state, now, options).filter(|demotion| demotion.certain && now > demotion.due_at)
        && state.writable(&late.member, now, options) == Some(true)
    {
        let seconds = now.since(late.due_at).as_secs();
        found.critical(format!("{} takes writes {seconds} s after it had to demote itself without a DCS", late.member));
    }
    for alarm in &state.memory.dcs_alarms {
        found.warning(format!("the DCS has the alarm {alarm}: no failover is possible"));
    }
    for url in state.memory.dcs_down.iter().filter(|url| state.dcs.peers.contains_key(*url)) {
        found.warning(format!("DCS member {url} is down"));
    }
    if state.memory.lease_low {
        found.warning("the leader key is not being renewed and will expire");
    }
    if state.memory.failsafe == Some(true) {
        found.warning("failsafe mode: the leader stays because all members agree");
    }
}

fn leader(state: &ClusterState, now: Timestamp, options: &JudgeOptions, found: &mut Findings) {
    let writable = state.writable_members(now, options);
    let current = !state.has_dcs() || state.dcs.is_current(now, options);
    if current && state.memory.leader_known && state.memory.leader.is_none() {
        if state.memory.lost_planned {
            found.warning("a switchover is under way");
        } else {
            found.critical(if state.has_dcs() { "nobody holds the leader key" } else { "no member leads" });
        }
    }
    match state.leader(now, options) {
        Some(leader) if !state.is_standby_cluster() => match state.writable(leader, now, options) {
            Some(true) => {}
            Some(false) if state.switching(now) || state.is_promoting(now, options) => {
                found.warning(format!("{leader} holds the leader key and is not writable yet"));
            }
            Some(false) => found.critical(format!("{leader} holds the leader key and takes no writes")),
            None => found.unknown(format!("whether the leader {leader} takes writes is not known")),
        },
        None if writable.is_empty() && !state.switching(now) => {
            let known = state.members.keys().all(|name| state.writable(name, now, options) == Some(false));
            if known && !state.members.is_empty() && !state.is_standby_cluster() {
                found.critical("no member takes writes");
            } else if current && !state.memory.leader_known {
                found.unknown("who leads is not known");
            }
        }
        _ => {}
    }
    if let Some(text) = state.memory.mismatch.as_ref().filter(|text| !found.has(text)) {
        found.warning(text.clone());
    }
}

fn members(state: &ClusterState, now: Timestamp, options: &JudgeOptions, found: &mut Findings) {
    for (name, member) in &state.members {
        let facts = state.memory.member_facts.get(name).cloned().unwrap_or_default();
        if facts.lost {
            found.warning(format!("{name} is lost: none of its sources answers"));
            continue;
        }
        let heard = member.seen_at().is_some_and(|at| now.since(at) <= options.fresh * 2);
        if !heard && member.address.present {
            found.unknown(format!("nothing was heard of {name} lately"));
        }
        if facts.rest_down {
            found.warning(format!("Patroni of {name} does not answer"));
        }
        if facts.postgres_hung {
            let text = format!("PostgreSQL of {name} takes no new sessions");
            if state.memory.leader.as_ref() == Some(name) { found.critical(text) } else { found.warning(text) }
        }
        if facts.postgres_down {
            found.warning(format!("PostgreSQL of {name} does not answer"));
        }
        let rest = member.current_rest(now, options).map(|rest| rest.state.as_str());
        if let Some(word) = rest.filter(|word| *word != "running" && !state.switching(now)) {
            found.warning(format!("Patroni of {name} says that its PostgreSQL is {word}"));
        }
        let denied = member.sql.failing.as_ref().is_some_and(|(_, failure)| failure.kind == FailureKind::Denied);
        if denied {
            found.unknown(format!("PostgreSQL of {name} refuses our login: only Patroni's word about it is known"));
        }
        // Where PostgreSQL never answered, Patroni's word about it stands.
        let silent = member.rest.never_answered().filter(|_| !facts.rest_down);
        if let Some(failure) = silent {
            let word = kind_word(failure.kind);
            found.unknown(format!("whether Patroni of {name} runs is not known: it never answered ({word})"));
        }
        let unstreamed = member.unstreamed_since.as_ref();
        let lasting = unstreamed.filter(|(since, _)| now.since(*since) >= options.unstreamed_warning_after);
        if let Some(sign) = lasting.map(|(_, sign)| sign).or(facts.broken.as_ref()) {
            found.warning(format!("{name} {sign}"));
        }
        if facts.lag_high {
            found.warning(format!("{name} lags"));
        }
    }
}
