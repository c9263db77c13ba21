//! The syntax tree of PromQL and its text.

use crate::model::Matcher;

/// Where a node stands in the text, in bytes, and where that begins for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
    /// Line of the start, from 1 on.
    pub line: u32,
    /// Byte of the start in its line, from 1 on.
    pub column: u32,
}

impl Span {
    /// The span of a part of `text`.
    pub fn of(text: &str, start: usize, end: usize) -> Self {
        let before = text.as_bytes().get(..start).unwrap_or(text.as_bytes());
        let breaks = before.split(|byte| *byte == b'\n').count() - 1;
        let last = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { start, end, line: small(breaks + 1), column: small(before.len() - last + 1) }
    }
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
    Number {
        value: f64,
        /// Whether it was written as a duration.
        is_duration: bool,
    },
    String(String),
    Selector(Selector),
    /// A selector over a range.
    Range {
        selector: Selector,
        range: Duration,
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

/// A length of time, in milliseconds; where it is computed, only [`super::durations::resolve`] knows them.
#[derive(Clone, Debug, Default)]
pub struct Duration {
    pub ms: i64,
    pub computed: Option<Box<DurationExpr>>,
}

/// An arithmetic expression over durations, in seconds.
#[derive(Clone, Debug)]
pub struct DurationExpr {
    pub kind: DurationKind,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum DurationKind {
    Literal {
        seconds: f64,
        /// Whether it was written with a unit.
        has_unit: bool,
    },
    /// The query's step; 0 in an instant query.
    Step,
    /// The query's length; 0 in an instant query.
    Range,
    Negate(Box<DurationExpr>),
    Paren(Box<DurationExpr>),
    Min(Box<DurationExpr>, Box<DurationExpr>),
    Max(Box<DurationExpr>, Box<DurationExpr>),
    Binary {
        op: BinaryOp,
        left: Box<DurationExpr>,
        right: Box<DurationExpr>,
    },
}

/// How samples at the edges of a range, or around an instant, count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edges {
    /// The last sample before each edge stands for the edge.
    Anchored,
    /// Values at the edges are interpolated.
    Smoothed,
}

#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// The name that stood before the braces; also among the matchers.
    pub name: Option<String>,
    pub matchers: Vec<Matcher>,
    pub offset: Duration,
    pub at: Option<At>,
    pub edges: Option<Edges>,
}

#[derive(Clone, Debug)]
pub struct Subquery {
    pub expr: Expr,
    pub range: Duration,
    /// `None` means the default step.
    pub step: Option<Duration>,
    pub offset: Duration,
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
    LimitRatio,
}

impl AggregateOp {
    pub const ALL: [(Self, &'static str); 14] = [
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
        (Self::LimitRatio, "limit_ratio"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(op, _)| *op == self).map_or("", |(_, name)| name)
    }

    pub fn takes_parameter(self) -> bool {
        matches!(
            self,
            Self::Topk | Self::Bottomk | Self::CountValues | Self::Quantile | Self::Limitk | Self::LimitRatio
        )
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
    /// `</`: a histogram without what lies above.
    TrimUpper,
    /// `>/`: a histogram without what lies below.
    TrimLower,
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
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
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
            Self::Eq | Self::Ne | Self::Gt | Self::Lt | Self::Ge | Self::Le | Self::TrimUpper | Self::TrimLower => 3,
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
    /// What stands for a value that is missing on the left side.
    pub fill_left: Option<f64>,
    /// What stands for a value that is missing on the right side.
    pub fill_right: Option<f64>,
}

#[derive(Clone, Debug)]
pub struct Binary {
    pub op: BinaryOp,
    /// Where the operator stands.
    pub op_span: Span,
    pub left: Expr,
    pub right: Expr,
    pub returns_bool: bool,
    pub matching: Matching,
}

impl Expr {
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            ExprKind::Number { .. } => ValueType::Scalar,
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
            ExprKind::Number { .. } | ExprKind::String(_) | ExprKind::Selector(_) | ExprKind::Range { .. } => {}
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
