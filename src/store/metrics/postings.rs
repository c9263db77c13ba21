//! From matchers to series: sets of series ids by label value, shared by the head and the blocks.
//!
//! Invariant: every list of ids is sorted and without doubles.

use crate::model::{MatchOp, Matcher};

/// Where the ids of series with a label value are looked up.
pub(super) trait LabelIndex {
    /// Ids of all series.
    fn all(&self) -> Vec<u32>;
    /// Appends the ids of the series with this label value.
    fn append(&self, name: &str, value: &str, out: &mut Vec<u32>);
    /// Appends the ids of the series whose value of this label is `wanted`; each value is asked for once.
    fn append_where(&self, name: &str, wanted: &mut dyn FnMut(&str) -> bool, out: &mut Vec<u32>);
}

/// Ids of the series that satisfy every matcher.
pub(super) fn select(index: &impl LabelIndex, matchers: &[Matcher]) -> Vec<u32> {
    let mut chosen: Option<Vec<u32>> = None;
    let (excluding, including): (Vec<_>, Vec<_>) = matchers.iter().partition(|matcher| matcher.matches_empty());
    for matcher in including {
        let ids = if matcher.op == MatchOp::Equal {
            let mut ids = Vec::new();
            index.append(&matcher.name, &matcher.value, &mut ids);
            ids
        } else {
            union_where(index, matcher, true)
        };
        let next = match chosen {
            None => ids,
            Some(before) => intersect(&before, &ids),
        };
        if next.is_empty() {
            return next;
        }
        chosen = Some(next);
    }
    let mut chosen = chosen.unwrap_or_else(|| index.all());
    for matcher in excluding {
        // A series without the label satisfies this matcher: only those with a wrong value go.
        let wrong = union_where(index, matcher, false);
        chosen.retain(|id| wrong.binary_search(id).is_err());
    }
    chosen
}

fn union_where(index: &impl LabelIndex, matcher: &Matcher, matching: bool) -> Vec<u32> {
    let mut ids = Vec::new();
    index.append_where(&matcher.name, &mut |value| matcher.matches_value(value) == matching, &mut ids);
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn intersect(a: &[u32], b: &[u32]) -> Vec<u32> {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    short.iter().copied().filter(|id| long.binary_search(id).is_ok()).collect()
}
