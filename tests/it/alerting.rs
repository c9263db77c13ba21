//! Helpers for tests that send notifications for real.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use daraji::model::alert::{IncidentNotice, IncidentReport};
use daraji::model::incident::Impact;
use daraji::model::{Event, EventSeverity, Labels, Sample, Timestamp};
use daraji::notify::config::{Compiled, Receivers};
use daraji::notify::pipeline::AlertingOptions;
use daraji::notify::{Alerting, AlertingConfig, worker};
use daraji::platform::clock::Clock;
use daraji::platform::tasks::TaskGroup;
use daraji::platform::yaml;
use daraji::rules::RuleData;
use daraji::store::state::StateStore;

/// Everything waits at most this long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Rules without data.
pub(crate) struct NoData;

impl RuleData for NoData {
    fn query(&self, _: &str, _: Timestamp) -> Result<Vec<(Labels, f64)>, String> {
        Ok(Vec::new())
    }

    fn append(&mut self, _: Vec<Sample>) {}
}

pub(crate) fn config(text: &str) -> Compiled {
    let root = yaml::parse("c.yml", text).unwrap();
    let config: AlertingConfig = yaml::from_node("c.yml", &root).unwrap();
    config.compile("c.yml", &root).unwrap()
}

pub(crate) fn open(dir: &Path, text: &str) -> Alerting {
    let store = Arc::new(StateStore::open(dir, Clock::system().now()).unwrap());
    let options = AlertingOptions {
        external_url: "http://daraji.example.org".to_owned(),
        config: config(text),
        ..AlertingOptions::default()
    };
    Alerting::open(store, options).unwrap()
}

/// A failover that opened at `opened_at`.
pub(crate) fn failover(opened_at: Timestamp, settled_at: Option<Timestamp>) -> IncidentNotice {
    let event = |millis: u64, member: &str, event: &str, text: &str| Event {
        id: format!("{event}-{millis}"),
        time: opened_at + Duration::from_millis(millis),
        cluster: "demo".to_owned(),
        member: Some(member.to_owned()),
        event: event.to_owned(),
        severity: EventSeverity::Critical,
        source: "dcs".to_owned(),
        text: text.to_owned(),
        fields: BTreeMap::new(),
    };
    IncidentNotice {
        id: "demo-7".to_owned(),
        cluster: "demo".to_owned(),
        title: "Failover from n1 to n2 – Führung wechselte".to_owned(),
        severity: "critical".to_owned(),
        cause: None,
        opened_at,
        settled_at,
        timeline: vec![
            event(0, "n1", "leader_lost", "the leader key of n1 is gone: its lease expired"),
            event(1874, "n2", "leader_changed", "n2 holds the leader key, timeline 4"),
        ],
        members: vec![daraji::model::alert::MemberNotice {
            name: "n2".to_owned(),
            role: "primary".to_owned(),
            state: "running".to_owned(),
            writable: Some(true),
            timeline: Some(4),
            lag_bytes: Some(0),
        }],
        report: IncidentReport {
            verdict: Some("n1 lost the leader key <lease expired>, n2 took over.".to_owned()),
            impact: Impact { write_outage_seconds: Some(21.5), ..Impact::default() },
            ..IncidentReport::default()
        },
        ..IncidentNotice::default()
    }
}

/// The delivery worker, running until it is stopped.
pub(crate) struct Worker(TaskGroup);

impl Worker {
    pub(crate) fn start(alerting: &Alerting) -> Self {
        daraji::platform::tls::install();
        let group = TaskGroup::new("delivery");
        let outbox = Arc::clone(alerting.outbox());
        let receivers: Arc<ArcSwap<Receivers>> = Arc::clone(alerting.receivers());
        group.spawn("worker", worker::run(outbox, receivers, Clock::system(), group.stop_token()));
        Self(group)
    }

    pub(crate) async fn stop(self) {
        self.0.stop(Duration::from_secs(10)).await;
    }
}

/// Waits until a question has an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let wait = async {
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}
