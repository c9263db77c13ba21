//! The text of a syntax tree, in Prometheus' normal form.

use std::fmt;

use super::ast::{
    Aggregate, At, Binary, Cardinality, Duration, DurationExpr, DurationKind, Edges, Expr, ExprKind, Matching,
    Selector, Subquery,
};
use super::format::decimal;
use super::literal;
use crate::model::Matcher;
use crate::model::labels::{METRIC_NAME, is_label_name};
use crate::model::matcher::MatchOp;
use crate::model::quote::Quoted;

/// A duration as PromQL writes it: `1h30m`, `0s`.
#[derive(Clone, Copy, Debug)]
struct DurationText(i64);

impl fmt::Display for DurationText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let mut rest = self.0.unsigned_abs();
        // Years and weeks only when they are exact, as Prometheus prints them.
        for (unit, unit_ms, exact) in UNITS {
            let times = rest / unit_ms;
            if times > 0 && (!exact || rest.is_multiple_of(unit_ms)) {
                write!(f, "{times}{unit}")?;
                rest -= times * unit_ms;
            }
        }
        Ok(())
    }
}

const UNITS: [(&str, u64, bool); 7] = [
    ("y", 365 * 86_400_000, true),
    ("w", 7 * 86_400_000, true),
    ("d", 86_400_000, false),
    ("h", 3_600_000, false),
    ("m", 60_000, false),
    ("s", 1000, false),
    ("ms", 1, false),
];

/// A label name as it can stand in a matcher or list: quoted unless it is a plain one.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_label_name(self.0) { f.write_str(self.0) } else { write!(f, "{}", Quoted(self.0)) }
    }
}

fn write_names(f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
    f.write_str("(")?;
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        // A colon is allowed here without quotes.
        if is_label_name(&name.replace(':', "_")) {
            f.write_str(name)?;
        } else {
            write!(f, "{}", Quoted(name))?;
        }
    }
    f.write_str(")")
}

impl fmt::Display for DurationExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            DurationKind::Literal { seconds, has_unit } => write_number(f, *seconds, *has_unit),
            DurationKind::Step => f.write_str("step()"),
            DurationKind::Range => f.write_str("range()"),
            DurationKind::Negate(expr) => write!(f, "-{expr}"),
            DurationKind::Paren(expr) => write!(f, "({expr})"),
            DurationKind::Min(a, b) => write!(f, "min_of({a}, {b})"),
            DurationKind::Max(a, b) => write!(f, "max_of({a}, {b})"),
            DurationKind::Binary { op, left, right } => write!(f, "{left} {} {right}", op.symbol()),
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.computed {
            Some(expr) => expr.fmt(f),
            None => DurationText(self.ms).fmt(f),
        }
    }
}

fn write_edges(f: &mut fmt::Formatter<'_>, edges: Option<Edges>) -> fmt::Result {
    f.write_str(match edges {
        None => "",
        Some(Edges::Anchored) => " anchored",
        Some(Edges::Smoothed) => " smoothed",
    })
}

impl Selector {
    fn write_matchers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or(""))?;
        let is_name = |m: &Matcher| {
            self.name.as_ref().is_some_and(|name| m.name == METRIC_NAME && m.op == MatchOp::Equal && m.value == *name)
        };
        let rest: Vec<&Matcher> = self.matchers.iter().filter(|m| !is_name(m)).collect();
        if rest.is_empty() && self.name.is_some() {
            return Ok(());
        }
        let mut texts: Vec<String> =
            rest.iter().map(|m| format!("{}{}{}", Name(&m.name), m.op.symbol(), Quoted(&m.value))).collect();
        texts.sort_unstable();
        write!(f, "{{{}}}", texts.join(","))
    }

    fn write_modifiers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_edges(f, self.edges)?;
        write_modifiers(f, self.at, &self.offset)
    }
}

fn write_modifiers(f: &mut fmt::Formatter<'_>, at: Option<At>, offset: &Duration) -> fmt::Result {
    match at {
        Some(At::Ms(ms)) => write!(f, " @ {:.3}", ms as f64 / 1000.0)?,
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
        None => {}
    }
    if offset.computed.is_none() && offset.ms == 0 { Ok(()) } else { write!(f, " offset {offset}") }
}

