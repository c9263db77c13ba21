//! Notifications: rendered messages and the outbox that delivers them.
//!
//! [`pipeline`] is the loop: evaluate rules, route alerts, render, and commit all of it in one transaction.
//! [`worker`] sends what the outbox holds. Nothing is sent before it is committed, so a crash can only repeat a
//! message, under the same key.

pub mod config;
pub mod mail;
pub mod outbox;
pub mod pipeline;
mod projection;
pub mod retry;
pub mod webhook;
pub mod worker;

pub use config::{AlertingConfig, ReceiverConfig};
pub use outbox::{Notification, Outbox};
pub use pipeline::Alerting;
