//! Binary operators between scalars and vectors.

use rustc_hash::FxHashMap;

use super::ast::{Binary, BinaryOp, Cardinality, Matching};
use super::engine::QueryError;
use super::eval::{ABSENT, Column, Eval, Evaluator, Val, is_absent, merge};
use crate::model::Labels;
use crate::model::labels::METRIC_NAME;
use crate::model::quote::Quoted;

pub(super) fn eval(evaluator: &Evaluator<'_>, binary: &Binary) -> Eval<Val> {
    let left = evaluator.eval(&binary.left)?;
    let right = evaluator.eval(&binary.right)?;
    match (left, right) {
        (Val::Scalar(left), Val::Scalar(right)) => {
            let apply = |(a, b): (&f64, &f64)| match compute(binary.op, *a, *b) {
                Computed::Value(value) => value,
                Computed::Holds(holds) => f64::from(u8::from(holds)),
            };
            Ok(Val::Scalar(left.iter().zip(&right).map(apply).collect()))
        }
        (Val::Vector(columns), Val::Scalar(scalars)) => {
            with_scalar(evaluator, binary, columns, &|step, value| (value, at(&scalars, step), value)).map(Val::Vector)
        }
        (Val::Scalar(scalars), Val::Vector(columns)) => {
            with_scalar(evaluator, binary, columns, &|step, value| (at(&scalars, step), value, value)).map(Val::Vector)
        }
        (Val::Vector(left), Val::Vector(right)) => {
            let columns = if binary.op.is_set() {
                set(evaluator, binary, left, right)?
            } else {
                matched(evaluator, binary, &left, &right)?
            };
            Ok(Val::Vector(columns))
        }
        _ => Err(QueryError::Execution("a string cannot be an operand".to_owned())),
    }
}

fn at(values: &[f64], step: usize) -> f64 {
    values.get(step).copied().unwrap_or(f64::NAN)
}

enum Computed {
    Value(f64),
    /// A comparison.
    Holds(bool),
}

#[expect(clippy::float_cmp, reason = "PromQL compares exactly")]
fn compute(op: BinaryOp, a: f64, b: f64) -> Computed {
    Computed::Value(match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        BinaryOp::Eq => return Computed::Holds(a == b),
        BinaryOp::Ne => return Computed::Holds(a != b),
        BinaryOp::Gt => return Computed::Holds(a > b),
        BinaryOp::Lt => return Computed::Holds(a < b),
        BinaryOp::Ge => return Computed::Holds(a >= b),
        BinaryOp::Le => return Computed::Holds(a <= b),
        // Trimming is for histograms; set operators never come here.
        BinaryOp::TrimUpper | BinaryOp::TrimLower => ABSENT,
        BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => f64::NAN,
    })
}

/// The result of a pair: comparisons keep the value, or yield 0 and 1 with `bool`.
fn pair_value(binary: &Binary, left: f64, right: f64, kept: f64) -> f64 {
    match compute(binary.op, left, right) {
        Computed::Value(value) => value,
        Computed::Holds(holds) if binary.returns_bool => f64::from(u8::from(holds)),
        Computed::Holds(true) => kept,
        Computed::Holds(false) => ABSENT,
    }
}

fn drops_name(binary: &Binary) -> bool {
    !binary.op.is_comparison() || binary.returns_bool
}

fn with_scalar(
    evaluator: &Evaluator<'_>,
    binary: &Binary,
    mut columns: Vec<Column>,
    sides: &dyn Fn(usize, f64) -> (f64, f64, f64),
) -> Eval<Vec<Column>> {
    for column in &mut columns {
        if drops_name(binary) {
            evaluator.remove_name(column);
        }
        for (step, value) in column.values.iter_mut().enumerate() {
            if !is_absent(*value) {
                let (left, right, kept) = sides(step, *value);
                *value = pair_value(binary, left, right, kept);
            }
        }
    }
    evaluator.merge(columns)
}

/// What must be equal on both sides.
fn signature(labels: &Labels, matching: &Matching) -> Labels {
    let mut names: Vec<&str> = matching.labels.iter().map(String::as_str).collect();
    if matching.on {
        return labels.only(&names);
    }
    names.push(METRIC_NAME);
    labels.without(&names)
}

