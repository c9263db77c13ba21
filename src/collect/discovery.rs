//! Every scope found below a DCS namespace becomes a cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::collect::config::{ClusterConfig, DiscoverConfig};
use crate::collect::etcd::EtcdClient;
use crate::collect::poll::CollectError;
use crate::collect::services::Services;
use crate::collect::targets::TargetKey;
use crate::collect::watcher::{self, Watched, record_since};
use crate::model::observation::{DcsKey, FailureKind};
use crate::platform::error::chain;

/// How often the namespace is searched.
const SEARCH_EVERY: Duration = Duration::from_secs(10);
/// Clusters of one namespace; more are left out.
const SCOPES_MAX: usize = 2000;
/// A scope has at least one of these.
const SIGNS: [&str; 4] = ["initialize", "config", "leader", "members"];

/// One cluster below a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Scope {
    scope: String,
    /// Citus keeps one cluster per group below the scope.
    group: Option<String>,
}

impl Scope {
    fn path(&self) -> String {
        match &self.group {
            Some(group) => format!("{}/{group}", self.scope),
            None => self.scope.clone(),
        }
    }
}

/// Searches until the services stop. A scope that disappears is watched on: its members may live.
pub(crate) async fn run(config: DiscoverConfig, services: Services) {
    let prefix = format!("/{}/", config.namespace.trim_matches('/'));
    let urls: Vec<&str> = config.etcd.iter().map(crate::collect::config::HttpUrl::as_str).collect();
    let key = TargetKey::new("", "", "discovery", &format!("{} {prefix}", urls.join(" ")));
    let client = match EtcdClient::new(&config.dcs()) {
        Ok(client) => client,
        Err(error) => {
            let error = CollectError::new(FailureKind::Other, chain(&error)).with_hint("check discover.ca_file");
            return record_since(&services, &key, Instant::now(), Err(error));
        }
    };
    let mut known = BTreeSet::new();
    loop {
        let started = Instant::now();
        let result = client.range(&prefix, true).await;
        let result = result.map(|range| {
            for scope in scopes(&range.keys) {
                if known.len() < SCOPES_MAX && known.insert(scope.clone()) {
                    start(&config, &prefix, &scope, &services);
                }
            }
        });
        record_since(&services, &key, started, result);
        tokio::time::sleep(SEARCH_EVERY).await;
    }
}

fn start(config: &DiscoverConfig, prefix: &str, scope: &Scope, services: &Services) {
    let cluster = ClusterConfig {
        name: Some(scope.path().replace('/', "-")),
        postgres: config.postgres.clone(),
        dcs: Some(config.dcs()),
        ..ClusterConfig::default()
    };
    let prefix = Some(format!("{prefix}{}/", scope.path()));
    let watched = Watched { config: cluster, scope: Some(scope.scope.clone()), prefix };
    services.group.spawn("cluster", watcher::run(watched, services.clone()));
}

fn scopes(keys: &[DcsKey]) -> BTreeSet<Scope> {
    let scope = |key: &DcsKey| {
        let mut parts = key.key.split('/');
        let (scope, next) = (parts.next()?, parts.next()?);
        let is_group = !next.is_empty() && next.bytes().all(|byte| byte.is_ascii_digit());
        let (group, sign) = if is_group { (Some(next.to_owned()), parts.next()?) } else { (None, next) };
        SIGNS.contains(&sign).then(|| Scope { scope: scope.to_owned(), group })
    };
    keys.iter().filter_map(scope).filter(|scope| !scope.scope.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_what_has_the_keys_of_a_cluster() {
        let keys =
            ["main/leader", "main/members/n1", "citus/0/config", "citus/1/members/w", "other/thing", "x", "/leader"];
        let keys: Vec<DcsKey> = keys.map(|key| DcsKey { key: key.into(), ..DcsKey::default() }).into();
        let found: Vec<String> = scopes(&keys).iter().map(Scope::path).collect();
        assert_eq!(found, ["citus/0", "citus/1", "main"]);
    }
}
