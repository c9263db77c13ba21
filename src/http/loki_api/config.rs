//! What Loki's users know from its limits, and what Daraji does unless told otherwise.

use serde::Deserialize;

use crate::model::labels::is_label_name;
use crate::query::logql::EngineOptions;

/// The key `loki` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LokiConfig {
    /// Labels of which the first that a pushed stream has becomes its `service_name`. Empty: no stream gets one.
    pub discover_service_name: Vec<String>,
    /// Whether lines get the label `detected_level` in queries.
    pub discover_log_levels: bool,
}

impl Default for LokiConfig {
    fn default() -> Self {
        let labels = [
            "service",
            "app",
            "application",
            "app_name",
            "name",
            "app_kubernetes_io_name",
            "container",
            "container_name",
            "k8s_container_name",
            "component",
            "workload",
            "job",
            "k8s_job_name",
        ];
        Self { discover_service_name: labels.map(str::to_owned).to_vec(), discover_log_levels: true }
    }
}

impl LokiConfig {
    /// Places in `discover_service_name` that no label can have as its name.
    pub fn impossible_names(&self) -> impl Iterator<Item = (usize, &str)> {
        let names = self.discover_service_name.iter().map(String::as_str).enumerate();
        names.filter(|(_, name)| !is_label_name(name))
    }

    /// How LogQL is evaluated, in these answers as in rules.
    pub fn engine_options(&self) -> EngineOptions {
        EngineOptions { detect_levels: self.discover_log_levels, ..EngineOptions::default() }
    }
}
