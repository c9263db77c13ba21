//! Split brain: two members of one cluster that take writes at one instant.
//!
//! Proof is A-B-A on our own clock: A answered "writable" before B was asked, B answered "writable" before A was asked
//! again, and A, still the same postmaster, was writable again. No clock of a member is compared.
//! One writable member and a former primary nobody can see is *possible*, never "none".

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::draft::Draft;
use crate::cluster::member::{Probe, Verdict};
use crate::cluster::options::JudgeOptions;
use crate::cluster::reach;
use crate::cluster::state::{ClusterState, Drafts};
use crate::model::cluster::{SplitBrain, SplitBrainGrade, SplitBrainState};
use crate::model::{Lsn, Timestamp};

/// WAL must grow this often within [`SERVED_WINDOW`] on both sides before clients are said to write on both. What
/// PostgreSQL writes by itself (a snapshot of running transactions each 15 s, a checkpoint) stays below.
const SERVED_GROWTHS: usize = 4;
const SERVED_WINDOW: Duration = Duration::from_secs(10);
/// How long a sign of a second primary keeps the probes frequent.
const SUSPICION: Duration = Duration::from_mins(1);

/// An unbroken row of writable answers of one postmaster.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) member: String,
    pub(super) first: Probe,
    last: Probe,
    /// The one before the last, for when the last overlaps a probe of the other member.
    previous: Probe,
    start: Option<Timestamp>,
    system_identifier: Option<String>,
    lsn: Option<Lsn>,
    /// Times at which its WAL had grown since the answer before; the newest few.
    growths: Vec<Timestamp>,
}

impl Run {
    /// One answer came while the other run was between two of its own.
    fn has_probe_between(&self, first: Probe, last: Probe) -> bool {
        [self.first, self.previous, self.last]
            .iter()
            .any(|probe| first.received < probe.sent && probe.received < last.sent)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let same = match (&self.system_identifier, &other.system_identifier) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => true,
        };
        same && (other.has_probe_between(self.first, self.last) || self.has_probe_between(other.first, other.last))
    }

    fn has_written_since(&self, at: Timestamp) -> bool {
        self.growths.iter().any(|growth| *growth > at)
    }

    /// Clients write here, as of its last answer.
    fn is_served_since(&self, at: Timestamp) -> bool {
        let recent = |growth: &&Timestamp| **growth > at && self.last.received.since(**growth) <= SERVED_WINDOW;
        self.growths.iter().filter(recent).count() >= SERVED_GROWTHS
    }
}

/// Runs of writable answers, by member.
#[derive(Clone, Debug, Default)]
pub(super) struct Overlap {
    runs: BTreeMap<String, Run>,
    /// Since when one member is writable and another, former primary is unknown.
    doubt_since: Option<(Timestamp, String)>,
}

impl Overlap {
    pub(super) fn others<'a>(&'a self, member: &'a str) -> impl Iterator<Item = &'a Run> {
        self.runs.values().filter(move |run| run.member != member)
    }

    pub(super) fn forget(&mut self, member: &str) {
        self.runs.remove(member);
    }

    /// Two members took writes a moment ago, or one is in doubt: frequent probes will decide. A host that stays dark is
    /// no reason to ask the others often for hours.
    pub(super) fn is_suspicious(&self, now: Timestamp) -> bool {
        let recent = |run: &&Run| now.since(run.last.received) <= SUSPICION;
        let doubt = self.doubt_since.as_ref().is_some_and(|(since, _)| now.since(*since) <= SUSPICION);
        self.runs.values().filter(recent).count() > 1 || doubt
    }

    fn add(&mut self, member: &str, probe: Probe, facts: RunFacts) {
        let run = self.runs.entry(member.to_owned()).or_insert_with(|| Run {
            member: member.to_owned(),
            first: probe,
            last: probe,
            previous: probe,
            start: facts.start,
            system_identifier: None,
            lsn: facts.lsn,
            growths: Vec::new(),
        });
        if run.start.zip(facts.start).is_some_and(|(before, start)| before != start) {
            // Another postmaster: it was down in between.
            run.first = probe;
            run.previous = probe;
            run.growths.clear();
        }
        if probe.received < run.last.received {
            return;
        }
        run.start = facts.start.or(run.start);
        run.system_identifier = facts.system_identifier.or_else(|| run.system_identifier.take());
        if run.lsn.zip(facts.lsn).is_some_and(|(before, now)| now > before) {
            run.growths.push(probe.received);
            if run.growths.len() > 16 {
                run.growths.remove(0);
            }
        }
        run.lsn = facts.lsn.max(run.lsn);
        run.previous = run.last;
        run.last = probe;
    }

