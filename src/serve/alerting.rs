//! Two loops, once a second each: one evaluates rules; the other routes alerts and incidents and tells the correlator which
//! alerts fire, however long rules take.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use super::Stores;
use super::judging::Judging;
use crate::incident::FiringAlert;
use crate::model::alert::{INCIDENT_ALERT_NAME, INCIDENT_ANNOTATION};
use crate::model::{EventSeverity, Sample, Timestamp};
use crate::notify::pipeline::Tick;
use crate::notify::{Alerting, worker};
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::{TaskGroup, blocking};
use crate::query::logql;
use crate::query::promql::{Engine, EngineOptions};
use crate::rules::promql_data::PromqlData;
use crate::store::metrics::MetricStore;
use crate::store::state::StateError;

const EVERY: Duration = Duration::from_secs(1);
/// One expression of a rule: no longer than the shortest interval that makes sense.
const RULE_TIMEOUT: Duration = Duration::from_secs(10);

/// What rules are evaluated over and alerts are kept by.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) stores: Stores,
    pub(super) alerting: Arc<Alerting>,
    pub(super) log_options: logql::EngineOptions,
}

impl Desk {
    /// One round on a thread that may block.
    fn evaluate(&self, now: Timestamp) -> Result<Tick, StateError> {
        let Stores { metrics, logs, .. } = &self.stores;
        let mut append = |samples: Vec<Sample>| {
            if let Err(error) = metrics.append(&samples) {
                warn!(error = %chain(&error), "samples of rules could not be written");
            }
        };
        let engine = Engine::new(EngineOptions { timeout: RULE_TIMEOUT, ..EngineOptions::default() });
        let log_engine = logql::Engine::new(logql::EngineOptions { timeout: RULE_TIMEOUT, ..self.log_options });
        let ask_logs =
            |expr: &str, at: Timestamp| log_engine.instant_text(logs, expr, at).map_err(|error| chain(&error));
        let source: &MetricStore = metrics;
        let mut data = PromqlData { engine: &engine, source, append: &mut append, logs: Some(&ask_logs) };
        self.alerting.evaluate(now, &mut data)
    }
}

/// Starts the loops and the worker that delivers.
pub(super) fn start(desk: Desk, judging: &Judging, group: &TaskGroup, clock: Clock) {
    let outbox = Arc::clone(desk.alerting.outbox());
    let receivers = Arc::clone(desk.alerting.receivers());
    group.spawn("outbox", worker::run(outbox, receivers, clock.clone(), group.stop_token()));
    group.spawn_until_stop("route", route(Arc::clone(&desk.alerting), judging.clone(), clock.clone()));
    group.spawn_until_stop("rules", async move {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut is_failing = false;
        loop {
            ticks.tick().await;
            let now = clock.now();
            let round = desk.clone();
            let done = blocking(move || round.evaluate(now)).await;
            match &done {
                Ok(tick) => tick.errors.iter().for_each(|error| warn!("rule failed: {error}")),
                Err(error) if !is_failing => error!(error = %chain(error), "rules wait until alerts can be written"),
                Err(_) => {}
            }
            is_failing = done.is_err();
        }
    });
}

async fn route(alerting: Arc<Alerting>, judging: Judging, clock: Clock) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut is_failing = false;
    loop {
        ticks.tick().await;
        let now = clock.now();
        let notices = Arc::clone(&judging.notices.borrow());
        let desk = Arc::clone(&alerting);
        let failed = blocking(move || desk.route(now, &notices)).await.err();
        match &failed {
            Some(error) if !is_failing => error!(error = %chain(error), "alerts could not be written; trying again"),
            Some(_) => {}
            None => tell_firing(&alerting, &judging, now),
        }
        is_failing = failed.is_some();
    }
}

/// Tells the correlator which alerts of clusters fire, as they were just routed.
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
