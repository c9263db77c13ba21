//! The writer of telemetry: everything collected, and what agents and shippers of logs push, goes through here.
//!
//! Samples alone have two more ways into the metric store, because their senders need its word about each of them: remote
//! write (`http::prometheus_api`) and the results of rules (`serve`).
//!
//! Invariants: a batch is acknowledged only when its samples and records are in the write-ahead logs; a batch that came
//! from an agent's spool and comes again is acknowledged and changes nothing.

pub mod spool;

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc;

use crate::model::{Batch, LogRecord, Observation};
use crate::platform::tasks::blocking;
use crate::platform::telemetry::Telemetry;
use crate::store::logs::{LogStore, LogStoreError, Origin};
use crate::store::metrics::{MetricError, MetricStore};

/// Why a batch was not accepted. Nothing of it counts as written; sending it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("write samples")]
    Samples(#[source] MetricError),
    #[error("write log records")]
    Records(#[source] LogStoreError),
    #[error("the server is stopping")]
    Stopping,
}

impl IntakeError {
    /// Whether this batch would be refused each time.
    pub fn is_for_good(&self) -> bool {
        matches!(self, Self::Records(error) if error.is_too_large())
    }
}

#[derive(Clone, Debug, Default)]
struct Counters {
    samples: Counter,
    records: Counter,
    observations: Counter,
    duplicate_batches: Counter,
    refused_batches: Counter,
}

/// The writer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Intake {
    metrics: Arc<MetricStore>,
    logs: Arc<LogStore>,
    observations: mpsc::Sender<Vec<Observation>>,
    counters: Counters,
}

impl Intake {
    /// `observations` leads to the judge; when it is full, writers wait.
    pub fn new(
        metrics: Arc<MetricStore>,
        logs: Arc<LogStore>,
        observations: mpsc::Sender<Vec<Observation>>,
        telemetry: &Telemetry,
    ) -> Self {
        let counters = Counters::default();
        telemetry.register(|registry| {
            registry.register("intake_samples", "Samples accepted", counters.samples.clone());
            registry.register("intake_log_records", "Log records accepted", counters.records.clone());
            registry.register("intake_observations", "Observations handed to the judge", counters.observations.clone());
            let help = "Batches of agents that came again and were dropped";
            registry.register("intake_duplicate_batches", help, counters.duplicate_batches.clone());
            registry.register(
                "intake_refused_batches",
                "Batches that could not be written",
                counters.refused_batches.clone(),
            );
        });
        Self { metrics, logs, observations, counters }
    }

    /// Writes a batch; returns when it survives the death of the process.
    pub async fn accept(&self, batch: Batch) -> Result<(), IntakeError> {
        self.accept_from(None, batch).await
    }

    /// Writes a batch of an agent's spool; `origin` numbers it, so that it counts once however often it comes.
    pub async fn accept_from(&self, origin: Option<Origin>, batch: Batch) -> Result<(), IntakeError> {
        let Batch { samples, logs, observations, families } = batch;
        if !observations.is_empty() {
            self.counters.observations.inc_by(observations.len() as u64);
            self.observations.send(observations).await.map_err(|_| IntakeError::Stopping)?;
        }
        let (metrics, store) = (Arc::clone(&self.metrics), Arc::clone(&self.logs));
        let counters = self.counters.clone();
        let written = blocking(move || {
            metrics.set_metadata(&families);
            // Samples first: they may be written twice without harm, records may not.
            if !samples.is_empty() {
                metrics.append(&samples).map_err(IntakeError::Samples)?;
                counters.samples.inc_by(samples.len() as u64);
            }
            if !logs.is_empty() || origin.is_some() {
                let appended = store.append(origin.as_ref(), &logs).map_err(IntakeError::Records)?;
                counters.records.inc_by(appended.stored as u64);
                if appended.duplicate_batch {
                    counters.duplicate_batches.inc();
                }
            }
            Ok(())
        })
        .await;
        if written.is_err() {
            self.counters.refused_batches.inc();
        }
        written
    }

    /// Writes log records alone.
    pub async fn accept_logs(&self, logs: Vec<LogRecord>) -> Result<(), IntakeError> {
        self.accept(Batch { logs, ..Batch::default() }).await
    }
}
