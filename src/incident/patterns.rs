//! What the logs said around an incident that they did not say before, and what they ceased to say.
//!
//! Pure, but for [`around`]: lines in, a comparison out. Variables are masked (numbers, times, LSNs, UUIDs, long
//! hexadecimal words, quoted text), so lines that differ in nothing else are one pattern. Patterns are compared per
//! stream: one source of one member. A stream without a single line before the incident has no baseline: it is named as
//! such, and none of its patterns counts as new.

mod around;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::Serialize;

use crate::model::quote::Quoted;
use crate::model::{Matcher, Timestamp};

pub use around::around;

/// Lines of one side that are looked at.
pub const LINES_MAX: usize = 100_000;
/// Patterns kept; lines that would begin another are left out, and that is said.
const PATTERNS_MAX: usize = 20_000;
/// Characters of a line that take part in its pattern.
const LINE_CHARS_MAX: usize = 512;
/// Patterns that each list shows.
const SHOWN_MAX: usize = 100;
/// What stands for a variable.
const MASK: &str = "<_>";
/// Texts that the query of a pattern looks for: its longest ones ...
const NEEDLES_MAX: usize = 3;
/// ... of at least so many bytes.
const NEEDLE_BYTES_MIN: usize = 3;
/// A pattern must have come this often before the incident to be a heartbeat.
const HEARTBEAT_LINES_MIN: usize = 6;
/// A heartbeat's longest gap is at most so many median gaps; it fell silent for more than as many longest gaps.
const HEARTBEAT_GAPS: i64 = 3;
/// A rate has changed when it is so many times higher or lower, and ...
const RATE_FACTOR: f64 = 5.0;
/// ... the higher side has at least so many lines in the incident's window.
const RATE_LINES_MIN: f64 = 10.0;

/// `[before, start)` is compared with `[start, end]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    pub before: Timestamp,
    pub start: Timestamp,
    pub end: Timestamp,
}

/// One source of one member; without a member, of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Stream {
    pub source: String,
    pub member: String,
}

/// A time without a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Silence {
    pub from: Timestamp,
    /// `None` when it lasts until the end of the window.
    pub to: Option<Timestamp>,
}

/// A pattern of one stream, with its lines before and during the incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pattern {
    #[serde(flatten)]
    pub stream: Stream,
    pub pattern: String,
    pub lines_before: usize,
    pub lines_during: usize,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    /// Of what vanished: the longest silence.
    pub silent: Option<Silence>,
    /// LogQL that finds its lines, and perhaps others that are much alike.
    pub query: String,
}

/// What differs between both windows; each list begins with the most lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    pub window: Window,
    /// Lines that were compared.
    pub lines: usize,
    pub new: Vec<Pattern>,
    /// Came regularly, and fell silent.
    pub vanished: Vec<Pattern>,
    /// Came much more, or much more rarely.
    pub changed: Vec<Pattern>,
    pub without_baseline: Vec<Stream>,
    /// Patterns that the lists have no room for.
    pub left_out: usize,
    /// What was not looked at, in words.
    pub partial: Option<String>,
}

/// When a pattern was seen, in nanoseconds since the epoch, before the incident and during it.
#[derive(Debug, Default)]
struct Sightings {
    before: Vec<i64>,
    during: Vec<i64>,
}

/// Takes lines in any order and compares those before a time with those from it on.
#[derive(Debug)]
pub struct Comparer {
    cluster: String,
    start: Timestamp,
    lines_before: usize,
    lines_during: usize,
    seen: BTreeMap<Stream, BTreeMap<String, Sightings>>,
    patterns: usize,
    has_overflown: bool,
}

impl Comparer {
    /// The incident's window in the logs of `cluster` begins at `start`.
    pub fn new(cluster: &str, start: Timestamp) -> Self {
        Self {
            cluster: cluster.to_owned(),
            start,
            lines_before: 0,
            lines_during: 0,
            seen: BTreeMap::new(),
            patterns: 0,
            has_overflown: false,
        }
    }