fn by_signature<'a>(columns: &'a [Column], matching: &Matching) -> FxHashMap<Labels, Vec<&'a Column>> {
    let mut groups: FxHashMap<Labels, Vec<&Column>> = FxHashMap::default();
    for column in columns {
        groups.entry(signature(&column.labels, matching)).or_default().push(column);
    }
    groups
}

fn set(evaluator: &Evaluator<'_>, binary: &Binary, left: Vec<Column>, right: Vec<Column>) -> Eval<Vec<Column>> {
    let matching = &binary.matching;
    let (mut filtered, other, wanted) = match binary.op {
        BinaryOp::Or => (right, &left, false),
        op => (left.clone(), &right, op == BinaryOp::And),
    };
    let groups = by_signature(other, matching);
    for column in &mut filtered {
        let partners = groups.get(&signature(&column.labels, matching));
        for (step, value) in column.values.iter_mut().enumerate() {
            let met = partners.is_some_and(|partners| partners.iter().any(|partner| partner.at(step).is_some()));
            if met != wanted {
                *value = ABSENT;
            }
        }
    }
    let mut results = Vec::new();
    for column in filtered {
        evaluator.keep(column, &mut results)?;
    }
    if binary.op == BinaryOp::Or {
        let mut all = left;
        all.extend(results);
        return merge(all);
    }
    Ok(results)
}

/// One or many to one. `many` is the left side unless the cardinality is one-to-many.
fn matched(evaluator: &Evaluator<'_>, binary: &Binary, left: &[Column], right: &[Column]) -> Eval<Vec<Column>> {
    let matching = &binary.matching;
    let swapped = matching.cardinality == Cardinality::OneToMany;
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let (fill_many, fill_one) =
        if swapped { (matching.fill_right, matching.fill_left) } else { (matching.fill_left, matching.fill_right) };
    let ones = by_signature(one, matching);
    check_one_side(evaluator, &ones, many, (swapped, fill_many.is_some()))?;
    let steps = evaluator.grid.steps;
    let mut outputs = Outputs::new(evaluator, binary);
    for column in many {
        evaluator.budget.check()?;
        let key = signature(&column.labels, matching);
        let partners = ones.get(&key).map(Vec::as_slice).unwrap_or_default();
        for partner in partners {
            let pairs = |step| Some((column.at(step)?, partner.at(step)?));
            outputs.pair(&key, (column, partner), swapped, pairs)?;
        }
        if let Some(fill) = fill_one {
            let filler = Column::new(key.clone(), vec![fill; steps]);
            let is_alone = |step: usize| partners.iter().all(|partner| partner.at(step).is_none());
            let pairs = |step| Some((column.at(step)?, is_alone(step).then_some(fill)?));
            outputs.pair(&key, (column, &filler), swapped, pairs)?;
        }
    }
    let Some(fill) = fill_many else { return Ok(outputs.columns) };
    let manys = by_signature(many, matching);
    for column in one {
        evaluator.budget.check()?;
        let key = signature(&column.labels, matching);
        let partners = manys.get(&key).map(Vec::as_slice).unwrap_or_default();
        let filler = Column::new(key.clone(), vec![fill; steps]);
        let is_alone = |step: usize| partners.iter().all(|partner| partner.at(step).is_none());
        let pairs = |step| Some((is_alone(step).then_some(fill)?, column.at(step)?));
        outputs.pair(&key, (&filler, column), swapped, pairs)?;
    }
    Ok(outputs.columns)
}

/// At no step may two series of the "one" side share a signature.
fn check_one_side(
    evaluator: &Evaluator<'_>,
    ones: &FxHashMap<Labels, Vec<&Column>>,
    many: &[Column],
    (swapped, is_filled): (bool, bool),
) -> Eval<()> {
    for (key, columns) in ones.iter().filter(|(_, columns)| columns.len() > 1) {
        for step in 0..evaluator.grid.steps {
            let mut present = columns.iter().filter(|column| column.at(step).is_some());
            let (Some(first), Some(second)) = (present.next(), present.next()) else { continue };
            // Without anything on the other side nothing is matched, and nothing is wrong.
            if !is_filled && many.iter().all(|column| column.at(step).is_none()) {
                continue;
            }
            let side = if swapped { "left" } else { "right" };
            return Err(QueryError::Execution(format!(
                "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
                braces(key),
                braces(&second.labels),
                braces(&first.labels)
            )));
        }
    }
    Ok(())
}

