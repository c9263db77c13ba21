//! Reads beside the watch: does the DCS have a quorum, how long does the leader's lease live on, and does the watch
//! miss anything.
//!
//! Every successful read ends in a claim, so that the age of the last one is the age of the DCS's word.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::collect::etcd::parse;
use crate::collect::etcd::watch::KeySpace;
use crate::collect::patroni::due;
use crate::collect::poll::{CollectError, Collector, Found};
use crate::model::Timestamp;
use crate::model::observation::{Claim, DcsSnapshot};

/// Interval of the reads.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);
/// Time for one member to time out and another to answer.
pub(crate) const DEADLINE: Duration = Duration::from_millis(4500);
/// A snapshot is repeated this often whatever happens.
const SNAPSHOT_EVERY: Duration = Duration::from_mins(1);

/// Checks the keys of one cluster.
#[derive(Debug)]
pub(crate) struct KeysCollector {
    space: Arc<KeySpace>,
    disagreed: bool,
    snapshot_at: Option<Instant>,
}

impl KeysCollector {
    pub(crate) fn new(space: Arc<KeySpace>) -> Self {
        Self { space, disagreed: false, snapshot_at: None }
    }

    async fn check(&mut self) -> Result<Found, CollectError> {
        let range = self.space.client.range(&self.space.prefix, true).await?;
        let agrees = self.space.agrees_with(&range);
        let mut found = Found::default();
        let leader = range.keys.iter().find(|key| key.key == "leader" && key.lease != 0);
        if let Some(leader) = leader {
            let body = json!({"ID": leader.lease.to_string()});
            let answer = self.space.client.call("/v3/lease/timetolive", &body).await?;
            found.claims.push(Claim::Lease(parse::lease(&answer, leader.lease)).into());
        }
        if !agrees || leader.is_none() || due(&mut self.snapshot_at, SNAPSHOT_EVERY) {
            let range = self.space.client.range(&self.space.prefix, false).await?;
            self.space.tell_members(&range.keys);
            let snapshot = DcsSnapshot { revision: range.revision, keys: range.keys };
            found.claims.insert(0, Claim::DcsSnapshot(snapshot).into());
        }
        // Once may be a change on its way.
        if !agrees && self.disagreed {
            self.space.restart_watch();
        }
        self.disagreed = !agrees;
        Ok(found)
    }
}

impl Collector for KeysCollector {
    async fn collect(&mut self, _at: Timestamp) -> Result<Found, CollectError> {
        let result = self.check().await;
        if result.is_err() {
            self.space.directory.dcs_unreadable();
        }
        result
    }
}
