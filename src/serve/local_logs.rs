//! Log files on the server's own host: the agent's reader and spool, with the stores of the same process as receiver.

use std::sync::Arc;

use anyhow::Context as _;

use super::plan::Plan;
use crate::collect::logs::ship::{Ship, ShipConfig};
use crate::http::agent_push::origin;
use crate::intake::Intake;
use crate::intake::spool::{Ack, FrameSender, SendError, SpoolIdentity, SpoolOptions};
use crate::platform::clock::Clock;
use crate::platform::disk::Disk;
use crate::platform::error::chain;
use crate::platform::tasks::{TaskGroup, blocking};
use crate::store::logs::LogStore;
use crate::wire::agent::{EncodedFrame, decode_batch};

struct LocalSender {
    intake: Intake,
    logs: Arc<LogStore>,
}

impl FrameSender for LocalSender {
    async fn send(&mut self, identity: &SpoolIdentity, frames: Vec<EncodedFrame>) -> Result<Ack, SendError> {
        for frame in frames {
            let batch = decode_batch(&frame.body)
                .map_err(|error| SendError::Refused { seq: frame.seq, reason: chain(&error) })?;
            let from = origin(&identity.agent, identity.generation, frame.seq);
            let accepted = self.intake.accept_from(Some(from), batch).await;
            accepted.map_err(|error| {
                let (seq, reason) = (frame.seq, chain(&error));
                if error.is_for_good() { SendError::Refused { seq, reason } } else { SendError::Retry { reason } }
            })?;
        }
        let from = origin(&identity.agent, identity.generation, 0);
        Ok(Ack { seq: self.logs.high_water(&from.agent, from.generation) })
    }
}

/// Starts reading what `logs:` names, if anything.
pub(super) async fn start(
    plan: &Plan,
    intake: &Intake,
    logs: &Arc<LogStore>,
    group: &TaskGroup,
    clock: Clock,
) -> anyhow::Result<()> {
    let config = plan.config.clone();
    if config.logs.is_empty() {
        return Ok(());
    }
    let cluster = config.clusters.first().and_then(|cluster| cluster.name.clone()).unwrap_or_default();
    let opened = blocking(move || {
        let spool_dir = config.storage.path.join("spool");
        let ship = ShipConfig {
            sources: &config.logs,
            cluster: &cluster,
            member: "",
            spool_dir: &spool_dir,
            spool: SpoolOptions::default(),
        };
        Ship::open(&Disk::real(), &ship, clock, Arc::default(), None)
    });
    let ship = opened.await.context("read the logs that the configuration names")?;
    ship.start(group, LocalSender { intake: intake.clone(), logs: Arc::clone(logs) });
    Ok(())
}
