//! The syntax tree of PromQL and its text.

use std::fmt;

use crate::model::Matcher;
use crate::model::quote::Quoted;

/// Where a node stands in the text, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    Scalar,
    String,
    Vector,
    Matrix,
}

impl ValueType {
    /// The word in error messages.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
        }
    }

    /// The word in the API.
    pub const fn api_name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
        }
    }
}

/// A node with its place.
#[derive(Clone, Debug)]
pub struct Expr {
    pub kind: ExprKind,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum ExprKind {
    Number(f64),
    String(String),
    Selector(Selector),
    /// A selector over a range of milliseconds.
    Range {
        selector: Selector,
        range_ms: i64,
    },
    Subquery(Box<Subquery>),
    Call(Call),
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    /// `-e`, or `+e` when not negated.
    Unary {
        negate: bool,
        expr: Box<Expr>,
    },
    Paren(Box<Expr>),
}

/// `@` of a selector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    Ms(i64),
    Start,
    End,
}

#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// The name that stood before the braces; also among the matchers.
    pub name: Option<String>,
    pub matchers: Vec<Matcher>,
    pub offset_ms: i64,
    pub at: Option<At>,
}

#[derive(Clone, Debug)]
pub struct Subquery {
    pub expr: Expr,
    pub range_ms: i64,
    /// `None` means the default step.
    pub step_ms: Option<i64>,
    pub offset_ms: i64,
    pub at: Option<At>,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub function: &'static super::functions::Function,
    pub args: Vec<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    CountValues,
    Quantile,
    Limitk,
}

impl AggregateOp {
    pub const ALL: [(Self, &'static str); 13] = [
        (Self::Sum, "sum"),
        (Self::Avg, "avg"),
        (Self::Count, "count"),
        (Self::Min, "min"),
        (Self::Max, "max"),
        (Self::Group, "group"),
        (Self::Stddev, "stddev"),
        (Self::Stdvar, "stdvar"),
        (Self::Topk, "topk"),
        (Self::Bottomk, "bottomk"),
        (Self::CountValues, "count_values"),
        (Self::Quantile, "quantile"),
        (Self::Limitk, "limitk"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(op, _)| *op == self).map_or("", |(_, name)| name)
    }

    pub fn takes_parameter(self) -> bool {
        matches!(self, Self::Topk | Self::Bottomk | Self::CountValues | Self::Quantile | Self::Limitk)
    }
}

#[derive(Clone, Debug)]
pub struct Aggregate {
    pub op: AggregateOp,
    pub expr: Expr,
    pub parameter: Option<Expr>,
    pub without: bool,
    pub grouping: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Gt => ">",
            Self::Lt => "<",
            Self::Ge => ">=",
            Self::Le => "<=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
        }
    }

    pub const fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Gt | Self::Lt | Self::Ge | Self::Le)
    }

    pub const fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }

    /// Binding strength; higher binds tighter.
    pub const fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Eq | Self::Ne | Self::Gt | Self::Lt | Self::Ge | Self::Le => 3,
            Self::Add | Self::Sub => 4,
            Self::Mul | Self::Div | Self::Mod | Self::Atan2 => 5,
            Self::Pow => 7,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cardinality {
    #[default]
    OneToOne,
    ManyToOne,
    OneToMany,
    ManyToMany,
}

/// How the sides of a vector operation find each other.
#[derive(Clone, Debug, Default)]
pub struct Matching {
    pub cardinality: Cardinality,
    pub on: bool,
    pub labels: Vec<String>,
    /// Labels that `group_left`/`group_right` copy from the "one" side.
    pub include: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Binary {
    pub op: BinaryOp,
    pub left: Expr,
    pub right: Expr,
    pub returns_bool: bool,
    pub matching: Matching,
}

impl Expr {
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            ExprKind::Number(_) => ValueType::Scalar,
            ExprKind::String(_) => ValueType::String,
            ExprKind::Selector(_) | ExprKind::Aggregate(_) => ValueType::Vector,
            ExprKind::Range { .. } | ExprKind::Subquery(_) => ValueType::Matrix,
            ExprKind::Call(call) => call.function.returns,
            ExprKind::Unary { expr, .. } | ExprKind::Paren(expr) => expr.value_type(),
            ExprKind::Binary(binary) => {
                let scalars = [&binary.left, &binary.right].iter().all(|e| e.value_type() == ValueType::Scalar);
                if scalars { ValueType::Scalar } else { ValueType::Vector }
            }
        }
    }

    /// The expression inside any parentheses.
    pub fn inner(&self) -> &Self {
        match &self.kind {
            ExprKind::Paren(expr) => expr.inner(),
            _ => self,
        }
    }

    /// Calls `each` with this node and all below it.
    pub fn walk<'a>(&'a self, each: &mut dyn FnMut(&'a Self)) {
        each(self);
        match &self.kind {
            ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Selector(_) | ExprKind::Range { .. } => {}
            ExprKind::Subquery(subquery) => subquery.expr.walk(each),
            ExprKind::Call(call) => call.args.iter().for_each(|arg| arg.walk(each)),
            ExprKind::Aggregate(aggregate) => {
                aggregate.parameter.iter().for_each(|parameter| parameter.walk(each));
                aggregate.expr.walk(each);
            }
            ExprKind::Binary(binary) => {
                binary.left.walk(each);
                binary.right.walk(each);
            }
            ExprKind::Unary { expr, .. } | ExprKind::Paren(expr) => expr.walk(each),
        }
    }
}

