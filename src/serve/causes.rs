//! Why incidents happen: asks the cause catalogue about each that is open or has just settled, as evidence comes in.
//!
//! It costs at most a twentieth of a core: after an answer that took long the next question waits longer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::Stores;
use super::judging::Judging;
use crate::incident::causes::{Case, Catalogue, CauseError, LOOK_BACK_MAX};
use crate::model::incident::{Incident, Verdict};
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::{TaskGroup, blocking};

/// A verdict is final so soon after the last evidence.
const EVERY: Duration = Duration::from_secs(2);
/// An incident that goes on for long is asked about less often.
const EVERY_MAX: Duration = Duration::from_mins(1);
/// Pauses are this many times as long as the answer took.
const PAUSES: u32 = 20;
/// Logs of a settled incident may come in this late: an agent that was cut off, a member that was dead.
const LATE: Duration = Duration::from_mins(2);

/// When an incident is asked about next.
#[derive(Debug)]
struct Turn {
    due: Instant,
    asked: Option<Verdict>,
}

/// Starts the task.
pub(super) fn start(catalogue: Arc<Catalogue>, stores: &Stores, judging: &Judging, group: &TaskGroup, clock: Clock) {
    let (stores, judging) = (stores.clone(), judging.clone());
    group.spawn_until_stop("causes", async move {
        let mut turns: BTreeMap<String, Turn> = BTreeMap::new();
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let incidents = Arc::clone(&judging.incidents.borrow());
            let now = clock.now();
            turns.retain(|id, _| incidents.iter().any(|incident| incident.id == *id));
            for incident in incidents.iter() {
                let is_over = incident.settled_at.is_some_and(|settled| now.since(settled) > LATE);
                let turn =
                    turns.entry(incident.id.clone()).or_insert_with(|| Turn { due: Instant::now(), asked: None });
                // One that was settled long before a start has been asked about then.
                if Instant::now() < turn.due || is_over && (turn.asked.is_some() || incident.verdict.is_some()) {
                    continue;
                }
                let started = Instant::now();
                let (asked, stores, catalogue) = (incident.clone(), stores.clone(), Arc::clone(&catalogue));
                let clock = clock.clone();
                let found = blocking(move || explain(&catalogue, &stores, &asked, &clock)).await;
                turn.due = Instant::now() + pause(started.elapsed(), now.since(incident.opened_at));
                match found {
                    Ok(verdict) if turn.asked.as_ref() != Some(&verdict) => {
                        info!(id = incident.id, "{}", verdict.text);
                        turn.asked = Some(verdict.clone());
                        if judging.verdicts.send((incident.id.clone(), verdict)).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(error) => warn!(id = incident.id, error = %chain(&error), "the cause could not be looked for"),
                }
            }
        }
    });
}

fn explain(catalogue: &Catalogue, stores: &Stores, incident: &Incident, clock: &Clock) -> Result<Verdict, CauseError> {
    let case = Case {
        cluster: &incident.cluster,
        opened_at: Some(incident.opened_at),
        start: incident.opened_at - LOOK_BACK_MAX,
        end: clock.now(),
        events: &incident.events,
        alerts: &incident.alerts,
    };
    catalogue.explain(&case, &*stores.logs, Some(&*stores.metrics))
}

/// How long to wait after an answer that took so long, about an incident of that age.
fn pause(took: Duration, age: Duration) -> Duration {
    EVERY.max(took * PAUSES).max(age / 60).min(EVERY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_bound_the_cost() {
        let seconds = Duration::from_secs;
        for (took_ms, age, expected) in [(5, 10, 2), (200, 10, 4), (60_000, 10, 60), (5, 600, 10), (5, 100_000, 60)] {
            assert_eq!(pause(Duration::from_millis(took_ms), seconds(age)), seconds(expected), "{took_ms} {age}");
        }
    }
}
