//! Alerts on their way out: routing, grouping, inhibition, silences, with Alertmanager's semantics.
