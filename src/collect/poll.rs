//! Asking one target again and again: on its own schedule, one question at a time, each with a deadline.
//!
//! Invariant: never two attempts on one target at once; a target that hangs costs one task and nothing else. Every
//! attempt leaves a trace: an entry on the Targets page, `up`, and for HA sources an observation even when it failed.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::hash::{BuildHasher as _, BuildHasherDefault};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHasher;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::collect::exposition::Page;
use crate::collect::sink::{Sink, SinkClosed};
use crate::collect::targets::{Attempt, Change, Schedule, TargetKey, Targets};
use crate::model::observation::{Claim, Failure, FailureKind, Source};
use crate::model::sample::STALE_NAN;
use crate::model::{Batch, Families, Labels, Observation, Sample, Timestamp};
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::http_client::HttpError;
use crate::platform::tasks::caught;

/// `up` and its companions are written when they change, and at least this often.
const UP_EVERY: Duration = Duration::from_secs(10);
/// Poll interval of SQL while a split brain is suspected.
pub(crate) const FAST_INTERVAL: Duration = Duration::from_millis(400);

/// What a collector needs of its surroundings. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) clock: Clock,
    pub(crate) sink: Sink,
    pub(crate) targets: Targets,
}

/// Why a target gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub(crate) struct CollectError {
    pub(crate) kind: FailureKind,
    /// The whole chain.
    pub(crate) error: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl CollectError {
    pub(crate) fn new(kind: FailureKind, error: impl Into<String>) -> Self {
        Self { kind, error: error.into(), hint: None }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<HttpError> for CollectError {
    fn from(error: HttpError) -> Self {
        Self::new(error.failure_kind(), chain(&error))
    }
}

/// What one attempt found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Claims of the target's own source, in order.
    pub(crate) claims: Vec<Said>,
    /// Samples by section. Series that a section had before and has no more get a stale marker.
    pub(crate) sections: Vec<(&'static str, Vec<Sample>)>,
    /// What the target says about its metric families.
    pub(crate) families: Families,
    /// The target answers, but something is missing.
    pub(crate) problem: Option<CollectError>,
}

impl Found {
    /// Takes in a metrics page as a section.
    pub(crate) fn take_page(&mut self, section: &'static str, page: Page) {
        self.sections.push((section, page.samples));
        self.families.extend(page.families);
    }
}

/// A claim and when it was true, where that is known closer than by the attempt as a whole.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) claim: Claim,
    pub(crate) between: Option<(Timestamp, Timestamp)>,
}

impl From<Claim> for Said {
    fn from(claim: Claim) -> Self {
        Self { claim, between: None }
    }
}

/// Something that is asked again and again.
pub(crate) trait Collector: Send + 'static {
    /// Asks once. Dropped when the deadline passes: whatever must not be used after that (a connection with an answer
    /// under way) has to be taken out of `self` first and put back at the end.
    fn collect(&mut self, at: Timestamp) -> impl Future<Output = Result<Found, CollectError>> + Send;

    /// Asks for what can wait, once the answer of [`Collector::collect`] is handed over: however long this takes and
    /// however it ends, that answer counts. What goes wrong is the `problem` of the next answer.
    fn collect_more(&mut self, _at: Timestamp) -> impl Future<Output = Found> + Send {
        std::future::ready(Found::default())
    }
}

/// How a target is asked.
#[derive(Clone, Debug)]
pub(crate) struct PollSpec {
    pub(crate) target: TargetKey,
    /// Labels of `up`: cluster, member, instance, job and whatever the configuration adds.
    pub(crate) labels: Labels,
    pub(crate) interval: Duration,
    pub(crate) deadline: Duration,
    /// Where its claims come from; `None` for targets that only give samples.
    pub(crate) source: Option<Source>,
    /// Clusters that the claims are about, where those are several.
    pub(crate) audience: Option<Audience>,
    /// While true, the interval is [`FAST_INTERVAL`].
    pub(crate) fast: Option<watch::Receiver<bool>>,
}

/// The clusters that share a source, such as one etcd. Cheap to clone; clones are one list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audience(Arc<Mutex<BTreeSet<String>>>);

impl Audience {
    pub(crate) fn join(&self, cluster: &str) {
        self.0.lock().insert(cluster.to_owned());
    }

    pub(crate) fn leave(&self, cluster: &str) {
        self.0.lock().remove(cluster);
    }

