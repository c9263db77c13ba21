//! `daraji postmortem`: what happened, from gathered log files, without a server.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::client::parse_time;
use super::{complain, say};
use crate::collect::logs::time::ZoneSetting;
use crate::incident::causes::shipped;
use crate::incident::report::{self, Style};
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::tasks::blocking;
use crate::postmortem::account::{self, Postmortem, TemporaryFolder};
use crate::postmortem::gather::{GatherError, GatherOptions};

/// How long is waited before anything is said about progress.
const SILENT_AT_FIRST: Duration = Duration::from_secs(2);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(
    after_help = "Give files and folders with the logs of all hosts: PostgreSQL (csvlog, jsonlog, stderr with any
log_line_prefix), Patroni (plain, JSON), etcd, HAProxy, PgBouncer, repmgr, syslog, `journalctl -o json`, `dmesg -T`; also .gz.
Programs, hosts, time zones and wrong clocks are found out from the contents.

Examples:
  daraji postmortem /tmp/incident-42/
  daraji postmortem pg1/ pg2/ pg3/ --from 2026-11-23T05:40:00Z --to 2026-11-23T06:10:00Z -o html > incident.html
  daraji postmortem logs/ --member 'db-0*.example.org=pg1' --timezone +02:00 --skew pg2=-3.5

Exit code 0: read and told, whatever it was; 1: the logs could not be read; 2: usage."
)]
pub(super) struct PostmortemArgs {
    /// Files and folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only from here on: RFC 3339, Unix seconds, or a duration ago (2h)
    #[arg(long)]
    from: Option<String>,
    /// Only up to here
    #[arg(long)]
    to: Option<String>,
    /// The cluster's name
    #[arg(long)]
    cluster: Option<String>,
    /// Whose logs a path or host holds; the first that matches counts
    #[arg(long, value_name = "GLOB=NAME", value_parser = pair)]
    member: Vec<(String, String)>,
    /// Zone of times that carry none, such as UTC or +02:00 [default: found out]
    #[arg(long, value_name = "ZONE", value_parser = zone)]
    timezone: Option<i32>,
    /// Seconds that a member's clock was ahead [default: found out]
    #[arg(long, value_name = "MEMBER=SECONDS", value_parser = skew, allow_hyphen_values = true)]
    skew: Vec<(String, f64)>,
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
    Html,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (left, right) = text.split_once('=').ok_or("give it as GLOB=NAME")?;
    if left.is_empty() || right.is_empty() {
        return Err("give it as GLOB=NAME, neither of them empty".to_owned());
    }
    Ok((left.to_owned(), right.to_owned()))
}

fn skew(text: &str) -> Result<(String, f64), String> {
    let (member, seconds) = text.split_once('=').ok_or("give it as MEMBER=SECONDS")?;
    let seconds: f64 = seconds.parse().map_err(|_| format!("{seconds:?} is not a number of seconds"))?;
    if !seconds.is_finite() || seconds.abs() > 1e6 {
        return Err(format!("{seconds} s is no difference of clocks"));
    }
    Ok((member.to_owned(), seconds))
}

fn zone(text: &str) -> Result<i32, String> {
    let setting: Result<ZoneSetting, _> = serde_json::from_value(text.into());
    match setting {
        Ok(ZoneSetting::Fixed(seconds)) => Ok(seconds),
        Ok(ZoneSetting::Local) => {
            Err("this host's zone is not that of the logs; give UTC or an offset like +02:00".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

pub(super) async fn run(args: PostmortemArgs, clock: &Clock) -> anyhow::Result<ExitCode> {
    let time = |text: &Option<String>| text.as_deref().map(|text| parse_time(text, clock.now())).transpose();
    let (from, to) = match (time(&args.from), time(&args.to)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(error), _) | (_, Err(error)) => return Ok(usage(&format!("{error:#}"))),
    };
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Ok(usage("--from is not before --to"));
    }
    let options = GatherOptions {
        from,
        to,
        cluster: args.cluster,
        members: args.member,
        timezone: args.timezone,
        skews: args.skew.into_iter().collect(),
    };
    let unique = format!("{}-{}", std::process::id(), clock.now().nanos());
    let read = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&read);
    let paths = args.paths.clone();
    let work = blocking(move || {
        let catalogue = shipped::catalogue().map_err(|problems| {
            anyhow::anyhow!("{}", problems.first().map_or_else(String::new, ToString::to_string))
        })?;
        let folder = TemporaryFolder::new(&unique)?;
        let count = move |bytes| counter.store(bytes, Ordering::Relaxed);
        account::account(&paths, &options, &catalogue, &folder, &count).map_err(anyhow::Error::from)
    });
    let postmortem = match with_progress(work, &read).await {
        Ok(postmortem) => postmortem,
        Err(error) => {
            let is_usage = matches!(
                error.downcast_ref::<account::AccountError>(),
                Some(account::AccountError::Gather(GatherError::UnknownMember { .. }))
            );
            if is_usage {
                return Ok(usage(&format!("{error:#}")));
            }
            return Err(error);
        }
    };
    match args.output {
        Form::Text => print(&postmortem),
        Form::Json => say(&serde_json::to_string_pretty(&postmortem).context("write the postmortem as JSON")?),
        Form::Html => {
            let page = report::html(&postmortem.frame(), &postmortem.incidents);
            say(&page.map_err(|error| anyhow::anyhow!(chain(&error)))?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn usage(problem: &str) -> ExitCode {
    complain(&format!("daraji: {problem}"));
    ExitCode::from(2)
}

/// Says how much was read once it takes long, on stderr, and only to people.
async fn with_progress<T>(work: impl Future<Output = T>, read: &AtomicU64) -> T {
    let is_seen = std::io::stderr().is_terminal();
    let mut work = std::pin::pin!(work);
    let mut wait = SILENT_AT_FIRST;
    let mut has_said = false;
    loop {
        match tokio::time::timeout(wait, &mut work).await {
            Ok(done) => {
                if has_said {
                    write_progress("\r\x1b[K");
                }
                return done;
            }
            Err(_) if is_seen => {
                has_said = true;
                write_progress(&format!("\r\x1b[Kread {} MiB (two passes)", read.load(Ordering::Relaxed) >> 20));
            }
            Err(_) => {}
        }
        wait = PROGRESS_EVERY;
    }
}

fn write_progress(text: &str) {
    use std::io::Write as _;
    let mut stderr = std::io::stderr();
    drop(write!(stderr, "{text}").and_then(|()| stderr.flush()));
}

fn print(postmortem: &Postmortem) {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    say(text(postmortem, Style { colours }).trim_end());
}

fn text(postmortem: &Postmortem, style: Style) -> String {
    let frame = postmortem.frame();
    let mut out = vec![frame.title.clone()];
    out.extend(frame.made_from.first().cloned());
    if postmortem.incidents.is_empty() {
        out.push("\nNo disturbance was found.".to_owned());
    }
    for account in &postmortem.incidents {
        out.push(format!("\n{}", report::text(account, style).trim_end()));
    }
    for (title, list) in [
        ("needed no incident", &frame.notices[..]),
        ("not known", &frame.unknown[..]),
        ("made from", frame.made_from.get(1..).unwrap_or_default()),
    ] {
        if !list.is_empty() {
            out.push(format!("\n{title}"));
            out.extend(list.iter().map(|one| format!("  {}", report::plain(one))));
        }
    }
    out.join("\n")
}
