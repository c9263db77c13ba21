//! Collectors: what goes out to ask, and what comes back as batches.
//!
//! Every source is polled or watched on its own, so that one that hangs or lies hides no other. Nothing is judged
//! here: claims go out with the time they were true at, failures too.
//!
//! Invariant: every question has a deadline, every answer a size limit, every queue a bound; at most two sessions per
//! PostgreSQL and one request in flight per Patroni.

pub mod config;
mod directory;
mod etcd;
mod exposition;
pub mod logs;
mod patroni;
mod poll;
mod postgres;
mod services;
pub mod sink;
pub mod targets;
mod watcher;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use config::CollectConfig;
pub use services::FastProbe;
pub use sink::Sink;
pub use targets::Targets;

use crate::collect::poll::Context;
use crate::collect::services::{Names, Services, sorted};
use crate::collect::watcher::Watched;
use crate::platform::clock::Clock;
use crate::platform::tasks::TaskGroup;

/// What a running collection offers to others.
#[derive(Clone, Debug)]
pub struct CollectHandle {
    /// Everything that is asked, and how that went.
    pub targets: Targets,
    /// For the judge's suspicion of a split brain.
    pub fast_probe: FastProbe,
}

/// Starts collecting everything that the configuration names. It ends when the group stops.
pub fn start(config: CollectConfig, group: &TaskGroup, sink: Sink, clock: Clock) -> CollectHandle {
    let mut etcd_users = BTreeMap::new();
    for dcs in config.clusters.iter().filter_map(|cluster| cluster.dcs.as_ref()) {
        *etcd_users.entry(sorted(&dcs.etcd)).or_insert(0) += 1;
    }
    let services = Services {
        context: Context { clock, sink, targets: Targets::default() },
        group: group.clone(),
        fast: FastProbe::default(),
        names: Names::default(),
        etcds: etcd::pool::EtcdPool::default(),
        etcd_users: Arc::new(etcd_users),
    };
    for cluster in config.clusters {
        let watched = Watched { config: cluster, scope: None, prefix: None };
        group.spawn("cluster", watcher::run(watched, services.clone()));
    }
    CollectHandle { targets: services.context.targets.clone(), fast_probe: services.fast.clone() }
}
