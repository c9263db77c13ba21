//! Alerting and recording rules in Prometheus' format: loading, evaluating, testing.
//!
//! Semantics are Prometheus'; what differs: the whole state of an alert survives a restart (see [`evaluate`]).

pub mod evaluate;
pub mod file;
pub mod promql_data;
pub mod shipped;
pub mod template;
pub mod test_runner;

pub use evaluate::{ActiveAlert, AlertPhase, Evaluation, RuleData, RuleHealth, RuleSet, RuleState};
pub use file::{Language, Rule, RuleGroup, RuleKind, load};
