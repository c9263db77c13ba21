//! The command line: what each command takes, and where it goes.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 fine, 1 failed (for `status`: something is critical),
//! 2 usage or configuration.

mod agent;
mod check;
mod client;
mod incidents;
mod logs;
mod postmortem;
mod query;
mod status;
mod token;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::platform::clock::Clock;

/// The watchman of PostgreSQL high availability.
#[derive(Debug, Parser)]
#[command(
    name = "daraji",
    version,
    about = "Watches PostgreSQL HA clusters and explains why a failover happened",
    after_help = "Examples:
  daraji serve --patroni http://10.0.0.11:8008      watch a cluster, find the rest, UI on http://127.0.0.1:7432
  daraji status                                     who is leader, who lags, who says so and how old it is
  daraji logs '{cluster=\"demo\"} |= \"promoted\"' --from 1h
  daraji query 'daraji_replication_lag_bytes'
  daraji check /etc/daraji/daraji.yml"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(crate::serve::ServeArgs),
    /// Run on a database host: tail logs, read OS statistics, push to the server, spool while it is away
    Agent(agent::AgentArgs),
    /// Check configuration, rule and agent files: every problem with file, line and column
    Check(check::CheckArgs),
    /// Run rule unit tests in promtool's `test rules` format
    Test(check::TestArgs),
    /// Evaluate PromQL
    Query(query::QueryArgs),
    /// Search logs with LogQL
    Logs(logs::LogsArgs),
    /// Members, roles, lag, lock, who says what and how old it is
    Status(status::StatusArgs),
    /// Incidents, or one with its causes and timeline; take it, write a note
    Incidents(incidents::IncidentsArgs),
    /// Tell what happened from gathered log files, without a server
    Postmortem(postmortem::PostmortemArgs),
    /// Make, list and revoke access tokens
    Token(token::TokenArgs),
    /// Check a data directory's files
    Verify(verify::VerifyArgs),
}

/// How to print results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Csv,
}

/// Parses the command line and runs it.
pub async fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with 0, usage errors to stderr with 2; a closed pipe is nobody's problem.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let clock = Clock::system();
    let result = match cli.command {
        Command::Serve(args) => crate::serve::main(args, clock).await,
        Command::Agent(args) => agent::run(args, clock).await,
        Command::Check(args) => Ok(check::check(&args)),
        Command::Test(args) => check::test(&args),
        Command::Query(args) => query::run(args, &clock).await,
        Command::Logs(args) => logs::run(args, &clock).await,
        Command::Status(args) => status::status(args, &clock).await,
        Command::Incidents(args) => incidents::incidents(args).await,
        Command::Postmortem(args) => postmortem::run(args, &clock).await,
        Command::Token(args) => token::run(args, &clock).await,
        Command::Verify(args) => verify::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("daraji: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// A line of data on stdout. Nobody reads any more (`| head`): the command has done its work. Lost data is a failure.
#[expect(clippy::exit, reason = "from here there is nothing left to do, and no state to keep")]
fn say(line: &str) {
    use std::io::Write as _;
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            complain(&format!("daraji: write to stdout: {error}"));
            std::process::exit(1);
        }
    }
}

/// A line for people on stderr.
fn complain(line: &str) {
    use std::io::Write as _;
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Prints rows with aligned columns; the first row is the header.
fn print_table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        say(cells.join("  ").trim_end());
    }
}

/// Prints rows as CSV; the first row is the header.
fn print_csv(rows: &[Vec<String>]) {
    for row in rows {
        say(&row.iter().map(|cell| csv_cell(cell)).collect::<Vec<_>>().join(","));
    }
}

/// One cell of CSV, quoted where it must be.
fn csv_cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
