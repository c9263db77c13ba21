//! `daraji status` and `daraji incidents`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::{Client, ServerArgs};
use crate::platform::http_client::percent_encode;
use super::{Output, print_table, say};
use crate::model::Event;
use crate::model::cluster::{Cluster, Health};
use crate::platform::clock::Clock;

#[derive(Debug, Args)]
#[command(after_help = "Exit code 1 means that something is critical.")]
pub(super) struct StatusArgs {
    /// Only this cluster
    cluster: Option<String>,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn status(args: StatusArgs, clock: &Clock) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server)?;
    let mut body = client.get("/api/daraji/v1/clusters", &[]).await?;
    if let (Some(name), Some(all)) = (&args.cluster, body.as_array_mut()) {
        all.retain(|cluster| cluster.get("name").and_then(Value::as_str) == Some(name));
        anyhow::ensure!(!all.is_empty(), "no cluster is called {name:?}; `daraji status` lists them");
    }
    let clusters: Vec<Cluster> = serde_json::from_value(body.clone())?;
    match args.output {
        Output::Json => say(&serde_json::to_string_pretty(&body)?),
        Output::Table | Output::Csv if clusters.is_empty() => {
            super::complain("no cluster is watched; start the server with --patroni URL or a configuration");
        }
        Output::Table | Output::Csv => say(crate::cluster::text::status_table(&clusters, clock.now()).trim_end()),
    }
    let critical = clusters.iter().any(|cluster| cluster.health == Health::Critical);
    Ok(if critical { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[derive(Debug, Args)]
pub(super) struct IncidentsArgs {
    /// Only this incident, with its timeline
    id: Option<String>,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn incidents(args: IncidentsArgs, _clock: &Clock) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server)?;
    let path = match &args.id {
        Some(id) => format!("/api/daraji/v1/incidents/{}", percent_encode(id)),
        None => "/api/daraji/v1/incidents".to_owned(),
    };
    let body = client.get(&path, &[]).await?;
    if args.output == Output::Json {
        say(&serde_json::to_string_pretty(&body)?);
    } else if args.id.is_some() {
        print_incident(&body);
    } else {
        print_list(&body);
    }
    Ok(ExitCode::SUCCESS)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or("-")
}

fn print_list(body: &Value) {
    let names = ["id", "cluster", "state", "severity", "opened_at", "settled_at", "title"];
    let mut rows = vec![names.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>()];
    for incident in body.as_array().map_or(&[][..], Vec::as_slice) {
        rows.push(names.iter().map(|name| text(incident, name).to_owned()).collect());
    }
    if rows.len() == 1 {
        super::complain("no incidents");
    } else {
        print_table(&rows);
    }
}

fn print_incident(body: &Value) {
    say(&format!("{}  {}  {}", text(body, "id"), text(body, "cluster"), text(body, "title")));
    say(&format!("severity {}, {}", text(body, "severity"), text(body, "state")));
    say(&format!("opened  {}", text(body, "opened_at")));
    say(&format!("settled {}", text(body, "settled_at")));
    let causes = body.get("causes").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if causes.is_empty() {
        say("cause   unknown: not enough evidence");
    }
    for cause in causes {
        say(&format!("cause   {} ({})", text(cause, "title"), text(cause, "confidence")));
    }
    say("");
    let mut rows = Vec::new();
    for event in body.get("events").and_then(Value::as_array).map_or(&[][..], Vec::as_slice) {
        let Ok(event) = serde_json::from_value::<Event>(event.clone()) else { continue };
        let member = event.member.unwrap_or_else(|| "-".to_owned());
        rows.push(vec![event.time.to_rfc3339_millis(), member, event.event, event.text]);
    }
    print_table(&rows);
}
