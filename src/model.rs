//! Plain values: what comes in, what is derived, what goes out.
//!
//! Invariant: no tokio, no files, no clock, no locks. Everything here can be built in a test from literals.

pub mod alert;
pub mod batch;
pub mod cluster;
pub mod event;
pub mod family;
pub mod go_regex;
pub mod incident;
pub mod labels;
pub mod leadership;
pub mod log;
pub mod lsn;
pub mod matcher;
pub mod observation;
pub mod quote;
pub mod sample;
pub mod time;

pub use alert::Alert;
pub use batch::Batch;
pub use event::{Event, EventSeverity};
pub use family::{Families, FamilyMetadata};
pub use incident::Incident;
pub use labels::{Labels, LabelsBuilder};
pub use log::{LogRecord, Severity};
pub use lsn::Lsn;
pub use matcher::{MatchOp, Matcher};
pub use observation::Observation;
pub use sample::Sample;
pub use time::Timestamp;
