//! `daraji status`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::{Client, ServerArgs};
use super::{Output, print_csv, say};
use crate::model::cluster::{Cluster, Health};
use crate::platform::clock::Clock;

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
