//! `daraji status` and `daraji incidents`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::{Client, ServerArgs};
use super::{Output, print_csv, print_table, say};
use crate::model::Event;
use crate::model::cluster::{Cluster, Health};
use crate::platform::clock::Clock;
use crate::platform::http_client::percent_encode;

#[derive(Debug, Args)]
#[command(after_help = "Exit code 1 means that a cluster is critical or has a critical incident open.")]
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
        Output::Csv => print_csv(&member_rows(&clusters)),
        Output::Table => say(crate::cluster::text::status_table(&clusters, clock.now()).trim_end()),
    }
    let incidents: Vec<Value> = serde_json::from_value(client.get("/api/daraji/v1/incidents", &[]).await?)?;
    let here = |incident: &&Value| {
        text(incident, "state") != "settled" && clusters.iter().any(|cluster| cluster.name == text(incident, "cluster"))
    };
    let open: Vec<&Value> = incidents.iter().filter(here).collect();
    if args.output == Output::Table {
        for incident in &open {
            let of = |name| text(incident, name);
            say(&format!("incident {} ({}) since {}: {}", of("id"), of("severity"), of("opened_at"), of("title")));
        }
    }
    let critical = clusters.iter().any(|cluster| cluster.health == Health::Critical)
        || open.iter().any(|incident| text(incident, "severity") == "critical");
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
    } else if args.id.is_some() && args.output == Output::Csv {
        anyhow::bail!("one incident has no table: print it as text, or with -o json");
    } else if args.id.is_some() {
        print_incident(&body);
    } else {
        print_list(&body, args.output);
    }
    Ok(ExitCode::SUCCESS)
}

/// One row for each member; what is unknown is empty.
fn member_rows(clusters: &[Cluster]) -> Vec<Vec<String>> {
    fn known(value: Option<impl ToString>) -> String {
        value.map_or_else(String::new, |value| value.to_string())
    }
    let names = ["cluster", "member", "role", "state", "writable", "timeline", "lag_bytes", "lag_seconds", "seen_at"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    for (cluster, member) in clusters.iter().flat_map(|cluster| cluster.members.iter().map(move |one| (cluster, one))) {
        rows.push(vec![
            cluster.name.clone(),
            member.name.clone(),
            member.role.as_str().to_owned(),
            member.state.clone(),
            known(member.writable),
            known(member.timeline),
            known(member.lag_bytes),
            known(member.lag_seconds),
            known(member.seen_at),
        ]);
    }
    rows
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or("-")
}

fn print_list(body: &Value, output: Output) {
    let names = ["id", "cluster", "state", "severity", "opened_at", "settled_at", "title"];
    let mut rows = vec![names.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>()];
    for incident in body.as_array().map_or(&[][..], Vec::as_slice) {
        rows.push(names.iter().map(|name| text(incident, name).to_owned()).collect());
    }
    if output == Output::Csv {
        print_csv(&rows);
    } else if rows.len() == 1 {
        super::complain("no incidents");
    } else {
        print_table(&rows);
    }
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
}

fn print_cause(number: usize, cause: &Value) {
    let of = cause
        .get("symptom_of")
        .and_then(Value::as_str)
        .map_or_else(String::new, |root| format!(", brought about by {root}"));
    say(&format!("\n{number}. {} ({} confidence{of})", text(cause, "title"), text(cause, "confidence")));
    for evidence in list(cause, "evidence") {
        say(&format!("   + {}  {}  [{}]", text(evidence, "time"), text(evidence, "text"), text(evidence, "sign")));
    }
    for evidence in list(cause, "against") {
        say(&format!("   - {}  {}  [{}]", text(evidence, "time"), text(evidence, "text"), text(evidence, "sign")));
    }
    for missing in list(cause, "missing") {
        say(&format!("   ? {}", missing.as_str().unwrap_or("")));
    }
    let advice = text(cause, "advice");
    if !matches!(advice, "" | "-") {
        say(&format!("   do: {advice}"));
    }
}

fn print_incident(body: &Value) {
    say(&format!("{}  {}  {}", text(body, "id"), text(body, "cluster"), text(body, "title")));
    say(&format!("severity {}, {}", text(body, "severity"), text(body, "state")));
    say(&format!("opened  {}", text(body, "opened_at")));
    say(&format!("settled {}", text(body, "settled_at")));
    say(&format!("verdict {}", body.get("verdict").and_then(Value::as_str).unwrap_or("not looked for yet")));
    for missing in list(body, "missing") {
        say(&format!("        not seen: {}", missing.as_str().unwrap_or("")));
    }
    for (number, cause) in (1..).zip(list(body, "causes")) {
        print_cause(number, cause);
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
