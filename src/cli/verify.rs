//! `daraji verify`: whether a data directory's files are what was written.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::{complain, say};
use crate::platform::disk::Disk;
use crate::store::metrics;

#[derive(Debug, Args)]
#[command(after_help = "Reads every byte of the metric store and changes nothing; a running server does not mind.
Exit code 1 when something is damaged.

Example:
  daraji verify /var/lib/daraji")]
pub(super) struct VerifyArgs {
    /// Data directory of a server, or a backup of one
    dir: PathBuf,
}

/// Checks the directory and tells every problem.
pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let dir = args.dir.join("metrics");
    let is_there = dir.is_dir();
    anyhow::ensure!(
        is_there,
        "there is no metric store in {}; name the directory that storage.path names",
        args.dir.display()
    );
    let report =
        metrics::verify(&dir, &Disk::real()).with_context(|| format!("read the metric store in {}", dir.display()))?;
    for path in &report.set_aside {
        complain(&format!("set aside before: {}", path.display()));
    }
    for problem in &report.problems {
        complain(problem);
    }
    let (blocks, logs, samples, problems) = (report.blocks, report.head_logs, report.samples, report.problems.len());
    say(&format!("metrics: {blocks} blocks with {samples} samples, {logs} logs of recent samples, {problems} damaged"));
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
