//! Tests of the whole, in one binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::string_slice,
    clippy::similar_names,
    clippy::format_push_string,
    clippy::cast_possible_truncation,
    clippy::float_cmp,
    reason = "tests fail loudly, and their data is known"
)]

mod agent;
mod alerting;
mod causes;
mod collect_bad_input;
mod crash_agent;
mod crash_logs;
mod crash_metrics;
mod crash_server;
mod etcd_auth;
mod incidents;
mod layers;
mod log_formats;
mod loki_answers;
mod peers;
mod postgres_server;
mod postgres_tls;
mod postgres_versions;
mod postmortem;
mod programs;
mod prometheus_api;
mod recordings;
mod restart_state;
mod serve_access;
mod serve_bad_input;
mod serve_members;
mod serve_reload;
mod serve_targets;
mod server;
mod smtp;
mod state_crash;
mod ui_fresh;
mod webhook;
