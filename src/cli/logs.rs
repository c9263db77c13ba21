//! `daraji logs`: LogQL in the terminal, and following.

use std::collections::HashSet;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, ServerArgs, parse_time};
use super::{Output, csv_cell, say};
use crate::model::{Labels, Timestamp};
use crate::platform::clock::Clock;

/// How often `--follow` asks again.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// Records that `--follow` can take in at once: as many as the server gives.
const FOLLOW_LIMIT: usize = 5000;
/// Records may arrive this late (an agent's spool, a slow collector) and are still shown by `--follow`.
const FOLLOW_OVERLAP: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  daraji logs '{cluster=\"demo\"}' --follow
  daraji logs '{source=\"patroni\"} |= \"promoted\"' --from 6h --limit 50
  daraji logs '{source=\"postgresql\"} | sqlstate=\"53100\"' -o json")]
pub(super) struct LogsArgs {
    /// The expression
    logql: String,
    /// Start: a duration ago (1h), RFC 3339 or Unix seconds [default: 1h; with --follow: now]
    #[arg(long)]
    from: Option<String>,
    /// End [default: now]
    #[arg(long, conflicts_with = "follow")]
    to: Option<String>,
    /// Records at most, the newest ones
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Go on with new records until interrupted
    #[arg(short, long)]
    follow: bool,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    server: ServerArgs,
}

struct Line {
    nanos: i64,
    labels: Labels,
    text: String,
}

pub(super) async fn run(args: LogsArgs, clock: &Clock) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server)?;
    let default_from = if args.follow { "10s" } else { "1h" };
    let start = parse_time(args.from.as_deref().unwrap_or(default_from), clock.now())?;
    let end = match &args.to {
        Some(to) => parse_time(to, clock.now())?,
        None => clock.now() + FOLLOW_OVERLAP,
    };
    let lines = fetch(&client, &args.logql, args.limit, (start, end)).await?;
    if args.output == Output::Csv {
        say("time,member,source,severity,line");
    }
    for line in &lines {
        print(line, args.output);
    }
    if args.follow {
        return follow(&client, &args, clock, lines).await;
    }
    if lines.is_empty() {
        super::complain("no records");
    } else if lines.len() >= args.limit {
        super::complain(&format!("these are the newest {}; --limit N shows more", args.limit));
    }
    Ok(ExitCode::SUCCESS)
}

async fn follow(client: &Client, args: &LogsArgs, clock: &Clock, first: Vec<Line>) -> anyhow::Result<ExitCode> {
    let key = |line: &Line| (line.nanos, line.labels.clone(), line.text.clone());
    let mut shown: HashSet<_> = first.iter().map(key).collect();
    loop {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let now = clock.now();
        let window = (now - FOLLOW_OVERLAP, now + FOLLOW_OVERLAP);
        match fetch(client, &args.logql, FOLLOW_LIMIT, window).await {
            Ok(lines) => {
                for line in lines.iter().filter(|line| !shown.contains(&key(line))) {
                    print(line, args.output);
                }
                shown.extend(lines.iter().map(key));
                shown.retain(|(nanos, ..)| *nanos >= window.0.nanos());
            }
            Err(error) => super::complain(&format!("daraji: {error:#}; trying again")),
        }
    }
}

/// Records of a window, oldest first.
async fn fetch(
    client: &Client,
    logql: &str,
    limit: usize,
    window: (Timestamp, Timestamp),
) -> anyhow::Result<Vec<Line>> {
    let parameters = [
        ("query", logql.to_owned()),
        ("start", window.0.nanos().to_string()),
        ("end", window.1.nanos().to_string()),
        ("limit", limit.to_string()),
        ("direction", "backward".to_owned()),
    ];
    let answer = client.get("/loki/api/v1/query_range", &parameters).await?;
    let data = answer.get("data").unwrap_or(&Value::Null);
    anyhow::ensure!(
        data.get("resultType").and_then(Value::as_str) == Some("streams"),
        "the expression is a metric query; it gives numbers, not records"
    );
    let mut lines = Vec::new();
    for stream in data.get("result").and_then(Value::as_array).map_or(&[][..], Vec::as_slice) {
        let labels = stream.get("stream").cloned().unwrap_or_else(|| json!({}));
        let labels: Labels = serde_json::from_value(labels)?;
        for entry in stream.get("values").and_then(Value::as_array).map_or(&[][..], Vec::as_slice) {
            let nanos = entry.get(0).and_then(Value::as_str).and_then(|text| text.parse().ok()).unwrap_or(0);
            let text = entry.get(1).and_then(Value::as_str).unwrap_or("").to_owned();
            lines.push(Line { nanos, labels: labels.clone(), text });
        }
    }
    lines.sort_by_key(|line| line.nanos);
    Ok(lines)
}

fn print(line: &Line, output: Output) {
    let time = Timestamp::from_nanos(line.nanos);
    let label = |name| line.labels.get(name).unwrap_or("-");
    match output {
        Output::Json => say(&json!({"time": time, "labels": line.labels, "line": line.text}).to_string()),
        Output::Csv => {
            let cells = [&time.to_string(), label("member"), label("source"), label("severity"), &line.text];
            say(&cells.iter().map(|cell| csv_cell(cell)).collect::<Vec<_>>().join(","));
        }
        Output::Table => {
            let severity = label("severity");
            let (on, off) = colour(severity);
            let head = format!("{} {:<8} {:<10}", time.to_rfc3339_millis(), label("member"), label("source"));
            say(&format!("{head} {on}{severity:<8}{off} {}", line.text));
        }
    }
}

/// Escape codes for a severity, only on a terminal that wants colours.
fn colour(severity: &str) -> (&'static str, &'static str) {
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return ("", "");
    }
    match severity {
        "critical" => ("\x1b[1;31m", "\x1b[0m"),
        "error" => ("\x1b[31m", "\x1b[0m"),
        "warning" => ("\x1b[33m", "\x1b[0m"),
        "notice" => ("\x1b[36m", "\x1b[0m"),
        "debug" => ("\x1b[2m", "\x1b[0m"),
        _ => ("", ""),
    }
}