    fn clusters(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }
}

/// The labels every series of a target carries; empty values are left out.
pub(crate) fn target_labels(cluster: &str, member: &str, instance: &str, job: &str) -> Labels {
    Labels::from_pairs([("cluster", cluster), ("member", member), ("instance", instance), ("job", job)])
}

/// Asks until the reader of the sink is gone. Meant to be dropped to stop it.
pub(crate) async fn poll<C: Collector>(mut spec: PollSpec, mut collector: C, context: Context) {
    let PollSpec { interval, deadline, labels, .. } = spec.clone();
    context.targets.expect(&spec.target, Schedule { interval, deadline, labels });
    let start = Instant::now() + first_wait(&spec.target, spec.interval);
    let mut state = PollState::default();
    let mut next = start;
    loop {
        wait_until(&mut next, spec.fast.as_mut()).await;
        let sent = context.clock.now();
        let started = Instant::now();
        let result = match tokio::time::timeout(spec.deadline, caught(collector.collect(sent))).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(CollectError::new(FailureKind::Other, format!("the collector {panic}"))
                .with_hint("this is a bug of daraji; please report it with the log")),
            Err(_elapsed) => Err(CollectError::new(
                FailureKind::Timeout,
                format!("{} did not answer within {} ms", spec.target.url, spec.deadline.as_millis()),
            )),
        };
        let times = Times { sent, received: context.clock.now(), duration: started.elapsed() };
        let answers = result.is_ok();
        if state.hand_over(&spec, &context, &times, result).await.is_err() {
            return;
        }
        if answers
            && let Ok(Ok(more)) = tokio::time::timeout(spec.deadline, caught(collector.collect_more(sent))).await
            && state.add(&spec, &context, &times, more).await.is_err()
        {
            return;
        }
        let fast = spec.fast.as_ref().is_some_and(|fast| *fast.borrow());
        next = next_tick(start, if fast { FAST_INTERVAL } else { spec.interval });
    }
}

/// Spreads targets over the interval, always the same way.
fn first_wait(target: &TargetKey, interval: Duration) -> Duration {
    let hash = BuildHasherDefault::<FxHasher>::default().hash_one(target);
    interval.mul_f64((hash % 1024) as f64 / 1024.0)
}

/// The next point of the target's own grid; a late target skips points rather than catching up.
fn next_tick(start: Instant, interval: Duration) -> Instant {
    let elapsed = start.elapsed();
    let periods = elapsed.as_nanos() / interval.as_nanos().max(1) + 1;
    start + interval.saturating_mul(u32::try_from(periods).unwrap_or(u32::MAX))
}

