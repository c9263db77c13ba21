//! One incident as a page to hand round: verdict, phases, who led when, the timeline with its proofs, what is unknown.
//!
//! The page is one file: no script, no request to anywhere, readable on paper, dark or light as the reader's system is.
//! Everything from logs is hostile text; the template escapes all of it. Rendering is pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use crate::model::Timestamp;
use crate::model::incident::{Cause, Evidence, Incident};

/// Lanes are as wide as this, in percent.
const LANE_WIDTH: f64 = 100.0;
/// Marks of time stand at least so far apart.
const MARK_WIDTH: f64 = 12.0;

/// What a member was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LaneState {
    /// Its PostgreSQL takes writes and it holds the leader key, by its own word.
    Leader,
    /// It was promoted, or led, and does not hold the leader key.
    Primary,
    Replica,
    /// Its PostgreSQL is being stopped, is down, or recovers.
    Down,
    /// It led, somebody else took over, and nothing tells whether it still takes writes.
    Unknown,
}

impl LaneState {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Primary => "primary without the key",
            Self::Replica => "replica",
            Self::Down => "down",
            Self::Unknown => "not known",
        }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }
}

/// What one member was, each state from its time on.
#[derive(Clone, Debug, Serialize)]
pub struct Lane {
    pub member: String,
    pub states: Vec<LaneChange>,
}

/// One change in a lane.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LaneChange {
    pub from: Timestamp,
    pub state: LaneState,
}

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    pub time: Timestamp,
    /// How far the clock of its host may be off; `None` when nothing tells.
    pub error_seconds: Option<f64>,
    pub member: String,
    pub source: String,
    pub severity: String,
    pub event: String,
    pub text: String,
    /// How often it was said in a row.
    pub times: u32,
    /// What it proves for the first cause, in words.
    pub proves: Option<String>,
}

/// One incident with what belongs on its page.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    #[serde(flatten)]
    pub incident: Incident,
    pub lanes: Vec<Lane>,
    pub timeline: Vec<Line>,
}

impl Account {
    /// What an incident says by itself: its events, and the evidence of its causes.
    pub fn of(incident: Incident) -> Self {
        let mut timeline: Vec<Line> = incident
            .events
            .iter()
            .map(|event| Line {
                time: event.time,
                error_seconds: Some(0.0),
                member: event.member.clone().unwrap_or_default(),
                source: event.source.clone(),
                severity: event.severity.as_str().to_owned(),
                event: event.event.clone(),
                text: event.text.clone(),
                times: 1,
                proves: None,
            })
            .collect();
        let evidence = incident.causes.first().map_or(&[][..], |cause| &cause.evidence[..]);
        timeline.extend(evidence.iter().map(|proof| Line {
            time: proof.time,
            error_seconds: None,
            member: String::new(),
            source: proof.source.clone(),
            severity: "info".to_owned(),
            event: String::new(),
            text: proof.text.clone(),
            times: 1,
            proves: Some(proof.sign.clone()),
        }));
        timeline.sort_by_key(|line| line.time);
        let lanes = lanes_of(&incident);
        Self { incident, lanes, timeline }
    }
}

/// Who led, by the judge's events.
fn lanes_of(incident: &Incident) -> Vec<Lane> {
    let mut lanes: BTreeMap<String, Vec<LaneChange>> = BTreeMap::new();
    let start = incident.phases.first().map_or(incident.opened_at, |phase| phase.at);
    for event in &incident.events {
        let Some(member) = &event.member else { continue };
        let old = event.fields.get("old_leader").filter(|old| *old != member);
        match event.event.as_str() {
            "leader_lost" => {
                let lane = lanes.entry(member.clone()).or_default();
                if lane.is_empty() && event.time > start {
                    lane.push(LaneChange { from: start, state: LaneState::Leader });
                }
                lane.push(LaneChange { from: event.time, state: LaneState::Down });
            }
            "leader_changed" | "leader_returned" => {
                if let Some(old) = old {
                    let lane = lanes.entry(old.clone()).or_default();
                    if lane.is_empty() && event.time > start {
                        lane.push(LaneChange { from: start, state: LaneState::Leader });
                    }
                    if lane.last().is_none_or(|last| last.state == LaneState::Leader) {
                        lane.push(LaneChange { from: event.time, state: LaneState::Unknown });
                    }
                }
                let lane = lanes.entry(member.clone()).or_default();
                lane.push(LaneChange { from: event.time, state: LaneState::Leader });
            }
            _ => {}
        }
    }
    lanes.into_iter().map(|(member, states)| Lane { member, states }).collect()
}

