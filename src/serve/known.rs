//! Keeps the known clusters over a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::Value;
use tokio::sync::watch;
use tracing::warn;

use super::plan::Plan;
use crate::collect::known::{KnownClusters, retain_configured};
use crate::platform::error::chain;
use crate::platform::tasks::{TaskGroup, blocking};
use crate::store::state::tables::KNOWN_CLUSTERS;
use crate::store::state::{StateError, StateStore};

/// What was known when the last server stopped, as far as the configuration still names it.
pub(super) fn load(state: &StateStore, plan: &Plan) -> anyhow::Result<KnownClusters> {
    let rows = state.read()?.scan(&KNOWN_CLUSTERS, "", usize::MAX).context("read the known clusters")?;
    let mut known: KnownClusters =
        rows.into_iter().filter_map(|(name, row)| Some((name, serde_json::from_value(row).ok()?))).collect();
    retain_configured(&mut known, &plan.config.clusters, &plan.config.discover);
    Ok(known)
}

/// Writes every change, the last one too.
pub(super) fn keep(mut known: watch::Receiver<Arc<KnownClusters>>, state: Arc<StateStore>, group: &TaskGroup) {
    let stop = group.stop_token();
    known.mark_changed();
    group.spawn("known-clusters", async move {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                changed = known.changed() => if changed.is_err() { return stop.cancelled().await },
            }
            let current = Arc::clone(&known.borrow_and_update());
            let state = Arc::clone(&state);
            if let Err(error) = blocking(move || write(&state, &current)).await {
                warn!(error = %chain(&error), "the known clusters could not be written; the next change tries again");
            }
        }
    });
}

fn write(state: &StateStore, known: &KnownClusters) -> Result<(), StateError> {
    let stored: BTreeMap<String, Value> = state.read()?.scan(&KNOWN_CLUSTERS, "", usize::MAX)?.into_iter().collect();
    state.write(|tx| {
        for name in stored.keys().filter(|name| !known.contains_key(*name)) {
            tx.delete(&KNOWN_CLUSTERS, name)?;
        }
        for (name, cluster) in known {
            // Plain values of ours always serialise.
            let row = serde_json::to_value(cluster).unwrap_or_default();
            if stored.get(name) != Some(&row) {
                tx.put(&KNOWN_CLUSTERS, name, &row)?;
            }
        }
        Ok(())
    })
}