fn write_number(f: &mut fmt::Formatter<'_>, value: f64, is_duration: bool) -> fmt::Result {
    if is_duration {
        write!(f, "{}", DurationText(literal::seconds_to_ms(value)))
    } else {
        f.write_str(&decimal(value))
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Number { value, is_duration } => write_number(f, *value, *is_duration),
            ExprKind::String(text) => write!(f, "{}", Quoted(text)),
            ExprKind::Selector(selector) => {
                selector.write_matchers(f)?;
                selector.write_modifiers(f)
            }
            ExprKind::Range { selector, range } => {
                selector.write_matchers(f)?;
                write!(f, "[{range}]")?;
                selector.write_modifiers(f)
            }
            ExprKind::Subquery(subquery) => write!(f, "{}{}", subquery.expr, SubqueryEnd(subquery)),
            ExprKind::Call(call) => {
                write!(f, "{}(", call.function.name)?;
                for (i, arg) in call.args.iter().enumerate() {
                    write!(f, "{}{arg}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
            ExprKind::Aggregate(aggregate) => aggregate.fmt(f),
            ExprKind::Binary(binary) => binary.fmt(f),
            ExprKind::Unary { negate, expr } => write!(f, "{}{expr}", if *negate { "-" } else { "+" }),
            ExprKind::Paren(expr) => write!(f, "({expr})"),
        }
    }
}

/// The brackets and modifiers of a subquery.
struct SubqueryEnd<'a>(&'a Subquery);

impl fmt::Display for SubqueryEnd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}:", self.0.range)?;
        if let Some(step) = &self.0.step {
            write!(f, "{step}")?;
        }
        f.write_str("]")?;
        write_modifiers(f, self.0.at, &self.0.offset)
    }
}

/// The operator of an aggregation with its grouping.
struct AggregateHead<'a>(&'a Aggregate);

impl fmt::Display for AggregateHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.op.name())?;
        if self.0.without || !self.0.grouping.is_empty() {
            f.write_str(if self.0.without { " without " } else { " by " })?;
            write_names(f, &self.0.grouping)?;
            f.write_str(" ")?;
        }
        Ok(())
    }
}

/// Longer expressions are split over lines.
const LINE_BYTES_MAX: usize = 100;

impl Expr {
    /// The text over several lines where it is long, as `format_query` shows it.
    pub fn pretty(&self) -> String {
        self.indented(0)
    }

    fn indented(&self, level: usize) -> String {
        let indent = "  ".repeat(level);
        let text = self.to_string();
        let is_long = text.len() > LINE_BYTES_MAX;
        match &self.kind {
            ExprKind::Aggregate(aggregate) if is_long => {
                let parameter = aggregate.parameter.as_ref();
                let parameter = parameter.map(|expr| expr.indented(level + 1) + ",\n").unwrap_or_default();
                let head = AggregateHead(aggregate);
                format!("{indent}{head}(\n{parameter}{}\n{indent})", aggregate.expr.indented(level + 1))
            }
            ExprKind::Binary(binary) if is_long => {
                let returns_bool = if binary.returns_bool { " bool" } else { "" };
                let (left, right) = (binary.left.indented(level + 1), binary.right.indented(level + 1));
                format!("{left}\n{indent}{}{returns_bool}{}\n{right}", binary.op.symbol(), binary.matching)
            }
            ExprKind::Call(call) if is_long => {
                let args: Vec<String> = call.args.iter().map(|arg| arg.indented(level + 1)).collect();
                format!("{indent}{}(\n{}\n{indent})", call.function.name, args.join(",\n"))
            }
            ExprKind::Paren(inner) if is_long => format!("{indent}(\n{}\n{indent})", inner.indented(level + 1)),
            ExprKind::Subquery(subquery) if is_long => {
                format!("{}{}", subquery.expr.indented(level), SubqueryEnd(subquery))
            }
            // As Prometheus has it: a short subquery is not indented.
            ExprKind::Subquery(_) => text,
            ExprKind::Unary { negate, expr } => {
                format!("{indent}{}{}", if *negate { "-" } else { "+" }, expr.indented(level).trim())
            }
            _ => format!("{indent}{text}"),
        }
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        AggregateHead(self).fmt(f)?;
        match &self.parameter {
            Some(parameter) => write!(f, "({parameter}, {})", self.expr),
            None => write!(f, "({})", self.expr),
        }
    }
}

impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grouped = matches!(self.cardinality, Cardinality::ManyToOne | Cardinality::OneToMany);
        if self.on || !self.labels.is_empty() || grouped {
            f.write_str(if self.on { " on " } else { " ignoring " })?;
            write_names(f, &self.labels)?;
        }
        if grouped {
            let is_left = self.cardinality == Cardinality::ManyToOne;
            f.write_str(if is_left { " group_left " } else { " group_right " })?;
            write_names(f, &self.include)?;
        }
        let fills = match (self.fill_left, self.fill_right) {
            (Some(left), Some(right)) if left.to_bits() == right.to_bits() => [Some(("fill", left)), None],
            (left, right) => [left.map(|value| ("fill_left", value)), right.map(|value| ("fill_right", value))],
        };
        fills.into_iter().flatten().try_for_each(|(word, value)| write!(f, " {word} ({})", decimal(value)))
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let returns_bool = if self.returns_bool { " bool" } else { "" };
        write!(f, "{} {}{returns_bool}{} {}", self.left, self.op.symbol(), self.matching, self.right)
    }
}
