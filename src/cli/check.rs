//! `daraji check` and `daraji test`: files, without a server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::{complain, say};
use crate::agent::AgentConfig;
use crate::platform::yaml::{self, Problem};
use crate::rules;
use crate::rules::promql_data::{self, MemoryData};
use crate::rules::test_runner::{self, TestEngine};
use crate::serve;

#[derive(Debug, Args)]
#[command(
    after_help = "The kind of a file is found out: a file with `groups` holds rules, one with `server` configures an agent,
anything else configures the server. Exit code 2 when there is a problem."
)]
pub(super) struct CheckArgs {
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn check(args: &CheckArgs) -> ExitCode {
    let mut bad = 0;
    for path in &args.files {
        match check_file(path) {
            Ok(kind) => say(&format!("{}: {kind}, no problems", path.display())),
            Err(problems) => {
                bad += 1;
                for problem in problems {
                    complain(&problem);
                }
            }
        }
    }
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// What kind of file it is, or all that is wrong with it.
fn check_file(path: &Path) -> Result<&'static str, Vec<String>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| vec![format!("{name}: {error}")])?;
    let texts = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    let root = yaml::parse(&name, &text).map_err(texts)?;
    if root.get("groups").is_some() {
        rules::load(&name, &text, Duration::from_mins(1), &promql_data::check).map_err(texts)?;
        return Ok("rules");
    }
    if root.get("server").is_some() {
        yaml::from_node::<AgentConfig>(&name, &root).map_err(texts)?;
        return Ok("configuration of an agent");
    }
    serve::check(path)?;
    Ok("configuration of the server")
}

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// Files in promtool's `test rules` format
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn test(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let mut failed = 0;
    for path in &args.files {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("read {name}"))?;
        let base = path.parent().unwrap_or(Path::new("."));
        let engine = TestEngine {
            new_store: &|| Box::new(MemoryData::default()),
            check: &promql_data::check,
            read_file: &|file| std::fs::read_to_string(base.join(file)).map_err(|error| format!("{file}: {error}")),
        };
        match test_runner::run(&name, &text, &engine) {
            Ok(report) if report.failures.is_empty() => say(&format!("{name}: {} tests passed", report.tests)),
            Ok(report) => {
                failed += report.failures.len();
                for failure in report.failures {
                    complain(&format!("{name}: {failure}"));
                }
            }
            Err(problems) => {
                for problem in problems {
                    complain(&problem.to_string());
                }
                return Ok(ExitCode::from(2));
            }
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