/// All labels in braces, the name too.
fn braces(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={}", Quoted(value))).collect();
    format!("{{{}}}", pairs.join(", "))
}

fn result_labels(evaluator: &Evaluator<'_>, binary: &Binary, many: &Labels, one: &Labels) -> Labels {
    let matching = &binary.matching;
    let names: Vec<&str> = matching.labels.iter().map(String::as_str).collect();
    let removes_name = drops_name(binary) && !evaluator.delayed_names;
    let mut labels = if removes_name { many.without(&[METRIC_NAME]) } else { many.clone() };
    if matching.cardinality == Cardinality::OneToOne {
        labels = if matching.on { labels.only(&names) } else { labels.without(&names) };
    }
    for name in &matching.include {
        labels = labels.with(name, one.get(name).unwrap_or(""));
    }
    labels
}

/// Result columns; equal labels share one as long as they do not meet at a step.
struct Outputs<'a> {
    evaluator: &'a Evaluator<'a>,
    binary: &'a Binary,
    places: FxHashMap<Labels, usize>,
    /// Steps at which a match group of a one-to-one operation has its result.
    taken: FxHashMap<Labels, Vec<bool>>,
    columns: Vec<Column>,
}

impl<'a> Outputs<'a> {
    fn new(evaluator: &'a Evaluator<'a>, binary: &'a Binary) -> Self {
        Self { evaluator, binary, places: FxHashMap::default(), taken: FxHashMap::default(), columns: Vec::new() }
    }

    /// Adds what a column of the "many" side and its partner give; `pairs` has their values at a step, if both are there.
    fn pair(
        &mut self,
        key: &Labels,
        (many, one): (&Column, &Column),
        swapped: bool,
        pairs: impl Fn(usize) -> Option<(f64, f64)>,
    ) -> Eval<()> {
        let (evaluator, binary) = (self.evaluator, self.binary);
        let steps = evaluator.grid.steps;
        let one_to_one = binary.matching.cardinality == Cardinality::OneToOne;
        let mut values = vec![ABSENT; steps];
        for (step, place) in values.iter_mut().enumerate() {
            let Some((mine, theirs)) = pairs(step) else { continue };
            let (a, b) = if swapped { (theirs, mine) } else { (mine, theirs) };
            *place = pair_value(binary, a, b, a);
            if one_to_one && !is_absent(*place) {
                let taken = self.taken.entry(key.clone()).or_insert_with(|| vec![false; steps]);
                if let Some(taken) = taken.get_mut(step)
                    && std::mem::replace(taken, true)
                {
                    let problem = "multiple matches for labels: many-to-one matching must be explicit";
                    return Err(QueryError::Execution(format!("{problem} (group_left/group_right)")));
                }
            }
        }
        let labels = result_labels(evaluator, binary, &many.labels, &one.labels);
        let drop_name = evaluator.delayed_names && (drops_name(binary) || many.drop_name);
        self.add(Column { labels, values, drop_name })
    }

    fn add(&mut self, column: Column) -> Eval<()> {
        let Some(place) = self.places.get(&column.labels).and_then(|at| self.columns.get_mut(*at)) else {
            let labels = column.labels.clone();
            let before = self.columns.len();
            self.evaluator.keep(column, &mut self.columns)?;
            if self.columns.len() > before {
                self.places.insert(labels, before);
            }
            return Ok(());
        };
        for (kept, new) in place.values.iter_mut().zip(&column.values) {
            if is_absent(*kept) {
                *kept = *new;
            } else if !is_absent(*new) {
                let message = "multiple matches for labels: grouping labels must ensure unique matches";
                return Err(QueryError::Execution(message.to_owned()));
            }
        }
        Ok(())
    }
}
