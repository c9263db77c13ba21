//! Alerts on their way out: routing, grouping, inhibition, silences, with Alertmanager's semantics.
//!
//! Everything here is a pure function of configuration, alerts, silences and time. What differs from Alertmanager:
//! an incident's alert goes out at once and holds back the alerts of its cluster, an alert whose opening was sent
//! gets its closing sent even if it is silenced or inhibited by then, and what was sent is kept durably.

pub mod dispatch;
pub mod inhibit;
pub mod matchers;
pub mod posted;
pub mod route;
pub mod silence;

pub use dispatch::{AlertStatus, DispatchStep, Dispatcher, GroupStatus, NotificationDraft, Notified, Routing};
pub use inhibit::InhibitRule;
pub use route::{Integration, Route, RouteConfig};
pub use silence::{Silence, SilenceError, Silences};
