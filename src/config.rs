//! The server's configuration file: one YAML document, every part defined beside the module that uses it.
//!
//! Loading reports all problems at once, each with line and column; nothing is applied when there is one.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::alert::RouteConfig;
use crate::alert::inhibit::InhibitRule;
use crate::collect::logs::LogSource;
use crate::collect::{ClusterConfig, DiscoverConfig, ScrapeConfig};
use crate::http::listen::TlsFiles;
use crate::http::loki_api::LokiConfig;
use crate::notify::config::{AlertingConfig, GlobalConfig, ReceiverConfig};
use crate::platform::units::{deserialize_optional_duration, deserialize_optional_size_bytes};
use crate::platform::yaml::{self, Node, Problem};

/// Where the server listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7432";

/// The whole file. Every key is optional.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Clusters to watch.
    pub clusters: Vec<ClusterConfig>,
    /// DCS in which every scope becomes a cluster.
    pub discover: Vec<DiscoverConfig>,
    /// Log files on the server's own host.
    pub logs: Vec<LogSource>,
    /// Exporters, as in Prometheus.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// Rule files; with `*` and `?` in the last component. Absent: the rules that come with the program.
    pub rule_files: Option<Vec<String>>,
    /// Rule files whose expressions are LogQL.
    pub logql_rule_files: Vec<String>,
    /// Cause files. Absent: the catalogue that comes with the program.
    pub cause_files: Option<Vec<String>>,
    /// As Loki's limits of these names.
    pub loki: LokiConfig,
    pub storage: StorageConfig,
    /// One address or several.
    pub listen: Option<OneOrMany>,
    /// `none` asks for no token anywhere; otherwise loopback is open and every other address needs one.
    pub auth: Option<AuthMode>,
    pub tls: Option<TlsConfig>,
    /// How people reach the UI; for links in mails.
    pub external_url: Option<String>,
    /// Defaults of receivers, as in Alertmanager.
    pub global: GlobalConfig,
    /// The routing tree, as in Alertmanager. Absent: nothing is sent.
    pub route: Option<RouteConfig>,
    pub receivers: Vec<ReceiverConfig>,
    pub inhibit_rules: Vec<InhibitRule>,
}

impl Config {
    /// The keys whose change takes effect at a restart only.
    pub fn needs_restart(&self, running: &Self) -> Vec<&'static str> {
        let addresses = |config: &Self| config.listen.as_ref().map(OneOrMany::to_vec);
        let changes = [
            ("clusters", self.clusters != running.clusters),
            ("discover", self.discover != running.discover),
            ("logs", self.logs != running.logs),
            ("scrape_configs", self.scrape_configs != running.scrape_configs),
            ("storage", self.storage != running.storage),
            ("listen", addresses(self) != addresses(running)),
            ("auth", self.auth != running.auth),
            ("tls", self.tls != running.tls),
            ("external_url", self.external_url != running.external_url),
            ("loki", self.loki != running.loki),
        ];
        changes.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key).collect()
    }

    /// The parts that are Alertmanager's.
    pub fn alerting(&self) -> AlertingConfig {
        AlertingConfig {
            global: self.global.clone(),
            route: self.route.clone(),
            receivers: self.receivers.clone(),
            inhibit_rules: self.inhibit_rules.clone(),
            ..AlertingConfig::default()
        }
    }
}

/// What is kept, where and how long.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    pub path: PathBuf,
    pub metrics: MetricRetention,
    pub logs: LogRetention,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { path: PathBuf::from("data"), metrics: MetricRetention::default(), logs: LogRetention::default() }
    }
}

/// Bounds of the metric store; absent ones take its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricRetention {
    #[serde(deserialize_with = "deserialize_optional_duration")]
    pub retention: Option<Duration>,
    #[serde(deserialize_with = "deserialize_optional_size_bytes")]
    pub max_bytes: Option<u64>,
}

/// Bounds of the log store; absent ones take its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogRetention {
    #[serde(deserialize_with = "deserialize_optional_duration")]
    pub retention: Option<Duration>,
    #[serde(deserialize_with = "deserialize_optional_size_bytes")]
    pub max_bytes: Option<u64>,
}

/// A value or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn to_vec(&self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::Many(many) => many.clone(),
        }
    }
}

/// Whether addresses other than loopback ask for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    None,
    Token,
}

/// Certificate of the server, PEM; read again when the files change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

impl From<&TlsConfig> for TlsFiles {
    fn from(config: &TlsConfig) -> Self {
        Self { certificate: config.cert_file.clone(), key: config.key_file.clone() }
    }
}

