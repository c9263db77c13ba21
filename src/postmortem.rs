//! `daraji postmortem`: what happened, from log files that were gathered from the nodes afterwards.
//!
//! ```text
//! gather    files -> records: which program, which member, which zone, whose clock is wrong
//! watch     records -> events and belief, as the judge makes them of observations
//! message   what a record says, for people
//! account   all of it: temporary log store, the server's correlator and cause engine, one account per incident
//! ```
//!
//! Nothing was installed before; what the agents know by configuration is found out from the contents here.

pub mod account;
pub mod gather;
pub mod message;
pub mod watch;
