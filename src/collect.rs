//! Collectors: what goes out to ask, and what comes back as batches.
//!
//! Every source is polled or watched on its own, so that one that hangs or lies hides no other. Nothing is judged
//! here: claims go out with the time they were true at, failures too.
//!
//! Invariant: every question has a deadline, every answer a size limit, every queue a bound; at most two sessions per
//! PostgreSQL and one request in flight per Patroni.

pub mod config;
mod directory;
mod discovery;
mod etcd;
mod exposition;
pub mod host;
pub mod known;
pub mod logs;
mod patroni;
mod pgbouncer;
mod poll;
mod postgres;
mod scrape;
mod services;
pub mod sink;
pub mod targets;
mod watcher;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use config::{ClusterConfig, CollectConfig, DiscoverConfig, ScrapeConfig};
pub use services::FastProbe;
pub use sink::Sink;
pub use targets::Targets;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::collect::config::{Address, PostgresConfig};
use crate::collect::known::{Known, KnownClusters};
use crate::collect::poll::{CollectError, Collector as _, Context, target_labels};
use crate::collect::postgres::ha_state::{self, HaStateCollector};
use crate::collect::postgres::statistics::{self, StatisticsCollector};
use crate::collect::postgres::write_probe::WriteProbe;
use crate::collect::services::{Names, Services, sorted};
use crate::collect::targets::TargetKey;
use crate::collect::watcher::{Watched, record_since};
use crate::model::Sample;
use crate::model::observation::{Claim, FailureKind, PostgresStatus};
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::TaskGroup;

/// What a running collection offers to others.
#[derive(Clone, Debug)]
pub struct CollectHandle {
    /// Everything that is asked, and how that went.
    pub targets: Targets,
    /// For the judge's suspicion of a split brain.
    pub fast_probe: FastProbe,
    /// Clusters as they were last seen, to be handed to the next start.
    pub known: watch::Receiver<Arc<KnownClusters>>,
}

/// What one visit to a PostgreSQL found.
#[derive(Clone, Debug)]
pub struct PostgresReport {
    pub status: PostgresStatus,
    pub samples: Vec<Sample>,
    /// What could not be read, and what to do about it.
    pub problem: Option<String>,
}

/// Commits one transaction of the write probe; the error says why not.
pub async fn write_once(
    config: &PostgresConfig,
    address: Address,
    group: &TaskGroup,
    clock: &Clock,
) -> Result<(), String> {
    let mut probe = WriteProbe::new(config.clone(), address, group.clone());
    probe.collect(clock.now()).await.map(|_| ()).map_err(|error| error.error)
}

/// Asks one PostgreSQL once for everything that would be collected of it; the error says what to do.
pub async fn postgres_once(
    config: &PostgresConfig,
    host: &str,
    port: u16,
    group: &TaskGroup,
    clock: &Clock,
) -> Result<PostgresReport, String> {
    let address = Address { host: host.to_owned(), port };
    let labels = target_labels("", "", &address.to_string(), "postgres");
    let mut ha = HaStateCollector::new(config.clone(), address.clone(), clock.clone(), group.clone());
    let mut statistics = StatisticsCollector::new(config.clone(), address, labels, group.clone());
    let text = |error: CollectError| match error.hint {
        Some(hint) => format!("{}; {hint}", error.error),
        None => error.error,
    };
    let timeout = || "PostgreSQL did not answer in time".to_owned();
    let said = tokio::time::timeout(ha_state::DEADLINE, ha.collect(clock.now())).await.map_err(|_| timeout())?;
    let found = tokio::time::timeout(statistics::DEADLINE, statistics.collect(clock.now())).await;
    let found = found.map_err(|_| timeout())?.map_err(text)?;
    let said = said.map_err(text)?;
    let status = said.claims.into_iter().find_map(|said| match said.claim {
        Claim::Postgres(status) => Some(status),
        _ => None,
    });
    Ok(PostgresReport {
        status: status.ok_or_else(timeout)?,
        samples: found.sections.into_iter().flat_map(|(_, samples)| samples).collect(),
        problem: said.problem.or(found.problem).map(text),
    })
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
        known: Known::new(config.known),
    };
    for cluster in config.clusters {
        let watched = Watched { config: cluster, found: None };
        group.spawn("cluster", watcher::run(watched, services.clone()));
    }
    for discover in config.discover {
        group.spawn_until_stop("discovery", discovery::run(discover, services.clone()));
    }
    for scrape in &config.scrape_configs {
        if let Err(error) = scrape::start(scrape, &services.context, group) {
            let key = TargetKey::new("", "", "scrape", &scrape.job_name);
            let error = CollectError::new(FailureKind::Other, chain(&error)).with_hint("check tls_config of this job");
            record_since(&services, &key, Instant::now(), Err(error));
        }
    }
    CollectHandle {
        targets: services.context.targets.clone(),
        fast_probe: services.fast.clone(),
        known: services.known.subscribe(),
    }
}