/// A duration as PromQL writes it: `1h30m`, `0s`.
#[derive(Clone, Copy, Debug)]
pub struct DurationText(pub i64);

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
fn write_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    let plain = |(i, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit());
    if !name.is_empty() && name.chars().enumerate().all(plain) {
        f.write_str(name)
    } else {
        write!(f, "{}", Quoted(name))
    }
}

fn write_names(f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
    f.write_str("(")?;
    for (i, name) in names.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        write_name(f, name)?;
    }
    f.write_str(")")
}

impl Selector {
    fn write_matchers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("");
        let is_metric = |c: char| c == '_' || c == ':' || c.is_ascii_alphanumeric();
        let plain = name.chars().all(is_metric) && !name.starts_with(|c: char| c.is_ascii_digit());
        if plain {
            f.write_str(name)?;
        }
        let is_name = |m: &&Matcher| self.name.is_some() && m.name == "__name__" && m.value == name;
        let rest: Vec<&Matcher> = self.matchers.iter().filter(|m| !is_name(m)).collect();
        if rest.is_empty() && plain && !name.is_empty() {
            return Ok(());
        }
        f.write_str("{")?;
        let mut comma = "";
        if !plain {
            write!(f, "{}", Quoted(name))?;
            comma = ",";
        }
        for matcher in rest {
            f.write_str(comma)?;
            write_name(f, &matcher.name)?;
            write!(f, "{}{}", matcher.op.symbol(), Quoted(&matcher.value))?;
            comma = ",";
        }
        f.write_str("}")
    }
}

fn write_modifiers(f: &mut fmt::Formatter<'_>, at: Option<At>, offset_ms: i64) -> fmt::Result {
    match at {
        Some(At::Ms(ms)) => write!(f, " @ {:.3}", ms as f64 / 1000.0)?,
        Some(At::Start) => f.write_str(" @ start()")?,
        Some(At::End) => f.write_str(" @ end()")?,
        None => {}
    }
    if offset_ms == 0 { Ok(()) } else { write!(f, " offset {}", DurationText(offset_ms)) }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Number(value) => f.write_str(&super::format::number(*value)),
            ExprKind::String(text) => write!(f, "{}", Quoted(text)),
            ExprKind::Selector(selector) => {
                selector.write_matchers(f)?;
                write_modifiers(f, selector.at, selector.offset_ms)
            }
            ExprKind::Range { selector, range_ms } => {
                selector.write_matchers(f)?;
                write!(f, "[{}]", DurationText(*range_ms))?;
                write_modifiers(f, selector.at, selector.offset_ms)
            }
            ExprKind::Subquery(subquery) => {
                write!(f, "{}[{}:", subquery.expr, DurationText(subquery.range_ms))?;
                if let Some(step_ms) = subquery.step_ms {
                    write!(f, "{}", DurationText(step_ms))?;
                }
                f.write_str("]")?;
                write_modifiers(f, subquery.at, subquery.offset_ms)
            }
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

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op.name())?;
        if self.without || !self.grouping.is_empty() {
            f.write_str(if self.without { " without " } else { " by " })?;
            write_names(f, &self.grouping)?;
            f.write_str(" ")?;
        }
        match &self.parameter {
            Some(parameter) => write!(f, "({parameter}, {})", self.expr),
            None => write!(f, "({})", self.expr),
        }
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.left, self.op.symbol())?;
        if self.returns_bool {
            f.write_str(" bool")?;
        }
        let matching = &self.matching;
        if matching.on || !matching.labels.is_empty() {
            f.write_str(if matching.on { " on " } else { " ignoring " })?;
            write_names(f, &matching.labels)?;
        }
        match matching.cardinality {
            Cardinality::ManyToOne => {
                f.write_str(" group_left ")?;
                write_names(f, &matching.include)?;
            }
            Cardinality::OneToMany => {
                f.write_str(" group_right ")?;
                write_names(f, &matching.include)?;
            }
            Cardinality::OneToOne | Cardinality::ManyToMany => {}
        }
        write!(f, " {}", self.right)
    }
}