/// What stands around the incidents of one page.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    pub title: String,
    /// What the page was made from, and when the records are from.
    pub made_from: Vec<String>,
    /// What was asked for by somebody, and other things that needed no incident.
    pub notices: Vec<String>,
    /// What is not known, or was assumed.
    pub unknown: Vec<String>,
}

/// The page cannot be rendered; a fault of its template.
#[derive(Debug, thiserror::Error)]
#[error("render the report")]
pub struct ReportError(#[from] minijinja::Error);

#[derive(Serialize)]
struct PageView<'a> {
    title: &'a str,
    made_from: &'a [String],
    notices: &'a [String],
    unknown: &'a [String],
    incidents: Vec<AccountView<'a>>,
}

#[derive(Serialize)]
struct AccountView<'a> {
    id: &'a str,
    cluster: &'a str,
    title: &'a str,
    severity: &'static str,
    state: &'static str,
    opened: String,
    settled: Option<String>,
    verdict: String,
    causes: Vec<CauseView<'a>>,
    missing: &'a [String],
    phases: Vec<PhaseView>,
    impact: Vec<String>,
    taken: Option<String>,
    notes: Vec<NoteView<'a>>,
    lanes: Vec<LaneView<'a>>,
    ticks: Vec<TickView>,
    timeline: Vec<LineView<'a>>,
    left_out: u64,
}

#[derive(Serialize)]
struct CauseView<'a> {
    title: &'a str,
    name: &'a str,
    confidence: &'static str,
    score: String,
    symptom_of: Option<&'a str>,
    advice: &'a str,
    evidence: Vec<EvidenceView<'a>>,
    against: Vec<EvidenceView<'a>>,
    missing: &'a [String],
}

#[derive(Serialize)]
struct EvidenceView<'a> {
    sign: &'a str,
    time: String,
    source: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
struct PhaseView {
    name: &'static str,
    at: String,
    after: String,
}

#[derive(Serialize)]
struct NoteView<'a> {
    at: String,
    by: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
struct LaneView<'a> {
    member: &'a str,
    pieces: Vec<PieceView>,
}

#[derive(Serialize)]
struct PieceView {
    x: f64,
    width: f64,
    class: &'static str,
    word: &'static str,
    from: String,
}

#[derive(Serialize)]
struct TickView {
    x: f64,
    text: String,
}

#[derive(Serialize)]
struct LineView<'a> {
    after: String,
    #[serde(flatten)]
    line: &'a Line,
    clock: String,
    error: String,
}

/// One page with all incidents.
pub fn html(frame: &Frame, accounts: &[Account]) -> Result<String, ReportError> {
    let view = PageView {
        title: &frame.title,
        made_from: &frame.made_from,
        notices: &frame.notices,
        unknown: &frame.unknown,
        incidents: accounts.iter().map(account_view).collect(),
    };
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // The name's ending turns escaping on.
    environment.add_template("page.html", include_str!("report/page.html"))?;
    Ok(environment.get_template("page.html")?.render(minijinja::Value::from(minijinja::value::Serde(&view)))?)
}

fn account_view(account: &Account) -> AccountView<'_> {
    let incident = &account.incident;
    let start = incident.phases.first().map_or(incident.opened_at, |phase| phase.at).min(incident.opened_at);
    let (lanes, ticks) = draw(account, start);
    AccountView {
        id: &incident.id,
        cluster: &incident.cluster,
        title: &incident.title,
        severity: incident.severity.as_str(),
        state: incident.state.as_str(),
        opened: incident.opened_at.to_rfc3339_millis(),
        settled: incident.settled_at.map(Timestamp::to_rfc3339_millis),
        verdict: verdict(incident),
        causes: incident.causes.iter().map(cause_view).collect(),
        missing: &incident.missing,
        phases: incident
            .phases
            .iter()
            .map(|phase| PhaseView {
                name: phase.name.words(),
                at: phase.at.to_rfc3339_millis(),
                after: after(start, phase.at),
            })
            .collect(),
        impact: incident.impact.lines(),
        taken: taken(incident),
        notes: incident
            .handling
            .notes
            .iter()
            .map(|note| NoteView { at: note.at.to_rfc3339_millis(), by: &note.by, text: &note.text })
            .collect(),
        lanes,
        ticks,
        timeline: account
            .timeline
            .iter()
            .map(|line| LineView {
                after: after(start, line.time),
                line,
                clock: clock(line.time),
                error: error_text(line.error_seconds),
            })
            .collect(),
        left_out: incident.events_left_out,
    }
}

