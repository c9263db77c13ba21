//! Once a second: evaluate rules, route alerts, and tell the correlator which critical ones fire.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use super::Stores;
use super::judging::Judging;
use crate::incident::AlertChange;
use crate::model::alert::{INCIDENT_ALERT_NAME, IncidentNotice};
use crate::model::{EventSeverity, Sample, Timestamp};
use crate::notify::pipeline::Tick;
use crate::notify::{Alerting, worker};
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::{TaskGroup, blocking};
use crate::query::logql;
use crate::query::promql::Engine;
use crate::rules::promql_data::PromqlData;
use crate::store::metrics::MetricStore;
use crate::store::state::StateError;

const EVERY: Duration = Duration::from_secs(1);

/// What rules are evaluated over and alerts are kept by.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) stores: Stores,
    pub(super) alerting: Arc<Alerting>,
    pub(super) log_engine: logql::Engine,
}

impl Desk {
    /// One round on a thread that may block.
    fn round(&self, now: Timestamp, notices: &[IncidentNotice]) -> Result<Tick, StateError> {
        let Stores { metrics, logs, .. } = &self.stores;
        let mut append = |samples: Vec<Sample>| {
            if let Err(error) = metrics.append(&samples) {
                warn!(error = %chain(&error), "samples of rules could not be written");
            }
        };
        let engine = Engine::default();
        let ask_logs =
            |expr: &str, at: Timestamp| self.log_engine.instant_text(logs, expr, at).map_err(|error| chain(&error));
        let source: &MetricStore = metrics;
        let mut data = PromqlData { engine: &engine, source, append: &mut append, logs: Some(&ask_logs) };
        self.alerting.tick(now, &mut data, notices)
    }
}

/// Starts the loop and the worker that delivers.
pub(super) fn start(desk: Desk, judging: &Judging, group: &TaskGroup, clock: Clock) {
    let outbox = Arc::clone(desk.alerting.outbox());
    let receivers = Arc::clone(desk.alerting.receivers());
    group.spawn("outbox", worker::run(outbox, receivers, clock.clone(), group.stop_token()));
    let judging = judging.clone();
    group.spawn_until_stop("rules", async move {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut critical = BTreeSet::new();
        let mut is_failing = false;
        loop {
            ticks.tick().await;
            let now = clock.now();
            let notices = Arc::clone(&judging.notices.borrow());
            let round = desk.clone();
            let done = blocking(move || round.round(now, &notices)).await;
            match &done {
                Ok(tick) => tick.errors.iter().for_each(|error| warn!("rule failed: {error}")),
                Err(error) if !is_failing => error!(error = %chain(error), "alerts could not be written; trying again"),
                Err(_) => {}
            }
            is_failing = done.is_err();
            tell_critical(&desk.alerting, &judging, &mut critical, now);
        }
    });
}

/// Tells the correlator which critical alerts began or ceased to fire. A full queue is tried again a second later.
fn tell_critical(alerting: &Alerting, judging: &Judging, known: &mut BTreeSet<(String, String)>, now: Timestamp) {
    let firing: BTreeSet<(String, String)> = alerting
        .alert_statuses()
        .iter()
        .map(|status| &status.alert)
        .filter(|alert| !alert.is_resolved(now) && alert.name() != INCIDENT_ALERT_NAME)
        .filter(|alert| alert.label("severity") == "critical" && !alert.label("cluster").is_empty())
        .map(|alert| (alert.label("cluster").to_owned(), alert.name().to_owned()))
        .collect();
    let changed: Vec<_> = firing.symmetric_difference(known).cloned().collect();
    for key in changed {
        let is_firing = firing.contains(&key);
        let (cluster, name) = key.clone();
        let change = AlertChange { cluster, name, severity: EventSeverity::Critical, firing: is_firing, at: now };
        if judging.alert_changes.try_send(change).is_ok() {
            if is_firing {
                known.insert(key)
            } else {
                known.remove(&key)
            };
        }
    }
}