    /// Takes a line; `Break` when its side is full, and the line is left out.
    pub fn add(&mut self, at: Timestamp, stream: &Stream, text: &str) -> ControlFlow<()> {
        let is_before = at < self.start;
        let count = if is_before { &mut self.lines_before } else { &mut self.lines_during };
        if *count >= LINES_MAX {
            return ControlFlow::Break(());
        }
        *count += 1;
        let pattern = mask(text);
        if !self.seen.contains_key(stream) {
            self.seen.insert(stream.clone(), BTreeMap::new());
        }
        let Some(patterns) = self.seen.get_mut(stream) else { return ControlFlow::Continue(()) };
        if !patterns.contains_key(&pattern) {
            if self.patterns >= PATTERNS_MAX {
                self.has_overflown = true;
                return ControlFlow::Continue(());
            }
            self.patterns += 1;
        }
        let sightings = patterns.entry(pattern).or_default();
        let side = if is_before { &mut sightings.before } else { &mut sightings.during };
        side.push(at.nanos());
        ControlFlow::Continue(())
    }

    /// What differs. `before` and `end` say which times the lines are from.
    pub fn finish(self, before: Timestamp, end: Timestamp) -> Comparison {
        let window = Window { before, start: self.start, end };
        let mut found = Comparison {
            window,
            lines: self.lines_before + self.lines_during,
            new: Vec::new(),
            vanished: Vec::new(),
            changed: Vec::new(),
            without_baseline: Vec::new(),
            left_out: 0,
            partial: self.has_overflown.then(|| format!("there are more than {PATTERNS_MAX} patterns: not all count")),
        };
        for (stream, patterns) in self.seen {
            if patterns.values().all(|sightings| sightings.before.is_empty()) {
                found.without_baseline.push(stream);
                continue;
            }
            for (pattern, sightings) in patterns {
                let (list, silent) = match sightings.verdict(window) {
                    Some(Verdict::New) => (&mut found.new, None),
                    Some(Verdict::Vanished(silence)) => (&mut found.vanished, Some(silence)),
                    Some(Verdict::Changed) => (&mut found.changed, None),
                    None => continue,
                };
                list.push(Pattern { silent, ..sightings.describe(&self.cluster, &stream, pattern) });
            }
        }
        for list in [&mut found.new, &mut found.vanished, &mut found.changed] {
            list.sort_by_key(|pattern| std::cmp::Reverse(pattern.lines_before + pattern.lines_during));
            found.left_out += list.len().saturating_sub(SHOWN_MAX);
            list.truncate(SHOWN_MAX);
        }
        found
    }
}

enum Verdict {
    New,
    Vanished(Silence),
    Changed,
}

impl Sightings {
    fn verdict(&self, window: Window) -> Option<Verdict> {
        if self.before.is_empty() {
            Some(Verdict::New)
        } else if let Some(silence) = self.silence(window) {
            Some(Verdict::Vanished(silence))
        } else {
            self.has_changed(window).then_some(Verdict::Changed)
        }
    }

    /// The longest silence of what came regularly until the incident, if that is long for it.
    fn silence(&self, window: Window) -> Option<Silence> {
        if self.before.len() < HEARTBEAT_LINES_MIN {
            return None;
        }
        let mut beats = self.before.clone();
        beats.sort_unstable();
        let mut gaps: Vec<i64> = beats.iter().zip(beats.iter().skip(1)).map(|(a, b)| b.saturating_sub(*a)).collect();
        gaps.sort_unstable();
        let (median, longest) = (*gaps.get(gaps.len() / 2)?, *gaps.last()?);
        if longest > median.saturating_mul(HEARTBEAT_GAPS) {
            return None;
        }
        let mut during = self.during.clone();
        during.sort_unstable();
        let last_before = beats.last().copied();
        let from = last_before.into_iter().chain(during.iter().copied());
        let to = during.iter().copied().map(Some).chain([None]);
        let lasts = |from: i64, to: Option<i64>| to.unwrap_or(window.end.nanos()).saturating_sub(from);
        let (from, to) = from.zip(to).max_by_key(|(from, to)| lasts(*from, *to))?;
        let is_long = lasts(from, to) > longest.saturating_mul(HEARTBEAT_GAPS);
        is_long.then(|| Silence { from: Timestamp::from_nanos(from), to: to.map(Timestamp::from_nanos) })
    }

