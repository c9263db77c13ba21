//! Where collectors put what they found.
//!
//! Invariant: bounded. When the reader is slow, collectors wait, and so ask less often.

use tokio::sync::mpsc;

use crate::model::Batch;

/// The writing end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sink(mpsc::Sender<Batch>);

/// Nobody reads batches any more: the process is ending.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("hand over a batch: the reader is gone")]
pub struct SinkClosed;

impl Sink {
    /// A sink and the end to read from; at most `batches_max` wait in between.
    pub fn channel(batches_max: usize) -> (Self, mpsc::Receiver<Batch>) {
        let (sender, receiver) = mpsc::channel(batches_max.max(1));
        (Self(sender), receiver)
    }

    /// Hands over a batch, waiting while the reader is behind. An empty batch is dropped.
    pub async fn accept(&self, batch: Batch) -> Result<(), SinkClosed> {
        if batch.is_empty() {
            return Ok(());
        }
        self.0.send(batch).await.map_err(|_| SinkClosed)
    }
}
