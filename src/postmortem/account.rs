//! From files to accounts of incidents: records into a temporary log store, events through the server's correlator, and
//! its cause engine over the store.
//!
//! - The store is removed when the account is done, or dropped.
//! - An incident without anything grave is told only when its cause is found: small signs alone are no disturbance.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::incident::causes::{Case, Catalogue, CauseError, LOOK_BACK_MAX};
use crate::incident::report::{Account, Frame, Lane, LaneChange, LaneState, Line, short};
use crate::incident::{Correlator, CorrelatorOptions, IncidentChange};
use crate::model::incident::{Confidence, Incident};
use crate::model::{Event, EventSeverity, LogRecord, Matcher, Severity, Timestamp};
use crate::platform::clock::Clock;
use crate::platform::disk::Disk;
use crate::store::logs::{LogOptions, LogQuery, LogStore, LogStoreError};

use super::gather::{Certainty, Finding, GatherError, GatherOptions, LogPart, MemberClock, Note, Progress, Survey};
use super::message::message;
use super::watch::{Lanes, Watch};

/// The belief is looked at so often, in the time of the logs.
const TICK: Duration = Duration::from_secs(1);
/// In a silence of the logs it is looked at this often at most.
const SILENT_TICKS_MAX: u32 = 900;
/// Incidents that are told at most; the gravest stay.
const INCIDENTS_MAX: usize = 50;
/// Lines of one timeline at most; the least severe go.
const LINES_MAX: usize = 300;
/// The timeline begins before the first sign and ends after the settling.
const BEFORE: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(15);
/// What belongs to an incident may come this long after its last event.
const TAIL: Duration = Duration::from_mins(2);
/// Nothing is too old for a postmortem.
const RETENTION: Duration = Duration::from_hours(24 * 365 * 200);

/// Why there is no account.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error(transparent)]
    Gather(#[from] GatherError),
    #[error("make room for the records in {path}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("store the records")]
    Store(#[from] LogStoreError),
    #[error("look for causes")]
    Causes(#[from] CauseError),
}

/// All that the logs tell.
#[derive(Debug, Serialize)]
pub struct Postmortem {
    pub cluster: Finding<String>,
    /// Of the first and the last record.
    pub from: Timestamp,
    pub to: Timestamp,
    pub records: u64,
    pub incidents: Vec<Account>,
    /// What was asked for by somebody and went well.
    pub notices: Vec<Event>,
    /// Small signs that led to nothing and have no known cause.
    pub minor: Vec<String>,
    pub logs: Vec<LogPart>,
    pub clocks: Vec<MemberClock>,
    pub notes: Vec<Note>,
}

/// A folder that is gone when this is dropped.
#[derive(Debug)]
pub struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// Makes one; `unique` tells programs apart that run at one time.
    pub fn new(unique: &str) -> Result<Self, AccountError> {
        let path = std::env::temp_dir().join(format!("daraji-postmortem-{unique}"));
        std::fs::create_dir(&path).map_err(|source| AccountError::Folder { path: path.clone(), source })?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the temporary folder could not be removed");
        }
    }
}

/// Reads, understands and explains.
pub fn account(
    paths: &[PathBuf],
    options: &GatherOptions,
    catalogue: &Catalogue,
    folder: &TemporaryFolder,
    progress: Progress<'_>,
) -> Result<Postmortem, AccountError> {
    let survey = Survey::of(paths, options, progress)?;
    let (first, last) = survey.range();
    let options = LogOptions { retention: RETENTION, ..LogOptions::default() };
    let store = load(&survey, (options, last), folder, &|bytes| progress(survey.bytes() + bytes))?;
    let Understood { incidents, notices, lanes, records } = understand(&store, &survey.cluster.value, (first, last))?;
    let mut told = Vec::new();
    let mut minor = Vec::new();
    let count = incidents.len();
    for (index, mut incident) in incidents.iter().cloned().enumerate() {
        let neighbours = (index.checked_sub(1).and_then(|before| incidents.get(before)), incidents.get(index + 1));
        explain(&mut incident, neighbours, catalogue, &store, (first, last))?;
        let is_explained = incident.causes.iter().any(|cause| cause.confidence > Confidence::Low);
        if incident.severity < EventSeverity::Critical && !is_explained || told.len() >= INCIDENTS_MAX {
            minor.push(format!("{}: {}", incident.opened_at.to_rfc3339_millis(), incident.title));
            continue;
        }
        let timeline = timeline(&incident, &store, &survey)?;
        let lanes = lanes_of(&lanes, &incident, &timeline);
        told.push(Account { incident, lanes, timeline });
    }
    tracing::debug!(found = count, told = told.len(), "incidents in the logs");
    Ok(Postmortem {
        cluster: survey.cluster.clone(),
        from: first,
        to: last,
        records,
        incidents: told,
        notices,
        minor,
        logs: survey.parts,
        clocks: survey.clocks,
        notes: survey.notes,
    })
}

