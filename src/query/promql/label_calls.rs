//! Functions over labels: `label_replace`, `label_join`, `sort_by_label`.

use std::cmp::Ordering;

use regex::Regex;

use super::ast::Call;
use super::calls::{arg, check_label_name, distinct_or_error, text};
use super::engine::QueryError;
use super::eval::{Column, Eval, Evaluator, Val};
use crate::model::go_regex::expand;
use crate::model::matcher::anchored_regex;

pub(super) fn replace(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let mut columns = evaluator.vector(arg(call, 0)?)?;
    let target = text(evaluator, call, 1)?;
    let replacement = text(evaluator, call, 2)?;
    let source = text(evaluator, call, 3)?;
    let pattern = text(evaluator, call, 4)?;
    let regex: Regex = anchored_regex(&pattern)
        .map_err(|_| QueryError::Execution(format!("invalid regular expression in label_replace(): {pattern}")))?;
    check_label_name(&target, "invalid destination label name in label_replace()")?;
    for column in &mut columns {
        let value = column.labels.get(&source).unwrap_or("");
        if let Some(captures) = regex.captures(value) {
            let expanded = expand(&replacement, &captures);
            column.labels = column.labels.with(&target, &expanded);
            column.drop_name &= target != crate::model::labels::METRIC_NAME;
        }
    }
    distinct_or_error(evaluator, columns)
}

pub(super) fn join(evaluator: &Evaluator<'_>, call: &Call) -> Eval<Val> {
    let mut columns = evaluator.vector(arg(call, 0)?)?;
    let target = text(evaluator, call, 1)?;
    let separator = text(evaluator, call, 2)?;
    let mut sources = Vec::new();
    for index in 3..call.args.len() {
        let source = text(evaluator, call, index)?;
        check_label_name(&source, "invalid source label name in label_join()")?;
        sources.push(source);
    }
    check_label_name(&target, "invalid destination label name in label_join()")?;
    for column in &mut columns {
        let values: Vec<&str> = sources.iter().map(|name| column.labels.get(name).unwrap_or("")).collect();
        let joined = values.join(&separator);
        column.labels = column.labels.with(&target, &joined);
        column.drop_name &= target != crate::model::labels::METRIC_NAME;
    }
    distinct_or_error(evaluator, columns)
}

pub(super) fn sort(evaluator: &Evaluator<'_>, call: &Call, descending: bool) -> Eval<Val> {
    let mut columns = evaluator.vector(arg(call, 0)?)?;
    let mut names = Vec::new();
    for index in 1..call.args.len() {
        names.push(text(evaluator, call, index)?);
    }
    columns.sort_by(|a, b| {
        let get = |column: &Column, name: &str| column.labels.get(name).unwrap_or("").to_owned();
        let by_names = names.iter().map(|name| natural(&get(a, name), &get(b, name))).find(|order| order.is_ne());
        let order = by_names.unwrap_or_else(|| a.labels.cmp(&b.labels));
        if descending { order.reverse() } else { order }
    });
    Ok(Val::Vector(columns))
}

/// Runs of digits and of other characters.
fn chunks(text: &str) -> Vec<&str> {
    let mut rest = text;
    let mut found = Vec::new();
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let Some((chunk, after)) = rest.split_at_checked(end) else { break };
        found.push(chunk);
        rest = after;
    }
    found
}

/// Numbers inside texts count as numbers: `n2` comes before `n10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (left, right) = (chunks(a), chunks(b));
    for (x, y) in left.iter().zip(&right) {
        let order = match (x.parse::<i64>(), y.parse::<i64>()) {
            (Ok(x), Ok(y)) => x.cmp(&y),
            _ => x.cmp(y),
        };
        if order.is_ne() {
            return order;
        }
    }
    left.len().cmp(&right.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_texts_count_as_numbers() {
        let mut texts = ["n10", "n2", "", "n", "m9x", "m9", "n2b1"];
        texts.sort_by(|a, b| natural(a, b));
        assert_eq!(texts, ["", "m9", "m9x", "n", "n2", "n2b1", "n10"]);
    }
}
