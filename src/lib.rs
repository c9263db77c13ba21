//! Daraji: the watchman of PostgreSQL high availability.
//!
//! Read the modules in this order; a module may use only modules above it in this list (`tests/it/layers.rs`):
//!
//! ```text
//! model                                           plain values: no tokio, no files, no clock, no locks
//! platform  wire                                  clock, disk, tasks, http client, tls; byte formats <-> model
//! store                                           metrics, logs, state
//! intake  query                                   the one writer; the two query languages
//! collect  cluster  rules  alert  incident        get facts in; understand them
//! notify                                          leaves the process: mail, webhook
//! http                                            APIs of others, our own, the UI
//! config  serve  agent  postmortem  cli           composition: know everybody, contain no logic
//! ```
//!
//! Data moves one way: `collect → intake → store`, then `store → query → rules / http`; observations go
//! `collect → cluster → events → incident → notify`.

pub mod model;
pub mod platform;
pub mod wire;

pub mod store;

pub mod intake;
pub mod query;

pub mod alert;
pub mod cluster;
pub mod collect;
pub mod incident;
pub mod rules;

pub mod notify;

pub mod http;

pub mod agent;
pub mod cli;
pub mod config;
pub mod postmortem;
pub mod serve;
