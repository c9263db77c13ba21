//! Which series there are: labels, a number for each, and the numbers by label value; compact, and only growing.
//!
//! A registry is shared by the windows of the head and dropped as a whole: there is no removing of single series.
//!
//! Invariants: numbers count from 0 without gaps; every list of numbers ascends; a set of labels has one number.

use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::model::Labels;
use crate::store::metrics::bytes::{Reader, put_uvarint};
use crate::store::metrics::postings::LabelIndex;
use crate::wire::remote_write;

/// What stands for a set of labels: long enough that two sets never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct LabelHash {
    high: u64,
    low: u64,
}

/// The hash of labels in the form in which remote write sends them, sorted by name.
pub(in super::super) fn hash_of_encoded(labels: &[u8]) -> LabelHash {
    let hash = xxh3_128(labels);
    LabelHash { high: upper(hash), low: lower(hash) }
}

fn upper(hash: u128) -> u64 {
    (hash >> 64) as u64
}

#[expect(clippy::cast_possible_truncation, reason = "a half is meant")]
fn lower(hash: u128) -> u64 {
    hash as u64
}

/// The hash of a set of labels; `scratch` saves an allocation.
pub(in super::super) fn hash_of(labels: &Labels, scratch: &mut Vec<u8>) -> LabelHash {
    scratch.clear();
    remote_write::put_labels(labels, scratch);
    hash_of_encoded(scratch)
}

/// Numbers in ascending order, most of them as differences of one byte.
#[derive(Debug)]
struct Posting {
    name: u32,
    value: u32,
    first: u32,
    last: u32,
    count: u32,
    differences: Vec<u8>,
}

impl Posting {
    fn push(&mut self, number: u32) {
        put_uvarint(&mut self.differences, u64::from(number - self.last));
        self.last = number;
        self.count += 1;
    }

    fn append(&self, out: &mut Vec<u32>) {
        let mut number = self.first;
        out.push(number);
        let mut reader = Reader::new(&self.differences);
        while let Some(difference) = reader.u32() {
            number += difference;
            out.push(number);
        }
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.differences.capacity()
    }
}

/// Where a series' labels lie, and their hash.
#[derive(Debug)]
struct Entry {
    hash: LabelHash,
    labels_at: u32,
}

/// The series.
#[derive(Debug, Default)]
pub(in super::super) struct Registry {
    symbols: Vec<Arc<str>>,
    symbol_table: HashTable<u32>,
    series: Vec<Entry>,
    series_table: HashTable<u32>,
    /// Labels of all series: their number, then a name's and a value's symbol each.
    labels: Vec<u8>,
    postings: Vec<Posting>,
    posting_table: HashTable<u32>,
    /// Postings of each name, in the order in which its values came.
    values: FxHashMap<u32, Vec<u32>>,
}