/// Waits, but starts at once when fast probing is switched on meanwhile.
async fn wait_until(next: &mut Instant, fast: Option<&mut watch::Receiver<bool>>) {
    let Some(fast) = fast else { return tokio::time::sleep_until(*next).await };
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(*next) => return,
            changed = fast.changed() => match changed {
                Ok(()) if *fast.borrow_and_update() => *next = Instant::now(),
                Ok(()) => {}
                Err(_nobody_switches) => return tokio::time::sleep_until(*next).await,
            },
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Times {
    sent: Timestamp,
    received: Timestamp,
    duration: Duration,
}

/// What must be remembered between attempts.
#[derive(Debug, Default)]
struct PollState {
    /// Series that each section gave last.
    live: HashMap<&'static str, Vec<Labels>>,
    up: Option<bool>,
    up_written_at: Option<Instant>,
    attempts: u64,
    failures: u64,
    busy: Duration,
}

impl PollState {
    async fn hand_over(
        &mut self,
        spec: &PollSpec,
        context: &Context,
        times: &Times,
        result: Result<Found, CollectError>,
    ) -> Result<(), SinkClosed> {
        self.attempts += 1;
        self.busy += times.duration;
        let mut batch = Batch::default();
        let (claims, problem, up) = match result {
            Ok(found) => {
                for (section, samples) in found.sections {
                    self.replace(section, samples, times.sent, &mut batch.samples);
                }
                batch.families = found.families;
                (found.claims, found.problem, true)
            }
            Err(error) => {
                self.failures += 1;
                self.end_all(times.received, &mut batch.samples);
                let failure = Claim::Failed(Failure { kind: error.kind, error: error.error.clone() });
                (vec![failure.into()], Some(error), false)
            }
        };
        batch.observations = observations(spec, times, &claims);
        self.write_up(spec, times, up, &mut batch.samples);
        note(spec, context, times, up, problem);
        context.sink.accept(batch).await
    }

    /// Hands over what was found after the answer.
    async fn add(&mut self, spec: &PollSpec, context: &Context, times: &Times, found: Found) -> Result<(), SinkClosed> {
        let observations = observations(spec, times, &found.claims);
        let mut batch = Batch { observations, families: found.families, ..Batch::default() };
        for (section, samples) in found.sections {
            self.replace(section, samples, times.sent, &mut batch.samples);
        }
        if batch.is_empty() { Ok(()) } else { context.sink.accept(batch).await }
    }

    /// Takes over a section's samples and marks the ends of series that it had before.
    fn replace(&mut self, section: &'static str, samples: Vec<Sample>, at: Timestamp, out: &mut Vec<Sample>) {
        let mut now: Vec<Labels> = samples.iter().map(|sample| sample.labels.clone()).collect();
        now.sort_unstable();
        let before = self.live.entry(section).or_default();
        out.extend(
            before
                .iter()
                .filter(|labels| now.binary_search(labels).is_err())
                .map(|labels| Sample::new(labels.clone(), at, STALE_NAN)),
        );
        *before = now;
        out.extend(samples);
    }

    fn end_all(&mut self, at: Timestamp, out: &mut Vec<Sample>) {
        for labels in self.live.drain().flat_map(|(_, series)| series) {
            out.push(Sample::new(labels, at, STALE_NAN));
        }
    }

    fn write_up(&mut self, spec: &PollSpec, times: &Times, up: bool, out: &mut Vec<Sample>) {
        // A poll that comes a moment early must not put it off by a whole interval.
        let due = self.up_written_at.is_none_or(|at| at.elapsed() + spec.interval / 2 >= UP_EVERY);
        if !due && self.up == Some(up) {
            return;
        }
        self.up = Some(up);
        self.up_written_at = Some(Instant::now());
        let mut put = |name: &str, value: f64| {
            out.push(Sample::new(spec.labels.with(crate::model::labels::METRIC_NAME, name), times.sent, value));
        };
        put("up", f64::from(u8::from(up)));
        put("scrape_duration_seconds", times.duration.as_secs_f64());
        put("daraji_collector_attempts_total", self.attempts as f64);
        put("daraji_collector_failures_total", self.failures as f64);
        put("daraji_collector_busy_seconds_total", self.busy.as_secs_f64());
    }
}

/// The claims as observations, for every cluster that they are about.
fn observations(spec: &PollSpec, times: &Times, claims: &[Said]) -> Vec<Observation> {
    let Some(source) = &spec.source else { return Vec::new() };
    let clusters = spec.audience.as_ref().map_or_else(|| vec![spec.target.cluster.clone()], Audience::clusters);
    let of_cluster = |cluster: String| {
        claims.iter().map(move |said| {
            let (sent, received) = said.between.unwrap_or((times.sent, times.received));
            let (cluster, source) = (cluster.clone(), source.clone());
            Observation { cluster, source, sent, received, claim: said.claim.clone() }
        })
    };
    clusters.into_iter().flat_map(of_cluster).collect()
}

/// Tells the Targets page, and the log when the state changed.
fn note(spec: &PollSpec, context: &Context, times: &Times, up: bool, problem: Option<CollectError>) {
    let (error, hint) = problem.map_or((None, None), |problem| (Some(problem.error), problem.hint));
    let attempt =
        Attempt { up, at: times.received, duration: times.duration, error: error.clone(), hint: hint.clone() };
    let TargetKey { cluster, member, source, url } = &spec.target;
    let (error, hint) = (error.unwrap_or_default(), hint.unwrap_or_default());
    match context.targets.record(&spec.target, attempt) {
        None => {}
        Some(Change::Up) => info!(cluster, member, source, url, "target answers"),
        Some(Change::Down) => warn!(cluster, member, source, url, error, hint, "target failed"),
        Some(Change::Partly) if error.is_empty() => info!(cluster, member, source, url, "target complete again"),
        Some(Change::Partly) => warn!(cluster, member, source, url, error, hint, "target answers only in part"),
    }
}

#[cfg(test)]
mod tests;
