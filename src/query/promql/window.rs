//! Functions over a range of one series' points.
//!
//! Sums are compensated (Kahan, Neumaier) in the same places as in Prometheus, so that results near zero agree.

use super::ast::Edges;
use crate::store::metrics::Point;

/// The points of one series in the left-open window `(end_ms - range_ms, end_ms]`.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    pub points: &'a [Point],
    /// Where set, one point before the window and, smoothed, one after it are among the points, if there are any.
    pub edges: Option<Edges>,
    pub range_ms: i64,
    /// End of the window, with offset and `@` applied.
    pub end_ms: i64,
    /// The step's time.
    pub eval_ms: i64,
    /// Scalar arguments in order.
    pub params: &'a [f64],
}

impl Window<'_> {
    fn values(&self) -> impl DoubleEndedIterator<Item = f64> + ExactSizeIterator + Clone {
        self.points.iter().map(|point| point.value)
    }

    fn param(&self, index: usize) -> f64 {
        self.params.get(index).copied().unwrap_or(f64::NAN)
    }
}

/// A sum and what its rounding lost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kahan {
    pub(super) sum: f64,
    pub(super) lost: f64,
}

impl Kahan {
    #[must_use]
    pub(super) fn plus(self, value: f64) -> Self {
        let sum = self.sum + value;
        let lost = if sum.is_infinite() {
            0.0
        } else if self.sum.abs() >= value.abs() {
            self.lost + ((self.sum - sum) + value)
        } else {
            self.lost + ((value - sum) + self.sum)
        };
        Self { sum, lost }
    }

    pub(super) fn total(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.lost }
    }
}

/// An average that switches to a running mean where the sum would overflow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean {
    sum: Kahan,
    /// Set once the sum would overflow.
    running: Option<Kahan>,
    count: f64,
}

impl Mean {
    pub(super) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.running.is_none() {
            let next = self.sum.plus(value);
            if self.count <= 1.0 || !next.sum.is_infinite() {
                self.sum = next;
                return;
            }
            let before = self.count - 1.0;
            self.running = Some(Kahan { sum: self.sum.sum / before, lost: self.sum.lost / before });
        }
        if let Some(mean) = self.running {
            let share = (self.count - 1.0) / self.count;
            let scaled = Kahan { sum: share * mean.sum, lost: share * mean.lost };
            self.running = Some(scaled.plus(value / self.count));
        }
    }

    pub(super) fn value(&self) -> f64 {
        match self.running {
            Some(mean) => mean.sum + mean.lost,
            None => self.sum.sum / self.count + self.sum.lost / self.count,
        }
    }
}

/// The value on the line between two points. A counter that fell between them began again at zero.
fn interpolated((a, b): (Point, Point), at_ms: i64, is_counter: bool, is_left: bool) -> f64 {
    let (mut from, mut to) = (a.value, b.value);
    if is_counter && to < from {
        if is_left {
            from = 0.0;
        } else {
            to += from;
        }
    }
    from + (to - from) * (at_ms - a.at_ms) as f64 / (b.at_ms - a.at_ms) as f64
}

/// The change from edge to edge, without extrapolation.
fn from_edge_to_edge(window: &Window<'_>, edges: Edges, is_counter: bool, is_rate: bool) -> Option<f64> {
    let (first, last) = (*window.points.first()?, *window.points.last()?);
    let start_ms = window.end_ms - window.range_ms;
    if last.at_ms <= start_ms {
        return None;
    }
    let is_smoothed = edges == Edges::Smoothed;
    let left = match window.points {
        [a, b, ..] if is_smoothed && a.at_ms < start_ms => interpolated((*a, *b), start_ms, is_counter, true),
        _ => first.value,
    };
    let right = match window.points {
        [.., a, b] if is_smoothed && b.at_ms > window.end_ms => {
            interpolated((*a, *b), window.end_ms, is_counter, false)
        }
        _ => last.value,
    };
    let mut result = right - left;
    if is_counter {
        let mut before = left;
        let inside = window.points.iter().filter(|point| point.at_ms > start_ms && point.at_ms < window.end_ms);
        for value in inside.map(|point| point.value).chain([right]) {
            if value < before {
                result += before;
            }
            before = value;
        }
    }
    Some(if is_rate { result / (window.range_ms as f64 / 1000.0) } else { result })
}

