//! The table of PromQL's functions. A new one is a line here and its body beside the others of its kind.

use chrono::{DateTime, Datelike as _, Timelike as _, Utc};

use super::ast::ValueType::{self, Matrix, Scalar, String, Vector};
use super::window::{self, Window};

/// How a function is evaluated.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// Value by value over a vector; drops the name.
    Math(fn(f64) -> f64),
    /// A part of the date, of a vector of times or of the step's time.
    Date(fn(DateTime<Utc>) -> u32),
    /// Over a range of each series; drops the name.
    Window(fn(&Window<'_>) -> Option<f64>),
    /// Like `Window`, and keeps the name.
    WindowKeepingName(fn(&Window<'_>) -> Option<f64>),
    Special(Special),
}

/// Functions that look at more than one value or at labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Absent,
    AbsentOverTime,
    Clamp,
    ClampMax,
    ClampMin,
    HistogramFraction,
    HistogramQuantile,
    LabelJoin,
    LabelReplace,
    Pi,
    Round,
    Scalar,
    Sort { descending: bool },
    SortByLabel { descending: bool },
    Time,
    Timestamp,
    Vector,
}

/// A function's name, signature and body.
#[derive(Debug)]
pub struct Function {
    pub name: &'static str,
    pub args: &'static [ValueType],
    /// How many of the last arguments may be missing.
    pub optional: usize,
    /// Whether the last argument may be repeated.
    pub repeats: bool,
    pub returns: ValueType,
    pub body: Body,
}

const fn function(name: &'static str, args: &'static [ValueType], returns: ValueType, body: Body) -> Function {
    Function { name, args, optional: 0, repeats: false, returns, body }
}

const fn math(name: &'static str, body: fn(f64) -> f64) -> Function {
    function(name, &[Vector], Vector, Body::Math(body))
}

const fn over_range(name: &'static str, body: fn(&Window<'_>) -> Option<f64>) -> Function {
    function(name, &[Matrix], Vector, Body::Window(body))
}

const fn date(name: &'static str, body: fn(DateTime<Utc>) -> u32) -> Function {
    Function { optional: 1, ..function(name, &[Vector], Vector, Body::Date(body)) }
}

const fn special(name: &'static str, args: &'static [ValueType], body: Special) -> Function {
    function(name, args, Vector, Body::Special(body))
}

/// All functions, by name.
static FUNCTIONS: &[Function] = &[
    math("abs", f64::abs),
    special("absent", &[Vector], Special::Absent),
    special("absent_over_time", &[Matrix], Special::AbsentOverTime),
    math("acos", f64::acos),
    math("acosh", f64::acosh),
    math("asin", f64::asin),
    math("asinh", f64::asinh),
    math("atan", f64::atan),
    math("atanh", f64::atanh),
    over_range("avg_over_time", window::avg),
    math("ceil", f64::ceil),
    over_range("changes", window::changes),
    special("clamp", &[Vector, Scalar, Scalar], Special::Clamp),
    special("clamp_max", &[Vector, Scalar], Special::ClampMax),
    special("clamp_min", &[Vector, Scalar], Special::ClampMin),
    math("cos", f64::cos),
    math("cosh", f64::cosh),
    over_range("count_over_time", window::count),
    date("day_of_month", |at| at.day()),
    date("day_of_week", |at| at.weekday().num_days_from_sunday()),
    date("day_of_year", |at| at.ordinal()),
    date("days_in_month", |at| u32::from(at.num_days_in_month())),
    math("deg", |value| value * 180.0 / std::f64::consts::PI),
    over_range("delta", window::delta),
    over_range("deriv", window::deriv),
    function(
        "double_exponential_smoothing",
        &[Matrix, Scalar, Scalar],
        Vector,
        Body::Window(window::double_exponential_smoothing),
    ),
    math("exp", f64::exp),
    function("first_over_time", &[Matrix], Vector, Body::WindowKeepingName(window::first)),
    math("floor", f64::floor),
    special("histogram_fraction", &[Scalar, Scalar, Vector], Special::HistogramFraction),
    special("histogram_quantile", &[Scalar, Vector], Special::HistogramQuantile),
    date("hour", |at| at.hour()),
    over_range("idelta", window::idelta),
    over_range("increase", window::increase),
    over_range("irate", window::irate),
    Function { repeats: true, ..special("label_join", &[Vector, String, String, String], Special::LabelJoin) },
    special("label_replace", &[Vector, String, String, String, String], Special::LabelReplace),
    function("last_over_time", &[Matrix], Vector, Body::WindowKeepingName(window::last)),
    math("ln", f64::ln),
    math("log10", f64::log10),
    math("log2", f64::log2),
    over_range("mad_over_time", window::mad),
    over_range("max_over_time", window::max),
    over_range("min_over_time", window::min),
    date("minute", |at| at.minute()),
    date("month", |at| at.month()),
    function("pi", &[], Scalar, Body::Special(Special::Pi)),
    function("predict_linear", &[Matrix, Scalar], Vector, Body::Window(window::predict_linear)),
    over_range("present_over_time", window::present),
    function("quantile_over_time", &[Scalar, Matrix], Vector, Body::Window(window::quantile_over_time)),
    math("rad", |value| value * std::f64::consts::PI / 180.0),
    over_range("rate", window::rate),
    over_range("resets", window::resets),
    Function { optional: 1, ..special("round", &[Vector, Scalar], Special::Round) },
    function("scalar", &[Vector], Scalar, Body::Special(Special::Scalar)),
    math("sgn", |value| if value == 0.0 || value.is_nan() { value } else { value.signum() }),
    math("sin", f64::sin),
    math("sinh", f64::sinh),
    special("sort", &[Vector], Special::Sort { descending: false }),
    Function {
        repeats: true,
        ..special("sort_by_label", &[Vector, String], Special::SortByLabel { descending: false })
    },
    Function {
        repeats: true,
        ..special("sort_by_label_desc", &[Vector, String], Special::SortByLabel { descending: true })
    },
    special("sort_desc", &[Vector], Special::Sort { descending: true }),
    math("sqrt", f64::sqrt),
    over_range("stddev_over_time", window::stddev),
    over_range("stdvar_over_time", window::stdvar),
    over_range("sum_over_time", window::sum),
    math("tan", f64::tan),
    math("tanh", f64::tanh),
    function("time", &[], Scalar, Body::Special(Special::Time)),
    special("timestamp", &[Vector], Special::Timestamp),
    over_range("ts_of_first_over_time", window::ts_of_first),
    over_range("ts_of_last_over_time", window::ts_of_last),
    over_range("ts_of_max_over_time", window::ts_of_max),
    over_range("ts_of_min_over_time", window::ts_of_min),
    special("vector", &[Scalar], Special::Vector),
    date("year", |at| u32::try_from(at.year()).unwrap_or(0)),
];

/// The function with this name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.binary_search_by(|function| function.name.cmp(name)).ok().and_then(|at| FUNCTIONS.get(at))
}

/// A part of the date of a time in seconds; `None` where the calendar ends.
pub(super) fn date_part(part: fn(DateTime<Utc>) -> u32, seconds: f64) -> Option<f64> {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and the calendar ends earlier")]
    let at = DateTime::from_timestamp(seconds as i64, 0)?;
    Some(f64::from(part(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(FUNCTIONS.is_sorted_by_key(|function| function.name));
        assert!(find("rate").is_some());
        assert!(find("foo").is_none());
    }
}
