//! The machine under us: clock, disk, tasks, HTTP client, TLS, YAML, telemetry.
//!
//! Invariant: knows nothing about PostgreSQL, Patroni, or what is stored.

pub mod backoff;
pub mod clock;
pub mod disk;
pub mod error;
pub mod http_client;
pub mod journal;
pub mod random;
pub mod secret;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod units;
pub mod yaml;
