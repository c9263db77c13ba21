//! What the logs said around an incident that they did not say before, and what they ceased to say.
//!
//! Pure: lines in, a comparison out. Variables are masked (numbers, times, LSNs, UUIDs, long hexadecimal words, quoted
//! text), so lines that differ in nothing else are one pattern. Patterns are compared per source. A source without a
//! single line before the incident has no baseline: it is named as such, and none of its patterns counts as new.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::model::Timestamp;

/// Lines looked at; the rest is left out and `truncated` says so.
pub const LINES_MAX: usize = 200_000;
/// Patterns kept; lines that would begin another are left out and `truncated` says so.
const PATTERNS_MAX: usize = 20_000;
/// Characters of a line that take part in its pattern.
const LINE_CHARS_MAX: usize = 512;
/// What stands for a variable.
const MASK: &str = "<_>";
/// A pattern must have come this often before the incident to be a heartbeat.
const HEARTBEAT_LINES_MIN: usize = 6;
/// A heartbeat's longest gap is at most so many median gaps; silence of as many longest gaps is its end.
const HEARTBEAT_GAPS: i64 = 3;
/// A rate has changed when it is so many times higher or lower, and ...
const RATE_FACTOR: f64 = 5.0;
/// ... the higher side has at least so many lines in the incident's window.
const RATE_LINES_MIN: f64 = 10.0;

/// One log line. `source` names its stream.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub at: Timestamp,
    pub source: &'a str,
    pub text: &'a str,
}

/// `[before, start)` is compared with `[start, end]`.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub before: Timestamp,
    pub start: Timestamp,
    pub end: Timestamp,
}

/// A pattern of one source, with its lines before and during the incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pattern {
    pub source: String,
    pub pattern: String,
    pub lines_before: usize,
    pub lines_during: usize,
    pub last_seen: Timestamp,
}

/// What differs between both windows; each list begins with the most lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    pub new: Vec<Pattern>,
    pub vanished: Vec<Pattern>,
    pub changed: Vec<Pattern>,
    pub without_baseline: Vec<String>,
    pub truncated: bool,
}

/// When a pattern was seen, in nanoseconds since the epoch, before the incident and during it.
#[derive(Default)]
struct Sightings {
    before: Vec<i64>,
    during: Vec<i64>,
}

/// Compares the lines of both windows. Lines outside of them are ignored; their order does not matter.
pub fn compare<'a>(lines: impl IntoIterator<Item = Line<'a>>, window: Window) -> Comparison {
    let mut found = Comparison::default();
    let mut seen: BTreeMap<(&str, String), Sightings> = BTreeMap::new();
    let inside = |line: &Line<'_>| line.at >= window.before && line.at <= window.end;
    for (n, line) in lines.into_iter().filter(inside).enumerate() {
        if n >= LINES_MAX {
            found.truncated = true;
            break;
        }
        let key = (line.source, mask(line.text));
        if seen.len() >= PATTERNS_MAX && !seen.contains_key(&key) {
            found.truncated = true;
            continue;
        }
        let sightings = seen.entry(key).or_default();
        let side = if line.at < window.start { &mut sightings.before } else { &mut sightings.during };
        side.push(line.at.nanos());
    }
    let baseline: BTreeSet<&str> =
        seen.iter().filter(|(_, sightings)| !sightings.before.is_empty()).map(|((source, _), _)| *source).collect();
    let without: BTreeSet<&str> = seen.keys().map(|(source, _)| *source).filter(|s| !baseline.contains(s)).collect();
    found.without_baseline = without.iter().map(|&source| source.to_owned()).collect();
    for ((source, pattern), Sightings { before, during }) in seen {
        if without.contains(source) {
            continue;
        }
        let last = before.iter().chain(&during).copied().max().unwrap_or_default();
        let entry = Pattern {
            source: source.to_owned(),
            pattern,
            lines_before: before.len(),
            lines_during: during.len(),
            last_seen: Timestamp::from_nanos(last),
        };
        if before.is_empty() {
            found.new.push(entry);
        } else if is_ended_heartbeat(before, &during, window) {
            found.vanished.push(entry);
        } else if is_changed(&entry, window) {
            found.changed.push(entry);
        }
    }
    for list in [&mut found.new, &mut found.vanished, &mut found.changed] {
        list.sort_by_key(|p| std::cmp::Reverse(p.lines_before + p.lines_during));
    }
    found
}

