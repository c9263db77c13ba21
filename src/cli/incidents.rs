//! `daraji incidents`: the list, one in full, and what people do with it.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use reqwest::Method;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::client::{Client, ServerArgs};
use super::{Output, print_csv, print_table, say};
use crate::incident::report::{self, Account, Style, plain};
use crate::model::incident::Incident;
use crate::platform::http_client::percent_encode;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  daraji incidents                                  all that are known, the newest first
  daraji incidents ID                               verdict with its proofs, phases, impact, timeline, notes
  daraji incidents ID --ack --note 'on my way'      take it: it is not repeated, its end is told
  daraji incidents ID --unack                       give it back")]
pub(super) struct IncidentsArgs {
    /// Only this incident, in full
    id: Option<String>,
    /// Take the incident
    #[arg(long, requires = "id", conflicts_with = "unack")]
    ack: bool,
    /// Give it back
    #[arg(long, requires = "id")]
    unack: bool,
    /// Write something down about it
    #[arg(long, requires = "id", value_name = "TEXT")]
    note: Option<String>,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn incidents(args: IncidentsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server)?;
    let Some(id) = &args.id else {
        let body = client.get("/api/daraji/v1/incidents", &[]).await?;
        print_list(&body, args.output)?;
        return Ok(ExitCode::SUCCESS);
    };
    anyhow::ensure!(args.output != Output::Csv, "one incident has no table: print it as text, or with -o json");
    let path = format!("/api/daraji/v1/incidents/{}", percent_encode(id));
    let acknowledge = format!("{path}/acknowledge");
    if args.ack {
        let body = args.note.as_ref().map(|comment| json!({"comment": comment}));
        client.send(Method::POST, &acknowledge, body.as_ref()).await?;
    } else {
        if args.unack {
            client.send(Method::DELETE, &acknowledge, None).await?;
        }
        if let Some(text) = &args.note {
            client.send(Method::POST, &format!("{path}/notes"), Some(&json!({"text": text}))).await?;
        }
    }
    let body = client.get(&path, &[]).await?;
    if args.output == Output::Json {
        say(&serde_json::to_string_pretty(&body)?);
    } else {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        say(whole(&body, Style { colours })?.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or("-")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
}

fn print_list(body: &Value, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        say(&serde_json::to_string_pretty(body)?);
        return Ok(());
    }
    let names = ["id", "cluster", "state", "severity", "opened_at", "settled_at"];
    let mut rows = vec![names.iter().chain(&["cause", "title"]).map(|name| name.to_uppercase()).collect::<Vec<_>>()];
    for incident in body.as_array().map_or(&[][..], Vec::as_slice) {
        let mut row: Vec<String> = names.iter().map(|name| text(incident, name).to_owned()).collect();
        let cause = list(incident, "causes").first();
        row.push(cause.map_or("-".to_owned(), |one| format!("{} ({})", text(one, "name"), text(one, "confidence"))));
        row.push(plain(text(incident, "title")));
        rows.push(row);
    }
    if output == Output::Csv {
        print_csv(&rows);
    } else if rows.len() == 1 {
        super::complain("no incidents");
    } else {
        print_table(&rows);
    }
    Ok(())
}

/// One incident with what is around it.
fn whole(body: &Value, style: Style) -> anyhow::Result<String> {
    let incident =
        Incident::deserialize(body).context("the server answered with an incident that this program cannot read")?;
    let mut lines = vec![report::text(&Account::of(incident), style).trim_end().to_owned()];
    let head = |text: &str| format!("\n  {}", style.bold(text));
    let similar = list(body, "similar");
    if !similar.is_empty() {
        lines.push(head("similar before"));
    }
    for one in similar {
        let cause = one.get("cause").map_or("no cause", |cause| text(cause, "name"));
        let score = one.get("score").and_then(Value::as_f64).unwrap_or_default();
        lines.push(format!("  {score:.2}  {}  {cause}: {}", text(one, "id"), plain(text(one, "title"))));
    }
    let notifications = list(body, "notifications");
    if !notifications.is_empty() {
        lines.push(head("messages"));
    }
    for one in notifications {
        let error =
            one.get("error").and_then(Value::as_str).map_or_else(String::new, |error| format!(": {}", plain(error)));
        let [at, kind, receiver, target, state] =
            ["at", "kind", "receiver", "target", "state"].map(|name| text(one, name));
        lines.push(format!("  {at}  {kind:<8} {receiver} {target} {state}{error}"));
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_is_told_in_full() {
        let body = json!({
            "id": "demo-1", "cluster": "demo", "title": "n1 lost the leader key", "subject": "s", "severity": "critical",
            "state": "acknowledged", "opened_at": "2026-01-02T03:04:05.000Z", "settled_at": null,
            "verdict": "The host of n1 is gone", "missing": ["logs of n1"],
            "causes": [{
                "name": "host_lost", "title": "The host of n1 is gone", "confidence": "high", "score": 0.9,
                "evidence": [{"source": "etcd", "time": "2026-01-02T03:04:04.000Z", "text": "lost n1", "link": null, "sign": "its peers lost it"}],
                "against": [{"source": "patroni", "time": "2026-01-02T03:04:04.000Z", "text": "I am", "link": null, "sign": "it lives"}],
                "missing": ["not observed: the console"], "advice": "Look at the console."
            }],
            "phases": [{"name": "trigger", "at": "2026-01-02T03:04:03.000Z"}],
            "impact": {"write_outage_seconds": 21.5, "lost_wal_bytes": 0},
            "acknowledged_at": "2026-01-02T03:05:00.000Z", "acknowledged_by": "anna",
            "notes": [{"at": "2026-01-02T03:06:00.000Z", "by": "ben", "text": "no power\u{1b}[2J"}],
            "similar": [{"id": "demo-0", "title": "then", "score": 0.83, "cause": {"name": "host_lost", "title": "x"}}],
            "notifications": [{"at": "2026-01-02T03:04:10.000Z", "kind": "opening", "receiver": "ops", "target": "a@x", "state": "dead", "error": "refused"}],
        });
        let told = whole(&body, Style::default()).unwrap();
        for wanted in [
            "acknowledged 2026-01-02T03:05:00.000Z by anna",
            "note 2026-01-02T03:06:00.000Z ben: no power [2J",
            "verdict The host of n1 is gone",
            "because its peers lost it",
            "against it lives",
            "missing not observed: the console",
            "not seen   logs of n1",
            "advice  Look at the console.",
            "first sign",
            "no member was seen to take writes for 21.5 s",
            "no WAL was lost",
            "0.83  demo-0  host_lost: then",
            "opening  ops a@x dead: refused",
        ] {
            assert!(told.contains(wanted), "{wanted:?} is not in:\n{told}");
        }
        assert!(whole(&json!({}), Style::default()).is_err());
    }
}
