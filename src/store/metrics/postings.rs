//! From matchers to series: sets of series ids by label value, shared by the head and the blocks.
//!
//! Invariant: every list of ids is sorted and without doubles.

use crate::model::Matcher;

/// Where the ids of series with a label value are looked up.
pub(super) trait LabelIndex {
    /// Ids of all series.
    fn all(&self) -> Vec<u32>;
    /// Ids of the series with this label value.
    fn postings(&self, name: &str, value: &str) -> Vec<u32>;
    /// Calls `each` with every value of the label and its ids.
    fn for_each_value(&self, name: &str, each: &mut dyn FnMut(&str, &[u32]));
}

/// Ids of the series that satisfy every matcher.
pub(super) fn select(index: &impl LabelIndex, matchers: &[Matcher]) -> Vec<u32> {
    let mut chosen: Option<Vec<u32>> = None;
    let (excluding, including): (Vec<_>, Vec<_>) = matchers.iter().partition(|matcher| matcher.matches_empty());
    for matcher in including {
        let ids = match matcher.op {
            crate::model::MatchOp::Equal => index.postings(&matcher.name, &matcher.value),
            _ => union_where(index, matcher, true),
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
    index.for_each_value(&matcher.name, &mut |value, postings| {
        if matcher.matches_value(value) == matching {
            ids.extend_from_slice(postings);
        }
    });
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn intersect(a: &[u32], b: &[u32]) -> Vec<u32> {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    short.iter().copied().filter(|id| long.binary_search(id).is_ok()).collect()
}
