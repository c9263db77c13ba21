//! `daraji postmortem`: what happened, from log files that were gathered from the nodes afterwards.
//!
//! ```text
//! gather    files -> records: which program, which member, which zone, whose clock is wrong
//! ```
//!
//! Nothing was installed before; what the agents know by configuration is found out from the contents here.

pub mod gather;
