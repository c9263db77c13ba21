//! Tests of the whole, in one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::string_slice, reason = "tests")]

mod crash_logs;
mod layers;