/// Parses a document and checks what one key says about another.
pub fn parse(file: &str, text: &str) -> Result<Config, Vec<Problem>> {
    let root = yaml::parse(file, text)?;
    let (config, problems) = read(file, &root);
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// Reads a parsed document. With problems the configuration holds only the parts that name other files and each other
/// and are readable by themselves, so that what they name can be checked in the same go.
pub fn read(file: &str, root: &Node) -> (Config, Vec<Problem>) {
    match yaml::from_node::<Config>(file, root) {
        Ok(config) => {
            let problems = cross_check(file, root, &config);
            (config, problems)
        }
        Err(problems) => (readable_parts(file, root), problems),
    }
}

fn readable_parts(file: &str, root: &Node) -> Config {
    let mut config = Config {
        rule_files: part(file, root, "rule_files").unwrap_or_default(),
        logql_rule_files: part(file, root, "logql_rule_files").unwrap_or_default(),
        cause_files: part(file, root, "cause_files").unwrap_or_default(),
        ..Config::default()
    };
    // Together or not at all: a route is not wrong because the receivers cannot be read.
    let alerting = (
        part(file, root, "global"),
        part(file, root, "route"),
        part(file, root, "receivers"),
        part(file, root, "inhibit_rules"),
    );
    if let (Some(global), Some(route), Some(receivers), Some(inhibit_rules)) = alerting {
        config.global = global;
        config.route = route;
        config.receivers = receivers;
        config.inhibit_rules = inhibit_rules;
    }
    config
}

/// One key of the document; its default when it is absent, `None` when it cannot be read.
fn part<T: serde::de::DeserializeOwned + Default>(file: &str, root: &Node, key: &str) -> Option<T> {
    root.get(key).map_or_else(|| Some(T::default()), |node| yaml::from_node(file, node).ok())
}

fn scrape_problems(job: &ScrapeConfig, earlier: &[ScrapeConfig]) -> Vec<String> {
    let mut found = Vec::new();
    if earlier.iter().any(|other| other.job_name == job.job_name) {
        found.push(format!("the job_name {:?} stands twice", job.job_name));
    }
    if job.scrape_timeout.is_some_and(|timeout| timeout > job.scrape_interval) {
        found.push(format!("job {:?}: scrape_timeout is longer than scrape_interval", job.job_name));
    }
    for target in job.static_configs.iter().flat_map(|one| &one.targets).filter(|target| target.contains('/')) {
        let message = format!(
            "job {:?}: {target:?} is no target: give host:port here, the rest as scheme and metrics_path",
            job.job_name
        );
        found.push(message);
    }
    found
}

/// Problems that no part sees alone.
fn cross_check(file: &str, root: &Node, config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |path: &[&str], index: Option<usize>, message: String| {
        let mut node = root;
        for key in path {
            node = node.get(key).unwrap_or(node);
        }
        let node = index.and_then(|index| node.items().get(index)).unwrap_or(node);
        problems.push(Problem { file: file.to_owned(), line: node.line, column: node.column, message });
    };
    for (index, cluster) in config.clusters.iter().enumerate() {
        if cluster.patroni.is_empty() && (cluster.name.is_none() || cluster.dcs.is_none()) {
            let message =
                "a cluster needs 'patroni': [http://HOST:8008], any member of it; or its scope as 'name', and 'dcs'";
            problem(&["clusters"], Some(index), message.to_owned());
        }
        if let Some(name) = cluster
            .name
            .as_ref()
            .filter(|name| config.clusters.iter().take(index).any(|earlier| earlier.name.as_ref() == Some(name)))
        {
            problem(&["clusters"], Some(index), format!("the cluster name {name:?} stands twice"));
        }
    }
    let dcs =
        config.clusters.iter().enumerate().filter_map(|(at, cluster)| Some(("clusters", at, cluster.dcs.clone()?)));
    let searched = config.discover.iter().enumerate().map(|(at, discover)| ("discover", at, discover.dcs()));
    for (key, index, dcs) in dcs.chain(searched) {
        if let Some(message) = dcs.problem() {
            problem(&[key], Some(index), message.to_owned());
        }
    }
    for (index, job) in config.scrape_configs.iter().enumerate() {
        for message in scrape_problems(job, config.scrape_configs.get(..index).unwrap_or_default()) {
            problem(&["scrape_configs"], Some(index), message);
        }
    }
    for (index, log) in config.logs.iter().enumerate() {
        if let Some(message) = log.problem() {
            problem(&["logs"], Some(index), message);
        }
    }
    for (index, name) in config.loki.impossible_names() {
        let message = format!("{name:?} is no label name: pushed labels have _ where others have - . or /");
        problem(&["loki", "discover_service_name"], Some(index), message);
    }
    for address in config.listen.iter().flat_map(OneOrMany::to_vec) {
        if address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            problem(&["listen"], None, format!("{address:?} is not an address like 127.0.0.1:7432"));
        }
    }
    if config.external_url.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
        problem(&["external_url"], None, "external_url starts with http:// or https://".to_owned());
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        parse("daraji.yml", text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_smallest_file_is_one_line() {
        let config = parse("daraji.yml", "clusters: [{patroni: [http://10.0.0.11:8008]}]").unwrap();
        assert_eq!(config.clusters.len(), 1);
        assert_eq!(config.storage.path, PathBuf::from("data"));
    }

    #[test]
    fn every_problem_is_named_with_its_place() {
        let text = "clutsers: []\nclusters:\n  - patroni: []\n  - patroni: [10.0.0.1:8008]\nstorage:\n  logs: {retention: 2 weeks}\n";
        let found = problems(text);
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(found[0].starts_with("daraji.yml:1:1: unknown key \"clutsers\""), "{}", found[0]);
        assert!(found[1].starts_with("daraji.yml:4:15: "), "{}", found[1]);
        assert!(found[2].starts_with("daraji.yml:6:21: "), "{}", found[2]);
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let found =
            problems("storage: {metrics: {retention: 30d, min_bytes: 1GiB}}\nlogs: [{source: daraji, path: /p}]\n");
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with("daraji.yml:1:37: unknown key \"min_bytes\""), "{}", found[0]);
        assert!(found[1].contains("kept for the server's own events"), "{}", found[1]);
    }

    #[test]
    fn changes_that_need_a_restart_are_named() {
        let old =
            "listen: 127.0.0.1:1\nstorage: {path: a}\nrule_files: [r.yml]\nclusters: [{patroni: [http://a:8008]}]\n";
        for (new, keys) in [
            (old.to_owned(), vec![]),
            (format!("# moved\n{}", old.replace("r.yml", "s.yml")), vec![]),
            (old.replace("a:8008", "b:8008"), vec!["clusters"]),
            (old.replace("127.0.0.1:1", "[127.0.0.1:1]"), vec![]),
            (old.replace("127.0.0.1:1", "127.0.0.1:2").replace("path: a", "path: b"), vec!["storage", "listen"]),
            (
                format!("{old}auth: none\nexternal_url: http://x\nlogs: [{{source: patroni, path: /p}}]\n"),
                vec!["logs", "auth", "external_url"],
            ),
            (
                format!("{old}tls: {{cert_file: c, key_file: k}}\nscrape_configs: [{{job_name: j}}]\n"),
                vec!["scrape_configs", "tls"],
            ),
            (format!("{old}discover: [{{etcd: [http://e:2379]}}]\n"), vec!["discover"]),
        ] {
            let (old, new) = (parse("f", old).unwrap(), parse("f", &new).unwrap());
            assert_eq!(new.needs_restart(&old), keys, "{new:?}");
        }
    }

    #[test]
    fn jobs_and_logs_are_checked_before_anything_runs() {
        let text = "\
scrape_configs:
  - {job_name: a, scrape_interval: 10s, scrape_timeout: 20s}
  - {job_name: a, static_configs: [{targets: ['http://h:9100/metrics', 'h:9101']}]}
logs:
  - {source: patroni, path: logs/*.log}
";
        let found = problems(text);
        for (line, expected) in found.iter().zip([
            "daraji.yml:2:5: job \"a\": scrape_timeout is longer than scrape_interval",
            "daraji.yml:3:5: the job_name \"a\" stands twice",
            "daraji.yml:3:5: job \"a\": \"http://h:9100/metrics\" is no target",
            "daraji.yml:5:5: the path logs/*.log does not begin with /",
        ]) {
            assert!(line.starts_with(expected), "{line}");
        }
        assert_eq!(found.len(), 4, "{found:#?}");
    }

    #[test]
    fn half_a_login_is_a_problem() {
        let text = "clusters:\n  - {name: a, dcs: {etcd: [http://e:2379], username: u}}\ndiscover:\n  - {etcd: [http://e:2379], cert_file: c}\n";
        let found = problems(text);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with("daraji.yml:2:5: 'username' and 'password_file'"), "{}", found[0]);
        assert!(found[1].starts_with("daraji.yml:4:5: 'cert_file' and 'key_file'"), "{}", found[1]);
    }

    #[test]
    fn discovery_can_be_set_and_switched_off() {
        let loki = |text: &str| parse("daraji.yml", text).unwrap().loki;
        assert!(loki("").discover_log_levels);
        assert_eq!(loki("").discover_service_name.first().map(String::as_str), Some("service"));
        let some = loki("loki: {discover_service_name: [app, job]}");
        assert_eq!((some.discover_service_name, some.discover_log_levels), (vec!["app".into(), "job".into()], true));
        let none = loki("loki: {discover_service_name: [], discover_log_levels: false}");
        assert_eq!((none.discover_service_name, none.discover_log_levels), (vec![], false));
        let found = problems("loki:\n  discover_service_names: []\n");
        assert!(found[0].starts_with("daraji.yml:2:3: unknown key \"discover_service_names\""), "{found:?}");
        let found = problems("loki:\n  discover_service_name: [app, app.kubernetes.io/name]\n");
        assert!(found[0].starts_with("daraji.yml:2:32: \"app.kubernetes.io/name\" is no label name"), "{found:?}");
        assert_eq!(problems("loki: {discover_log_levels: 7}").len(), 1);
    }

    #[test]
    fn parts_are_checked_against_each_other() {
        let text = "clusters:\n  - {name: a, patroni: [http://a:8008]}\n  - {name: a, patroni: []}\nlisten: here\n";
        assert_eq!(problems(text).len(), 3);
    }
}
