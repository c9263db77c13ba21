//! Clusters as they were last seen, for a start at which nobody answers: a dead seed or a DCS without quorum must not
//! hide the members that live.
//!
//! Invariant: what is known is a place to ask, never a fact about the cluster. A cluster without members is forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::collect::config::{ClusterConfig, DiscoverConfig, HttpUrl};
use crate::model::observation::MemberAddress;

/// One cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownCluster {
    pub scope: String,
    /// What stood under `patroni:`; empty where the DCS was searched.
    pub seeds: Vec<String>,
    /// Where the DCS was searched.
    pub found_in: Option<FoundIn>,
    pub members: Vec<MemberAddress>,
}

/// A cluster's place in a DCS that was searched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundIn {
    /// Client URLs and namespace.
    pub namespace: String,
    /// Below the namespace: the scope, with the group where it has one.
    pub path: String,
}

/// Clusters by name.
pub type KnownClusters = BTreeMap<String, KnownCluster>;

/// A DCS namespace as an identity.
pub(crate) fn namespace_of(discover: &DiscoverConfig) -> String {
    let mut urls: Vec<&str> = discover.etcd.iter().map(HttpUrl::as_str).collect();
    urls.sort_unstable();
    format!("{} /{}/", urls.join(" "), discover.namespace.trim_matches('/'))
}

/// The cluster that an entry of `clusters:` means: by its name, else by a seed or a member at the address of a seed.
pub fn known_as<'a>(known: &'a KnownClusters, config: &ClusterConfig) -> Option<(&'a String, &'a KnownCluster)> {
    if let Some(name) = &config.name {
        return known.get_key_value(name);
    }
    let is_seed = |url: &str| config.patroni.iter().any(|seed| seed.as_str() == url);
    known.iter().find(|(_, cluster)| {
        let mut urls = cluster.seeds.iter().chain(cluster.members.iter().filter_map(|member| member.rest_url.as_ref()));
        cluster.found_in.is_none() && urls.any(|url| is_seed(url))
    })
}

/// Drops what no entry of the configuration means any more.
pub fn retain_configured(known: &mut KnownClusters, clusters: &[ClusterConfig], discover: &[DiscoverConfig]) {
    let mut kept: Vec<String> = clusters.iter().filter_map(|config| Some(known_as(known, config)?.0.clone())).collect();
    let namespaces: Vec<String> = discover.iter().map(namespace_of).collect();
    let is_found =
        |cluster: &KnownCluster| cluster.found_in.as_ref().is_some_and(|place| namespaces.contains(&place.namespace));
    kept.extend(known.iter().filter(|(_, cluster)| is_found(cluster)).map(|(name, _)| name.clone()));
    known.retain(|name, _| kept.contains(name));
}

/// The list that the clusters keep up to date. Cheap to clone; clones are one list.
#[derive(Clone, Debug)]
pub(crate) struct Known(Arc<watch::Sender<Arc<KnownClusters>>>);

impl Known {
    pub(crate) fn new(known: KnownClusters) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(known))))
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<KnownClusters>> {
        self.0.subscribe()
    }

    pub(crate) fn snapshot(&self) -> Arc<KnownClusters> {
        Arc::clone(&self.0.borrow())
    }

    /// Notes how a cluster stands.
    pub(crate) fn note(&self, name: &str, cluster: KnownCluster) {
        self.0.send_if_modified(|known| {
            if cluster.members.is_empty() {
                return known.contains_key(name) && Arc::make_mut(known).remove(name).is_some();
            }
            let is_new = known.get(name) != Some(&cluster);
            if is_new {
                Arc::make_mut(known).insert(name.to_owned(), cluster);
            }
            is_new
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::yaml::from_yaml;

    fn known() -> KnownClusters {
        let member = |url: &str| MemberAddress { rest_url: Some(url.to_owned()), ..MemberAddress::default() };
        let seeded = |seed: &str, url: &str| KnownCluster {
            scope: "s".into(),
            seeds: vec![seed.into()],
            members: vec![member(url)],
            found_in: None,
        };
        let place = FoundIn { namespace: "http://e:2379 /service/".into(), path: "d".into() };
        let found =
            KnownCluster { found_in: Some(place), members: vec![member("http://d:8008")], ..Default::default() };
        [
            ("a", seeded("http://a:8008", "http://10.0.0.1:8008")),
            ("b", seeded("http://b:8008", "http://10.0.0.2:8008")),
            ("d", found),
        ]
        .map(|(name, cluster)| (name.to_owned(), cluster))
        .into()
    }

    #[test]
    fn an_entry_means_a_cluster_by_name_or_by_address() {
        for (config, name) in [
            ("patroni: [http://a:8008]", Some("a")),
            ("patroni: [http://other:8008, 'http://10.0.0.2:8008']", Some("b")),
            ("patroni: [http://other:8008]", None),
            ("patroni: [http://d:8008]", None),
            ("{name: b, patroni: [http://other:8008]}", Some("b")),
            ("{name: c, patroni: [http://a:8008]}", None),
        ] {
            let config: ClusterConfig = from_yaml("f.yml", config).unwrap();
            assert_eq!(known_as(&known(), &config).map(|(name, _)| name.as_str()), name, "{config:?}");
        }
    }

    #[test]
    fn what_is_configured_no_more_is_dropped() {
        let discover: DiscoverConfig = from_yaml("f.yml", "etcd: [http://e:2379]").unwrap();
        let cluster: ClusterConfig = from_yaml("f.yml", "patroni: [http://a:8008]").unwrap();
        for (clusters, discover, left) in [
            (vec![cluster.clone()], vec![discover], vec!["a", "d"]),
            (vec![cluster], vec![], vec!["a"]),
            (vec![], vec![], vec![]),
        ] {
            let mut known = known();
            retain_configured(&mut known, &clusters, &discover);
            assert_eq!(known.keys().collect::<Vec<_>>(), left);
        }
    }

    #[test]
    fn only_changes_are_told_and_a_cluster_without_members_goes() {
        let list = Known::new(known());
        let mut changes = list.subscribe();
        let cluster = known()["a"].clone();
        list.note("a", cluster.clone());
        assert!(!changes.has_changed().unwrap());
        list.note("a", KnownCluster { members: Vec::new(), ..cluster });
        assert!(changes.has_changed().unwrap() && !changes.borrow_and_update().contains_key("a"));
    }
}
