//! The only spawner of tasks: every task has a name, is waited for, and cannot vanish silently.
//!
//! A panic ends what it happened in: the whole group for a part of the server, one attempt or one request where strangers
//! decide what is worked on ([`caught`], [`TaskGroup::spawn_isolated`]).

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, error, warn};

/// Tasks that stop together. Clones are handles to the same group.
///
/// A task that panics is logged and cancels its whole group: a half-dead server is worse than one that stops and is
/// restarted by its supervisor.
#[derive(Clone, Debug)]
pub struct TaskGroup {
    name: &'static str,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl TaskGroup {
    pub fn new(name: &'static str) -> Self {
        Self { name, stop: CancellationToken::new(), tracker: TaskTracker::new() }
    }

    /// A group of its own that is also stopped when this one is.
    #[must_use]
    pub fn child(&self, name: &'static str) -> Self {
        Self { name, stop: self.stop.child_token(), tracker: TaskTracker::new() }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Cancelled when the tasks of this group should end.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a task. It should end soon after [`TaskGroup::stop_token`] is cancelled; where it cannot see that, wrap
    /// it with [`TaskGroup::spawn_until_stop`].
    pub fn spawn(&self, task: impl Into<Arc<str>>, future: impl Future<Output = ()> + Send + 'static) {
        let task: Arc<str> = task.into();
        let group = self.name;
        let stop = self.stop.clone();
        let guard_task = Arc::clone(&task);
        let guarded = async move {
            let mut guard = PanicGuard { group, task: guard_task, stop, armed: true };
            future.await;
            guard.armed = false;
        };
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let handle = tokio::spawn(self.tracker.track_future(guarded).instrument(tracing::info_span!("task", %task)));
        drop(handle);
    }

    /// Runs a task that is dropped at its next await point when the group stops. It must be cancel-safe.
    pub fn spawn_until_stop(&self, task: impl Into<Arc<str>>, future: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.spawn(task, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = future => {}
            }
        });
    }

    /// Runs a task whose panic ends nothing but itself, dropped when the group stops. It must be cancel-safe.
    pub fn spawn_isolated(&self, task: impl Into<Arc<str>>, future: impl Future<Output = ()> + Send + 'static) {
        let group = self.name;
        self.spawn_until_stop(task, async move {
            if let Err(panic) = caught(future).await {
                error!(group, %panic, "task panicked");
            }
        });
    }

    /// Whether the group was told to stop, or one of its tasks panicked.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Tells all tasks to end and waits for them; gives up after `grace` and says so.
    pub async fn stop(&self, grace: Duration) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_err() {
            warn!(group = self.name, tasks = self.tracker.len(), "tasks did not end in time");
        }
    }

    /// Number of tasks that have not ended.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }
}

/// Runs blocking work (files, long computations) on tokio's bounded blocking pool.
///
/// # Panics
/// Panics if the work panics.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let handle = tokio::task::spawn_blocking(work);
    match handle.await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only at shutdown of the runtime: nobody will look at the result.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

/// What panicked, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(String);

/// Runs a future whose panic is an error. What it works on must not be left half-changed by a panic.
pub async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        Panicked(text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned()))
    })
}

struct PanicGuard {
    group: &'static str,
    task: Arc<str>,
    stop: CancellationToken,
    armed: bool,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if self.armed && std::thread::panicking() {
            error!(group = self.group, task = %self.task, "task panicked, stopping its group");
            self.stop.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_waits_for_every_task() {
        let group = TaskGroup::new("test");
        let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
        let stop = group.stop_token();
        let first = sender.clone();
        group.spawn("polite", async move {
            stop.cancelled().await;
            first.send("polite").await.unwrap();
        });
        group.spawn_until_stop("deaf", std::future::pending());
        group.stop(Duration::from_secs(10)).await;
        assert_eq!(receiver.recv().await, Some("polite"));
        assert!(group.is_empty());
        drop(sender);
    }

    #[tokio::test]
    async fn a_panic_stops_the_group() {
        let group = TaskGroup::new("test");
        group.spawn("bad", async { panic!("planned") });
        group.stop_token().cancelled().await;
        assert!(group.is_stopped());
    }

    #[tokio::test]
    async fn an_isolated_panic_ends_only_itself() {
        let group = TaskGroup::new("test");
        let (sender, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        group.spawn_isolated("bad", async move {
            let _dropped_by_the_panic = sender;
            blocking::<()>(|| panic!("planned")).await;
        });
        assert_eq!(ended.recv().await, None);
        assert!(!group.is_stopped());
        group.stop(Duration::from_secs(10)).await;
        assert_eq!(caught(async { panic!("number {}", 7) }).await, Err::<(), _>(Panicked("number 7".to_owned())));
    }
}
