//! The one writer of telemetry: everything collected or pushed goes through here.

pub mod spool;