    /// The pairs of members that are proven to overlap.
    fn proven(&self) -> Vec<(&Run, &Run)> {
        let runs: Vec<_> = self.runs.values().collect();
        let mut pairs = Vec::new();
        for (i, a) in runs.iter().enumerate() {
            for b in runs.iter().skip(i + 1) {
                if a.overlaps(b) {
                    pairs.push((*a, *b));
                }
            }
        }
        pairs
    }
}

/// What a writable answer tells besides being writable.
#[derive(Debug, Default)]
pub(super) struct RunFacts {
    pub(super) start: Option<Timestamp>,
    pub(super) system_identifier: Option<String>,
    pub(super) lsn: Option<Lsn>,
}

/// Takes in a definite statement of one member.
pub(super) fn verdict(state: &mut ClusterState, member: &str, verdict: Verdict, facts: RunFacts, out: &mut Drafts) {
    state.member_memory(member).was_writable = verdict.writable;
    if !verdict.writable {
        if let Some(member) = state.members.get_mut(member) {
            member.unwritable_at = Some(verdict.probe.sent);
        }
        state.overlap.forget(member);
        ended(state, verdict.probe.received, out);
        return;
    }
    if let Some(lsn) = facts.lsn {
        state.member_memory(member).last_lsn = Some(lsn);
    }
    state.overlap.add(member, verdict.probe, facts);
    confirm(state, verdict.probe.received, out);
}

fn grade(a: &Run, b: &Run, since: Timestamp) -> SplitBrainGrade {
    if a.is_served_since(since) && b.is_served_since(since) {
        SplitBrainGrade::Served
    } else if a.has_written_since(since) && b.has_written_since(since) {
        SplitBrainGrade::Diverged
    } else {
        SplitBrainGrade::Dual
    }
}

fn grade_word(grade: SplitBrainGrade) -> &'static str {
    match grade {
        SplitBrainGrade::Dual => "dual",
        SplitBrainGrade::Diverged => "diverged",
        SplitBrainGrade::Served => "served",
    }
}

fn confirm(state: &mut ClusterState, at: Timestamp, out: &mut Drafts) {
    let pairs = state.overlap.proven();
    let Some(since) = pairs.iter().map(|(a, b)| a.first.received.max(b.first.received)).min() else { return };
    let mut members: Vec<String> = pairs.iter().flat_map(|(a, b)| [a.member.clone(), b.member.clone()]).collect();
    members.sort_unstable();
    members.dedup();
    let worst = pairs.iter().map(|(a, b)| grade(a, b, since)).max();
    let known = state.memory.split_brain.as_mut().filter(|known| known.state == SplitBrainState::Confirmed);
    if let Some(known) = known.filter(|known| known.members.len() >= members.len()) {
        if worst > known.grade {
            known.grade = worst;
            let word = worst.map_or("", grade_word);
            let text = match worst {
                Some(SplitBrainGrade::Served) => "clients write on both sides of the split brain",
                _ => "both sides of the split brain have written: their histories differ",
            };
            let draft = Draft::notice("split_brain_graded", at).text(text).field("grade", word);
            out.push(draft.field("members", members.join(",")));
        }
        return;
    }
    let since = state.memory.split_brain.as_ref().map_or(since, |known| known.since.min(since));
    let mut draft = Draft::critical("split_brain_confirmed", at)
        .text(format!("{} take writes at the same time", members.join(" and ")))
        .field("members", members.join(","))
        .field("since", since)
        .field_if("grade", worst.map(grade_word))
        .field_if("lock_owner", state.memory.leader.as_ref())
        .field_if("paused", state.memory.paused);
    for name in &members {
        let timeline =
            state.members.get(name).and_then(|member| member.sql.answer.as_ref()).and_then(|(_, sql)| sql.timeline);
        let lsn = state.memory.member_facts.get(name).and_then(|facts| facts.last_lsn);
        draft = draft.field_if(&format!("timeline_{name}"), timeline).field_if(&format!("lsn_{name}"), lsn);
    }
    out.push(draft);
    state.memory.split_brain = Some(SplitBrain { state: SplitBrainState::Confirmed, grade: worst, members, since });
}

