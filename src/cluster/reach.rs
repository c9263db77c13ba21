//! Who can reach whom: every agent tries the ports of every member, which tells a member that is down from a monitor
//! that is cut off.
//!
//! Invariant: only reports from after the silence began count as evidence about it, and only while they are fresh.

use std::time::Duration;

use crate::cluster::member::{Probe, Verdict, kind_word};
use crate::cluster::options::JudgeOptions;
use crate::cluster::split_brain::{self, RunFacts};
use crate::cluster::state::{ClusterState, Drafts};
use crate::model::Timestamp;
use crate::model::cluster::{LostReason, Reach};
use crate::model::observation::{FailureKind, Port, PortProbe};

/// Agents report every five seconds.
const REPORT_FRESH: Duration = Duration::from_secs(15);
const PROBES_MAX: usize = 256;

/// The last report of one agent.
#[derive(Clone, Debug)]
pub(super) struct Report {
    probe: Probe,
    ports: Vec<PortProbe>,
}

/// Takes in what one agent found.
pub(super) fn reported(
    state: &mut ClusterState,
    from: &str,
    (probe, ports): (Probe, &[PortProbe]),
    options: &JudgeOptions,
    out: &mut Drafts,
) {
    let known = state.reach.get(from);
    if known.is_some_and(|known| known.probe.received > probe.received)
        || known.is_none() && state.reach.len() >= options.members_max
    {
        return;
    }
    let ports: Vec<_> = ports.iter().take(PROBES_MAX).cloned().collect();
    let targets: Vec<_> =
        ports.iter().filter(|port| port.port == Port::Postgres).map(|port| port.target.clone()).collect();
    state.reach.insert(from.to_owned(), Report { probe, ports });
    for target in targets {
        fence(state, &target, probe, options, out);
    }
}

/// A PostgreSQL that we cannot see and whose port refuses the agents does not take writes.
fn fence(state: &mut ClusterState, target: &str, probe: Probe, options: &JudgeOptions, out: &mut Drafts) {
    let Some(member) = state.members.get(target) else { return };
    let Some((since, _)) = &member.sql.failing else { return };
    let seen = evidence(state, target, *since, probe.received);
    let of_postgres = || seen.iter().filter(|(_, port)| port.port == Port::Postgres);
    let refused = of_postgres().any(|(_, port)| port.failure == Some(FailureKind::Refused));
    let open = of_postgres().any(|(_, port)| port.failure.is_none());
    let unknown = state.writable(target, probe.received, options).is_none();
    if refused && !open && unknown {
        split_brain::verdict(state, target, Verdict { writable: false, probe }, RunFacts::default(), out);
    }
}

/// What the agents found of a member since then, by agent.
fn evidence<'a>(
    state: &'a ClusterState,
    target: &str,
    since: Timestamp,
    now: Timestamp,
) -> Vec<(&'a str, &'a PortProbe)> {
    let fresh = |report: &&Report| report.probe.sent >= since && now.since(report.probe.received) <= REPORT_FRESH;
    let reports = state.reach.iter().filter(|(_, report)| fresh(report));
    let of = |(from, report): (&'a String, &'a Report)| report.ports.iter().map(move |port| (from.as_str(), port));
    reports.flat_map(of).filter(|(_, port)| port.target == target).collect()
}

/// Agents work, and none has reported since then: a moment later they may say more.
pub(super) fn is_awaited(state: &ClusterState, since: Timestamp, now: Timestamp) -> bool {
    let works = |report: &Report| now.since(report.probe.received) <= REPORT_FRESH;
    state.reach.values().any(works) && !state.reach.values().any(|report| report.probe.sent >= since)
}

/// Why all sources of a member are silent, as far as the agents and the kinds of failure prove it: `Timeout` means that a
/// connection was taken, `Unreachable` that not even that was answered.
pub(super) fn lost_reason(state: &ClusterState, target: &str, since: Timestamp, now: Timestamp) -> LostReason {
    let seen = evidence(state, target, since, now);
    let Some(member) = state.members.get(target) else { return LostReason::Unknown };
    // REST is asked by a new connection each time; SQL may have waited on one from before.
    let fresh = member.rest.failing.as_ref().or(member.sql.failing.as_ref());
    if fresh.is_some_and(|(_, failure)| failure.kind == FailureKind::Timeout) {
        return LostReason::NotAnswering;
    }
    if seen.iter().any(|(_, port)| port.failure.is_none()) {
        return LostReason::MonitorCutOff;
    }
    let ours = [member.rest.failing.as_ref(), member.sql.failing.as_ref()];
    let refused_us = ours.iter().flatten().any(|(_, failure)| failure.kind == FailureKind::Refused);
    let refused_agents = seen.iter().any(|(_, port)| port.failure == Some(FailureKind::Refused));
    if refused_us || refused_agents {
        return LostReason::Down;
    }
    // Its own agent would reach it whatever the network does.
    if seen.iter().any(|(from, _)| *from != target) { LostReason::UnreachableFromAll } else { LostReason::Unknown }
}

/// How its PostgreSQL port looks to the agents since then, for people and for the fields of events.
pub(super) fn port_words(state: &ClusterState, target: &str, since: Timestamp, now: Timestamp) -> Option<String> {
    let seen = evidence(state, target, since, now);
    let word = |(from, port): &(&str, &PortProbe)| format!("{from} {}", port.failure.map_or("open", kind_word));
    let words: Vec<_> = seen.iter().filter(|(_, port)| port.port == Port::Postgres).map(word).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// The matrix as it is now.
pub(super) fn matrix(state: &ClusterState, now: Timestamp) -> Vec<Reach> {
    let fresh = state.reach.iter().filter(|(_, report)| now.since(report.probe.received) <= REPORT_FRESH);
    fresh
        .flat_map(|(from, report)| {
            report.ports.iter().map(|port| Reach {
                from: from.clone(),
                target: port.target.clone(),
                port: port.port,
                reachable: port.failure.is_none(),
                failure: port.failure,
                seen_at: report.probe.received,
            })
        })
        .collect()
}