fn cause_view(cause: &Cause) -> CauseView<'_> {
    CauseView {
        title: &cause.title,
        name: &cause.name,
        confidence: cause.confidence.as_str(),
        score: format!("{:.2}", cause.score),
        symptom_of: cause.symptom_of.as_deref(),
        advice: &cause.advice,
        evidence: cause.evidence.iter().map(evidence_view).collect(),
        against: cause.against.iter().map(evidence_view).collect(),
        missing: &cause.missing,
    }
}

fn evidence_view(proof: &Evidence) -> EvidenceView<'_> {
    EvidenceView { sign: &proof.sign, time: clock(proof.time), source: &proof.source, text: &proof.text }
}

/// The lanes as boxes, and marks of time under them.
fn draw(account: &Account, start: Timestamp) -> (Vec<LaneView<'_>>, Vec<TickView>) {
    let incident = &account.incident;
    let last_line = account.timeline.last().map_or(incident.opened_at, |line| line.time);
    let last_change = account.lanes.iter().filter_map(|lane| lane.states.last()).map(|change| change.from).max();
    let end = incident.settled_at.unwrap_or(last_line).max(last_line).max(last_change.unwrap_or(last_line));
    let from = start - std::time::Duration::from_secs(10);
    let seconds = end.since(from).as_secs_f64().max(1.0);
    let x = |at: Timestamp| (at.since(from).as_secs_f64() / seconds * LANE_WIDTH).min(LANE_WIDTH);
    let lanes = account.lanes.iter().map(|lane| {
        let ends = lane.states.iter().skip(1).map(|change| change.from).chain([end]);
        let pieces = lane.states.iter().zip(ends).filter(|(_, until)| *until > from).map(|(change, until)| {
            let (left, right) = (x(change.from), x(until));
            PieceView {
                x: round(left),
                width: round((right - left).max(0.3)),
                class: change.state.class(),
                word: change.state.as_str(),
                from: change.from.to_rfc3339_millis(),
            }
        });
        LaneView { member: &lane.member, pieces: pieces.collect() }
    });
    let marks = incident.phases.iter().map(|phase| TickView { x: round(x(phase.at)), text: after(start, phase.at) });
    // Words that would stand on each other help nobody.
    let mut last = f64::NEG_INFINITY;
    let ticks = marks.filter(|tick| {
        let fits = tick.x - last >= MARK_WIDTH && tick.x <= LANE_WIDTH - MARK_WIDTH;
        last = if fits { tick.x } else { last };
        fits
    });
    (lanes.collect(), ticks.collect())
}

fn round(percent: f64) -> f64 {
    (percent * 100.0).round() / 100.0
}

/// What is concluded, also when it is nothing.
pub fn verdict(incident: &Incident) -> String {
    match (&incident.verdict, incident.causes.first()) {
        (Some(text), _) => text.clone(),
        (None, Some(cause)) => cause.title.clone(),
        (None, None) => "The causes were not looked for".to_owned(),
    }
}

/// Who has taken it, when.
fn taken(incident: &Incident) -> Option<String> {
    let handling = &incident.handling;
    let (at, by) = handling.acknowledged_at.zip(handling.acknowledged_by.as_deref())?;
    Some(format!("acknowledged {} by {by}", at.to_rfc3339_millis()))
}

/// `T+00:03.250`
fn after(start: Timestamp, at: Timestamp) -> String {
    let (sign, span) = if at < start { ('-', start.since(at)) } else { ('+', at.since(start)) };
    let seconds = span.as_secs();
    format!("T{sign}{:02}:{:02}.{:03}", seconds / 60, seconds % 60, span.subsec_millis())
}

/// The time of day.
fn clock(at: Timestamp) -> String {
    at.to_rfc3339_millis().chars().skip(11).take(12).collect()
}

/// How far a clock may be off; nothing where that is below what the reader sees.
pub fn error_text(seconds: Option<f64>) -> String {
    match seconds {
        Some(seconds) if seconds < 0.0005 => String::new(),
        Some(seconds) => format!("±{seconds:.1} s"),
        None => "±?".to_owned(),
    }
}

/// How the text is marked on a terminal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    pub colours: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn severity(self, word: &str, text: &str) -> String {
        let code = match word {
            "critical" => "1;31",
            "error" => "31",
            "warning" => "33",
            "notice" => "36",
            _ => return text.to_owned(),
        };
        self.paint(code, text)
    }
}

