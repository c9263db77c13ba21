//! Why the leader key went away: read from which keys vanished with it, and when.
//!
//! Invariant: a reason is a proof. What was not seen happening, or fits two readings, is unknown.

use std::time::Duration;

use crate::cluster::dcs::DcsState;
use crate::cluster::draft::Draft;
use crate::cluster::member::{Probe, Verdict};
use crate::cluster::options::JudgeOptions;
use crate::cluster::state::{ClusterState, Drafts};
use crate::model::Timestamp;
use crate::model::leadership::LossReason;
use crate::model::observation::{DcsChange, DcsKey, LeaseStatus};

/// A lease that had this much more time when it vanished was revoked.
const REVOKED_MARGIN: Duration = Duration::from_secs(2);
/// A Patroni that lost its lease deletes the key and takes it again at once; longer without it is no such thing.
const RETAKEN_WITHIN: Duration = Duration::from_secs(1);

/// The keys as they were before a change.
pub(super) struct Before {
    old: Option<String>,
    leader: Option<DcsKey>,
    member: Option<DcsKey>,
    proven_at: Option<Timestamp>,
    lease: Option<(Probe, LeaseStatus)>,
}

impl Before {
    pub(super) fn of(state: &ClusterState) -> Self {
        let old = state.memory.leader.clone();
        let member = old.as_ref().and_then(|old| state.dcs.keys.get(&format!("members/{old}"))).cloned();
        Self {
            old,
            leader: state.dcs.keys.get("leader").cloned(),
            member,
            proven_at: state.dcs.proven_at,
            lease: state.dcs.lease,
        }
    }

    /// What a watched change of one revision proves.
    pub(super) fn by_change(&self, change: &DcsChange, at: Timestamp) -> LossReason {
        let Some(old) = &self.old else { return LossReason::Unknown };
        let member_key = format!("members/{old}");
        let gone = |key: &str| change.deletes.iter().any(|deleted| deleted == key);
        if !gone("leader") {
            // Patroni only ever creates the key while there is none.
            let overwritten = change.puts.iter().any(|key| key.key == "leader");
            return if overwritten && self.leader.is_some() { LossReason::DeletedByHand } else { LossReason::Unknown };
        }
        let others = change.deletes.iter().any(|key| key != "leader" && *key != member_key);
        if others || (gone(&member_key) && self.was_revoked(at)) {
            LossReason::DeletedByHand
        } else if gone(&member_key) {
            LossReason::LeaseExpired
        } else if self.member.is_some() {
            LossReason::Released
        } else {
            // Without a member key before there is nothing to tell the two apart by.
            LossReason::Unknown
        }
    }

    /// The lease of the key had time left when it vanished. A new leader of the DCS gives leases more time, never less.
    fn was_revoked(&self, at: Timestamp) -> bool {
        let (Some((probe, lease)), Some(leader)) = (self.lease, &self.leader) else { return false };
        let left = Duration::from_secs(u64::try_from(lease.ttl_seconds).unwrap_or(0));
        lease.lease != 0 && lease.lease == leader.lease && at + REVOKED_MARGIN < probe.sent + left
    }

    /// What two looks at the keys prove, the second one being `after`.
    pub(super) fn by_snapshot(&self, after: &DcsState, at: Timestamp, options: &JudgeOptions) -> LossReason {
        let Some(old) = &self.old else { return LossReason::Unknown };
        // Longer unwatched, and a released key may have been followed by the end of the lease.
        let close = self.proven_at.is_some_and(|before| at.since(before) <= options.dcs_fresh);
        if after.leader().is_some() || !close {
            return LossReason::Unknown;
        }
        match (&self.member, after.keys.get(&format!("members/{old}"))) {
            (Some(_), None) => LossReason::LeaseExpired,
            // The same key all the time: the lease lived on.
            (Some(before), Some(now)) if before.create_revision == now.create_revision => LossReason::Released,
            _ => LossReason::Unknown,
        }
    }
}

/// A former leader that goes on to take writes after its key was gone did not release it: PostgreSQL is stopped first.
pub(super) fn explained(state: &mut ClusterState, name: &str, verdict: Verdict, out: &mut Drafts) {
    let memory = &mut state.memory;
    let Some(lost_at) = memory.lost_at else { return };
    let keyless = memory.lost_leader.as_deref() == Some(name) && memory.leader.as_deref() != Some(name);
    let later = verdict.writable && verdict.probe.sent >= lost_at + RETAKEN_WITHIN;
    if !keyless || !later || memory.lost_reason != LossReason::Released {
        return;
    }
    memory.lost_reason = LossReason::DeletedByHand;
    let text = format!("{name} did not release the leader key, which was deleted by hand: it still takes writes");
    let draft = Draft::warning("leader_loss_explained", verdict.probe.received).by("sql").member(name).text(text);
    out.push(draft.field("reason", memory.lost_reason.as_str()).field("old_leader", name).field("lost_at", lost_at));
}