fn extrapolated(window: &Window<'_>, is_counter: bool, is_rate: bool) -> Option<f64> {
    if let Some(edges) = window.edges {
        return from_edge_to_edge(window, edges, is_counter, is_rate);
    }
    let [first, .., last] = window.points else { return None };
    let mut result = last.value - first.value;
    if is_counter {
        let mut before = first.value;
        for value in window.values().skip(1) {
            if value < before {
                result += before;
            }
            before = value;
        }
    }
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let mut to_start = seconds(first.at_ms - (window.end_ms - window.range_ms));
    let mut to_end = seconds(window.end_ms - last.at_ms);
    let sampled = seconds(last.at_ms - first.at_ms);
    let between = sampled / (window.points.len() - 1) as f64;
    let threshold = between * 1.1;
    if to_start >= threshold {
        to_start = between / 2.0;
    }
    if is_counter {
        // A counter was not below zero: do not extrapolate beyond the point where it would have been.
        let to_zero = if result > 0.0 && first.value >= 0.0 { sampled * (first.value / result) } else { to_start };
        to_start = to_start.min(to_zero);
    }
    if to_end >= threshold {
        to_end = between / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if is_rate {
        factor /= seconds(window.range_ms);
    }
    Some(result * factor)
}

pub(super) fn rate(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, true, true)
}

pub(super) fn increase(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, true, false)
}

pub(super) fn delta(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, false, false)
}

fn last_two(window: &Window<'_>) -> Option<(Point, Point)> {
    match window.points {
        [.., before, last] => Some((*before, *last)),
        _ => None,
    }
}

pub(super) fn irate(window: &Window<'_>) -> Option<f64> {
    let (before, last) = last_two(window)?;
    let difference = if last.value < before.value { last.value } else { last.value - before.value };
    let interval_ms = last.at_ms - before.at_ms;
    (interval_ms != 0).then(|| difference / (interval_ms as f64 / 1000.0))
}

pub(super) fn idelta(window: &Window<'_>) -> Option<f64> {
    let (before, last) = last_two(window)?;
    Some(last.value - before.value)
}