/// Control characters of logs would move the cursor: they are shown, not sent.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// One incident for the terminal.
pub fn text(account: &Account, style: Style) -> String {
    let incident = &account.incident;
    let mut out = String::new();
    let word = incident.severity.as_str();
    let head = format!("{}  {}", style.severity(word, &word.to_uppercase()), style.bold(&plain(&incident.title)));
    line(&mut out, &head);
    let until = incident
        .settled_at
        .map_or_else(|| format!("still {}", incident.state.as_str()), |at| format!("settled {}", clock(at)));
    line(&mut out, &format!("  {}  opened {}, {until}", incident.id, incident.opened_at.to_rfc3339_millis()));
    for at in &incident.reopened_at {
        line(&mut out, &format!("  open again {}", at.to_rfc3339_millis()));
    }
    if let Some(taken) = taken(incident) {
        line(&mut out, &format!("  {}", plain(&taken)));
    }
    for note in &incident.handling.notes {
        line(&mut out, &format!("  note {} {}: {}", note.at.to_rfc3339_millis(), plain(&note.by), plain(&note.text)));
    }
    line(&mut out, &format!("\n  {} {}", style.bold("verdict"), plain(&verdict(incident))));
    for (place, cause) in (1..).zip(&incident.causes) {
        text_of_cause(&mut out, place, cause, style);
    }
    for missing in &incident.missing {
        line(&mut out, &format!("  not seen   {}", plain(missing)));
    }
    let start = incident.phases.first().map_or(incident.opened_at, |phase| phase.at);
    line(&mut out, &format!("\n  {}", style.bold("phases")));
    for phase in &incident.phases {
        line(&mut out, &format!("  {}  {:<20} {}", after(start, phase.at), phase.name.words(), clock(phase.at)));
    }
    line(&mut out, &format!("\n  {}", style.bold("impact")));
    for impact in incident.impact.lines() {
        line(&mut out, &format!("  {impact}"));
    }
    line(&mut out, &format!("\n  {}", style.bold("members")));
    for lane in &account.lanes {
        let states = lane.states.iter().map(|change| format!("{} {}", clock(change.from), change.state.as_str()));
        line(&mut out, &format!("  {:<12} {}", plain(&lane.member), states.collect::<Vec<_>>().join(" → ")));
    }
    line(
        &mut out,
        &format!(
            "\n  {} (UTC; ± how far the host's clock may be off; * proves the first cause)",
            style.bold("timeline")
        ),
    );
    for one in &account.timeline {
        text_of_line(&mut out, one, style);
    }
    out
}

fn line(out: &mut String, text: &str) {
    // Writing to a String cannot fail.
    let _ok = writeln!(out, "{}", text.trim_end());
}

fn text_of_cause(out: &mut String, place: usize, cause: &Cause, style: Style) {
    let symptom =
        cause.symptom_of.as_ref().map_or_else(String::new, |root| format!(", brought about by {}", plain(root)));
    let head = format!("{place}. {} ({}, {:.2}{symptom})", plain(&cause.title), cause.confidence.as_str(), cause.score);
    line(out, &format!("  {}", style.bold(&head)));
    let mut last = "";
    for proof in &cause.evidence {
        if proof.sign != last {
            line(out, &format!("     because {}", plain(&proof.sign)));
            last = &proof.sign;
        }
        line(
            out,
            &format!("       {} {}: {}", clock(proof.time), plain(&proof.source), plain(&short(&proof.text, 160))),
        );
    }
    for proof in &cause.against {
        line(out, &format!("     against {}: {}", plain(&proof.sign), plain(&short(&proof.text, 160))));
    }
    for missing in &cause.missing {
        line(out, &format!("     missing {}", plain(missing)));
    }
    if !cause.advice.is_empty() {
        line(out, &format!("     advice  {}", plain(&cause.advice)));
    }
}

fn text_of_line(out: &mut String, one: &Line, style: Style) {
    let times = if one.times > 1 { format!(" (×{})", one.times) } else { String::new() };
    let mark = if one.proves.is_some() { '*' } else { ' ' };
    let head = format!(
        "{mark} {} {:<7} {:<10} {:<10}",
        clock(one.time),
        error_text(one.error_seconds),
        plain(&one.member),
        plain(&one.source)
    );
    let severity = style.severity(&one.severity, &format!("{:<8}", one.severity));
    line(out, &format!("  {head} {severity} {}{times}", plain(&short(&one.text, 200))));
}

/// The first line of a text, cut.
pub fn short(text: &str, chars: usize) -> String {
    let first = text.lines().next().unwrap_or("");
    let mut cut: String = first.chars().take(chars).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests;
