//! What the judge must know again after a restart, so that what was so before is no news, and what changed meanwhile is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::cluster::measure::Term;
use crate::model::cluster::SplitBrain;
use crate::model::leadership::{FailoverRequest, LossReason};
use crate::model::observation::MemberAddress;
use crate::model::{Lsn, Timestamp};

/// Everything that survives a restart, by cluster. Keep it as JSON; unknown fields of other versions are ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JudgeMemory {
    #[serde(default)]
    pub clusters: BTreeMap<String, ClusterMemory>,
}

impl JudgeMemory {
    /// Where the members of a cluster were last found, also those that have left the DCS. Whoever polls must go on with
    /// these after a restart: a primary whose Patroni is dead stands in no list any more.
    pub fn members(&self, cluster: &str) -> &[MemberAddress] {
        self.clusters.get(cluster).map_or(&[], |cluster| &cluster.members)
    }
}

/// The last known facts of one cluster.
#[expect(clippy::struct_excessive_bools, reason = "conditions that go on or do not, each by itself")]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterMemory {
    pub(super) members: Vec<MemberAddress>,
    /// A DCS was ever watched: then only it says who leads.
    pub(super) has_dcs: bool,
    /// Whether the leader was ever known; before that the first one is no change.
    pub(super) leader_known: bool,
    /// Owner of the leader key when it was last read.
    pub(super) leader: Option<String>,
    /// The last owner, also while there is none.
    pub(super) last_leader: Option<String>,
    pub(super) leader_since: Option<Timestamp>,
    pub(super) lost_at: Option<Timestamp>,
    /// Who lost it then, also while another one leads.
    pub(super) lost_leader: Option<String>,
    /// Why, as far as is proven by now.
    pub(super) lost_reason: LossReason,
    /// The leader key was given up for a requested switchover.
    pub(super) lost_planned: bool,
    /// The owner's last change that nobody asked for.
    pub(super) unplanned_change_at: Option<Timestamp>,
    pub(super) revision: Option<i64>,
    pub(super) timeline: Option<u32>,
    /// Who wrote it.
    pub(super) timeline_writer: Option<String>,
    pub(super) system_identifier: Option<String>,
    pub(super) paused: Option<bool>,
    pub(super) failsafe: Option<bool>,
    pub(super) config: Option<String>,
    /// What the `failover` key asks for now.
    pub(super) request: Option<FailoverRequest>,
    /// What it asked for before and now, oldest first.
    pub(super) requests: Vec<FailoverRequest>,
    /// The last change of the owner was a switchover that was asked for; `None` when nobody looked.
    pub(super) switchover: Option<bool>,
    /// The term that is being measured.
    pub(super) term: Option<Term>,
    pub(super) split_brain: Option<SplitBrain>,
    pub(super) quorum_lost: bool,
    pub(super) blind: bool,
    pub(super) dcs_down: BTreeSet<String>,
    /// Term and URL of the DCS member that led last.
    pub(super) dcs_leader: Option<(u64, String)>,
    /// Alarms that the DCS has raised, such as `NOSPACE`.
    pub(super) dcs_alarms: BTreeSet<String>,
    pub(super) lease_low: bool,
    pub(super) mismatch: Option<String>,
    pub(super) member_facts: BTreeMap<String, MemberMemory>,
}

/// The last known facts of one member.
#[expect(clippy::struct_excessive_bools, reason = "conditions that go on or do not, each by itself")]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct MemberMemory {
    pub(super) postmaster_start: Option<Timestamp>,
    /// It took writes when PostgreSQL last said anything definite.
    pub(super) was_writable: bool,
    pub(super) last_lsn: Option<Lsn>,
    pub(super) lost: bool,
    pub(super) rest_down: bool,
    pub(super) postgres_down: bool,
    /// It takes no new sessions, and those that are open go on.
    pub(super) postgres_hung: bool,
    pub(super) broken: Option<String>,
    pub(super) lag_high: bool,
    pub(super) pending_restart: Option<bool>,
}
