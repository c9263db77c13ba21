//! `daraji token`: access tokens, on the data directory of a stopped server or through a running one.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::client::{Client, ServerArgs};
use super::{print_table, say};
use crate::model::Timestamp;
use crate::platform::clock::Clock;
use crate::platform::http_client::percent_encode;
use crate::store::state::StateStore;
use crate::store::state::tokens::Role;

#[derive(Debug, Args)]
#[command(after_help = "With --data the data directory is changed directly, which needs a stopped server.
Without it a running server is asked: from its own machine, or with an admin token.

Examples:
  daraji token add grafana --role viewer
  daraji token add pg1 --role agent --data /var/lib/daraji > /etc/daraji/agent.token")]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
    /// Data directory of a server that is not running
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it; it is shown this once
    Add {
        name: String,
        /// viewer, operator, admin or agent
        #[arg(long, default_value = "viewer")]
        role: String,
    },
    /// List tokens without their secrets
    List,
    /// Make a token useless
    Revoke { name: String },
}

pub(super) async fn run(args: TokenArgs, clock: &Clock) -> anyhow::Result<ExitCode> {
    match &args.data {
        Some(dir) => offline(&args.command, dir, clock.now()),
        None => online(&args).await,
    }
}

fn offline(command: &TokenCommand, dir: &std::path::Path, now: Timestamp) -> anyhow::Result<ExitCode> {
    let state = StateStore::open(dir, now)
        .with_context(|| format!("open {} (a running server holds it; leave out --data then)", dir.display()))?;
    match command {
        TokenCommand::Add { name, role } => {
            let role =
                Role::parse(role).with_context(|| format!("{role:?} is not one of viewer, operator, admin, agent"))?;
            say(state.create_token(name, role, now)?.expose());
        }
        TokenCommand::List => {
            let mut rows = vec![vec!["NAME".to_owned(), "ROLE".to_owned(), "CREATED".to_owned()]];
            for token in state.list_tokens()? {
                rows.push(vec![token.name, token.role.as_str().to_owned(), token.created_at.to_rfc3339_millis()]);
            }
            print_table(&rows);
        }
        TokenCommand::Revoke { name } => {
            anyhow::ensure!(state.revoke_token(name)?, "no token is called {name:?}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn online(args: &TokenArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(&args.server)?;
    let path = "/api/daraji/v1/tokens";
    match &args.command {
        TokenCommand::Add { name, role } => {
            let answer = client.send(reqwest::Method::POST, path, Some(&json!({"name": name, "role": role}))).await?;
            say(answer.get("token").and_then(|token| token.as_str()).context("the server sent no token")?);
        }
        TokenCommand::List => {
            let answer = client.get(path, &[]).await?;
            let mut rows = vec![vec!["NAME".to_owned(), "ROLE".to_owned(), "CREATED".to_owned()]];
            for token in answer.as_array().map_or(&[][..], Vec::as_slice) {
                let cell = |name: &str| token.get(name).and_then(|v| v.as_str()).unwrap_or("-").to_owned();
                rows.push(vec![cell("name"), cell("role"), cell("created_at")]);
            }
            print_table(&rows);
        }
        TokenCommand::Revoke { name } => {
            let path = format!("{path}/{}", percent_encode(name));
            client.send(reqwest::Method::DELETE, &path, None).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
