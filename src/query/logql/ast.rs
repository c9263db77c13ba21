//! LogQL expressions, checked and compiled, and their canonical text.

use std::fmt;

use crate::model::Matcher;

use super::filters::{LabelFilter, LineFilter};
use super::parsers::{Extraction, PatternParser, RegexpParser};
use super::template::Template;
use super::units::format_duration_ns;

/// A query: lines, or numbers.
#[derive(Clone, Debug)]
pub enum Expr {
    Log(LogExpr),
    Metric(MetricExpr),
}

/// A stream selector and what is done to each line.
#[derive(Clone, Debug)]
pub struct LogExpr {
    pub matchers: Vec<Matcher>,
    pub stages: Vec<Stage>,
}

impl LogExpr {
    /// The values of a field of which a line must have one to pass, where the first filters name them.
    pub fn required_values(&self, field: &str) -> Option<Vec<String>> {
        let untouched = self.stages.iter().take_while(|stage| matches!(stage, Stage::Line(_) | Stage::Label(_)));
        untouched.into_iter().find_map(|stage| match stage {
            Stage::Label(filter) => filter.named_values(field),
            _ => None,
        })
    }
}

/// One step of a pipeline.
#[derive(Clone, Debug)]
pub enum Stage {
    Line(LineFilter),
    Label(LabelFilter),
    Json(Vec<Extraction>),
    Logfmt { strict: bool, keep_empty: bool, extractions: Vec<Extraction> },
    Regexp(RegexpParser),
    Pattern(PatternParser),
    Unpack,
    Decolorize,
    LineFormat(Template),
    LabelFormat(Vec<(String, LabelSource)>),
    Drop(Vec<LabelPick>),
    Keep(Vec<LabelPick>),
}

/// Where `label_format` takes a value from.
#[derive(Clone, Debug)]
pub enum LabelSource {
    /// The label is renamed.
    Label(String),
    Template(Template),
}

/// A label by its name, or only where its value matches.
#[derive(Clone, Debug)]
pub enum LabelPick {
    Name(String),
    Matching(Matcher),
}

impl LabelPick {
    pub(super) fn picks(&self, name: &str, value: &str) -> bool {
        match self {
            Self::Name(wanted) => wanted == name,
            Self::Matching(matcher) => matcher.name == name && matcher.matches_value(value),
        }
    }
}

/// How `unwrap` reads a label's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    Number,
    /// To seconds.
    Duration,
    Bytes,
}

/// The label whose value is the sample.
#[derive(Clone, Debug)]
pub struct Unwrap {
    pub label: String,
    pub conversion: Conversion,
    pub post_filters: Vec<LabelFilter>,
}

/// Aggregations over a time window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeOp {
    Rate,
    RateCounter,
    CountOverTime,
    BytesRate,
    BytesOverTime,
    SumOverTime,
    AvgOverTime,
    MinOverTime,
    MaxOverTime,
    FirstOverTime,
    LastOverTime,
    StddevOverTime,
    StdvarOverTime,
    QuantileOverTime,
    AbsentOverTime,
}

impl RangeOp {
    pub(super) const ALL: [(Self, &'static str); 15] = [
        (Self::Rate, "rate"),
        (Self::RateCounter, "rate_counter"),
        (Self::CountOverTime, "count_over_time"),
        (Self::BytesRate, "bytes_rate"),
        (Self::BytesOverTime, "bytes_over_time"),
        (Self::SumOverTime, "sum_over_time"),
        (Self::AvgOverTime, "avg_over_time"),
        (Self::MinOverTime, "min_over_time"),
        (Self::MaxOverTime, "max_over_time"),
        (Self::FirstOverTime, "first_over_time"),
        (Self::LastOverTime, "last_over_time"),
        (Self::StddevOverTime, "stddev_over_time"),
        (Self::StdvarOverTime, "stdvar_over_time"),
        (Self::QuantileOverTime, "quantile_over_time"),
        (Self::AbsentOverTime, "absent_over_time"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(op, _)| *op == self).map_or("", |(_, name)| name)
    }

    /// Whether `by` and `without` may follow.
    pub(super) fn takes_grouping(self) -> bool {
        use RangeOp::{
            AvgOverTime, FirstOverTime, LastOverTime, MaxOverTime, MinOverTime, QuantileOverTime, StddevOverTime,
            StdvarOverTime,
        };
        matches!(
            self,
            AvgOverTime
                | FirstOverTime
                | LastOverTime
                | MaxOverTime
                | MinOverTime
                | QuantileOverTime
                | StddevOverTime
                | StdvarOverTime
        )
    }

    /// Whether it works on lines, that is without `unwrap`.
    pub(super) fn works_on_lines(self) -> bool {
        matches!(self, Self::Rate | Self::CountOverTime | Self::BytesRate | Self::BytesOverTime | Self::AbsentOverTime)
    }

    /// Whether it works on unwrapped values.
    pub(super) fn works_on_values(self) -> bool {
        !matches!(self, Self::CountOverTime | Self::BytesRate | Self::BytesOverTime)
    }
}

/// Aggregations over series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Sort,
    SortDesc,
}

