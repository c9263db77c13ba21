//! The belief as text for terminals: aligned columns, ages, `unknown` spelled out, no colours.

use std::fmt::Write as _;
use std::time::Duration;

use crate::model::Timestamp;
use crate::model::cluster::{Cluster, Member, Readiness, SourceView, SplitBrainState};

/// What is older shows its age.
const OLD: Duration = Duration::from_secs(10);

/// The clusters with their members, as `daraji status` prints them.
pub fn status_table(clusters: &[Cluster], now: Timestamp) -> String {
    let mut text = String::new();
    for (index, cluster) in clusters.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        head(&mut text, cluster, now);
        text.push_str(&members_table(&cluster.members, now));
    }
    if clusters.is_empty() {
        text.push_str("no clusters\n");
    }
    text
}

/// `3s ago`, `2m ago`, `5h ago`, `never`.
pub fn ago(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", short(now.since(at))))
}

/// A duration with its largest unit.
pub fn short(duration: Duration) -> String {
    match duration.as_secs() {
        secs @ 0..60 => format!("{secs}s"),
        secs @ 60..3_600 => format!("{}m", secs / 60),
        secs @ 3_600..86_400 => format!("{}h", secs / 3_600),
        secs => format!("{}d", secs / 86_400),
    }
}

/// Bytes with a binary unit.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut unit = UNITS[0];
    for next in UNITS.iter().skip(1) {
        if value < 1_024.0 {
            break;
        }
        value /= 1_024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

fn unknown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

fn head(text: &mut String, cluster: &Cluster, now: Timestamp) {
    let stale = cluster.dcs.as_ref().is_some_and(|dcs| dcs.stale);
    let leader = match &cluster.leader {
        Some(leader) => leader.clone(),
        None if stale || cluster.dcs.is_none() => "unknown".to_owned(),
        None => "none".to_owned(),
    };
    let mut line = format!(
        "{}  health {}  leader {leader}  timeline {}",
        cluster.name,
        cluster.health.as_str(),
        unknown(cluster.timeline)
    );
    if cluster.paused == Some(true) {
        line.push_str("  paused");
    }
    if cluster.failsafe == Some(true) {
        line.push_str("  failsafe");
    }
    text.push_str(&line);
    text.push('\n');
    if let Some(split) = &cluster.split_brain {
        let word = if split.state == SplitBrainState::Confirmed { "SPLIT BRAIN" } else { "split brain possible" };
        row(text, &format!("{word}: {} since {}", split.members.join(", "), split.since.to_rfc3339_millis()));
    }
    if let Some(lock) = &cluster.lock {
        let owner = lock.owner.as_deref().unwrap_or("nobody");
        let ttl = lock.lease_ttl_seconds.map_or_else(String::new, |ttl| format!(", expires in {ttl}s"));
        let age = if stale { "STALE, read " } else { "read " };
        row(text, &format!("leader key: {owner}{ttl} ({age}{})", ago(Some(lock.seen_at), now)));
    }
    if let Some(dcs) = &cluster.dcs {
        let quorum = match dcs.quorum {
            Some(true) => "quorum",
            Some(false) => "NO QUORUM",
            None => "quorum unknown",
        };
        let healthy = dcs.members.iter().filter(|member| member.healthy == Some(true)).count();
        row(text, &format!("{}: {quorum}, {healthy} of {} members healthy", dcs.kind, dcs.members.len()));
    }
    if let Some(readiness) = &cluster.readiness {
        row(text, &failover(readiness));
    }
    if let Some(demotion) = &cluster.demotion {
        let sure = if demotion.certain { "must" } else { "is expected to" };
        let due = demotion.due_at.to_rfc3339_millis();
        row(text, &format!("without the DCS {} {sure} demote itself by {due}", demotion.member));
    }
    for reason in &cluster.reasons {
        row(text, &format!("! {}", reason.text));
    }
}

/// Who would take over, or why nobody could.
fn failover(readiness: &Readiness) -> String {
    if let Some(candidate) = &readiness.candidate {
        let lag = unknown(readiness.lag_bytes.map(bytes));
        return format!("failover: {candidate} would take over, {lag} behind");
    }
    let of_all = readiness.blockers.iter().cloned();
    let of_each = readiness
        .candidates
        .iter()
        .filter(|candidate| !candidate.blockers.is_empty())
        .map(|candidate| format!("{}: {}", candidate.member, candidate.blockers.join(", ")));
    let why: Vec<_> = of_all.chain(of_each).collect();
    format!("failover: nobody could take over: {}", why.join("; "))
}

fn row(text: &mut String, line: &str) {
    text.push_str("  ");
    text.push_str(line);
    text.push('\n');
}

/// Members as aligned columns.
fn members_table(members: &[Member], now: Timestamp) -> String {
    let head = ["MEMBER", "ROLE", "STATE", "WRITABLE", "TL", "LAG", "LAG TIME", "LSN", "SEEN", "SOURCES"];
    let mut rows = vec![head.map(str::to_owned)];
    for member in members {
        let writable = match member.writable {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        let lagging = !matches!(member.role, crate::model::cluster::Role::Primary);
        let lag = |text: Option<String>| if lagging { unknown(text) } else { "-".to_owned() };
        let sources: Vec<_> = member.sources.iter().map(|source| says(source, now)).collect();
        let left = if member.present { "" } else { " (left)" };
        rows.push([
            format!("{}{left}", member.name),
            member.role.as_str().to_owned(),
            member.state.clone(),
            writable.to_owned(),
            unknown(member.timeline),
            lag(member.lag_bytes.map(bytes)),
            lag(member.lag_seconds.map(|seconds| format!("{seconds:.1}s"))),
            unknown(member.lsn),
            ago(member.seen_at, now),
            sources.join("; "),
        ]);
    }
    align(&rows)
}

/// What a source says, with its age once that is more than a missed probe.
fn says(source: &SourceView, now: Timestamp) -> String {
    let says = if source.says.is_empty() { "unknown" } else { &source.says };
    let age = match source.seen_at.filter(|at| source.up != Some(false) && now.since(*at) > OLD) {
        Some(at) => format!(" ({})", ago(Some(at), now)),
        None => String::new(),
    };
    format!("{}: {says}{age}", source.source)
}

fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::from("  ");
        for (width, cell) in widths.iter().zip(row) {
            // Writing to a String cannot fail.
            let written = write!(line, "{cell:<width$}  ");
            debug_assert!(written.is_ok());
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