fn pair_hash(name: u32, value: u32) -> u64 {
    // A Fibonacci hash: the table takes its bits from both ends.
    ((u64::from(name) << 32) | u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

impl Registry {
    pub(in super::super) fn len(&self) -> usize {
        self.series.len()
    }

    pub(in super::super) fn find(&self, hash: LabelHash) -> Option<u32> {
        let is_it = |number: &u32| self.series.get(*number as usize).is_some_and(|entry| entry.hash == hash);
        self.series_table.find(hash.low, is_it).copied()
    }

    pub(in super::super) fn hash(&self, series: u32) -> Option<LabelHash> {
        self.series.get(series as usize).map(|entry| entry.hash)
    }

    /// Whether the series of this number is the one with this hash.
    pub(in super::super) fn is(&self, series: u32, hash: LabelHash) -> bool {
        self.series.get(series as usize).is_some_and(|entry| entry.hash == hash)
    }

    /// Gives labels that [`Registry::find`] did not know a number; `None` when all numbers are taken.
    pub(in super::super) fn register(&mut self, hash: LabelHash, labels: &Labels) -> Option<u32> {
        let series = u32::try_from(self.series.len()).ok().filter(|series| *series < u32::MAX)?;
        let labels_at = u32::try_from(self.labels.len()).ok()?;
        put_uvarint(&mut self.labels, labels.len() as u64);
        for (name, value) in labels.shared() {
            let (name, value) = (self.symbol(name), self.symbol(value));
            put_uvarint(&mut self.labels, u64::from(name));
            put_uvarint(&mut self.labels, u64::from(value));
            self.post(name, value, series);
        }
        self.series.push(Entry { hash, labels_at });
        let Self { series_table, series: entries, .. } = self;
        series_table
            .insert_unique(hash.low, series, |number| entries.get(*number as usize).map_or(0, |entry| entry.hash.low));
        Some(series)
    }

    fn symbol(&mut self, text: &Arc<str>) -> u32 {
        let Self { symbols, symbol_table, .. } = self;
        let hash = xxh3_64(text.as_bytes());
        let is_it = |number: &u32| symbols.get(*number as usize).is_some_and(|symbol| symbol == text);
        if let Some(number) = symbol_table.find(hash, is_it) {
            return *number;
        }
        // There are fewer symbols than bytes of labels, and those are counted in 32 bits.
        let number = u32::try_from(symbols.len()).unwrap_or(u32::MAX);
        symbols.push(Arc::clone(text));
        let rehash = |number: &u32| symbols.get(*number as usize).map_or(0, |symbol| xxh3_64(symbol.as_bytes()));
        symbol_table.insert_unique(hash, number, rehash);
        number
    }

    fn post(&mut self, name: u32, value: u32, series: u32) {
        let Self { postings, posting_table, values, .. } = self;
        let hash = pair_hash(name, value);
        let is_it = |at: &u32| postings.get(*at as usize).is_some_and(|p| p.name == name && p.value == value);
        if let Some(at) = posting_table.find(hash, is_it).copied() {
            if let Some(posting) = postings.get_mut(at as usize) {
                posting.push(series);
            }
            return;
        }
        let at = u32::try_from(postings.len()).unwrap_or(u32::MAX);
        postings.push(Posting { name, value, first: series, last: series, count: 1, differences: Vec::new() });
        let rehash = |at: &u32| postings.get(*at as usize).map_or(0, |posting| pair_hash(posting.name, posting.value));
        posting_table.insert_unique(hash, at, rehash);
        values.entry(name).or_default().push(at);
    }

    fn find_symbol(&self, text: &str) -> Option<u32> {
        let is_it = |number: &u32| self.symbols.get(*number as usize).is_some_and(|symbol| symbol.as_ref() == text);
        self.symbol_table.find(xxh3_64(text.as_bytes()), is_it).copied()
    }

    pub(in super::super) fn symbols(&self) -> &[Arc<str>] {
        &self.symbols
    }

    /// Symbols of a series' label names and values, in order of names.
    pub(in super::super) fn pairs(&self, series: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        pairs_at(&self.labels, self.series.get(series as usize).map(|entry| entry.labels_at))
    }

    pub(in super::super) fn label_table(&self) -> LabelTable {
        LabelTable {
            symbols: self.symbols.clone(),
            labels: self.labels.clone(),
            places: self.series.iter().map(|entry| entry.labels_at).collect(),
        }
    }

    pub(in super::super) fn labels(&self, series: u32) -> Labels {
        let symbol = |id: u32| self.symbols.get(id as usize).cloned();
        Labels::from_pairs(self.pairs(series).filter_map(|(name, value)| Some((symbol(name)?, symbol(value)?))))
    }

    pub(in super::super) fn label_names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().filter_map(|name| self.symbols.get(*name as usize)).map(AsRef::as_ref)
    }

    /// Every label name with its values and how many series have each.
    pub(in super::super) fn cardinality(&self) -> impl Iterator<Item = (&str, Vec<(&str, usize)>)> {
        let text = |symbol: u32| self.symbols.get(symbol as usize).map(AsRef::as_ref);
        self.values.iter().filter_map(move |(name, postings)| {
            let postings = postings.iter().filter_map(|at| self.postings.get(*at as usize));
            let values = postings.filter_map(|posting| Some((text(posting.value)?, posting.count as usize)));
            Some((text(*name)?, values.collect()))
        })
    }

    pub(in super::super) fn label_pairs(&self) -> usize {
        self.postings.len()
    }

    /// Memory, about.
    pub(in super::super) fn bytes(&self) -> usize {
        let texts: usize = self.symbols.iter().map(|symbol| symbol.len() + 32).sum();
        let postings: usize = self.postings.iter().map(Posting::bytes).sum();
        let tables = self.symbol_table.capacity() + self.series_table.capacity() + self.posting_table.capacity();
        texts + postings + tables * 6 + self.series.capacity() * size_of::<Entry>() + self.labels.capacity()
    }
}

/// A copy of the labels of all series, to sort and write them without holding the head.
#[derive(Debug)]
pub(in super::super) struct LabelTable {
    pub(in super::super) symbols: Vec<Arc<str>>,
    labels: Vec<u8>,
    places: Vec<u32>,
}

impl LabelTable {
    /// Symbols of a series' label names and values, in order of names.
    pub(in super::super) fn pairs(&self, series: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        pairs_at(&self.labels, self.places.get(series as usize).copied())
    }
}

fn pairs_at(labels: &[u8], place: Option<u32>) -> impl Iterator<Item = (u32, u32)> + '_ {
    let at = place.map_or(usize::MAX, |place| place as usize);
    let mut reader = Reader::new(labels.get(at..).unwrap_or_default());
    let count = reader.uvarint().unwrap_or(0);
    (0..count).filter_map(move |_| Some((reader.u32()?, reader.u32()?)))
}

