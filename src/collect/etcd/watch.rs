//! The watch on one cluster's keys: snapshot, then every change as it happens.
//!
//! Invariant: between a snapshot and the next, no change of the prefix is left out. Where that cannot be promised
//! (compaction, a broken or overlong stream), a new snapshot is made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tracing::debug;

use crate::collect::config::HttpUrl;
use crate::collect::directory::Directory;
use crate::collect::etcd::parse::{self, Range, WatchLine};
use crate::collect::etcd::{BODY_BYTES_MAX, EtcdClient, REQUEST_TIMEOUT};
use crate::collect::patroni::parse::member_key;
use crate::collect::poll::{CollectError, Context};
use crate::collect::sink::SinkClosed;
use crate::model::observation::{Claim, DcsChange, DcsKey, DcsSnapshot, FailureKind, MemberAddress, Source};
use crate::model::{Batch, Observation, Timestamp};
use crate::platform::backoff::Backoff;
use crate::platform::http_client::HttpError;

/// The keys of one cluster, shared by the watch and by the reads that check it.
#[derive(Debug)]
pub(crate) struct KeySpace {
    pub(crate) cluster: String,
    /// `/namespace/scope/`.
    pub(crate) prefix: String,
    pub(crate) client: Arc<EtcdClient>,
    pub(crate) directory: Arc<Directory>,
    /// What the watch has seen; `None` while none stands.
    state: Mutex<Option<BTreeMap<String, DcsKey>>>,
    restart: Notify,
}

impl KeySpace {
    pub(crate) fn new(cluster: &str, prefix: String, client: Arc<EtcdClient>, directory: Arc<Directory>) -> Self {
        let cluster = cluster.to_owned();
        Self { cluster, prefix, client, directory, state: Mutex::new(None), restart: Notify::new() }
    }

    /// Whether a watch stands and has seen exactly these keys at these revisions.
    pub(crate) fn agrees_with(&self, range: &Range) -> bool {
        self.state.lock().as_ref().is_some_and(|state| {
            state.len() == range.keys.len()
                && range
                    .keys
                    .iter()
                    .all(|key| state.get(&key.key).is_some_and(|seen| seen.mod_revision == key.mod_revision))
        })
    }

    /// Ends the watch that stands, since it misses changes; another begins at once, elsewhere.
    pub(crate) fn restart_watch(&self) {
        if self.state.lock().is_some() {
            self.restart.notify_one();
        }
    }

    /// Tells the directory who has a member key.
    pub(crate) fn tell_members(&self, keys: &[DcsKey]) {
        self.directory.learn_from_dcs(addresses(keys.iter()));
    }

    fn begin(&self, snapshot: &Range) {
        *self.state.lock() = Some(snapshot.keys.iter().map(|key| (key.key.clone(), key.clone())).collect());
        self.tell_members(&snapshot.keys);
    }

    fn end(&self) {
        *self.state.lock() = None;
    }

    fn apply(&self, change: &DcsChange) {
        let mut guard = self.state.lock();
        let Some(state) = guard.as_mut() else { return };
        for key in &change.puts {
            state.insert(key.key.clone(), key.clone());
        }
        for key in &change.deletes {
            state.remove(key);
        }
        let names = change.puts.iter().map(|key| &key.key).chain(&change.deletes);
        if names.into_iter().any(|key| key.starts_with("members/")) {
            self.directory.learn_from_dcs(addresses(state.values()));
        }
    }
}

fn addresses<'a>(keys: impl Iterator<Item = &'a DcsKey>) -> Vec<MemberAddress> {
    keys.filter_map(|key| {
        let name = key.key.strip_prefix("members/")?;
        // A key that cannot be read still proves that the member is there.
        let unread = MemberAddress { member: name.to_owned(), present: true, ..MemberAddress::default() };
        Some(member_key(name, key.value.as_bytes()).unwrap_or(unread))
    })
    .collect()
}

/// Watches until the reader of the sink is gone. Meant to be dropped to stop it.
pub(crate) async fn watch(space: Arc<KeySpace>, context: Context) {
    let seed = space.prefix.len() as u64 + 1;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2), seed);
    loop {
        let result = run_once(&space, &context, &mut backoff).await;
        space.end();
        match result {
            Ok(()) => debug!(cluster = space.cluster, "watch on the DCS restarted"),
            Err(Ended::SinkClosed) => return,
            // The reads beside the watch tell the Targets page why the DCS does not answer.
            Err(Ended::Failed(error)) => {
                debug!(cluster = space.cluster, error = error.error, "watch on the DCS ended");
                space.client.rotate();
                tokio::time::sleep(backoff.next_wait()).await;
            }
        }
    }
}

