//! The belief as series. What is unknown gives no sample.

use crate::model::cluster::{Cluster, Health, Member, Reach, Role, SplitBrainState};
use crate::model::observation::Port;
use crate::model::{Labels, Sample, Timestamp};

/// The series of one cluster; `broken` names the replicas that run and do not replicate.
pub(super) fn of(cluster: &Cluster, broken: &[&str], now: Timestamp) -> Vec<Sample> {
    let mut out = Out { cluster: &cluster.name, now, samples: Vec::new() };
    for health in Health::ALL {
        out.add("daraji_cluster_health", &[("health", health.as_str())], flag(cluster.health == health));
    }
    let split = cluster.split_brain.as_ref().map(|split| split.state);
    for (word, state) in [("possible", SplitBrainState::Possible), ("confirmed", SplitBrainState::Confirmed)] {
        out.add("daraji_split_brain", &[("state", word)], flag(split == Some(state)));
    }
    let leader_known = match &cluster.dcs {
        Some(dcs) => !dcs.stale,
        // Without a DCS only the members can say that there is none.
        None => cluster.leader.is_some() || nobody_heard_writes(cluster),
    };
    if leader_known {
        out.add("daraji_cluster_has_leader", &[], flag(cluster.leader.is_some()));
    }
    if !cluster.writable.is_empty() || nobody_heard_writes(cluster) {
        out.add("daraji_cluster_writable_members", &[], cluster.writable.len() as f64);
    }
    let expected = cluster.members.iter().filter(|member| member.present);
    out.add("daraji_cluster_members_expected", &[], expected.clone().count() as f64);
    out.add("daraji_cluster_members_up", &[], expected.filter(|member| up(member) == Some(true)).count() as f64);
    out.add("daraji_cluster_switching", &[], flag(cluster.switching));
    out.add_if("daraji_cluster_paused", &[], cluster.paused.map(flag));
    out.add_if("daraji_cluster_failsafe", &[], cluster.failsafe.map(flag));
    out.add_if("daraji_cluster_timeline", &[], cluster.timeline.map(f64::from));
    for reach in &cluster.reachability {
        let labels = [("member", &*reach.from), ("target", &*reach.target), ("port", reach.port.as_str())];
        out.add("daraji_reachable", &labels, flag(reach.reachable));
    }
    if let Some(readiness) = &cluster.readiness {
        out.add("daraji_failover_ready", &[], flag(readiness.candidate.is_some()));
        out.add_if("daraji_failover_lag_bytes", &[], readiness.lag_bytes.map(|bytes| bytes as f64));
    }
    if let Some(demotion) = &cluster.demotion {
        let left = demotion.due_at.secs_f64() - now.secs_f64();
        out.add("daraji_leader_demotion_due_seconds", &[("member", &demotion.member)], left);
    }
    if let Some(lock) = &cluster.lock {
        let seconds = |seconds: Option<i64>| seconds.map(|seconds| seconds as f64);
        out.add_if("daraji_leader_lease_ttl_seconds", &[], seconds(lock.lease_ttl_seconds));
        out.add_if("daraji_leader_lease_granted_ttl_seconds", &[], seconds(lock.lease_granted_ttl_seconds));
    }
    if let Some(dcs) = &cluster.dcs {
        out.add_if("daraji_dcs_quorum", &[], dcs.quorum.map(flag));
        out.add_if("daraji_dcs_age_seconds", &[], dcs.seen_at.map(|at| now.since(at).as_secs_f64()));
        for member in &dcs.members {
            out.add_if("daraji_dcs_member_up", &[("dcs_member", &member.url)], member.healthy.map(flag));
        }
    }
    for member in &cluster.members {
        let is_broken = broken.contains(&member.name.as_str());
        if is_broken || member.state == "streaming" || member.writable == Some(true) {
            out.add("daraji_replica_broken", &[("member", &member.name)], flag(is_broken));
        }
    }
    members(cluster, &mut out);
    out.samples
}

/// Members are heard, and none of them takes writes. With nobody heard it is us who cannot see, and nothing is known; the
/// same when others reach the PostgreSQL of a member that we cannot ask.
fn nobody_heard_writes(cluster: &Cluster) -> bool {
    let reached = |name: &str| {
        let by_others = |reach: &&Reach| reach.target == name && reach.from != name && reach.port == Port::Postgres;
        cluster.reachability.iter().filter(by_others).any(|reach| reach.reachable)
    };
    let hidden = cluster.members.iter().any(|member| member.writable.is_none() && reached(&member.name));
    cluster.writable.is_empty() && !hidden && cluster.members.iter().any(|member| member.writable == Some(false))
}

fn members(cluster: &Cluster, out: &mut Out<'_>) {
    for member in &cluster.members {
        let name = [("member", member.name.as_str())];
        for role in Role::ALL {
            let labels = [("member", member.name.as_str()), ("role", role.as_str())];
            out.add("daraji_member_role", &labels, flag(member.role == role));
        }
        out.add_if("daraji_member_writable", &name, member.writable.map(flag));
        out.add_if("daraji_replication_lag_bytes", &name, member.lag_bytes.map(|bytes| bytes as f64));
        out.add_if("daraji_replication_receive_lag_bytes", &name, member.receive_lag_bytes.map(|bytes| bytes as f64));
        out.add_if("daraji_replication_lag_seconds", &name, member.lag_seconds);
        out.add_if("daraji_replication_upstream_lag_bytes", &name, member.upstream_lag_bytes.map(|bytes| bytes as f64));
        out.add_if("daraji_replication_apply_delay_seconds", &name, member.apply_delay_seconds);
        out.add_if("daraji_clock_skew_seconds", &name, member.clock_skew_seconds);
        out.add_if("daraji_clock_skew_error_seconds", &name, member.clock_skew_error_seconds);
        out.add_if("daraji_member_timeline", &name, member.timeline.map(f64::from));
        out.add_if("daraji_member_up", &name, up(member).map(flag));
    }
}

/// Whether anything on the member's host answers. A key in the DCS outlives its writer.
fn up(member: &Member) -> Option<bool> {
    let own = member.sources.iter().filter(|source| source.source != "dcs");
    let known: Vec<_> = own.filter_map(|source| source.up).collect();
    (!known.is_empty()).then(|| known.contains(&true))
}

fn flag(set: bool) -> f64 {
    if set { 1.0 } else { 0.0 }
}

struct Out<'a> {
    cluster: &'a str,
    now: Timestamp,
    samples: Vec<Sample>,
}

impl Out<'_> {
    fn add(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut pairs = vec![("cluster", self.cluster)];
        pairs.extend_from_slice(labels);
        self.samples.push(Sample::new(Labels::metric(name, &pairs), self.now, value));
    }

    fn add_if(&mut self, name: &str, labels: &[(&str, &str)], value: Option<f64>) {
        if let Some(value) = value {
            self.add(name, labels, value);
        }
    }
}
