//! `info()`: adds labels of info metrics such as `target_info` to the series of the same instance and job.

use rustc_hash::FxHashMap;

use super::ast::{Call, Expr, ExprKind};
use super::calls::arg;
use super::engine::QueryError;
use super::eval::{ABSENT, Column, Eval, Evaluator, Val, merge};
use crate::model::labels::METRIC_NAME;
use crate::model::matcher::MatchOp;
use crate::model::{Labels, Matcher};

/// Labels by which an info series belongs to others.
const IDENTIFYING: [&str; 2] = ["instance", "job"];
const TARGET_INFO: &str = "target_info";

/// What the second argument asks for.
struct Wanted {
    /// Matchers of the info metrics' names; never empty.
    names: Vec<Matcher>,
    /// Whether info series among the base are left as they are: not where labels are asked for without a name.
    keeps_infos: bool,
    /// Matchers of the labels to add; empty means all labels.
    data: Vec<Matcher>,
}

impl Wanted {
    fn of(call: &Call) -> Self {
        let matchers = match call.args.get(1).map(|arg| &arg.kind) {
            Some(ExprKind::Selector(selector)) => selector.matchers.clone(),
            _ => Vec::new(),
        };
        let (mut names, data): (Vec<_>, Vec<_>) = matchers.into_iter().partition(|m| m.name == METRIC_NAME);
        let keeps_infos = call.args.len() < 2 || !names.is_empty();
        if names.is_empty() {
            names.push(Matcher::equal(METRIC_NAME, TARGET_INFO));
        }
        Self { names, keeps_infos, data }
    }

    /// Whether a base series stays as it is.
    fn is_info(&self, labels: &Labels) -> bool {
        self.keeps_infos && self.names.iter().all(|matcher| matcher.matches(labels))
    }

    fn adds(&self, name: &str) -> bool {
        self.data.is_empty() || self.data.iter().any(|matcher| matcher.name == name)
    }
}

/// An info series: when its sample of each step was taken, in seconds.
type InfoSeries = Column;

pub(super) fn eval(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let base = evaluator.vector(arg(call, 0)?)?;
    let wanted = Wanted::of(call);
    let infos = select(evaluator, &wanted, &base, arg(call, 0)?)?;
    let mut by_identity: FxHashMap<Labels, Vec<&InfoSeries>> = FxHashMap::default();
    for series in &infos {
        by_identity.entry(series.labels.only(&IDENTIFYING)).or_default().push(series);
    }
    let none = Vec::new();
    let mut results = Vec::new();
    for column in &base {
        evaluator.budget.check()?;
        if wanted.is_info(&column.labels) {
            results.push(column.clone());
            continue;
        }
        let found = by_identity.get(&column.labels.only(&IDENTIFYING)).unwrap_or(&none);
        enrich(evaluator, &wanted, (column, found), &mut results)?;
    }
    merge(results).map(Val::Vector)
}

/// The info series that can belong to the base series.
fn select(evaluator: &Evaluator<'_>, wanted: &Wanted, base: &[Column], expr: &Expr) -> Eval<Vec<InfoSeries>> {
    let mut matchers = wanted.names.clone();
    matchers.extend(wanted.data.iter().cloned());
    let mut any = false;
    for label in IDENTIFYING {
        let values = base.iter().filter(|column| !wanted.is_info(&column.labels)).filter_map(|c| c.labels.get(label));
        let mut values: Vec<String> = values.map(regex::escape).collect();
        values.sort_unstable();
        values.dedup();
        if !values.is_empty() {
            any = true;
            let matcher = Matcher::new(label, MatchOp::Regex, values.join("|"));
            matchers.push(matcher.map_err(|error| QueryError::Execution(error.to_string()))?);
        }
    }
    if !any {
        return Ok(Vec::new());
    }
    // Samples are read where the first selector of the base reads, and looked at where the query is.
    let mut first_selector = None;
    expr.walk(&mut |node| {
        if let (ExprKind::Selector(selector) | ExprKind::Range { selector, .. }, None) = (&node.kind, first_selector) {
            first_selector = Some((selector.at, selector.offset.ms));
        }
    });
    let (at, offset_ms) = first_selector.unwrap_or((None, 0));
    let first = evaluator.reference_ms(at, offset_ms, 0) - evaluator.lookback_ms + 1;
    let last = evaluator.reference_ms(at, offset_ms, evaluator.grid.steps.saturating_sub(1));
    let references: Vec<i64> = evaluator.grid.times().collect();
    evaluator.current(&matchers, (first, last), &references, true)
}

/// The labels that the info series of a step add; `None` when there is no series.
fn added(wanted: &Wanted, base: &Labels, found: &[&InfoSeries], step: usize) -> Eval<Option<Labels>> {
    let mut newest: Vec<(&str, &InfoSeries, f64)> = Vec::new();
    for series in found {
        let Some(at) = series.at(step) else { continue };
        let name = series.labels.metric_name();
        let Some(known) = newest.iter_mut().find(|(known, _, _)| *known == name) else {
            newest.push((name, series, at));
            continue;
        };
        if at > known.2 {
            *known = (name, series, at);
        } else if at.to_bits() == known.2.to_bits() {
            let (old, ms) = (&known.1.labels, at * 1000.0);
            return Err(QueryError::Execution(format!(
                "found duplicate series for info metric: existing {old} @ {ms}, new {} @ {ms}",
                series.labels
            )));
        }
    }
    if newest.is_empty() {
        return Ok(None);
    }
    let mut labels = Labels::default().to_builder();
    for (_, series, _) in newest {
        for (name, value) in series.labels.iter().filter(|(name, _)| *name != METRIC_NAME && wanted.adds(name)) {
            if labels.get(name).is_some_and(|known| known != value) {
                return Err(QueryError::Execution(format!("conflicting label: {name}")));
            }
            if base.get(name).is_none() {
                labels.set(name, value);
            }
        }
    }
    Ok(Some(labels.build()))
}

/// Splits a base series by the labels that are added at each step.
fn enrich(
    evaluator: &Evaluator<'_>,
    wanted: &Wanted,
    (column, found): (&Column, &[&InfoSeries]),
    results: &mut Vec<Column>,
) -> Eval<()> {
    let may_be_missing = wanted.data.iter().all(Matcher::matches_empty);
    let mut parts: Vec<(Labels, Vec<f64>)> = Vec::new();
    for (step, value) in column.values.iter().enumerate() {
        if column.at(step).is_none() {
            continue;
        }
        let labels = match added(wanted, &column.labels, found, step)? {
            Some(labels) => labels,
            None if may_be_missing => Labels::default(),
            None => continue,
        };
        let at = parts.iter().position(|(known, _)| *known == labels).unwrap_or_else(|| {
            parts.push((labels, vec![ABSENT; evaluator.grid.steps]));
            parts.len() - 1
        });
        if let Some(place) = parts.get_mut(at).and_then(|(_, values)| values.get_mut(step)) {
            *place = *value;
        }
    }
    for (added, values) in parts {
        let mut labels = column.labels.to_builder();
        added.iter().for_each(|(name, value)| {
            labels.set(name, value);
        });
        evaluator.keep(Column { labels: labels.build(), values, drop_name: column.drop_name }, results)?;
    }
    Ok(())
}
