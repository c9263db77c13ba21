//! Whether the server does its work: for supervisors, load balancers and people who wonder.
//!
//! A full disk or a moment's hurry is no reason: reads go on and writers try again. What needs a restart is.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::platform::tasks::blocking;
use crate::store::logs::LogStore;
use crate::store::metrics::MetricStore;

/// A judge that has not looked for so long does not run.
const JUDGE_LATE_AFTER: Duration = Duration::from_secs(10);

/// What the answer rests on.
#[derive(Clone, Debug)]
pub struct Readiness {
    pub metrics: Arc<MetricStore>,
    pub logs: Arc<LogStore>,
    /// When the judge last looked.
    pub judged_at: watch::Receiver<Instant>,
}

impl Readiness {
    /// Why the server is not ready, each with what to do.
    fn problems(&self) -> Vec<String> {
        let store = |name: &str| format!("{name} takes no more writes since the disk failed; restart after mending it");
        let late = self.judged_at.borrow().elapsed();
        let judge = format!("the judge has not looked for {} s; its log says why", late.as_secs());
        [
            (!self.metrics.is_writable(), store("the metric store")),
            (!self.logs.is_writable(), store("the log store")),
            (late > JUDGE_LATE_AFTER, judge),
        ]
        .into_iter()
        .filter_map(|(holds, text)| holds.then_some(text))
        .collect()
    }
}

/// 200 with `yes`, or 503 with every reason.
pub(super) async fn answer(State((ready, yes)): State<(Readiness, &'static str)>) -> (StatusCode, String) {
    let problems = blocking(move || ready.problems()).await;
    if problems.is_empty() {
        (StatusCode::OK, format!("{yes}\n"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", problems.join("\n")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Labels, LogRecord, Sample, Timestamp};
    use crate::platform::clock::Clock;
    use crate::platform::disk::Disk;
    use crate::store::logs::LogOptions;
    use crate::store::metrics::MetricOptions;

    #[tokio::test(start_paused = true)]
    async fn a_failed_disk_and_a_judge_that_hangs_are_told() {
        let now = Timestamp::from_secs(1_764_000_000);
        let (disk, clock) = (Disk::with_space(u64::MAX), Clock::manual(now));
        let dir = tempfile::tempdir().unwrap();
        let metrics = MetricStore::open(&dir.path().join("m"), MetricOptions::default(), &disk, &clock).unwrap().0;
        let logs = LogStore::open(&dir.path().join("l"), LogOptions::default(), &disk, &clock).unwrap().0;
        let judge = watch::Sender::new(Instant::now());
        let (metrics, logs) = (Arc::new(metrics), Arc::new(logs));
        let ready = Readiness { metrics: Arc::clone(&metrics), logs: Arc::clone(&logs), judged_at: judge.subscribe() };
        let ask = || async { answer(State((ready.clone(), "ready"))).await };
        assert_eq!(ask().await, (StatusCode::OK, "ready\n".to_owned()));

        tokio::time::advance(JUDGE_LATE_AFTER + Duration::from_secs(1)).await;
        let (status, text) = ask().await;
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && text.starts_with("the judge has not looked for 11 s"));
        judge.send_replace(Instant::now());

        let record = LogRecord { at: now, stream: Labels::default(), line: "x".to_owned(), fields: Vec::new() };
        logs.append(None, &[record]).unwrap();
        metrics.append(&[Sample::new(Labels::metric("up", &[]), now, 1.0)]).unwrap();
        disk.set_sync_fails(true);
        assert!(logs.sync().is_err() && metrics.sync().is_err());
        let (status, text) = ask().await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
