//! The one place that reads the wall clock.
//!
//! Durations are measured with `tokio::time::Instant`, so that tests with paused time work.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::model::Timestamp;

/// A source of wall time: the system's, or one that a test moves.
#[derive(Clone, Debug)]
pub struct Clock(Inner);

#[derive(Clone, Debug)]
enum Inner {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    pub fn system() -> Self {
        Self(Inner::System)
    }

    /// A clock that stands still until it is moved; clones move together.
    pub fn manual(start: Timestamp) -> Self {
        Self(Inner::Manual(Arc::new(AtomicI64::new(start.nanos()))))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Inner::System => Timestamp(chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX)),
            Inner::Manual(nanos) => Timestamp(nanos.load(Ordering::SeqCst)),
        }
    }

    /// Moves a manual clock; a system clock stays what it is.
    pub fn advance(&self, by: Duration) {
        if let Inner::Manual(nanos) = &self.0 {
            let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
            nanos.fetch_add(by, Ordering::SeqCst);
        }
    }

    /// Sets a manual clock, also backwards; a system clock stays what it is.
    pub fn set(&self, to: Timestamp) {
        if let Inner::Manual(nanos) = &self.0 {
            nanos.store(to.nanos(), Ordering::SeqCst);
        }
    }
}