/// Least squares: slope per second and value at `at_ms`.
fn regression(points: &[Point], at_ms: i64) -> (f64, f64) {
    let first = points.first().map_or(f64::NAN, |point| point.value);
    #[expect(clippy::float_cmp, reason = "constant means exactly equal")]
    let is_constant = points.iter().all(|point| point.value == first);
    if is_constant {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = points.len() as f64;
    let (mut x, mut y, mut xy, mut x2) = (Kahan::default(), Kahan::default(), Kahan::default(), Kahan::default());
    for point in points {
        let seconds = (point.at_ms - at_ms) as f64 / 1000.0;
        x = x.plus(seconds);
        y = y.plus(point.value);
        xy = xy.plus(seconds * point.value);
        x2 = x2.plus(seconds * seconds);
    }
    let (x, y, xy, x2) = (x.sum + x.lost, y.sum + y.lost, xy.sum + xy.lost, x2.sum + x2.lost);
    let covariance = xy - x * y / n;
    let variance = x2 - x * x / n;
    let slope = covariance / variance;
    (slope, y / n - slope * x / n)
}

pub(super) fn deriv(window: &Window<'_>) -> Option<f64> {
    let first = window.points.first().filter(|_| window.points.len() >= 2)?;
    Some(regression(window.points, first.at_ms).0)
}

pub(super) fn predict_linear(window: &Window<'_>) -> Option<f64> {
    if window.points.len() < 2 {
        return None;
    }
    let (slope, intercept) = regression(window.points, window.eval_ms);
    Some(slope * window.param(0) + intercept)
}

/// Whether an anchored window holds more than its anchor.
fn has_news(window: &Window<'_>) -> bool {
    let start_ms = window.end_ms - window.range_ms;
    window.edges.is_none() || window.points.last().is_some_and(|point| point.at_ms > start_ms)
}

fn pairs<'a>(window: &'a Window<'_>) -> impl Iterator<Item = (f64, f64)> + 'a {
    window.values().zip(window.values().skip(1))
}

pub(super) fn changes(window: &Window<'_>) -> Option<f64> {
    #[expect(clippy::float_cmp, reason = "a change is any difference")]
    let changed = |(a, b): &(f64, f64)| a != b && !(a.is_nan() && b.is_nan());
    present(window).filter(|_| has_news(window)).map(|_| pairs(window).filter(changed).count() as f64)
}

pub(super) fn resets(window: &Window<'_>) -> Option<f64> {
    present(window).filter(|_| has_news(window)).map(|_| pairs(window).filter(|(a, b)| b < a).count() as f64)
}

pub(super) fn present(window: &Window<'_>) -> Option<f64> {
    (!window.points.is_empty()).then_some(1.0)
}

pub(super) fn count(window: &Window<'_>) -> Option<f64> {
    present(window).map(|_| window.points.len() as f64)
}

pub(super) fn sum(window: &Window<'_>) -> Option<f64> {
    present(window).map(|_| window.values().fold(Kahan::default(), Kahan::plus).total())
}

pub(super) fn avg(window: &Window<'_>) -> Option<f64> {
    let mut mean = Mean::default();
    window.values().for_each(|value| mean.add(value));
    present(window).map(|_| mean.value())
}

/// The point that wins against all others; NaN loses against everything.
fn best(window: &Window<'_>, wins: fn(f64, f64) -> bool) -> Option<Point> {
    let pick =
        |best: Point, point: &Point| if wins(point.value, best.value) || best.value.is_nan() { *point } else { best };
    let (first, rest) = window.points.split_first()?;
    Some(rest.iter().fold(*first, pick))
}

pub(super) fn max(window: &Window<'_>) -> Option<f64> {
    best(window, |a, b| a > b).map(|point| point.value)
}

pub(super) fn min(window: &Window<'_>) -> Option<f64> {
    best(window, |a, b| a < b).map(|point| point.value)
}

fn seconds_of(point: Point) -> f64 {
    point.at_ms as f64 / 1000.0
}

pub(super) fn ts_of_max(window: &Window<'_>) -> Option<f64> {
    best(window, |a, b| a >= b).map(seconds_of)
}

pub(super) fn ts_of_min(window: &Window<'_>) -> Option<f64> {
    best(window, |a, b| a <= b).map(seconds_of)
}

pub(super) fn first(window: &Window<'_>) -> Option<f64> {
    window.points.first().map(|point| point.value)
}

pub(super) fn last(window: &Window<'_>) -> Option<f64> {
    window.points.last().map(|point| point.value)
}

pub(super) fn ts_of_first(window: &Window<'_>) -> Option<f64> {
    window.points.first().copied().map(seconds_of)
}

pub(super) fn ts_of_last(window: &Window<'_>) -> Option<f64> {
    window.points.last().copied().map(seconds_of)
}

pub(super) fn stdvar(window: &Window<'_>) -> Option<f64> {
    let (mut count, mut mean, mut squares) = (0.0, Kahan::default(), Kahan::default());
    for value in window.values() {
        count += 1.0;
        let delta = value - (mean.sum + mean.lost);
        mean = mean.plus(delta / count);
        squares = squares.plus(delta * (value - (mean.sum + mean.lost)));
    }
    present(window).map(|_| (squares.sum + squares.lost) / count)
}

pub(super) fn stddev(window: &Window<'_>) -> Option<f64> {
    stdvar(window).map(f64::sqrt)
}

pub(super) fn quantile_over_time(window: &Window<'_>) -> Option<f64> {
    present(window).map(|_| quantile(window.param(0), &mut window.values().collect::<Vec<_>>()))
}

pub(super) fn mad(window: &Window<'_>) -> Option<f64> {
    let median = quantile(0.5, &mut window.values().collect::<Vec<_>>());
    let mut deviations: Vec<f64> = window.values().map(|value| (value - median).abs()).collect();
    present(window).map(|_| quantile(0.5, &mut deviations))
}

/// The quantile of the values, interpolated; sorts them.
pub(super) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    // NaN sorts first, as in Prometheus.
    values.sort_by(|a, b| b.is_nan().cmp(&a.is_nan()).then_with(|| a.total_cmp(b)));
    let rank = q * (values.len() - 1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is an index of the slice")]
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    at(lower) * (1.0 - weight) + at(upper) * weight
}

pub(super) fn check_smoothing(params: &[f64]) -> Result<(), String> {
    for (name, value) in ["smoothing", "trend"].iter().zip(params) {
        if *value <= 0.0 || *value >= 1.0 {
            let short = name.chars().next().unwrap_or('s');
            return Err(format!("invalid {name} factor. Expected: 0 < {short}f < 1, got: {value:.6}"));
        }
    }
    Ok(())
}

pub(super) fn double_exponential_smoothing(window: &Window<'_>) -> Option<f64> {
    let (smoothing, trend) = (window.param(0), window.param(1));
    if window.points.len() < 2 {
        return None;
    }
    let mut values = window.values();
    let (first, second) = (values.next()?, values.next()?);
    let (mut s0, mut s1, mut b) = (0.0, first, second - first);
    for (index, value) in window.values().enumerate().skip(1) {
        if index > 1 {
            b = trend * (s1 - s0) + (1.0 - trend) * b;
        }
        let x = smoothing * value;
        let y = (1.0 - smoothing) * (s1 + b);
        s0 = s1;
        s1 = x + y;
    }
    Some(s1)
}
