//! What a collector hands over in one go.

use crate::model::{Families, LogRecord, Observation, Sample};

/// Facts of one collection: accepted as a whole or refused as a whole.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub samples: Vec<Sample>,
    pub logs: Vec<LogRecord>,
    pub observations: Vec<Observation>,
    /// What the sources of the samples say about their metric families. Remembered while the process lives, never stored.
    pub families: Families,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.logs.is_empty() && self.observations.is_empty() && self.families.is_empty()
    }
}
