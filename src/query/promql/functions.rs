//! The table of PromQL's functions. A new one is a line here and its body beside the others of its kind.

use super::ast::ValueType::{self, Matrix, Scalar, String, Vector};
use super::window::{self, Window};

/// A check of the scalar arguments of a step.
pub(super) type CheckFn = fn(&[f64]) -> Result<(), std::string::String>;

/// How a function is evaluated.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// Value by value over a vector; drops the name.
    Math(fn(f64) -> f64),
    /// A part of the date, of a vector of times or of the step's time.
    Date(fn(Civil) -> f64),
    /// Over a range of each series; drops the name.
    Window(fn(&Window<'_>) -> Option<f64>),
    /// Like `Window`, and keeps the name.
    WindowKeepingName(fn(&Window<'_>) -> Option<f64>),
    /// Like `Window`, of series that should be counters.
    Counter(fn(&Window<'_>) -> Option<f64>),
    /// Like `Window`, with arguments that may be out of bounds.
    Checked(fn(&Window<'_>) -> Option<f64>, CheckFn),
    /// Reads something off native histograms; floats have none of it.
    OfHistogram,
    /// A number that depends on the query's times only.
    OfQuery(QueryNumber),
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
    HistogramQuantiles,
    Info,
    LabelJoin,
    LabelReplace,
    MaxOf,
    MinOf,
    Pi,
    QuantileOverTime,
    Round,
    Scalar,
    Sort { descending: bool },
    SortByLabel { descending: bool },
    Time,
    Timestamp,
    Vector,
}

/// What a scalar function says of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryNumber {
    Start,
    End,
    Step,
    Range,
}

/// A function's name, signature and body.
#[derive(Debug)]
pub struct Function {
    pub name: &'static str,
    pub args: &'static [ValueType],
    /// How many of the last arguments may be missing.
    pub optional: usize,
    /// How often the last argument may come; `None` means any number of times, or none at all.
    pub times: Option<usize>,
    pub returns: ValueType,
    pub body: Body,
}

impl Function {
    /// How many arguments may come beyond those that must; -1 for any number. As Prometheus tells it.
    pub fn variadic(&self) -> i64 {
        match self.times {
            None => -1,
            Some(times) if times > 1 => i64::try_from(times).unwrap_or(i64::MAX) - 1,
            Some(_) => i64::try_from(self.optional).unwrap_or(i64::MAX),
        }
    }

    /// The least and the largest number of arguments.
    pub fn arity(&self) -> (usize, Option<usize>) {
        let named = self.args.len();
        match self.times {
            None => (named - 1, None),
            Some(times) if times > 1 => (named - 1, Some(named - 1 + times)),
            Some(_) => (named - self.optional, Some(named)),
        }
    }
}

const fn function(name: &'static str, args: &'static [ValueType], returns: ValueType, body: Body) -> Function {
    Function { name, args, optional: 0, times: Some(1), returns, body }
}

const fn math(name: &'static str, body: fn(f64) -> f64) -> Function {
    function(name, &[Vector], Vector, Body::Math(body))
}

const fn over_range(name: &'static str, body: fn(&Window<'_>) -> Option<f64>) -> Function {
    function(name, &[Matrix], Vector, Body::Window(body))
}

const fn counter(name: &'static str, body: fn(&Window<'_>) -> Option<f64>) -> Function {
    function(name, &[Matrix], Vector, Body::Counter(body))
}

const fn of_histogram(name: &'static str) -> Function {
    function(name, &[Vector], Vector, Body::OfHistogram)
}

const fn of_query(name: &'static str, number: QueryNumber) -> Function {
    function(name, &[], Scalar, Body::OfQuery(number))
}

const fn date(name: &'static str, body: fn(Civil) -> f64) -> Function {
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
    math("acosh", acosh),
    math("asin", f64::asin),
    math("asinh", asinh),
    math("atan", f64::atan),
    math("atanh", atanh),
    over_range("avg_over_time", window::avg),
    math("ceil", f64::ceil),
    over_range("changes", window::changes),
    special("clamp", &[Vector, Scalar, Scalar], Special::Clamp),
    special("clamp_max", &[Vector, Scalar], Special::ClampMax),
    special("clamp_min", &[Vector, Scalar], Special::ClampMin),
    math("cos", f64::cos),
    math("cosh", f64::cosh),
    over_range("count_over_time", window::count),
    date("day_of_month", |at| f64::from(at.day)),
    date("day_of_week", |at| at.days.wrapping_add(4).rem_euclid(7) as f64),
    date("day_of_year", |at| (at.days - days_from_civil(at.year, 1, 1) + 1) as f64),
    date("days_in_month", |at| {
        let (year, month) = if at.month == 12 { (at.year + 1, 1) } else { (at.year, at.month + 1) };
        (days_from_civil(year, month, 1) - days_from_civil(at.year, at.month, 1)) as f64
    }),
    math("deg", |value| value * 180.0 / std::f64::consts::PI),
    over_range("delta", window::delta),
    over_range("deriv", window::deriv),
    function(
        "double_exponential_smoothing",
        &[Matrix, Scalar, Scalar],
        Vector,
        Body::Checked(window::double_exponential_smoothing, window::check_smoothing),
    ),
    of_query("end", QueryNumber::End),
    math("exp", f64::exp),
    function("first_over_time", &[Matrix], Vector, Body::WindowKeepingName(window::first)),
    math("floor", f64::floor),
    of_histogram("histogram_avg"),
    of_histogram("histogram_count"),
    special("histogram_fraction", &[Scalar, Scalar, Vector], Special::HistogramFraction),
    special("histogram_quantile", &[Scalar, Vector], Special::HistogramQuantile),
    Function {
        times: Some(10),
        ..special("histogram_quantiles", &[Vector, String, Scalar], Special::HistogramQuantiles)
    },
    of_histogram("histogram_stddev"),
    of_histogram("histogram_stdvar"),
    of_histogram("histogram_sum"),
    date("hour", |at| at.second_of_day.div_euclid(3600) as f64),
    over_range("idelta", window::idelta),
    counter("increase", window::increase),
    Function { optional: 1, ..special("info", &[Vector, Vector], Special::Info) },
    over_range("irate", window::irate),
    Function { times: None, ..special("label_join", &[Vector, String, String, String], Special::LabelJoin) },
    special("label_replace", &[Vector, String, String, String, String], Special::LabelReplace),
    function("last_over_time", &[Matrix], Vector, Body::WindowKeepingName(window::last)),
    math("ln", f64::ln),
    math("log10", f64::log10),
    math("log2", f64::log2),
    over_range("mad_over_time", window::mad),
    function("max_of", &[Scalar, Scalar], Scalar, Body::Special(Special::MaxOf)),
    over_range("max_over_time", window::max),
    function("min_of", &[Scalar, Scalar], Scalar, Body::Special(Special::MinOf)),
    over_range("min_over_time", window::min),
    date("minute", |at| at.second_of_day.div_euclid(60).rem_euclid(60) as f64),
    date("month", |at| f64::from(at.month)),
    function("pi", &[], Scalar, Body::Special(Special::Pi)),
    function("predict_linear", &[Matrix, Scalar], Vector, Body::Window(window::predict_linear)),
    over_range("present_over_time", window::present),
    special("quantile_over_time", &[Scalar, Matrix], Special::QuantileOverTime),
    math("rad", |value| value * std::f64::consts::PI / 180.0),
    of_query("range", QueryNumber::Range),
    counter("rate", window::rate),
    over_range("resets", window::resets),
    Function { optional: 1, ..special("round", &[Vector, Scalar], Special::Round) },
    function("scalar", &[Vector], Scalar, Body::Special(Special::Scalar)),
    math("sgn", |value| if value == 0.0 || value.is_nan() { value } else { value.signum() }),
    math("sin", f64::sin),
    math("sinh", f64::sinh),
    special("sort", &[Vector], Special::Sort { descending: false }),
    Function { times: None, ..special("sort_by_label", &[Vector, String], Special::SortByLabel { descending: false }) },
    Function {
        times: None,
        ..special("sort_by_label_desc", &[Vector, String], Special::SortByLabel { descending: true })
    },
    special("sort_desc", &[Vector], Special::Sort { descending: true }),
    math("sqrt", f64::sqrt),
    of_query("start", QueryNumber::Start),
    over_range("stddev_over_time", window::stddev),
    over_range("stdvar_over_time", window::stdvar),
    of_query("step", QueryNumber::Step),
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
    date("year", |at| at.year as f64),
];

const LN_2: f64 = std::f64::consts::LN_2;
/// From here on `x * x + 1` is `x * x`.
const LARGE: f64 = (1u64 << 28) as f64;

/// Without overflow for large numbers, unlike the standard library's.
fn asinh(x: f64) -> f64 {
    let a = x.abs();
    let value = if a > LARGE {
        a.ln() + LN_2
    } else if a > 2.0 {
        (2.0 * a + 1.0 / ((a * a + 1.0).sqrt() + a)).ln()
    } else if a < 1.0 / LARGE {
        a
    } else {
        (a + a * a / (1.0 + (1.0 + a * a).sqrt())).ln_1p()
    };
    if x.is_nan() || x.is_infinite() { x } else { value.copysign(x) }
}

fn acosh(x: f64) -> f64 {
    if x >= LARGE {
        x.ln() + LN_2
    } else if x > 2.0 {
        (2.0 * x - 1.0 / (x + (x * x - 1.0).sqrt())).ln()
    } else {
        let t = x - 1.0;
        // Below one there is no value.
        if x < 1.0 { f64::NAN } else { (t + (2.0 * t + t * t).sqrt()).ln_1p() }
    }
}

fn atanh(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 1.0 / LARGE {
        a
    } else if a < 0.5 {
        0.5 * (2.0 * a + (2.0 * a) * a / (1.0 - a)).ln_1p()
    } else {
        0.5 * (2.0 * a / (1.0 - a)).ln_1p()
    };
    if a > 1.0 { f64::NAN } else { value.copysign(x) }
}

/// The function with this name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.binary_search_by(|function| function.name.cmp(name)).ok().and_then(|at| FUNCTIONS.get(at))
}

/// A time in the proleptic Gregorian calendar, UTC; any 64-bit number of seconds has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Days since 1970-01-01.
    pub days: i64,
    pub second_of_day: i64,
    pub year: i64,
    pub month: u32,
    pub day: u32,
}

impl Civil {
    /// The time so many seconds after the epoch; a fraction is cut off.
    pub(super) fn at(seconds: f64) -> Self {
        // What is no 64-bit integer becomes the smallest one in Go on common processors, which its calendar takes for
        // the second after the largest.
        #[expect(clippy::cast_possible_truncation, reason = "checked")]
        let seconds = if seconds.abs() < 9.2e18 { seconds as i64 } else { i64::MAX };
        let days = seconds.div_euclid(86_400);
        // Days since 0000-03-01, in eras of 400 years; after Howard Hinnant's `civil_from_days`.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let small = |n: i64| u32::try_from(n).unwrap_or(0);
        Self { days, second_of_day: seconds.rem_euclid(86_400), year, month: small(month), day: small(day) }
    }
}

/// Days from 1970-01-01 to a date.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = i64::from((month + 9) % 12);
    let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
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

    #[test]
    fn dates() {
        for (seconds, year, month, day, week_day) in [
            (0.0, 1970, 1, 1, 4),
            (951_827_696.0, 2000, 2, 29, 2),
            (1_700_000_000.0, 2023, 11, 14, 2),
            (-1.0, 1969, 12, 31, 3),
            (-62_135_596_800.0, 1, 1, 1, 1),
        ] {
            let at = Civil::at(seconds);
            assert_eq!((at.year, at.month, at.day), (year, month, day), "{seconds}");
            assert_eq!((at.days + 4).rem_euclid(7), week_day, "{seconds}");
            assert_eq!(days_from_civil(year, month, day), at.days);
        }
    }
}