impl LabelIndex for Registry {
    fn all(&self) -> Vec<u32> {
        (0..).take(self.series.len()).collect()
    }

    fn append(&self, name: &str, value: &str, out: &mut Vec<u32>) {
        let Some((name, value)) = self.find_symbol(name).zip(self.find_symbol(value)) else { return };
        let is_it = |at: &u32| self.postings.get(*at as usize).is_some_and(|p| p.name == name && p.value == value);
        let at = self.posting_table.find(pair_hash(name, value), is_it);
        if let Some(posting) = at.and_then(|at| self.postings.get(*at as usize)) {
            posting.append(out);
        }
    }

    fn append_where(&self, name: &str, wanted: &mut dyn FnMut(&str) -> bool, out: &mut Vec<u32>) {
        let postings = self.find_symbol(name).and_then(|name| self.values.get(&name));
        for posting in postings.into_iter().flatten().filter_map(|at| self.postings.get(*at as usize)) {
            if self.symbols.get(posting.value as usize).is_some_and(|text| wanted(text)) {
                posting.append(out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MatchOp, Matcher};
    use crate::store::metrics::postings::select;

    #[test]
    fn series_are_found_by_labels_and_by_matchers() {
        let mut registry = Registry::default();
        let mut scratch = Vec::new();
        let labels =
            |i: usize| Labels::metric(["up", "down"][i % 2], &[("i", &i.to_string()), ("tens", &(i / 10).to_string())]);
        for i in 0..1000 {
            let hash = hash_of(&labels(i), &mut scratch);
            assert_eq!(registry.find(hash), None);
            assert_eq!(registry.register(hash, &labels(i)), u32::try_from(i).ok());
        }
        for i in [0, 1, 500, 999] {
            let number = registry.find(hash_of(&labels(i), &mut scratch)).unwrap();
            assert_eq!(registry.labels(number), labels(i));
        }
        let cases = [
            (vec![Matcher::equal("__name__", "up")], 500),
            (vec![Matcher::equal("__name__", "up"), Matcher::equal("tens", "7")], 5),
            (vec![Matcher::new("i", MatchOp::Regex, "1.").unwrap()], 10),
            (vec![Matcher::new("tens", MatchOp::NotEqual, "1").unwrap()], 990),
            (vec![Matcher::equal("none", "x")], 0),
            (vec![Matcher::equal("none", "")], 1000),
        ];
        for (matchers, count) in cases {
            let ids = select(&registry, &matchers);
            assert_eq!(ids.len(), count, "{matchers:?}");
            assert!(ids.is_sorted_by(|a, b| a < b), "{matchers:?}");
        }
    }
}
