//! Incidents: what belongs together in one cluster and one window.
