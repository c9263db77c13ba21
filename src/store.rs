//! What is kept: metrics, logs, state. What each guarantees stands at the top of its file.

pub mod logs;
pub mod metrics;
pub mod state;
