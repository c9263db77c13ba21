//! Once a second: evaluate rules, route alerts, and tell the correlator which ones fire.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use super::Stores;
use super::judging::Judging;
use crate::incident::FiringAlert;
use crate::model::alert::{INCIDENT_ALERT_NAME, INCIDENT_ANNOTATION, IncidentNotice};
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
            if done.is_ok() {
                tell_firing(&desk.alerting, &judging, now);
            }
        }
    });
}

/// Tells the correlator which alerts of clusters fire.
fn tell_firing(alerting: &Alerting, judging: &Judging, now: Timestamp) {
    let severity = |word: &str| match word {
        "critical" => EventSeverity::Critical,
        "warning" => EventSeverity::Warning,
        _ => EventSeverity::Notice,
    };
    let firing = alerting
        .alert_statuses()
        .iter()
        .map(|status| &status.alert)
        .filter(|alert| !alert.is_resolved(now) && alert.name() != INCIDENT_ALERT_NAME)
        .filter(|alert| !alert.label("cluster").is_empty())
        .map(|alert| FiringAlert {
            cluster: alert.label("cluster").to_owned(),
            name: alert.name().to_owned(),
            severity: severity(alert.label("severity")),
            since: alert.starts_at,
            summary: alert.annotation("summary").to_owned(),
            part: alert.annotation(INCIDENT_ANNOTATION) == "part",
        })
        .collect();
    // Told anew each time: the first round after a start says what has ended meanwhile.
    judging.firing.send_replace(firing);
}