enum Ended {
    SinkClosed,
    Failed(CollectError),
}

impl From<CollectError> for Ended {
    fn from(error: CollectError) -> Self {
        Self::Failed(error)
    }
}

impl From<SinkClosed> for Ended {
    fn from(_: SinkClosed) -> Self {
        Self::SinkClosed
    }
}

/// One snapshot and one watch after it.
async fn run_once(space: &KeySpace, context: &Context, backoff: &mut Backoff) -> Result<(), Ended> {
    let sent = context.clock.now();
    let snapshot = space.client.range(&space.prefix, false).await?;
    let endpoint = space.client.endpoints().into_iter().next();
    let endpoint = endpoint.ok_or_else(|| CollectError::new(FailureKind::Other, "no etcd URL is configured"))?;
    let mut stream = open(space, &endpoint, snapshot.revision + 1).await?;
    space.begin(&snapshot);
    let claim = Claim::DcsSnapshot(DcsSnapshot { revision: snapshot.revision, keys: snapshot.keys });
    hand_over(space, context, sent, vec![claim]).await?;
    loop {
        let line = tokio::select! {
            () = space.restart.notified() => {
                space.client.rotate();
                return Ok(());
            }
            line = stream.next_line() => line?,
        };
        let line = parse::watch_line(&line, &space.prefix).map_err(Ended::Failed)?;
        backoff.reset();
        match line {
            WatchLine::Created => {}
            WatchLine::Canceled(reason) => {
                let error = format!("{endpoint} ended the watch: {reason}");
                return Err(Ended::Failed(CollectError::new(FailureKind::Other, error)));
            }
            WatchLine::Changes { changes, .. } => {
                for change in &changes {
                    space.apply(change);
                }
                let claims = changes.into_iter().map(Claim::DcsChange).collect();
                hand_over(space, context, context.clock.now(), claims).await?;
            }
        }
    }
}

async fn hand_over(space: &KeySpace, context: &Context, sent: Timestamp, claims: Vec<Claim>) -> Result<(), SinkClosed> {
    let received = context.clock.now();
    let observation =
        |claim| Observation { cluster: space.cluster.clone(), source: Source::Dcs, sent, received, claim };
    let batch = Batch { observations: claims.into_iter().map(observation).collect(), ..Batch::default() };
    context.sink.accept(batch).await
}

/// Lines of a streamed answer.
struct Lines<S> {
    stream: S,
    buffer: BytesMut,
    endpoint: HttpUrl,
}

impl<S: futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin> Lines<S> {
    async fn next_line(&mut self) -> Result<BytesMut, CollectError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                return Ok(line);
            }
            if self.buffer.len() > BODY_BYTES_MAX {
                let error = format!("{} sent a line of more than {BODY_BYTES_MAX} bytes", self.endpoint);
                return Err(CollectError::new(FailureKind::Other, error));
            }
            match self.stream.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(source)) => {
                    let (url, source) = (self.endpoint.to_string(), source.without_url());
                    return Err(HttpError::Request { url, source }.into());
                }
                None => {
                    let error = format!("{} closed the watch", self.endpoint);
                    return Err(CollectError::new(FailureKind::Reset, error));
                }
            }
        }
    }
}

async fn open(
    space: &KeySpace,
    endpoint: &HttpUrl,
    start_revision: i64,
) -> Result<Lines<impl futures_util::Stream<Item = reqwest::Result<bytes::Bytes>> + Unpin + use<>>, CollectError> {
    let url = endpoint.join("/v3/watch");
    let body = json!({"create_request": {
        "key": parse::encode(&space.prefix),
        "range_end": parse::encode(parse::prefix_end(&space.prefix)),
        "start_revision": start_revision.to_string(),
        "progress_notify": true,
    }});
    let request = space.client.stream(&url, &body).send();
    // The one with a login is not to be shown.
    let url = format!("{endpoint}/v3/watch");
    let answer = match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|source| HttpError::Request { url: url.clone(), source: source.without_url() })?,
        Err(_elapsed) => return Err(HttpError::Timeout { url, timeout: REQUEST_TIMEOUT }.into()),
    };
    if !answer.status().is_success() {
        let error = format!("{url} answered HTTP {}", answer.status().as_u16());
        return Err(CollectError::new(FailureKind::Other, error));
    }
    Ok(Lines { stream: Box::pin(answer.bytes_stream()), buffer: BytesMut::new(), endpoint: endpoint.clone() })
}