fn load(
    survey: &Survey,
    (options, last): (LogOptions, Timestamp),
    folder: &TemporaryFolder,
    progress: Progress<'_>,
) -> Result<LogStore, AccountError> {
    // A little later than everything, or records would be "from the future".
    let now = last + Duration::from_secs(1);
    let (store, _) = LogStore::open(&folder.0, options, &Disk::real(), &Clock::manual(now))?;
    let mut failed = None;
    survey.read(progress, &mut |batch| {
        let stored = store.append(None, &batch).and_then(|_| store.seal_due(now));
        match stored {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(store), |error| Err(error.into()))
}

/// What the records mean.
struct Understood {
    /// In order of their opening.
    incidents: Vec<Incident>,
    notices: Vec<Event>,
    lanes: Lanes,
    records: u64,
}

/// Feeds the records to the watch, and what it finds to the correlator.
struct Feed {
    watch: Watch,
    correlator: Correlator,
    incidents: BTreeMap<(Timestamp, String), Incident>,
    planned: Vec<Event>,
    ticked_at: Timestamp,
    records: u64,
}

impl Feed {
    fn keep(&mut self, change: IncidentChange) {
        let incident = change.incident;
        self.incidents.insert((incident.opened_at, incident.id.clone()), incident);
    }

    /// Lets time pass in small steps.
    fn pass(&mut self, cluster: &str, until: Timestamp) {
        if self.correlator.open(cluster).is_none() {
            self.ticked_at = until;
            self.look(until);
            return;
        }
        let mut ticks = 0;
        while until.since(self.ticked_at) >= TICK && ticks < SILENT_TICKS_MAX {
            self.ticked_at = self.ticked_at + TICK;
            self.look(self.ticked_at);
            ticks += 1;
        }
        if ticks == SILENT_TICKS_MAX {
            self.ticked_at = until;
        }
    }

    fn look(&mut self, now: Timestamp) {
        if let Some(change) = self.correlator.belief(&self.watch.belief(now), now) {
            self.keep(change);
        }
    }

    fn record(&mut self, cluster: &str, record: &LogRecord) {
        self.records += 1;
        if record.field("event").is_none() {
            return;
        }
        self.pass(cluster, record.at);
        let (events, changed) = self.watch.record(record);
        let planned = events.iter().filter(|event| event.severity <= EventSeverity::Notice);
        self.planned.extend(planned.cloned());
        for change in self.correlator.events(&events) {
            self.keep(change);
        }
        if changed {
            self.look(record.at);
        }
    }
}

fn understand(
    store: &LogStore,
    cluster: &str,
    (first, last): (Timestamp, Timestamp),
) -> Result<Understood, LogStoreError> {
    let mut feed = Feed {
        watch: Watch::new(cluster),
        // Read at leisure, each trouble is told with its own cause.
        correlator: Correlator::new(CorrelatorOptions {
            reopen_within: Duration::ZERO,
            ..CorrelatorOptions::default()
        }),
        incidents: BTreeMap::new(),
        planned: Vec::new(),
        ticked_at: first,
        records: 0,
    };
    let query = everything(first, last);
    store.search(&query, &mut |_, record| {
        feed.record(cluster, record);
        ControlFlow::Continue(())
    })?;
    feed.pass(cluster, last + Duration::from_secs(1));
    let incidents: Vec<Incident> = feed.incidents.into_values().collect();
    let joined: BTreeSet<&str> =
        incidents.iter().flat_map(|incident| &incident.events).map(|event| event.id.as_str()).collect();
    let notices = feed.planned.into_iter().filter(|event| !joined.contains(event.id.as_str())).collect();
    Ok(Understood { incidents, notices, lanes: feed.watch.lanes(), records: feed.records })
}

fn everything(start: Timestamp, last: Timestamp) -> LogQuery {
    let mut query = LogQuery::new(Vec::new(), start, last + Duration::from_nanos(1));
    query.budget.bytes_max = u64::MAX;
    query
}

/// Asks the cause engine about the time of one incident, and not of its neighbours.
fn explain(
    incident: &mut Incident,
    (before, after): (Option<&Incident>, Option<&Incident>),
    catalogue: &Catalogue,
    store: &LogStore,
    (first, last): (Timestamp, Timestamp),
) -> Result<(), CauseError> {
    let start = (incident.opened_at - LOOK_BACK_MAX).max(first);
    let start = before.map_or(start, |before| start.max(ended_at(before)));
    let end = incident.settled_at.unwrap_or(last).max(ended_at(incident) + TAIL);
    let end = after.map_or(end, |after| end.min(trigger(after))).min(last) + Duration::from_nanos(1);
    let case = Case {
        cluster: &incident.cluster,
        opened_at: None,
        start,
        end,
        began_at: None,
        calm_since: None,
        events: &[],
        alerts: &[],
    };
    let verdict = catalogue.explain(&case, store, None)?;
    incident.causes = verdict.causes;
    incident.verdict = Some(verdict.text);
    incident.missing = verdict.missing;
    Ok(())
}

fn ended_at(incident: &Incident) -> Timestamp {
    incident.events.last().map_or(incident.opened_at, |event| event.time)
}

fn trigger(incident: &Incident) -> Timestamp {
    incident.phases.first().map_or(incident.opened_at, |phase| phase.at)
}

/// Known messages worse than ordinary ones of all hosts, repetitions folded, and what proves the first cause.
fn timeline(incident: &Incident, store: &LogStore, survey: &Survey) -> Result<Vec<Line>, LogStoreError> {
    let errors: BTreeMap<&str, Option<f64>> =
        survey.clocks.iter().map(|clock| (clock.member.as_str(), clock.error_seconds)).collect();
    let proofs = incident.causes.first().map_or(&[][..], |cause| &cause.evidence[..]);
    let end = incident.settled_at.map_or(ended_at(incident) + TAIL, |_| ended_at(incident) + AFTER);
    let first_proof = proofs.iter().map(|proof| proof.time).min().unwrap_or(incident.opened_at);
    let start = trigger(incident).min(first_proof.max(incident.opened_at - LOOK_BACK_MAX)) - BEFORE;
    let mut query = everything(start, end);
    query.matchers = vec![Matcher::equal("cluster", &incident.cluster)];
    let mut lines: Vec<Line> = Vec::new();
    store.search(&query, &mut |_, record| {
        let source = record.stream.get("source").unwrap_or("");
        let severity = record.stream.get("severity").unwrap_or("info");
        let event = record.field("event").unwrap_or("");
        let proof = proofs.iter().find(|proof| {
            proof.time == record.at
                && proof.source == source
                && proof.text.contains(short(&record.line, 40).trim_end_matches('…'))
        });
        let is_telling =
            !event.is_empty() && severity != Severity::Info.as_str() && severity != Severity::Debug.as_str();
        if !is_telling && proof.is_none() {
            return ControlFlow::Continue(());
        }
        let member = record.stream.get("member").unwrap_or("");
        let text = short(&message(record), 300);
        let same = |known: &&mut Line| {
            known.member == member && known.source == source && known.event == event && known.proves.is_none()
        };
        let repeated = lines.iter_mut().rev().take(6).find(same).filter(|_| proof.is_none() && !event.is_empty());
        match repeated {
            Some(known) => known.times += 1,
            None => lines.push(Line {
                time: record.at,
                error_seconds: errors.get(member).copied().flatten(),
                member: member.to_owned(),
                source: source.to_owned(),
                severity: severity.to_owned(),
                event: event.to_owned(),
                text,
                times: 1,
                proves: proof.map(|proof| proof.sign.clone()),
            }),
        }
        ControlFlow::Continue(())
    })?;
    thin(&mut lines);
    Ok(lines)
}

/// Drops the least telling lines of too many.
fn thin(lines: &mut Vec<Line>) {
    for severity in ["notice", "warning", "error"] {
        let mut extra = lines.len().saturating_sub(LINES_MAX);
        lines.retain(|line| {
            let goes = extra > 0 && line.severity == severity && line.proves.is_none();
            extra -= usize::from(goes);
            !goes
        });
    }
    lines.truncate(LINES_MAX);
}

/// The states of members from the beginning of the timeline to its end.
fn lanes_of(lanes: &Lanes, incident: &Incident, timeline: &[Line]) -> Vec<Lane> {
    let start = timeline.first().map_or(trigger(incident), |line| line.time).min(trigger(incident)) - BEFORE;
    let end = incident.settled_at.unwrap_or(ended_at(incident) + TAIL);
    let lane = |(member, states): (&String, &Vec<(Timestamp, LaneState)>)| {
        let before = states.iter().rfind(|(at, _)| *at <= start).map(|(_, state)| (start, *state));
        let inside = states.iter().filter(|(at, _)| *at > start && *at <= end).copied();
        let states: Vec<LaneChange> =
            before.into_iter().chain(inside).map(|(from, state)| LaneChange { from, state }).collect();
        (!states.is_empty()).then(|| Lane { member: member.clone(), states })
    };
    lanes.iter().filter_map(lane).collect()
}

impl Postmortem {
    /// What stands around the incidents, in words.
    pub fn frame(&self) -> Frame {
        let mut frame = Frame {
            title: format!("Postmortem of {}", self.cluster.value),
            made_from: vec![format!(
                "{} records of {} logs from {} to {}",
                self.records,
                self.logs.iter().filter(|part| part.left_out.is_none()).count(),
                self.from.to_rfc3339_millis(),
                self.to.to_rfc3339_millis()
            )],
            notices: self
                .notices
                .iter()
                .map(|event| format!("{} {}", event.time.to_rfc3339_millis(), event.text))
                .collect(),
            unknown: Vec::new(),
        };
        frame.made_from.extend(self.logs.iter().map(LogPart::describe));
        if self.cluster.certainty == Certainty::Assumed {
            frame.unknown.push(format!("the cluster's name: {} ({})", self.cluster.value, self.cluster.why));
        }
        frame.unknown.extend(self.clocks.iter().filter_map(MemberClock::doubt));
        frame.unknown.extend(self.logs.iter().filter_map(LogPart::doubt));
        frame.unknown.extend(self.notes.iter().map(Note::to_string));
        frame.unknown.extend(self.minor.iter().map(|minor| format!("small signs without a known cause: {minor}")));
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// Records that do not fit into the memory of the store go to its disk on the way.
    #[test]
    fn more_records_than_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for number in 0..20_000 {
            let (minute, second) = (number / 600 % 60, number / 10 % 60);
            writeln!(text, "2026-11-23 05:{minute:02}:{second:02}.100 UTC [7] LOG:  message {number}").unwrap();
        }
        std::fs::write(dir.path().join("pg1.log"), text).unwrap();
        let survey = Survey::of(&[dir.path().to_owned()], &GatherOptions::default(), &|_| {}).unwrap();
        let (first, last) = survey.range();
        let options = LogOptions {
            retention: RETENTION,
            seal_bytes: 256 << 10,
            memory_bytes_max: 1 << 20,
            ..LogOptions::default()
        };
        let folder = TemporaryFolder::new(&format!("test-{}", std::process::id())).unwrap();
        let store = load(&survey, (options, last), &folder, &|_| {}).unwrap();
        let mut records = 0;
        let query = everything(first, last);
        store
            .search(&query, &mut |_, _| {
                records += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(records, 20_000);
        let path = folder.0.clone();
        drop((store, folder));
        assert!(!path.exists());
    }
}
