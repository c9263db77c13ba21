//! PromQL as a whole: our scripts, and the same queries in a real Prometheus.
//!
//! ```text
//! cargo test --test promql                                                  both, with a few hundred generated queries
//! cargo test --test promql -- differential --count 20000 --seed 7           more of them; --texts shows other words in errors
//! cargo test --test promql -- differential --request 'query?query=up&time=1700000000'
//! cargo test --test promql -- scripts [FILE|DIR]... [--profile promqltest]  scripts in Prometheus' promqltest language
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::string_slice,
    clippy::float_cmp,
    reason = "tests fail loudly and say what they found"
)]

mod corpus;
mod dice;
mod differential;
mod generate;
mod notation;
#[path = "../it/programs.rs"]
mod programs;
mod scripts;
mod servers;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: promql [differential [--count N] [--seed N] [--shown N] [--texts] [--request PATH?QUERY]]\n       \
                     promql [scripts [FILE|DIR]... [--profile default|promqltest]]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // What test runners pass.
    if args.iter().any(|arg| arg == "--list") {
        println!("promql: test");
        return ExitCode::SUCCESS;
    }
    let passed = match args.first().map(String::as_str) {
        Some("differential") => differential_with(&args[1..]),
        Some("scripts") => scripts_with(&args[1..]),
        Some("--help" | "-h" | "help") => Err(USAGE.to_owned()),
        _ => Ok(scripts_with(&[]) == Ok(true) && differential_with(&[]) == Ok(true)),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(usage) => {
            eprintln!("{usage}");
            ExitCode::from(2)
        }
    }
}

fn differential_with(args: &[String]) -> Result<bool, String> {
    let mut options = differential::Options { count: 400, seed: 1, shown: 10, texts: false, request: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().cloned().ok_or_else(|| USAGE.to_owned());
        let number = |text: String| text.parse().map_err(|_| USAGE.to_owned());
        match arg.as_str() {
            "--count" => options.count = number(value()?)?,
            "--seed" => options.seed = value()?.parse().map_err(|_| USAGE.to_owned())?,
            "--shown" => options.shown = number(value()?)?,
            "--texts" => options.texts = true,
            "--request" => options.request = Some(value()?),
            _ => return Err(USAGE.to_owned()),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    Ok(runtime.block_on(differential::run(&options)))
}

fn scripts_with(args: &[String]) -> Result<bool, String> {
    let mut paths = Vec::new();
    let mut profile = scripts::Profile::Default;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--profile" => profile = scripts::Profile::named(args.next().map_or("", String::as_str)).ok_or(USAGE)?,
            path => paths.push(PathBuf::from(path)),
        }
    }
    if paths.is_empty() {
        paths.push(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/promql/scripts"));
    }
    Ok(scripts::run(&paths, profile))
}
