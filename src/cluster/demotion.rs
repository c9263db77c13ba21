//! When a leader that the DCS no longer confirms must have demoted itself.
//!
//! A Patroni that cannot update its key gives up within `loop_wait + retry_timeout` of its last success, before the
//! lease of `ttl` ends; in failsafe mode it stays while all members agree. The last success is not known to us: what
//! is known is when the DCS last worked, and how long the lease still had.

use std::time::Duration;

use crate::cluster::options::JudgeOptions;
use crate::cluster::quorum;
use crate::cluster::state::ClusterState;
use crate::model::Timestamp;
use crate::model::cluster::{Demotion, DemotionBasis};

/// The countdown, while there is reason for one.
pub(super) fn demotion(state: &ClusterState, now: Timestamp, options: &JudgeOptions) -> Option<Demotion> {
    let member = state.memory.leader.clone()?;
    if !state.has_dcs() || state.is_standby_cluster() {
        return None;
    }
    let basis = if state.dcs.is_current(now, options) {
        state.memory.lease_low.then_some(DemotionBasis::LeaseNotRenewed)?
    } else if quorum::quorum(state, now, options) == Some(false) || state.memory.quorum_lost {
        DemotionBasis::QuorumLost
    } else {
        state.dcs.proven_at.filter(|at| now.since(*at) > options.dcs_fresh)?;
        DemotionBasis::DcsBlind
    };
    let budget = Duration::from_secs(state.setting_seconds(|config| config.loop_wait, 10))
        + Duration::from_secs(state.setting_seconds(|config| config.retry_timeout, 10));
    let renewed_by = match basis {
        DemotionBasis::LeaseNotRenewed => renewed_at(state)?,
        DemotionBasis::QuorumLost => {
            // A read may have succeeded a moment before; the quorum cannot have been there later than this.
            let missing = state.dcs.quorum_missing_since;
            missing.or(state.dcs.proven_at)?
        }
        DemotionBasis::DcsBlind => state.dcs.proven_at?,
    };
    let failsafe_mode = state.dcs.config().and_then(|config| config.failsafe_mode);
    Some(Demotion {
        member,
        basis,
        due_at: renewed_by + budget,
        lease_ends_at: lease_ends_at(state),
        // Patroni may see what we do not, and a dead one demotes nobody.
        certain: basis == DemotionBasis::QuorumLost && failsafe_mode == Some(false),
    })
}

/// When the lease was last renewed, by its remaining time.
fn renewed_at(state: &ClusterState) -> Option<Timestamp> {
    let (probe, lease) = state.dcs.lease?;
    let elapsed = u64::try_from(lease.granted_ttl_seconds - lease.ttl_seconds).ok()?;
    Some(Timestamp(probe.received.0.saturating_sub_unsigned(elapsed.saturating_mul(1_000_000_000))))
}

fn lease_ends_at(state: &ClusterState) -> Option<Timestamp> {
    let (probe, lease) = state.dcs.lease?;
    Some(probe.received + Duration::from_secs(u64::try_from(lease.ttl_seconds).ok()? + 1))
}