impl VectorOp {
    pub(super) const ALL: [(Self, &'static str); 12] = [
        (Self::Sum, "sum"),
        (Self::Avg, "avg"),
        (Self::Count, "count"),
        (Self::Min, "min"),
        (Self::Max, "max"),
        (Self::Stddev, "stddev"),
        (Self::Stdvar, "stdvar"),
        (Self::Topk, "topk"),
        (Self::Bottomk, "bottomk"),
        (Self::Sort, "sort"),
        (Self::SortDesc, "sort_desc"),
        (Self::Topk, "approx_topk"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(op, _)| *op == self).map_or("", |(_, name)| name)
    }

    pub(super) fn takes_parameter(self) -> bool {
        matches!(self, Self::Topk | Self::Bottomk)
    }
}

/// `by (a, b)` or `without (a, b)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouping {
    pub without: bool,
    pub labels: Vec<String>,
}

/// Operators between two metric expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinOp {
    Or,
    And,
    Unless,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
}

impl BinOp {
    pub(super) const ALL: [(Self, &'static str, u8); 15] = [
        (Self::Or, "or", 1),
        (Self::And, "and", 2),
        (Self::Unless, "unless", 2),
        (Self::Eq, "==", 3),
        (Self::Ne, "!=", 3),
        (Self::Gt, ">", 3),
        (Self::Ge, ">=", 3),
        (Self::Lt, "<", 3),
        (Self::Le, "<=", 3),
        (Self::Add, "+", 4),
        (Self::Sub, "-", 4),
        (Self::Mul, "*", 5),
        (Self::Div, "/", 5),
        (Self::Mod, "%", 5),
        (Self::Pow, "^", 6),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(op, ..)| *op == self).map_or("", |(_, name, _)| name)
    }

    pub(super) fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Gt | Self::Ge | Self::Lt | Self::Le)
    }

    pub(super) fn is_set(self) -> bool {
        matches!(self, Self::Or | Self::And | Self::Unless)
    }
}

/// How many series of each side may meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cardinality {
    OneToOne,
    /// `group_left`, with the labels taken from the right.
    ManyToOne(Vec<String>),
    /// `group_right`, with the labels taken from the left.
    OneToMany(Vec<String>),
}

/// Which labels decide that two series meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matching {
    /// `on` when true, `ignoring` when false.
    pub on: bool,
    pub labels: Vec<String>,
    pub cardinality: Cardinality,
}

impl Default for Matching {
    fn default() -> Self {
        Self { on: false, labels: Vec::new(), cardinality: Cardinality::OneToOne }
    }
}

/// A window over the lines of a log expression.
#[derive(Clone, Debug)]
pub struct RangeAgg {
    pub op: RangeOp,
    pub parameter: Option<f64>,
    pub log: LogExpr,
    pub unwrap: Option<Unwrap>,
    pub range_ns: i64,
    pub offset_ns: i64,
    pub grouping: Option<Grouping>,
}

/// An expression whose result is numbers.
#[derive(Clone, Debug)]
pub enum MetricExpr {
    Range(Box<RangeAgg>),
    Vector {
        op: VectorOp,
        parameter: Option<f64>,
        grouping: Option<Grouping>,
        inner: Box<MetricExpr>,
    },
    Binary {
        op: BinOp,
        returns_bool: bool,
        matching: Matching,
        left: Box<MetricExpr>,
        right: Box<MetricExpr>,
    },
    Literal(f64),
    /// `vector(n)`: one series without labels.
    Constant(f64),
    LabelReplace {
        inner: Box<MetricExpr>,
        destination: String,
        replacement: String,
        source: String,
        regex: regex::Regex,
        pattern: String,
    },
}

/// Joins with `, `.
pub(super) fn join<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(log) => log.fmt(f),
            Self::Metric(metric) => metric.fmt(f),
        }
    }
}

