//! Agents that fall silent: their target and their `up` go down, also over a restart of the server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;
use tracing::warn;

use crate::collect::Targets;
use crate::collect::targets::KnownAgent;
use crate::http::agent_push::up;
use crate::intake::Intake;
use crate::model::Batch;
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::{TaskGroup, blocking};
use crate::store::state::tables::JUDGE;
use crate::store::state::{StateError, StateStore};

const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Agents that come or go are written at once, their times this often.
const WRITE_EVERY: Duration = Duration::from_mins(10);
const ROW: &str = "agents";

/// Lists the agents of the last run, and starts to watch them.
pub(super) fn watch(
    targets: &Targets,
    intake: &Intake,
    state: &Arc<StateStore>,
    group: &TaskGroup,
    clock: Clock,
) -> anyhow::Result<()> {
    let row = state.read()?.get(&JUDGE, ROW).context("read which agents there were")?;
    let known: Vec<KnownAgent> = row.and_then(|row| serde_json::from_value(row).ok()).unwrap_or_default();
    targets.remember_agents(known, clock.now());
    let (targets, intake, state) = (targets.clone(), intake.clone(), Arc::clone(state));
    group.spawn_until_stop("silent-agents", async move {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        let mut written: Option<(Instant, Vec<KnownAgent>)> = None;
        loop {
            ticks.tick().await;
            let now = clock.now();
            let silent = targets.silent_agents(now);
            let samples = silent.iter().map(|agent| up(agent, 0.0, now)).collect();
            if let Err(error) = intake.accept(Batch { samples, ..Batch::default() }).await {
                warn!(error = %chain(&error), "silent agents could not be noted");
            }
            let known = targets.known_agents();
            let is_due = written.as_ref().is_none_or(|(at, old)| at.elapsed() >= WRITE_EVERY || !same(old, &known));
            if is_due {
                let (store, row) = (Arc::clone(&state), serde_json::to_value(&known).unwrap_or_default());
                let done = blocking(move || store.write(|tx| tx.put(&JUDGE, ROW, &row))).await;
                match done.map_err(|error: StateError| chain(&error)) {
                    Ok(()) => written = Some((Instant::now(), known)),
                    Err(error) => warn!(error, "agents could not be remembered; trying again"),
                }
            }
        }
    });
    Ok(())
}

/// Whether the agents are the same, whatever their times.
fn same(old: &[KnownAgent], new: &[KnownAgent]) -> bool {
    let named = |agent: &KnownAgent| (agent.cluster.clone(), agent.member.clone(), agent.address.clone());
    old.iter().map(named).eq(new.iter().map(named))
}
