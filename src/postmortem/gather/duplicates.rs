//! The same log given twice: PostgreSQL writes up to three formats at once, and copies of rotated files lie around.
//!
//! Two logs of one member and source are the same where they overlap in time if most of a sample of the one is in the
//! other. The format that says most is kept; of the other only what lies outside of the kept one's range is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};

use rustc_hash::FxHasher;

use crate::collect::logs::format::Format;
use crate::model::{LogRecord, Timestamp};

use super::Finding;
use super::files::LogFile;
use super::part::{Facts, corrected};

/// Records that are remembered of a log: those with the smallest hashes, which are the same ones in every copy.
const SAMPLE: usize = 512;
/// Of the smaller log's sample, so much must be in the other.
const SHARE: f64 = 0.8;
/// Fewer records prove nothing.
const COMMON_MIN: usize = 3;
/// Of a message, so much is compared; formats differ in what they append.
const MESSAGE_BYTES: usize = 48;

/// A sample of a log, the same for every copy and format of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Sketch {
    /// Hash of second and message, with the time as read.
    sample: BTreeMap<u64, Timestamp>,
}

impl Sketch {
    pub(super) fn add(&mut self, record: &LogRecord) {
        let mut hasher = FxHasher::default();
        record.at.nanos().div_euclid(1_000_000_000).hash(&mut hasher);
        message(&record.line).hash(&mut hasher);
        record.field("pid").hash(&mut hasher);
        let hash = hasher.finish().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if self.sample.len() < SAMPLE || self.sample.last_key_value().is_some_and(|(last, _)| hash < *last) {
            self.sample.insert(hash, record.at);
            if self.sample.len() > SAMPLE {
                self.sample.pop_last();
            }
        }
    }

    /// Of what both must have sampled in a range: how much of it is in both, and how much there is in `self`.
    fn common(&self, other: &Self, range: (Timestamp, Timestamp)) -> (usize, usize) {
        let limit = |sketch: &Self| match sketch.sample.last_key_value() {
            Some((last, _)) if sketch.sample.len() >= SAMPLE => *last,
            _ => u64::MAX,
        };
        let limit = limit(self).min(limit(other));
        let here: Vec<u64> = self
            .sample
            .range(..=limit)
            .filter(|(_, at)| **at >= range.0 && **at <= range.1)
            .map(|(hash, _)| *hash)
            .collect();
        (here.iter().filter(|hash| other.sample.contains_key(hash)).count(), here.len())
    }
}

/// The message without severity and prefix: what is equal in all formats.
fn message(line: &str) -> &str {
    let first = line.lines().next().unwrap_or("");
    let text = first.find(":  ").and_then(|at| first.get(at + 3..)).unwrap_or(first);
    text.get(..text.floor_char_boundary(MESSAGE_BYTES)).unwrap_or(text)
}

/// What of a log is in another one.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    /// Corrected by the zone only.
    pub(super) range: (Timestamp, Timestamp),
    pub(super) why: String,
}

/// For each part what of it is a copy.
pub(super) fn find(
    files: &[LogFile],
    surveyed: &[(usize, Facts)],
    members: &[Finding<String>],
    zones: &[Option<Finding<i32>>],
) -> Vec<Option<Copy>> {
    let zone = |index: usize| zones.get(index).and_then(Option::as_ref).map_or(0, |zone| zone.value);
    let rank = |facts: &Facts| match facts.format {
        Format::Csvlog => 0,
        Format::Jsonlog => 1,
        _ => 2,
    };
    let mut order: Vec<usize> = (0..surveyed.len()).collect();
    // The longer one of the better format first.
    order.sort_by_key(|at| surveyed.get(*at).map(|(_, facts)| (rank(facts), std::cmp::Reverse(facts.records), *at)));
    let mut copies: Vec<Option<Copy>> = vec![None; surveyed.len()];
    let mut kept: BTreeSet<usize> = BTreeSet::new();
    for at in order {
        let Some((_, facts)) = surveyed.get(at) else { continue };
        let same_log = |other: &&usize| {
            let Some((_, known)) = surveyed.get(**other) else { return false };
            let same_place = members.get(at).map(|m| &m.value) == members.get(**other).map(|m| &m.value)
                && known.key.source == facts.key.source
                && zone(at) == zone(**other);
            let range = (facts.first_at.max(known.first_at), facts.last_at.min(known.last_at));
            let (common, all) = facts.sketch.common(&known.sketch, range);
            same_place
                && range.0 <= range.1
                && common >= COMMON_MIN.min(all.max(1))
                && common as f64 >= SHARE * all as f64
        };
        let original = kept.iter().find(same_log).copied();
        let copy = original.and_then(|original| {
            let (file, known) = surveyed.get(original)?;
            let range = (corrected(known.first_at, zone(at), 0.0), corrected(known.last_at, zone(at), 0.0));
            let path = files.get(*file)?.path.display();
            Some(Copy { range, why: format!("the same records are in {path} ({})", known.format.as_str()) })
        });
        if copy.is_none() {
            kept.insert(at);
        }
        if let Some(place) = copies.get_mut(at) {
            *place = copy;
        }
    }
    copies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;

    fn sketch(range: std::ops::Range<i64>) -> Sketch {
        let mut sketch = Sketch::default();
        for second in range {
            sketch.add(&LogRecord {
                at: Timestamp::from_secs(second),
                stream: Labels::default(),
                line: format!("LOG:  message {second}"),
                fields: Vec::new(),
            });
        }
        sketch
    }

    #[test]
    fn samples_of_copies_are_the_same_and_of_others_are_not() {
        let all = (Timestamp::MIN, Timestamp::MAX);
        let (whole, part, other) = (sketch(0..5000), sketch(1000..2000), sketch(9000..9500));
        let (common, of) = part.common(&whole, all);
        assert!(common == of && of > 50, "{common} of {of}");
        assert_eq!(other.common(&whole, all).0, 0);
    }
}
