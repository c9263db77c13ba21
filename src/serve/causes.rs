//! Looks for the causes of open and recently settled incidents, again and again while evidence comes in.
//!
//! Bounded: one incident at a time, each at most every 2 s while it is young and more rarely later. Logs that arrive
//! late, such as those of a host that was away, still count for a while after the incident has settled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Stores;
use crate::incident::causes::{Case, Catalogue, CauseError, LOOK_BACK_MAX};
use crate::model::Timestamp;
use crate::model::incident::{Incident, IncidentAlert, Verdict};
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::{TaskGroup, blocking};
use crate::query::promql::SeriesSource;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An incident is young for so long after its opening or its settling.
const YOUNG: Duration = Duration::from_mins(5);
const YOUNG_EVERY: Duration = Duration::from_secs(2);
const OLD_EVERY: Duration = Duration::from_secs(30);
/// A look that takes long, in a storm of logs, is followed by a pause that is longer by this.
const PAUSE_PER_LOOK: u32 = 20;
/// Later evidence belongs to what came of it, not to its cause.
const LOOK_AHEAD: Duration = Duration::from_mins(30);
/// A cluster is well for at least this long before an incident counts as settled.
const SETTLED_AFTER: Duration = Duration::from_secs(30);
/// Verdicts that may wait for the judge's task.
pub(super) const VERDICTS_MAX: usize = 64;

/// What was found about an incident.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) incident: String,
    /// How often the incident had come back by then.
    pub(super) reopened: u32,
    pub(super) verdict: Verdict,
}

/// Starts the task.
pub(super) fn start(
    catalogue: Arc<Catalogue>,
    stores: &Stores,
    (incidents, found): (watch::Receiver<Arc<Vec<Incident>>>, mpsc::Sender<Found>),
    (group, clock): (&TaskGroup, Clock),
) {
    let stores = stores.clone();
    group.spawn_until_stop("causes", async move {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // When each is looked at again, with how often it had come back: then it is young again.
        let mut due_at: BTreeMap<(String, u32), Instant> = BTreeMap::new();
        loop {
            ticks.tick().await;
            let current = Arc::clone(&incidents.borrow());
            due_at.retain(|(id, _), _| current.iter().any(|incident| incident.id == *id));
            for incident in current.iter() {
                let now = clock.now();
                let due = due_at.entry((incident.id.clone(), incident.reopened)).or_insert_with(Instant::now);
                if Instant::now() < *due {
                    continue;
                }
                let asked_at = Instant::now();
                let (catalogue, stores, one) = (Arc::clone(&catalogue), stores.clone(), incident.clone());
                let calm_since = calm_since(incident, &current);
                let explained = blocking(move || explain(&catalogue, &stores, (&one, calm_since), now)).await;
                *due = Instant::now() + pause(incident, now).max(asked_at.elapsed() * PAUSE_PER_LOOK);
                match explained {
                    Ok(verdict) if incident.concluded().as_ref() != Some(&verdict) => {
                        info!(id = incident.id, verdict = verdict.text, "cause of an incident");
                        let (id, reopened) = (incident.id.clone(), incident.reopened);
                        if found.send(Found { incident: id, reopened, verdict }).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(error) => warn!(id = incident.id, error = %chain(&error), "causes could not be looked for"),
                }
            }
        }
    });
}

/// Until an incident is looked at again.
fn pause(incident: &Incident, now: Timestamp) -> Duration {
    let since = incident.settled_at.unwrap_or(incident.last_opened_at());
    if now.since(since) < YOUNG { YOUNG_EVERY } else { OLD_EVERY }
}

/// When the trouble before this was over: another incident of the cluster, or this one before it came back.
fn calm_since(incident: &Incident, all: &[Incident]) -> Option<Timestamp> {
    let opened_at = incident.last_opened_at();
    let others = all.iter().filter(|other| other.cluster == incident.cluster && other.id != incident.id);
    let ended = others.filter_map(|other| other.settled_at).chain(incident.settled_before());
    ended.filter(|at| *at <= opened_at).max().map(|at| at - SETTLED_AFTER)
}

fn explain(
    catalogue: &Catalogue,
    stores: &Stores,
    (incident, calm_since): (&Incident, Option<Timestamp>),
    now: Timestamp,
) -> Result<Verdict, CauseError> {
    let opened_at = incident.last_opened_at();
    let alerts: Vec<IncidentAlert> =
        incident.alerts.iter().filter(|alert| alert.resolved_at.is_none_or(|at| at >= opened_at)).cloned().collect();
    let case = Case {
        cluster: &incident.cluster,
        opened_at: Some(opened_at),
        start: opened_at - LOOK_BACK_MAX,
        end: (opened_at + LOOK_AHEAD).min(now),
        began_at: Some(incident.began_at()),
        calm_since,
        events: incident.current_events(),
        alerts: &alerts,
    };
    let metrics: &dyn SeriesSource = &*stores.metrics;
    catalogue.explain(&case, &*stores.logs, Some(metrics))
}
