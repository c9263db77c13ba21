//! `daraji check` and `daraji test`: files, without a server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::{complain, say};
use crate::agent::AgentConfig;
use crate::incident::causes;
use crate::incident::causes::test_runner::{Recording, TestFiles};
use crate::platform::error::chain;
use crate::platform::yaml::{self, Node, NodeValue, Problem};
use crate::postmortem::gather::{GatherOptions, gather};
use crate::rules;
use crate::rules::promql_data::{self, MemoryData};
use crate::rules::test_runner::{self, TestEngine};
use crate::serve;

#[derive(Debug, Args)]
#[command(
    after_help = "The kind of a file is found out: a file with `groups` holds rules, one with `server` configures an agent,
anything else configures the server, and the rule files that it names are checked with it. The expressions of rules
are PromQL; in a directory named `logql`, or with --logql, they are LogQL. Exit code 2 when there is a problem.

Examples:
  daraji check /etc/daraji/daraji.yml
  daraji check alerts/*.yml alerts/logql/*.yml
  daraji check --logql log-rules.yml"
)]
pub(super) struct CheckArgs {
    /// The expressions of all rule files given are LogQL
    #[arg(long)]
    logql: bool,
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn check(args: &CheckArgs) -> ExitCode {
    let mut bad = 0;
    for path in &args.files {
        match check_file(path, args.logql) {
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
fn check_file(path: &Path, logql: bool) -> Result<&'static str, Vec<String>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| vec![format!("{name}: {error}")])?;
    let texts = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    let root = yaml::parse(&name, &text).map_err(texts)?;
    if root.get("groups").is_some() {
        return check_rules((&name, &text), logql || is_in_logql_directory(path));
    }
    if root.get("causes").is_some() {
        causes::load(&name, &text).map_err(texts)?;
        return Ok("causes");
    }
    if root.get("tests").is_some() {
        let what = if is_cause_test(&name, &text) { "causes" } else { "rules" };
        return Err(vec![format!("{name}: these are unit tests of {what}; run them with `daraji test {name}`")]);
    }
    let missing = texts(missing_files(&name, &root));
    let (kind, found) = if root.get("server").is_some() {
        ("configuration of an agent", AgentConfig::from_yaml(&name, &text).map(drop).map_err(texts))
    } else {
        ("configuration of the server", serve::check(path))
    };
    let mut problems = found.err().unwrap_or_default();
    problems.extend(missing);
    if problems.is_empty() { Ok(kind) } else { Err(problems) }
}

/// Files that keys such as `password_file` name and nobody can read: on the host where this runs, which is the one that
/// will need them.
fn missing_files(file: &str, node: &Node) -> Vec<Problem> {
    match &node.value {
        NodeValue::Seq(items) => items.iter().flat_map(|item| missing_files(file, item)).collect(),
        NodeValue::Map(pairs) => pairs.iter().flat_map(|(key, value)| missing_file(file, key, value)).collect(),
        _ => Vec::new(),
    }
}

fn missing_file(file: &str, key: &Node, value: &Node) -> Vec<Problem> {
    let (NodeValue::Text(name), NodeValue::Text(path)) = (&key.value, &value.value) else {
        return missing_files(file, value);
    };
    let Some(error) = std::fs::File::open(path).err().filter(|_| name.ends_with("_file")) else { return Vec::new() };
    let (line, column) = (value.line, value.column);
    vec![Problem { file: file.to_owned(), line, column, message: format!("{name}: read {path}: {error}") }]
}

fn check_rules((name, text): (&str, &str), logql: bool) -> Result<&'static str, Vec<String>> {
    let load = |check| rules::load(name, text, rules::file::INTERVAL_DEFAULT, check);
    let texts = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    if logql {
        return load(&promql_data::check_logql).map(|_| "rules over logs").map_err(texts);
    }
    load(&promql_data::check).map(|_| "rules").map_err(|problems| {
        let mut problems = texts(problems);
        if load(&promql_data::check_logql).is_ok() {
            problems.push(format!("{name}: it is right as LogQL: give --logql, or keep it in a directory named logql"));
        }
        problems
    })
}

fn is_in_logql_directory(path: &Path) -> bool {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.parent().and_then(Path::file_name).is_some_and(|name| name == "logql")
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
        if is_cause_test(&name, &text) {
            match test_causes(&name, &text, base) {
                Ok(failures) => failed += failures,
                Err(problems) => {
                    for problem in problems {
                        complain(&problem.to_string());
                    }
                    return Ok(ExitCode::from(2));
                }
            }
            continue;
        }
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

/// Tests of causes name recordings, tests of rules do not.
fn is_cause_test(name: &str, text: &str) -> bool {
    let tests = yaml::parse(name, text).ok();
    tests.is_some_and(|root| {
        root.get("tests").is_some_and(|tests| tests.items().iter().any(|test| test.get("recording").is_some()))
    })
}

/// Runs tests of causes; the number of failures.
fn test_causes(name: &str, text: &str, base: &Path) -> Result<usize, Vec<Problem>> {
    let recording = |folder: &str| {
        let options = GatherOptions::default();
        let gathered =
            gather(&[base.join(folder)], &options).map_err(|error| format!("{folder}: {}", chain(&error)))?;
        let cluster = gathered.survey.cluster.value.clone();
        Ok(Recording { cluster, records: gathered.records })
    };
    let text_of = |file: &str| std::fs::read_to_string(base.join(file)).map_err(|error| format!("{file}: {error}"));
    let report = causes::test_runner::run(name, text, &TestFiles { recording: &recording, text: &text_of })?;
    if report.failures.is_empty() {
        say(&format!("{name}: {} tests passed", report.tests));
    }
    for failure in &report.failures {
        complain(&format!("{name}: {failure}"));
    }
    Ok(report.failures.len())
}
