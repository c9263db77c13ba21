//! Aggregations that pick series: topk, bottomk, limitk and limit_ratio. What they pick keeps its labels.

use std::collections::BTreeMap;

use super::aggregate::Group;
use super::ast::{AggregateOp, Span};
use super::calls::at;
use super::engine::QueryError;
use super::eval::{ABSENT, Column, Eval, Evaluator};
use super::format::number;
use super::label_hash::label_hash;

/// Picks at most `k` series at each step, in the order of their values where that counts.
pub(super) fn by_count(
    evaluator: &Evaluator<'_>,
    op: AggregateOp,
    k: &[f64],
    group: &Group<'_>,
    results: &mut Vec<Column>,
) -> Eval<()> {
    let mut chosen = Chosen { steps: evaluator.grid.steps, values: BTreeMap::new(), order: Vec::new() };
    for step in 0..evaluator.grid.steps {
        let k = count(at(k, step));
        let present = group.members.iter().enumerate().filter_map(|(i, column)| Some((i, column.at(step)?)));
        match op {
            AggregateOp::Limitk => present.take(k).for_each(|(index, value)| chosen.add(index, step, value)),
            _ if k == 0 => {}
            _ => {
                let mut heap = Heap { entries: Vec::new(), lowest_first: op == AggregateOp::Topk };
                present.for_each(|entry| heap.offer(entry, k));
                heap.sorted().into_iter().for_each(|(index, value)| chosen.add(index, step, value));
            }
        }
    }
    chosen.finish(evaluator, group, results)
}

/// Refuses numbers that count nothing.
pub(super) fn check_counts(k: &[f64]) -> Eval<()> {
    if k.iter().all(|k| *k < 1.0) {
        return Ok(());
    }
    match k.iter().find(|k| !(i64::MIN as f64..=i64::MAX as f64).contains(*k)) {
        Some(k) => Err(QueryError::Execution(format!("Scalar value {} overflows int64", number(*k)))),
        None => Ok(()),
    }
}

/// A checked number of series.
fn count(k: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked before")]
    let count = k.max(0.0) as usize;
    count
}

/// Warns of ratios that are none, also where there is nothing to pick from, and refuses NaN where there is something.
pub(super) fn check_ratios(evaluator: &Evaluator<'_>, ratios: &[f64], span: Span, any: bool) -> Eval<()> {
    if any && ratios.iter().any(|ratio| ratio.is_nan()) {
        return Err(QueryError::Execution("Ratio value is NaN".to_owned()));
    }
    let (min, max) = (ratios.iter().copied().fold(0.0, f64::min), ratios.iter().copied().fold(0.0, f64::max));
    for (ratio, capped) in [(max, max.min(1.0)), (min, min.max(-1.0))] {
        if ratio.to_bits() != capped.to_bits() {
            let problem = "ratio value should be between -1 and 1";
            let message = format!("{problem}, got {}, capping to {}", number(ratio), number(capped));
            evaluator.warn(&message, span);
        }
    }
    Ok(())
}

/// Picks the share of series whose hash is low enough; a negative ratio picks exactly the others.
pub(super) fn by_ratio(
    evaluator: &Evaluator<'_>,
    ratios: &[f64],
    group: &Group<'_>,
    results: &mut Vec<Column>,
) -> Eval<()> {
    let mut chosen = Chosen { steps: evaluator.grid.steps, values: BTreeMap::new(), order: Vec::new() };
    let offsets: Vec<f64> =
        group.members.iter().map(|column| label_hash(&column.labels) as f64 / u64::MAX as f64).collect();
    for step in 0..evaluator.grid.steps {
        let ratio = at(ratios, step).clamp(-1.0, 1.0);
        for (index, (column, offset)) in group.members.iter().zip(&offsets).enumerate() {
            let is_in = if ratio >= 0.0 { *offset < ratio } else { *offset >= 1.0 + ratio };
            if let Some(value) = column.at(step).filter(|_| is_in) {
                chosen.add(index, step, value);
            }
        }
    }
    chosen.finish(evaluator, group, results)
}

/// Values of the picked series, and the series in the order in which they were picked first.
struct Chosen {
    steps: usize,
    values: BTreeMap<usize, Vec<f64>>,
    order: Vec<usize>,
}

impl Chosen {
    fn add(&mut self, index: usize, step: usize, value: f64) {
        let values = self.values.entry(index).or_insert_with(|| {
            self.order.push(index);
            vec![ABSENT; self.steps]
        });
        if let Some(place) = values.get_mut(step) {
            *place = value;
        }
    }

    fn finish(mut self, evaluator: &Evaluator<'_>, group: &Group<'_>, results: &mut Vec<Column>) -> Eval<()> {
        for index in self.order {
            if let (Some(column), Some(values)) = (group.members.get(index), self.values.remove(&index)) {
                let column = Column { labels: column.labels.clone(), values, drop_name: column.drop_name };
                evaluator.keep(column, results)?;
            }
        }
        Ok(())
    }
}

type Entry = (usize, f64);

/// The best entries so far, the worst of them on top. Which of equal values stay follows Go's `container/heap`, so that
/// the same series are picked as in Prometheus.
struct Heap {
    entries: Vec<Entry>,
    /// Whether high values are the best ones.
    lowest_first: bool,
}

impl Heap {
    /// Whether the first is worse: NaN always is.
    fn is_worse(&self, a: f64, b: f64) -> bool {
        a.is_nan() || if self.lowest_first { a < b } else { a > b }
    }

    fn less(&self, a: usize, b: usize) -> bool {
        match (self.entries.get(a), self.entries.get(b)) {
            (Some((_, a)), Some((_, b))) => self.is_worse(*a, *b),
            _ => false,
        }
    }

    fn offer(&mut self, entry: Entry, k: usize) {
        if self.entries.len() < k {
            self.entries.push(entry);
            self.up(self.entries.len() - 1);
            return;
        }
        let Some((_, worst)) = self.entries.first().copied() else { return };
        let is_better = if self.lowest_first { worst < entry.1 } else { worst > entry.1 };
        if is_better || (worst.is_nan() && !entry.1.is_nan()) {
            if let Some(place) = self.entries.first_mut() {
                *place = entry;
            }
            self.down();
        }
    }

    fn up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.less(at, parent) {
                return;
            }
            self.entries.swap(at, parent);
            at = parent;
        }
    }

    fn down(&mut self) {
        let mut at = 0;
        loop {
            let left = 2 * at + 1;
            if left >= self.entries.len() {
                return;
            }
            let right = left + 1;
            let child = if right < self.entries.len() && self.less(right, left) { right } else { left };
            if !self.less(child, at) {
                return;
            }
            self.entries.swap(at, child);
            at = child;
        }
    }

    /// The entries, best first.
    fn sorted(mut self) -> Vec<Entry> {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_by(|(_, a), (_, b)| {
            let values = if self.lowest_first { b.partial_cmp(a) } else { a.partial_cmp(b) };
            values.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        });
        entries
    }
}