impl fmt::Display for LogExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", join(&self.matchers))?;
        self.stages.iter().try_for_each(|stage| write!(f, " {stage}"))
    }
}

impl fmt::Display for LabelPick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Matching(matcher) => matcher.fmt(f),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_extractions = |f: &mut fmt::Formatter<'_>, extractions: &[Extraction]| {
            if extractions.is_empty() { Ok(()) } else { write!(f, " {}", join(extractions)) }
        };
        match self {
            Self::Line(filter) => filter.fmt(f),
            Self::Label(filter) => write!(f, "| {filter}"),
            Self::Json(extractions) => {
                f.write_str("| json")?;
                with_extractions(f, extractions)
            }
            Self::Logfmt { strict, keep_empty, extractions } => {
                f.write_str("| logfmt")?;
                f.write_str(if *strict { " --strict" } else { "" })?;
                f.write_str(if *keep_empty { " --keep-empty" } else { "" })?;
                with_extractions(f, extractions)
            }
            Self::Regexp(parser) => write!(f, "| regexp {:?}", parser.text()),
            Self::Pattern(parser) => write!(f, "| pattern {:?}", parser.text()),
            Self::Unpack => f.write_str("| unpack"),
            Self::Decolorize => f.write_str("| decolorize"),
            Self::LineFormat(template) => write!(f, "| line_format {:?}", template.text()),
            Self::LabelFormat(formats) => {
                let formats = formats.iter().map(|(name, source)| match source {
                    LabelSource::Label(label) => format!("{name}={label}"),
                    LabelSource::Template(template) => format!("{name}={:?}", template.text()),
                });
                write!(f, "| label_format {}", join(formats))
            }
            Self::Drop(picks) => write!(f, "| drop {}", join(picks)),
            Self::Keep(picks) => write!(f, "| keep {}", join(picks)),
        }
    }
}

impl fmt::Display for Unwrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.conversion {
            Conversion::Number => write!(f, "| unwrap {}", self.label)?,
            Conversion::Duration => write!(f, "| unwrap duration({})", self.label)?,
            Conversion::Bytes => write!(f, "| unwrap bytes({})", self.label)?,
        }
        self.post_filters.iter().try_for_each(|filter| write!(f, " | {filter}"))
    }
}

impl fmt::Display for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", if self.without { "without" } else { "by" }, join(&self.labels))
    }
}

impl fmt::Display for RangeAgg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.op.name())?;
        if let Some(parameter) = self.parameter {
            write!(f, "{parameter}, ")?;
        }
        self.log.fmt(f)?;
        if let Some(unwrap) = &self.unwrap {
            write!(f, " {unwrap}")?;
        }
        write!(f, " [{}]", format_duration_ns(self.range_ns))?;
        if self.offset_ns != 0 {
            write!(f, " offset {}", format_duration_ns(self.offset_ns))?;
        }
        f.write_str(")")?;
        self.grouping.as_ref().map_or(Ok(()), |grouping| write!(f, " {grouping}"))
    }
}

impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.on || !self.labels.is_empty() {
            write!(f, " {} ({})", if self.on { "on" } else { "ignoring" }, join(&self.labels))?;
        }
        match &self.cardinality {
            Cardinality::OneToOne => Ok(()),
            Cardinality::ManyToOne(labels) => write!(f, " group_left ({})", join(labels)),
            Cardinality::OneToMany(labels) => write!(f, " group_right ({})", join(labels)),
        }
    }
}

impl fmt::Display for MetricExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => range.fmt(f),
            Self::Vector { op, parameter, grouping, inner } => {
                f.write_str(op.name())?;
                if let Some(grouping) = grouping {
                    write!(f, " {grouping} ")?;
                }
                match parameter {
                    Some(parameter) => write!(f, "({parameter}, {inner})"),
                    None => write!(f, "({inner})"),
                }
            }
            Self::Binary { op, returns_bool, matching, left, right } => {
                let returns_bool = if *returns_bool { " bool" } else { "" };
                write!(f, "({left} {}{returns_bool}{matching} {right})", op.name())
            }
            Self::Literal(value) => value.fmt(f),
            Self::Constant(value) => write!(f, "vector({value})"),
            Self::LabelReplace { inner, destination, replacement, source, pattern, .. } => {
                write!(f, "label_replace({inner}, {destination:?}, {replacement:?}, {source:?}, {pattern:?})")
            }
        }
    }
}
