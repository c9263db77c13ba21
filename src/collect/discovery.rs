//! Every scope found below a DCS namespace becomes a cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::collect::config::{ClusterConfig, DcsConfig, DiscoverConfig, HttpUrl};
use crate::collect::etcd::EtcdClient;
use crate::collect::known::{FoundIn, namespace_of};
use crate::collect::patroni::parse::member_key;
use crate::collect::poll::CollectError;
use crate::collect::services::Services;
use crate::collect::targets::TargetKey;
use crate::collect::watcher::{self, Found, Watched, record_since};
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
    /// Reads what [`Scope::path`] wrote.
    fn parse(path: &str) -> Self {
        let (scope, group) = path.split_once('/').map_or((path, None), |(scope, group)| (scope, Some(group)));
        Self { scope: scope.to_owned(), group: group.map(str::to_owned) }
    }

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
    let urls: Vec<&str> = config.etcd.iter().map(HttpUrl::as_str).collect();
    let key = TargetKey::new("", "", "discovery", &format!("{} {prefix}", urls.join(" ")));
    let client = match EtcdClient::new(&config.dcs()) {
        Ok(client) => client,
        Err(error) => {
            let error = CollectError::new(FailureKind::Other, chain(&error)).with_hint("check discover.ca_file");
            return record_since(&services, &key, Instant::now(), Err(error));
        }
    };
    let mut known = BTreeSet::new();
    // Those of before a restart: the DCS may be down, or empty after a loss, while their members live.
    let namespace = namespace_of(&config);
    for cluster in services.known.snapshot().values() {
        let place = cluster.found_in.as_ref().filter(|place| place.namespace == namespace);
        if let Some(scope) = place.map(|place| Scope::parse(&place.path))
            && known.len() < SCOPES_MAX
            && known.insert(scope.clone())
        {
            start(&config, &prefix, &scope, &services);
        }
    }
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

/// The scope of the cluster that one of the seeds belongs to, as the DCS has it: for seeds that do not answer.
pub(crate) async fn scope_of(dcs: &DcsConfig, seeds: &[HttpUrl]) -> Option<String> {
    let prefix = format!("/{}/", dcs.namespace.trim_matches('/'));
    let client = EtcdClient::new(dcs).ok()?;
    let range = client.range(&prefix, false).await.ok()?;
    scope_with_seed(&range.keys, seeds)
}

fn scope_with_seed(keys: &[DcsKey], seeds: &[HttpUrl]) -> Option<String> {
    let named = keys.iter().find_map(|key| {
        let (path, member) = key.key.split_once("/members/")?;
        let address = member_key(member, key.value.as_bytes()).ok()?;
        let seed = address.rest_url.filter(|url| seeds.iter().any(|seed| seed.as_str() == url));
        // Citus keeps its groups below the scope.
        seed.and_then(|_| path.split('/').next().map(str::to_owned))
    });
    // Where the DCS holds one cluster only, that is the one, even though its members' keys are gone.
    let only = || {
        let mut scopes = scopes(keys).into_iter();
        scopes.next().filter(|_| scopes.next().is_none()).map(|scope| scope.scope)
    };
    named.or_else(only)
}

fn start(config: &DiscoverConfig, prefix: &str, scope: &Scope, services: &Services) {
    let cluster = ClusterConfig {
        name: Some(scope.path().replace('/', "-")),
        postgres: config.postgres.clone(),
        dcs: Some(config.dcs()),
        ..ClusterConfig::default()
    };
    let place = FoundIn { namespace: namespace_of(config), path: scope.path() };
    let found = Found { scope: scope.scope.clone(), prefix: format!("{prefix}{}/", scope.path()), place };
    let watched = Watched { config: cluster, found: Some(found) };
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
        assert_eq!(found.iter().map(|path| Scope::parse(path)).collect::<BTreeSet<_>>(), scopes(&keys));
    }

    #[test]
    fn a_silent_seed_is_found_by_its_member_key_or_by_being_the_only_cluster() {
        let seed = [HttpUrl::parse("http://10.0.0.2:8008").unwrap()];
        let member = |scope: &str, host: &str| DcsKey {
            key: format!("{scope}/members/m"),
            value: format!(
                r#"{{"conn_url":"postgres://{host}:5432/postgres","api_url":"http://{host}:8008/patroni"}}"#
            ),
            ..DcsKey::default()
        };
        for (keys, scope) in [
            (vec![member("a", "10.0.0.1"), member("b", "10.0.0.2")], Some("b")),
            (vec![member("a", "10.0.0.1"), member("c", "10.0.0.3")], None),
            (vec![member("a", "10.0.0.1")], Some("a")),
            (vec![], None),
        ] {
            assert_eq!(scope_with_seed(&keys, &seed).as_deref(), scope, "{keys:?}");
        }
    }
}