    fn has_changed(&self, window: Window) -> bool {
        let before_secs = window.start.since(window.before).as_secs_f64();
        if before_secs <= 0.0 {
            return false;
        }
        let during_secs = window.end.since(window.start).as_secs_f64();
        let expected = self.before.len() as f64 * during_secs / before_secs;
        let counted = self.during.len() as f64;
        let (low, high) = if expected < counted { (expected, counted) } else { (counted, expected) };
        high >= RATE_LINES_MIN && high >= low * RATE_FACTOR
    }

    fn describe(&self, cluster: &str, stream: &Stream, pattern: String) -> Pattern {
        let times = || self.before.iter().chain(&self.during).copied();
        Pattern {
            stream: stream.clone(),
            lines_before: self.before.len(),
            lines_during: self.during.len(),
            first_seen: Timestamp::from_nanos(times().min().unwrap_or_default()),
            last_seen: Timestamp::from_nanos(times().max().unwrap_or_default()),
            silent: None,
            query: query(cluster, stream, &pattern),
            pattern,
        }
    }
}

/// LogQL for the lines of a pattern: its stream, and the longest of the texts between its variables.
fn query(cluster: &str, stream: &Stream, pattern: &str) -> String {
    let labels = [("cluster", cluster), ("member", &stream.member), ("source", &stream.source)];
    let matchers: Vec<String> =
        labels.iter().filter(|(_, value)| !value.is_empty()).map(|(n, v)| Matcher::equal(*n, *v).to_string()).collect();
    let mut needles: Vec<(usize, &str)> =
        pattern.split(MASK).enumerate().filter(|(_, text)| text.trim().len() >= NEEDLE_BYTES_MIN).collect();
    needles.sort_by_key(|(_, text)| std::cmp::Reverse(text.len()));
    needles.truncate(NEEDLES_MAX);
    needles.sort_unstable();
    let filters: Vec<String> = needles.iter().map(|(_, text)| format!(" |= {}", Quoted(text))).collect();
    format!("{{{}}}{}", matchers.join(","), filters.concat())
}

/// The line with its variables masked, cut to [`LINE_CHARS_MAX`] characters.
pub fn mask(text: &str) -> String {
    let end = text.char_indices().nth(LINE_CHARS_MAX).map_or(text.len(), |(at, _)| at);
    let mut rest = text.get(..end).unwrap_or(text);
    let mut out = String::with_capacity(rest.len());
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        let opens = c == '"' || c == '\'' && !before.is_alphanumeric();
        if let Some((_, left)) = after.split_once(c).filter(|_| opens) {
            out.push_str(MASK);
            (before, rest) = (c, left);
            continue;
        }
        if !c.is_alphanumeric() {
            out.push(c);
            (before, rest) = (c, after);
            continue;
        }
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | ':' | '.');
        let (word, left) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
        let core = word.trim_end_matches(['.', ':', '-', '/']);
        if is_variable(core) {
            out.push_str(MASK);
            out.push_str(word.strip_prefix(core).unwrap_or_default());
        } else {
            out.push_str(word);
        }
        (before, rest) = (word.chars().next_back().unwrap_or(c), left);
    }
    out
}

/// Begins with a digit, or is hexadecimal (also with `-` and `/`, as UUIDs and LSNs) and holds a digit.
fn is_variable(word: &str) -> bool {
    let hex = word.len() >= 3 && word.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, '-' | '/'));
    word.starts_with(|c: char| c.is_ascii_digit()) || hex && word.contains(|c: char| c.is_ascii_digit())
}