/// Came regularly until the incident and then no more, but for a last beat that may come just after the opening.
fn is_ended_heartbeat(mut at_nanos: Vec<i64>, during: &[i64], window: Window) -> bool {
    if at_nanos.len() < HEARTBEAT_LINES_MIN {
        return false;
    }
    at_nanos.sort_unstable();
    let mut gaps: Vec<i64> = at_nanos.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    gaps.sort_unstable();
    let median = gaps[gaps.len() / 2];
    let longest = gaps[gaps.len() - 1];
    let last = during.iter().chain(&at_nanos).copied().max().unwrap_or_default();
    let silent = window.end.nanos().saturating_sub(last);
    longest <= median.saturating_mul(HEARTBEAT_GAPS)
        && silent > longest.saturating_mul(HEARTBEAT_GAPS)
        && last < window.start.nanos().saturating_add(longest.saturating_mul(HEARTBEAT_GAPS))
}

fn is_changed(pattern: &Pattern, window: Window) -> bool {
    let before_secs = window.start.since(window.before).as_secs_f64();
    if before_secs <= 0.0 {
        return false;
    }
    let during_secs = window.end.since(window.start).as_secs_f64();
    let expected = pattern.lines_before as f64 * during_secs / before_secs;
    let counted = pattern.lines_during as f64;
    let (low, high) = if expected < counted { (expected, counted) } else { (counted, expected) };
    high >= RATE_LINES_MIN && high >= low * RATE_FACTOR
}

/// The line with its variables masked, cut to [`LINE_CHARS_MAX`] characters.
pub fn mask(text: &str) -> String {
    let chars: Vec<char> = text.chars().take(LINE_CHARS_MAX).collect();
    let mut out = String::with_capacity(chars.len());
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        let opens = c == '"' || c == '\'' && (i == 0 || !chars[i - 1].is_alphanumeric());
        if opens && let Some(length) = chars[i + 1..].iter().position(|&next| next == c) {
            out.push_str(MASK);
            i += length + 2;
            continue;
        }
        if !c.is_alphanumeric() {
            out.push(c);
            i += 1;
            continue;
        }
        let part = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | ':' | '.');
        let run = chars[i..].iter().take_while(|c| part(c)).count();
        let word: String = chars[i..i + run].iter().collect();
        let core = word.trim_end_matches(['.', ':', '-', '/']);
        if is_variable(core) {
            out.push_str(MASK);
            out.push_str(word.strip_prefix(core).unwrap_or_default());
        } else {
            out.push_str(&word);
        }
        i += run;
    }
    out
}

/// Begins with a digit, or is hexadecimal (also with `-` and `/`, as UUIDs and LSNs) and holds a digit.
fn is_variable(word: &str) -> bool {
    let hex = word.len() >= 3 && word.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, '-' | '/'));
    word.starts_with(|c: char| c.is_ascii_digit()) || hex && word.contains(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window =
        Window { before: Timestamp::from_secs(0), start: Timestamp::from_secs(3600), end: Timestamp::from_secs(3960) };

    fn line(secs: i64, source: &'static str, text: &'static str) -> Line<'static> {
        Line { at: Timestamp::from_secs(secs), source, text }
    }

    fn names(list: &[Pattern]) -> Vec<&str> {
        list.iter().map(|p| p.pattern.as_str()).collect()
    }

    #[test]
    fn variables_are_masked() {
        for (text, expected) in [
            ("took 12.5 ms", "took <_> ms"),
            ("redo starts at A/3000148: x", "redo starts at <_>: x"),
            ("id f47ac10b-58cc-4372-a567-0e02b2c3d479.", "id <_>."),
            ("relation \"t 1\" of 'x'", "relation <_> of <_>"),
            ("can't reach pg1", "can't reach pg1"),
            ("an open \"quote", "an open \"quote"),
        ] {
            assert_eq!(mask(text), expected, "{text}");
        }
    }

    #[test]
    fn new_vanished_and_changed_are_told_apart() {
        let mut lines: Vec<_> = (0..360).map(|n| line(n * 10, "patroni", "no action. I am the leader")).collect();
        lines.extend((0..396).map(|n| line(n * 10, "etcd", "healthy")));
        lines.extend((0..6).map(|n| line(n * n * 90, "etcd", "slow fdatasync")));
        lines.extend((0..20).map(|n| line(3600 + n, "etcd", "slow fdatasync")));
        lines.push(line(3605, "patroni", "no action. I am the leader"));
        lines.push(line(3601, "patroni", "demoted self"));
        lines.push(line(3602, "proxy", "server down"));
        let found = compare(lines, WINDOW);
        assert_eq!(names(&found.new), ["demoted self"]);
        assert_eq!(names(&found.vanished), ["no action. I am the leader"]);
        assert_eq!(names(&found.changed), ["slow fdatasync"]);
        assert_eq!(found.without_baseline, ["proxy"]);
        assert!(!found.truncated);
    }

    #[test]
    fn too_many_lines_are_said() {
        let found = compare((0..=LINES_MAX).map(|_| line(1, "a", "x")), WINDOW);
        assert!(found.truncated);
    }
}
