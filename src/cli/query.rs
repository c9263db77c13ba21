//! `daraji query`: PromQL in the terminal.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::{Client, ServerArgs, parse_time};
use super::{Output, print_csv, print_table, say};
use crate::model::{Labels, Timestamp};
use crate::platform::clock::Clock;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  daraji query 'up == 0'
  daraji query 'rate(pg_stat_database_xact_commit[1m])' --from 1h --step 1m -o csv")]
pub(super) struct QueryArgs {
    /// The expression
    promql: String,
    /// Evaluate at this time [default: now]
    #[arg(long, conflicts_with_all = ["from", "to"])]
    time: Option<String>,
    /// Start of a range: a duration ago (1h), RFC 3339 or Unix seconds
    #[arg(long)]
    from: Option<String>,
    /// End of the range [default: now]
    #[arg(long, requires = "from")]
    to: Option<String>,
    /// Step of the range [default: 1/250 of it]
    #[arg(long, requires = "from")]
    step: Option<String>,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: QueryArgs, clock: &Clock) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server)?;
    let now = clock.now();
    let seconds = |time: Timestamp| format!("{:.3}", time.secs_f64());
    let answer = if let Some(from) = &args.from {
        let start = parse_time(from, now)?;
        let end = parse_time(args.to.as_deref().unwrap_or("now"), now)?;
        let step =
            args.step.unwrap_or_else(|| format!("{:.0}", (end.since(start).as_secs_f64() / 250.0).ceil().max(1.0)));
        let parameters = [("query", args.promql), ("start", seconds(start)), ("end", seconds(end)), ("step", step)];
        client.get("/api/v1/query_range", &parameters).await?
    } else {
        let at = parse_time(args.time.as_deref().unwrap_or("now"), now)?;
        client.get("/api/v1/query", &[("query", args.promql), ("time", seconds(at))]).await?
    };
    let data = answer.get("data").cloned().unwrap_or(Value::Null);
    if args.output == Output::Json {
        say(&serde_json::to_string_pretty(&data)?);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = rows_of(&data);
    if args.output == Output::Csv {
        print_csv(&rows);
    } else if rows.len() == 1 {
        super::complain("no series");
    } else {
        print_table(&rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// Header and one row per sample: series, time, value.
fn rows_of(data: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![vec!["SERIES".to_owned(), "TIME".to_owned(), "VALUE".to_owned()]];
    let mut push = |series: &str, point: &Value| {
        let time = point.get(0).and_then(Value::as_f64).map_or_else(String::new, |seconds| {
            // Samples have milliseconds; what a float adds to them is noise.
            Timestamp::from_secs_f64((seconds * 1e3).round() / 1e3).to_rfc3339_millis()
        });
        let value = point.get(1).and_then(Value::as_str).unwrap_or("").to_owned();
        rows.push(vec![series.to_owned(), time, value]);
    };
    let result = data.get("result").unwrap_or(&Value::Null);
    match data.get("resultType").and_then(Value::as_str) {
        Some("scalar" | "string") => push("", result),
        _ => {
            for item in result.as_array().map_or(&[][..], Vec::as_slice) {
                let labels: Labels = item
                    .get("metric")
                    .and_then(|metric| serde_json::from_value(metric.clone()).ok())
                    .unwrap_or_default();
                let series = labels.to_string();
                if let Some(point) = item.get("value") {
                    push(&series, point);
                }
                for point in item.get("values").and_then(Value::as_array).map_or(&[][..], Vec::as_slice) {
                    push(&series, point);
                }
            }
        }
    }
    rows
}
