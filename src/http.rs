//! The HTTP surface: Prometheus, Loki and Alertmanager APIs, our own, and the UI.

pub mod alertmanager_api;
pub mod rules_api;
