//! The HTTP surface: Prometheus, Loki and Alertmanager APIs, our own, and the UI.

pub mod loki_api;
