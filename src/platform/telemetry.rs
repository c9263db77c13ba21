//! What the program tells about itself: its log and its own metrics.

use std::io::IsTerminal as _;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;

/// Starts logging to stderr: text on a terminal, JSON otherwise. `DARAJI_LOG` sets the filter (default `info`).
pub fn init_logging() {
    let filter = EnvFilter::try_from_env("DARAJI_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // An error only says that a subscriber is installed already, as in tests.
    if std::io::stderr().is_terminal() {
        drop(builder.try_init());
    } else {
        drop(builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init());
    }
}

/// The registry of our own metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Mutex<Registry>>);

impl Default for Telemetry {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Registry::with_prefix("daraji"))))
    }
}

impl Telemetry {
    /// Registers metrics; names get the prefix `daraji_`.
    pub fn register(&self, with: impl FnOnce(&mut Registry)) {
        with(&mut self.0.lock());
    }

    /// All metrics in OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ok = prometheus_client::encoding::text::encode(&mut text, &self.0.lock());
        text
    }
}
