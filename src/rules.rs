//! Alerting and recording rules in Prometheus' format.
