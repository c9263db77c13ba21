//! What a record weighs, in the sense of Loki's volumes: its line, 8 bytes for each field, and each distinct text of the
//! fields once, since a chunk keeps it once. A seal is what a chunk is to Loki, and so is what is in memory.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::{Labels, LogRecord};

/// A name and a value are two references of 4 bytes.
const FIELD_BYTES: u64 = 8;
/// Distinct texts known at once; beyond, all count anew, as in Loki where the next chunk begins.
const TEXTS_MAX: usize = 1 << 17;

/// What to count of each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Bytes of the line.
    Line,
    /// Bytes of the line and of what its fields add to the stream.
    Record,
}

/// Weighs the fields of records, in the order of their arrival.
#[derive(Default)]
pub(super) struct FieldScale<'a> {
    known: FxHashMap<&'a Labels, FxHashSet<&'a str>>,
    texts: usize,
}

impl<'a> FieldScale<'a> {
    pub(super) fn weigh(&mut self, record: &'a LogRecord) -> u64 {
        if record.fields.is_empty() {
            return 0;
        }
        if self.texts > TEXTS_MAX {
            *self = Self::default();
        }
        let known = self.known.entry(&record.stream).or_default();
        let mut bytes = 0;
        for (name, value) in &record.fields {
            bytes += FIELD_BYTES;
            for text in [name, value] {
                if known.insert(text) {
                    self.texts += 1;
                    bytes += text.len() as u64;
                }
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn every_text_of_a_stream_counts_once() {
        let record = |member: &str, fields: &[(&str, &str)]| LogRecord {
            at: Timestamp::from_secs(1),
            stream: Labels::from_pairs([("member", member)]),
            line: "x".to_owned(),
            fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let records = [
            record("n1", &[("pid", "100"), ("user", "bob")]),
            record("n1", &[("pid", "100"), ("user", "eve")]),
            record("n1", &[]),
            record("n2", &[("pid", "100")]),
        ];
        let mut scale = FieldScale::default();
        let weights: Vec<u64> = records.iter().map(|record| scale.weigh(record)).collect();
        assert_eq!(weights, [16 + 3 + 3 + 4 + 3, 16 + 3, 0, 8 + 6]);
    }
}
