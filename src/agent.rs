//! The agent: log files and host statistics of one database host, spooled to disk and pushed to the server.

mod push;
mod reach;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc;

use crate::collect::logs::LogSource;
use crate::collect::logs::ship::{SampleHook, SharedStatus, Ship, ShipConfig, ShipError};
use crate::intake::spool::SpoolOptions;
use crate::platform::clock::Clock;
use crate::platform::disk::Disk;
use crate::platform::http_client::{HttpError, redact};
use crate::platform::tasks::{TaskGroup, blocking};
use crate::platform::units;
use crate::platform::yaml::{self, Node, Problem};

pub use push::PushSender;

/// Configuration of the agent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Patroni's scope.
    pub cluster: String,
    /// The name of this host's member.
    pub member: String,
    /// Base URL of the server.
    #[serde(default)]
    pub server: String,
    /// Holds the token; read at every push.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Certificates to trust besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub spool: SpoolConfig,
    #[serde(default)]
    pub logs: Vec<LogSource>,
    /// Whether statistics of the host are collected.
    #[serde(default = "yes")]
    pub host: bool,
}

impl AgentConfig {
    /// Reads a configuration file's text; on failure all problems, each with its place.
    pub fn from_yaml(file: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let root = yaml::parse(file, text)?;
        let config: Self = yaml::from_node(file, &root)?;
        let problems = config.problems(file, &root);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    fn problems(&self, file: &str, root: &Node) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |node: &Node, message: String| {
            problems.push(Problem { file: file.to_owned(), line: node.line, column: node.column, message });
        };
        if !self.server.is_empty() && !is_server_address(&self.server) {
            let message = AgentError::BadServer { server: self.server.clone() }.to_string();
            problem(root.get("server").unwrap_or(root), message);
        }
        let logs = root.get("logs").map_or(&[][..], Node::items);
        for (log, node) in self.logs.iter().zip(logs) {
            if let Some(message) = log.problem() {
                problem(node, message);
            }
        }
        problems
    }
}

fn is_server_address(server: &str) -> bool {
    server.starts_with("http://") || server.starts_with("https://")
}

fn yes() -> bool {
    true
}

/// Where frames wait for the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolConfig {
    #[serde(default = "default_spool_path")]
    pub path: PathBuf,
    #[serde(default, deserialize_with = "units::deserialize_optional_size_bytes")]
    pub max_bytes: Option<u64>,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self { path: default_spool_path(), max_bytes: None }
    }
}

fn default_spool_path() -> PathBuf {
    PathBuf::from("/var/lib/daraji-agent")
}

/// Rounds of probes that wait for the spool.
const BATCHES_MAX: usize = 4;

/// What keeps the agent from starting.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("start reading logs")]
    Ship(#[from] ShipError),
    #[error("set up the connection to the server")]
    Http(#[from] HttpError),
    #[error("no server to push to; set `server: http://HOST:7432` in the configuration or give --server")]
    NoServer,
    #[error("{server:?} is no server address; it must begin with http:// or https://")]
    BadServer { server: String },
}

/// What other collectors of this host give.
#[derive(Default)]
pub struct Inputs {
    /// Samples of the host, asked every ten seconds unless `host: false`.
    pub host: Option<SampleHook>,
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inputs").field("has_host", &self.host.is_some()).finish_non_exhaustive()
    }
}

/// Starts the agent's tasks in the group and returns what it tells about itself.
pub async fn start(
    config: AgentConfig,
    clock: Clock,
    group: &TaskGroup,
    inputs: Inputs,
) -> Result<SharedStatus, AgentError> {
    if config.server.is_empty() {
        return Err(AgentError::NoServer);
    }
    if !is_server_address(&config.server) {
        return Err(AgentError::BadServer { server: redact(&config.server) });
    }
    let status: SharedStatus = Arc::default();
    env!("CARGO_PKG_VERSION").clone_into(&mut status.lock().version);
    let sender = PushSender::new(&config, clock.clone(), Arc::clone(&status))?;
    let host = inputs.host.filter(|_| config.host);
    let ship_status = Arc::clone(&status);
    let place = reach::Place { cluster: config.cluster.clone(), member: config.member.clone() };
    let probe_clock = clock.clone();
    let mut ship = blocking(move || {
        let spool = SpoolOptions { max_bytes: config.spool.max_bytes.unwrap_or(SpoolOptions::default().max_bytes) };
        let ship_config = ShipConfig {
            sources: &config.logs,
            cluster: &config.cluster,
            member: &config.member,
            spool_dir: &config.spool.path,
            spool,
        };
        Ship::open(&Disk::real(), &ship_config, clock, ship_status, host)
    })
    .await?;
    let (found, batches) = mpsc::channel(BATCHES_MAX);
    ship.set_batches(batches);
    group.spawn_until_stop("reach members", reach::run(place, sender.probe_targets(), found, probe_clock));
    ship.start(group, sender);
    Ok(status)
}

/// How long the agent's tasks get to end.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration() {
        let text = "cluster: demo\nmember: n1\nserver: http://10.0.0.9:7432\ntoken_file: /etc/daraji/token\n\
            spool: {path: /var/spool/daraji, max_bytes: 512MiB}\nlogs:\n  - {source: postgresql, path: /var/log/pg/*.csv}\n\
            \x20 - {source: patroni, path: /var/log/patroni.log, timezone: '+02:00'}\n";
        let config = AgentConfig::from_yaml("agent.yml", text).unwrap();
        assert_eq!((config.spool.max_bytes, config.logs.len(), config.host), (Some(512 << 20), 2, true));

        let text = "cluster: demo\nmember: n1\npatroni: http://127.0.0.1:8008\n";
        let problems = AgentConfig::from_yaml("agent.yml", text).unwrap_err();
        assert!(problems[0].to_string().contains("unknown key \"patroni\""), "{problems:?}");

        let text = "cluster: demo\nmember: n1\nlogs: [{source: daraji, path: /var/log/x}]\n";
        let problems = AgentConfig::from_yaml("agent.yml", text).unwrap_err();
        assert!(problems[0].to_string().contains("kept for the server's own events"), "{problems:?}");

        let text =
            "cluster: demo\nmember: n1\nservr: x\nlogs:\n  - {source: a, path: b, timezone: Mars, format: csv}\n";
        let problems = AgentConfig::from_yaml("agent.yml", text).unwrap_err();
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("did you mean \"server\""), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.contains("\"Mars\" is not a time zone")), "{problems:?}");
    }
}
