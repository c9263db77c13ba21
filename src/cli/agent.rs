//! `daraji agent`: runs until a signal.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::complain;
use crate::agent::{self, AgentConfig, Inputs, STOP_GRACE};
use crate::collect::host::HostCollector;
use crate::model::Labels;
use crate::platform::clock::Clock;
use crate::platform::tasks::TaskGroup;
use crate::platform::telemetry;

#[derive(Debug, Args)]
#[command(after_help = "Example:
  daraji agent --config /etc/daraji/agent.yml --server https://monitor:7432")]
pub(super) struct AgentArgs {
    /// URL of the server; overrides the file
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Configuration file of the agent
    #[arg(long, env = "DARAJI_AGENT_CONFIG", value_name = "FILE")]
    config: PathBuf,
}

pub(super) async fn run(args: AgentArgs, clock: Clock) -> anyhow::Result<ExitCode> {
    telemetry::init_logging();
    let text = std::fs::read_to_string(&args.config).with_context(|| format!("read {}", args.config.display()))?;
    let mut config = match AgentConfig::from_yaml(&args.config.display().to_string(), &text) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                complain(&problem.to_string());
            }
            return Ok(ExitCode::from(2));
        }
    };
    if let Some(server) = args.server {
        config.server = server;
    }
    let labels =
        [("cluster", &*config.cluster), ("member", &*config.member), ("instance", &*config.member), ("job", "node")];
    let collector = HostCollector::new("/proc", "/sys", Labels::from_pairs(labels));
    let inputs = Inputs { host: Some(Box::new(move |now| collector.collect(now))) };
    let group = TaskGroup::new("agent");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    agent::start(config, clock, &group, inputs).await?;
    let stop = group.stop_token();
    let died = tokio::select! {
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            false
        }
        _ = terminate.recv() => false,
        () = stop.cancelled() => true,
    };
    group.stop(STOP_GRACE).await;
    anyhow::ensure!(!died, "a part of the agent died; its log says which");
    Ok(ExitCode::SUCCESS)
}
