//! What all clusters share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::collect::config::{DcsConfig, HttpUrl};
use crate::collect::etcd::pool::EtcdPool;
use crate::collect::known::Known;
use crate::collect::poll::Context;
use crate::platform::tasks::TaskGroup;

/// Shared by all clusters. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pub(crate) context: Context,
    pub(crate) group: TaskGroup,
    pub(crate) fast: FastProbe,
    pub(crate) names: Names,
    pub(crate) etcds: EtcdPool,
    pub(crate) known: Known,
    /// How many configured clusters use each etcd.
    pub(crate) etcd_users: Arc<BTreeMap<Vec<HttpUrl>, usize>>,
}

impl Services {
    /// The `cluster` label of an etcd's own series: the cluster's name unless several share the etcd.
    pub(crate) fn etcd_label(&self, dcs: &DcsConfig, cluster: &str) -> String {
        let alone = self.etcd_users.get(&sorted(&dcs.etcd)) == Some(&1);
        if alone { cluster.to_owned() } else { String::new() }
    }
}

/// URLs as an identity.
pub(crate) fn sorted(urls: &[HttpUrl]) -> Vec<HttpUrl> {
    let mut urls = urls.to_vec();
    urls.sort_unstable();
    urls
}

/// Cluster names in use: a name means one cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Arc<Mutex<BTreeSet<String>>>);

impl Names {
    /// False when the name is taken.
    pub(crate) fn claim(&self, name: &str) -> bool {
        self.0.lock().insert(name.to_owned())
    }

    pub(crate) fn release(&self, name: &str) {
        self.0.lock().remove(name);
    }
}

/// Switches all members of a cluster to fast probes by SQL, while a split brain is suspected. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct FastProbe(Arc<Mutex<HashMap<String, watch::Sender<bool>>>>);

impl FastProbe {
    /// Switches fast probing on or off; nothing happens when it is so already.
    pub fn set(&self, cluster: &str, on: bool) {
        if let Some(sender) = self.0.lock().get(cluster) {
            sender.send_if_modified(|value| std::mem::replace(value, on) != on);
        }
    }

    pub(crate) fn receiver(&self, cluster: &str) -> watch::Receiver<bool> {
        self.0.lock().entry(cluster.to_owned()).or_insert_with(|| watch::channel(false).0).subscribe()
    }
}
