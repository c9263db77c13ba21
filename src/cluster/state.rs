//! All that is known about one cluster: the claims of its sources, and what survives a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::clients::Clients;
use crate::cluster::dcs::DcsState;
use crate::cluster::draft::Draft;
use crate::cluster::lag::LeaderHistory;
use crate::cluster::measure::Writes;
use crate::cluster::member::MemberState;
use crate::cluster::memory::{ClusterMemory, MemberMemory};
use crate::cluster::options::JudgeOptions;
use crate::cluster::reach::Report;
use crate::cluster::split_brain::Overlap;
use crate::model::Timestamp;
use crate::model::cluster::HaConfig;
use crate::model::leadership::FailoverRequest;
use crate::model::observation::ClusterView;

/// Where handlers put the changes they find.
pub(super) type Drafts = Vec<Draft>;

#[derive(Clone, Debug, Default)]
pub(super) struct ClusterState {
    pub(super) memory: ClusterMemory,
    pub(super) members: BTreeMap<String, MemberState>,
    pub(super) dcs: DcsState,
    /// The last `/cluster`, whoever served it.
    pub(super) view: Option<(Timestamp, ClusterView)>,
    pub(super) history: LeaderHistory,
    pub(super) overlap: Overlap,
    pub(super) writes: Writes,
    /// What clients feel, by the address that they write to.
    pub(super) clients: BTreeMap<String, Clients>,
    /// Last reports of the agents, by member.
    pub(super) reach: BTreeMap<String, Report>,
    /// Who was a synchronous standby under the last leader.
    pub(super) synchronous_before: Vec<String>,
    /// Since when the lock owner and the writable members disagree.
    pub(super) mismatch_since: Option<(Timestamp, String)>,
    /// Without a DCS: since when the claimed leader's own PostgreSQL does not bear it out.
    pub(super) unconfirmed_since: Option<Timestamp>,
    /// The first observation was reported.
    pub(super) started: bool,
}

impl ClusterState {
    pub(super) fn member_memory(&mut self, member: &str) -> &mut MemberMemory {
        self.memory.member_facts.entry(member.to_owned()).or_default()
    }

    /// Whether a DCS is watched at all; without one the claims of Patroni's REST API must do.
    pub(super) fn has_dcs(&self) -> bool {
        self.memory.has_dcs
    }

    /// The lock's owner, while that is known freshly.
    pub(super) fn leader(&self, now: Timestamp, options: &JudgeOptions) -> Option<&str> {
        let current = if self.has_dcs() {
            self.dcs.is_current(now, options)
        } else {
            self.view.as_ref().is_some_and(|(at, _)| now.since(*at) <= options.fresh)
        };
        self.memory.leader.as_deref().filter(|_| current)
    }

    /// A setting of Patroni in seconds, or its default.
    pub(super) fn setting_seconds(&self, read: impl Fn(&HaConfig) -> Option<u32>, default: u32) -> u64 {
        let value = self.dcs.config().as_ref().and_then(read).unwrap_or(default);
        u64::from(value.min(3_600))
    }

    pub(super) fn loop_wait(&self) -> Duration {
        Duration::from_secs(self.setting_seconds(|config| config.loop_wait, 10))
    }

    /// A requested switchover is under way, or one has just ended.
    pub(super) fn switching(&self, now: Timestamp) -> bool {
        // A scheduled one begins at its time, whenever it was asked for.
        let begins =
            |request: &FailoverRequest| request.scheduled_at.map_or(request.set_at, |at| at.max(request.set_at));
        let requested = self.memory.request.as_ref().map(begins).is_some_and(|begins| {
            now + Duration::from_secs(5) >= begins && now.since(begins) <= Duration::from_mins(1)
        });
        let just_led = self.memory.lost_planned
            && self
                .memory
                .leader_since
                .or(self.memory.lost_at)
                .is_some_and(|at| now.since(at) <= Duration::from_secs(20));
        requested || just_led
    }

    /// The lock was taken so lately that the owner may still be promoting.
    pub(super) fn is_promoting(&self, now: Timestamp, options: &JudgeOptions) -> bool {
        self.memory.leader_since.is_some_and(|since| now.since(since) <= options.transient_max)
    }

    /// Whether the member takes writes now: its latest definite statement, unless another member began to take
    /// writes after it. Then only a newer answer counts.
    pub(super) fn writable(&self, member: &str, now: Timestamp, options: &JudgeOptions) -> Option<bool> {
        let verdict = self.members.get(member)?.verdict(now, options)?;
        let overtaken = verdict.writable
            && self
                .overlap
                .others(member)
                .any(|run| run.first.sent > verdict.probe.received && self.members.contains_key(&run.member));
        if overtaken { None } else { Some(verdict.writable) }
    }

    /// How long the member waits on purpose before it replays a commit.
    pub(super) fn apply_delay(&self, member: &str) -> Option<f64> {
        let (_, sql) = self.members.get(member)?.sql.answer.as_ref()?;
        sql.apply_delay_seconds
    }

    /// Members that take writes now, by name.
    pub(super) fn writable_members(&self, now: Timestamp, options: &JudgeOptions) -> Vec<String> {
        let writable = |name: &&String| self.writable(name, now, options) == Some(true);
        self.members.keys().filter(writable).cloned().collect()
    }

    /// The leader works in recovery: its cluster follows another one, whose primary is none of our members.
    pub(super) fn is_standby_cluster(&self) -> bool {
        if self.dcs.standby_of().is_some() {
            return true;
        }
        let Some(leader) = self.memory.leader.as_ref().and_then(|leader| self.members.get(leader)) else {
            return false;
        };
        leader.rest.answer.as_ref().is_some_and(|(_, rest)| rest.role == "standby_leader")
            || leader.key.as_ref().is_some_and(|key| key.role == "standby_leader")
    }
}