/// Ends a split brain when all but one of its members are known not to write.
fn ended(state: &mut ClusterState, at: Timestamp, out: &mut Drafts) {
    let Some(known) = &state.memory.split_brain else { return };
    let writes = |name: &&String| state.memory.member_facts.get(*name).is_some_and(|facts| facts.was_writable);
    let left: Vec<_> = known.members.iter().filter(writes).cloned().collect();
    if left.len() > 1 {
        return;
    }
    let Some(known) = state.memory.split_brain.take() else { return };
    let seconds = at.since(known.since).as_secs_f64();
    let stopped: Vec<_> = known.members.iter().filter(|name| !left.contains(name)).cloned().collect();
    let draft = match known.state {
        SplitBrainState::Confirmed => Draft::notice("split_brain_ended", at)
            .text(format!("{} no longer takes writes; the split brain lasted {seconds:.1} s", stopped.join(" and "))),
        SplitBrainState::Possible => Draft::info("split_brain_ended", at)
            .text(format!("{} does not take writes: no second primary", stopped.join(" and "))),
    };
    let confirmed = known.state == SplitBrainState::Confirmed;
    let draft = draft.field("members", known.members.join(",")).field("seconds", format!("{seconds:.3}"));
    out.push(draft.field("confirmed", confirmed).field_if("grade", known.grade.map(grade_word)));
}

/// A member that takes writes, and one that did when last heard and cannot be asked now.
fn doubt(state: &ClusterState, now: Timestamp, options: &JudgeOptions) -> Option<(String, String)> {
    let writable = state.writable_members(now, options);
    let [primary] = writable.as_slice() else { return None };
    let dark = state.members.keys().find(|name| {
        let was = state.memory.member_facts.get(*name).is_some_and(|facts| facts.was_writable);
        // Silence counts only once it was asked.
        let asked =
            state.members.get(*name).is_some_and(|member| member.sql.tried_at.or(member.rest.tried_at).is_some());
        was && asked && *name != primary && state.writable(name, now, options).is_none()
    })?;
    Some((primary.clone(), dark.clone()))
}

/// Raises, and lowers, the possible split brain.
pub(super) fn tick(state: &mut ClusterState, now: Timestamp, options: &JudgeOptions, out: &mut Drafts) {
    let Some((primary, dark)) = doubt(state, now, options) else {
        state.overlap.doubt_since = None;
        return;
    };
    let since = match &state.overlap.doubt_since {
        Some((since, name)) if *name == dark => *since,
        _ => now,
    };
    state.overlap.doubt_since = Some((since, dark.clone()));
    let hold = if state.switching(now) {
        options.transient_max.max(state.loop_wait() + Duration::from_secs(5))
    } else {
        options.possible_after
    };
    if now.since(since) < hold {
        return;
    }
    let (lost_sight, grade) = match &state.memory.split_brain {
        None => (false, None),
        // A proof grows old when one side has not been seen for long.
        Some(known) if known.state == SplitBrainState::Confirmed && now.since(since) > options.transient_max * 2 => {
            (true, known.grade)
        }
        Some(_) => return,
    };
    let mut members = vec![primary.clone(), dark.clone()];
    members.sort_unstable();
    let text = if lost_sight {
        format!("{dark} took writes beside {primary} when last seen, and cannot be seen any more")
    } else {
        format!(
            "{primary} takes writes; {dark} did when last seen, cannot be seen now, and nothing shows that it stopped"
        )
    };
    let since = state.memory.split_brain.as_ref().map_or(since, |known| known.since);
    let draft =
        Draft::warning("split_brain_possible", now).member(&dark).text(text).field("members", members.join(","));
    let silent = state.members.get(&dark).and_then(|member| member.sql.failing.as_ref()).map(|(silent, _)| *silent);
    let seen = reach::port_words(state, &dark, silent.unwrap_or(since), now);
    let draft = draft.field("since", since).field_if("postgres_port", seen);
    out.push(draft.field_if("lock_owner", state.memory.leader.as_ref()));
    state.memory.split_brain = Some(SplitBrain { state: SplitBrainState::Possible, grade, members, since });
}
