//! A member's own PostgreSQL, by SQL on its own port.
//!
//! Invariant: at most two sessions per instance, each with statement and lock timeouts, one statement in flight, and
//! our own deadline around everything, because SQL to a frozen host hangs whatever the server was told.

pub(crate) mod ha_state;
pub(crate) mod login;
pub(crate) mod passfile;
pub(crate) mod session;
pub(crate) mod statistics;
pub(crate) mod stream;
pub(crate) mod tls;
pub(crate) mod views;
pub(crate) mod write_probe;
