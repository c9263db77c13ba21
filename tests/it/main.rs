//! Tests of the whole, in one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::string_slice, reason = "tests")]

mod agent;
mod crash_agent;
mod collect_bad_input;
mod layers;
mod log_formats;
mod recordings;
mod postgres_versions;
mod alerting;
mod peers;
mod smtp;
mod state_crash;
mod webhook;
mod crash_metrics;
mod crash_metrics;
mod layers;
mod postgres_server;
mod postgres_tls;
mod postgres_versions;
mod prometheus_api;
mod promql_oracle;
mod promql_scripts;
