//! Tests of the whole, in one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::string_slice, reason = "tests")]

mod crash_metrics;
mod layers;
mod prometheus_api;
mod promql_oracle;
mod promql_scripts;
