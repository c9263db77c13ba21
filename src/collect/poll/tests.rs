use tokio::sync::mpsc::Receiver;

use super::*;
use crate::model::sample::is_stale;
use crate::platform::tasks::TaskGroup;

/// Answers by a script, one step per attempt; the last step is repeated.
struct Script(Vec<Step>);

#[derive(Clone, Copy)]
enum Step {
    Series(&'static [&'static str]),
    Fail,
    Hang,
    Panic,
}

impl Collector for Script {
    async fn collect(&mut self, at: Timestamp) -> Result<Found, CollectError> {
        let step = if self.0.len() > 1 { self.0.remove(0) } else { self.0[0] };
        match step {
            Step::Series(names) => {
                let samples = names.iter().map(|name| Sample::new(Labels::metric(name, &[]), at, 1.0)).collect();
                Ok(Found { sections: vec![("page", samples)], ..Found::default() })
            }
            Step::Fail => Err(CollectError::new(FailureKind::Refused, "refused").with_hint("start it")),
            Step::Hang => std::future::pending().await,
            Step::Panic => panic!("planned"),
        }
    }
}

/// Answers at once, and never ends with what can wait.
struct HangsWithMore;

impl Collector for HangsWithMore {
    async fn collect(&mut self, at: Timestamp) -> Result<Found, CollectError> {
        Script(vec![Step::Series(&["a"])]).collect(at).await
    }

    async fn collect_more(&mut self, _at: Timestamp) -> Found {
        std::future::pending().await
    }
}

fn start(script: &[Step], fast: Option<watch::Receiver<bool>>) -> (TaskGroup, Targets, Receiver<Batch>) {
    start_collector(Script(script.to_vec()), fast)
}

fn start_collector(
    collector: impl Collector,
    fast: Option<watch::Receiver<bool>>,
) -> (TaskGroup, Targets, Receiver<Batch>) {
    let group = TaskGroup::new("test");
    let (sink, receiver) = Sink::channel(1);
    let context = Context { clock: Clock::manual(Timestamp::from_secs(100)), sink, targets: Targets::default() };
    let spec = PollSpec {
        target: TargetKey::new("main", "n1", "rest", "http://h"),
        labels: target_labels("main", "n1", "h:1", "patroni"),
        interval: Duration::from_secs(2),
        deadline: Duration::from_secs(1),
        source: Some(Source::Rest { member: "n1".into() }),
        audience: None,
        fast,
    };
    group.spawn_until_stop("poll", poll(spec, collector, context.clone()));
    (group, context.targets, receiver)
}

/// Names of a batch's samples, stale ones with a cross, without `up` and its companions.
fn names(batch: &Batch) -> Vec<String> {
    let name = |sample: &Sample| {
        let cross = if is_stale(sample.value) { "†" } else { "" };
        format!("{}{cross}", sample.labels.metric_name())
    };
    let own = |name: &String| !(name.starts_with("daraji_") || name.starts_with("scrape_") || name == "up");
    batch.samples.iter().map(name).filter(own).collect()
}

fn up(batch: &Batch) -> Option<f64> {
    batch.samples.iter().find(|sample| sample.labels.metric_name() == "up").map(|sample| sample.value)
}

#[tokio::test(start_paused = true)]
async fn series_end_with_a_stale_marker_and_up_changes_at_once() {
    let script = [Step::Series(&["a", "b"]), Step::Series(&["b"]), Step::Fail, Step::Fail, Step::Series(&["a"])];
    let (group, targets, mut receiver) = start(&script, None);
    for (expected, expected_up, error) in [
        (vec!["a", "b"], Some(1.0), None),
        (vec!["a†", "b"], None, None),
        (vec!["b†"], Some(0.0), Some("refused")),
        (vec![], None, Some("refused")),
        (vec!["a"], Some(1.0), None),
    ] {
        let batch = receiver.recv().await.unwrap();
        assert_eq!(names(&batch), expected);
        assert_eq!(up(&batch), expected_up);
        assert_eq!(batch.observations.len(), usize::from(error.is_some()));
        assert_eq!(targets.snapshot()[0].error.as_deref(), error);
    }
    group.stop(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_hangs_is_cut_at_its_deadline_and_asked_again() {
    let (group, targets, mut receiver) = start(&[Step::Hang, Step::Series(&["a"])], None);
    let started = Instant::now();
    let batch = receiver.recv().await.unwrap();
    let Claim::Failed(failure) = &batch.observations[0].claim else { panic!("{batch:?}") };
    assert_eq!(
        (failure.kind, failure.error.as_str()),
        (FailureKind::Timeout, "http://h did not answer within 1000 ms")
    );
    assert!(started.elapsed() <= Duration::from_secs(3));
    assert_eq!(names(&receiver.recv().await.unwrap()), ["a"]);
    assert_eq!(targets.snapshot()[0].up, Some(true));
    group.stop(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_panics_is_down_with_the_reason_and_asked_again() {
    let (group, targets, mut receiver) = start(&[Step::Series(&["a"]), Step::Panic, Step::Series(&["a"])], None);
    receiver.recv().await.unwrap();
    let batch = receiver.recv().await.unwrap();
    assert_eq!((up(&batch), names(&batch)), (Some(0.0), vec!["a†".to_owned()]));
    assert_eq!(targets.snapshot()[0].error.as_deref(), Some("the collector panicked: planned"));
    assert_eq!(up(&receiver.recv().await.unwrap()), Some(1.0));
    assert!(!group.is_stopped());
    group.stop(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_can_wait_holds_no_answer_back() {
    let (group, targets, mut receiver) = start_collector(HangsWithMore, None);
    assert_eq!(names(&receiver.recv().await.unwrap()), ["a"]);
    let started = Instant::now();
    assert_eq!(names(&receiver.recv().await.unwrap()), ["a"]);
    assert_eq!(started.elapsed(), Duration::from_secs(2), "the next answer comes at its time");
    assert_eq!(targets.snapshot()[0].up, Some(true));
    group.stop(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn fast_probing_begins_at_once_and_ends() {
    let (sender, fast) = watch::channel(false);
    let (group, _targets, mut receiver) = start(&[Step::Fail], Some(fast));
    receiver.recv().await.unwrap();
    let started = Instant::now();
    sender.send(true).unwrap();
    for _ in 0..5 {
        receiver.recv().await.unwrap();
    }
    assert!(started.elapsed() <= Duration::from_secs(2), "{:?}", started.elapsed());
    sender.send(false).unwrap();
    receiver.recv().await.unwrap();
    let started = Instant::now();
    receiver.recv().await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    group.stop(Duration::from_secs(1)).await;
}
