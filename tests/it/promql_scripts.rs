//! Runs the scripts in `tests/promql`: data, expressions, expected results.
//!
//! ```text
//! clear                                    forget the data
//! load 1m                                  series with a value every minute from the epoch on
//!   up{job="a"} 1 2 _ stale 0+10x5 NaN
//! eval instant at 5m EXPR                  then one expected sample a line: `{labels} value`, or a bare scalar
//! eval_ordered instant at 5m EXPR          the same, and the order counts
//! eval range from 0 to 5m step 1m EXPR     `{labels} value _ value ...`, one value a step
//! eval_fail instant at 5m EXPR             optionally with a line `expect TEXT` that the error contains
//! ```
//!
//! Every instant evaluation is also run as the middle of a range, which must agree.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use daraji::model::sample::STALE_NAN;
use daraji::model::{Labels, Timestamp};
use daraji::query::promql::{
    Engine, InstantSample, Limits, MemorySource, Output, QueryError, RangeSpec, Value, parse, parse_duration_ms,
    parse_series_labels,
};
use daraji::store::metrics::{Point, Series};

/// Expected and actual value may differ by this share.
const TOLERANCE: f64 = 1e-9;

fn close(a: f64, b: f64) -> bool {
    // Infinities have no distance.
    (a.is_nan() && b.is_nan()) || a.to_bits() == b.to_bits() || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs())
}

/// Values in the notation of `load`; `None` is a gap.
fn parse_values(text: &str) -> Result<Vec<Option<f64>>, String> {
    let mut values = Vec::new();
    for word in text.split_whitespace() {
        match word {
            "_" => values.push(None),
            "stale" => values.push(Some(STALE_NAN)),
            _ => parse_run(word, &mut values).ok_or_else(|| format!("{word:?} is not a value"))?,
        }
    }
    Ok(values)
}

/// `5`, `_x3`, `1x4` (five times), `1+2x3` (four values).
fn parse_run(word: &str, values: &mut Vec<Option<f64>>) -> Option<()> {
    let Some((start, times)) = word.rsplit_once('x') else {
        values.push(Some(word.parse().ok()?));
        return Some(());
    };
    let times: u32 = times.parse().ok()?;
    if start == "_" {
        values.extend((0..times).map(|_| None));
        return Some(());
    }
    // The step's sign is the last one that is neither first nor in an exponent.
    let sign =
        start.char_indices().rfind(|(at, c)| matches!(c, '+' | '-') && *at > 0 && !start[..*at].ends_with(['e', 'E']));
    let (first, step): (f64, f64) = match sign {
        Some((at, _)) => (start[..at].parse().ok()?, start[at..].parse().ok()?),
        None => (start.parse().ok()?, 0.0),
    };
    values.extend((0..=times).map(|i| Some(first + step * f64::from(i))));
    Some(())
}

/// Splits `name{labels} rest` after the labels.
fn split_series(line: &str) -> Result<(Labels, &str), String> {
    let mut quoted = None;
    let mut depth = 0;
    for (at, c) in line.char_indices() {
        match (quoted, c) {
            (Some(quote), c) if c == quote => quoted = None,
            (None, '"' | '\'' | '`') => quoted = Some(c),
            (None, '{') => depth += 1,
            (None, '}') => depth -= 1,
            (None, c) if c.is_whitespace() && depth == 0 => {
                let labels = parse_series_labels(&line[..at]).map_err(|error| error.to_string())?;
                return Ok((labels, &line[at..]));
            }
            _ => {}
        }
    }
    Err(format!("{line:?} has no values"))
}

#[derive(Default)]
struct Runner {
    source: MemorySource,
    engine: Engine,
}

fn time(text: &str) -> Result<i64, String> {
    let seconds = text.parse::<i64>().ok().map(|seconds| seconds * 1000);
    seconds.or_else(|| parse_duration_ms(text)).ok_or_else(|| format!("{text:?} is not a time"))
}

impl Runner {
    fn command(&mut self, head: &str, body: &[&str]) -> Result<(), String> {
        let mut words = head.splitn(5, ' ');
        match (words.next().unwrap_or(""), words.next()) {
            ("clear", None) => self.source = MemorySource::default(),
            ("load", Some(step)) => self.load(time(step)?, body)?,
            (kind @ ("eval" | "eval_ordered" | "eval_fail"), Some("instant")) => {
                let at = time(words.nth(1).ok_or("no time")?)?;
                let text = words.next().ok_or("no expression")?;
                self.instant(kind, at, text, body)?;
            }
            (kind @ ("eval" | "eval_fail"), Some("range")) => {
                let words: Vec<&str> = head.splitn(9, ' ').collect();
                let [_, _, "from", from, "to", to, "step", step, text] = words[..] else {
                    return Err("expected `from A to B step C EXPR`".to_owned());
                };
                self.range(kind, (time(from)?, time(to)?, time(step)?), text, body)?;
            }
            _ => return Err("unknown command".to_owned()),
        }
        Ok(())
    }

    fn load(&mut self, step_ms: i64, body: &[&str]) -> Result<(), String> {
        for line in body {
            let (labels, values) = split_series(line)?;
            let points = (0..).zip(parse_values(values)?);
            let points: Vec<Point> =
                points.filter_map(|(i, value)| Some(Point { at_ms: i64::from(i) * step_ms, value: value? })).collect();
            self.source.series.push(Series { labels, points });
        }
        Ok(())
    }

    fn run_range(&self, text: &str, (from, to, step): (i64, i64, i64)) -> Result<Vec<Series>, QueryError> {
        let spec = RangeSpec {
            start: Timestamp::from_millis(from),
            end: Timestamp::from_millis(to),
            step: Duration::from_millis(step.unsigned_abs()),
        };
        let Output { value, .. } = self.engine.range(&self.source, &parse(text)?, spec, &Limits::default())?;
        match value {
            Value::Matrix(series) => Ok(series),
            other => panic!("a range query yields a matrix, not {other:?}"),
        }
    }

    fn instant(&self, kind: &str, at_ms: i64, text: &str, body: &[&str]) -> Result<(), String> {
        let result = self.engine.instant_text(&self.source, text, Timestamp::from_millis(at_ms));
        if kind == "eval_fail" {
            return expect_failure(result.map(|output| output.value), body);
        }
        let value = result.map_err(|error| error.to_string())?.value;
        let mut got = match value {
            Value::Scalar { value, .. } => {
                let wanted: f64 = body.join(" ").trim().parse().map_err(|_| "expected a scalar".to_owned())?;
                return if close(value, wanted) { Ok(()) } else { Err(format!("got {value}")) };
            }
            Value::Vector(samples) => samples,
            other => return Err(format!("unexpected {other:?}")),
        };
        let mut wanted = Vec::new();
        for line in body {
            let (labels, values) = split_series(line)?;
            let value = parse_values(values)?.first().copied().flatten().ok_or("no value")?;
            wanted.push(InstantSample { labels, at_ms, value });
        }
        if kind != "eval_ordered" {
            got.sort_by(|a, b| a.labels.cmp(&b.labels));
            wanted.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        let same = |(a, b): (&InstantSample, &InstantSample)| a.labels == b.labels && close(a.value, b.value);
        if got.len() != wanted.len() || !got.iter().zip(&wanted).all(same) {
            return Err(format!("got {got:#?}"));
        }
        self.middle_of_range(at_ms, text, &got)
    }

    fn middle_of_range(&self, at_ms: i64, text: &str, instant: &[InstantSample]) -> Result<(), String> {
        // `@ start()` and `@ end()` mean other times there.
        if text.contains("start()") || text.contains("end()") {
            return Ok(());
        }
        let series = match self.run_range(text, (at_ms - 60_000, at_ms + 60_000, 60_000)) {
            Ok(series) => series,
            // The neighbours may fail where the middle does not.
            Err(QueryError::Execution(_)) => return Ok(()),
            Err(error) => return Err(format!("as a range: {error}")),
        };
        let point = |series: &Series| {
            let point = series.points.iter().find(|point| point.at_ms == at_ms)?;
            Some((series.labels.clone(), point.value))
        };
        let middle: Vec<(Labels, f64)> = series.iter().filter_map(point).collect();
        let mut wanted: Vec<(Labels, f64)> = instant.iter().map(|s| (s.labels.clone(), s.value)).collect();
        wanted.sort_by(|a, b| a.0.cmp(&b.0));
        let same =
            middle.len() == wanted.len() && middle.iter().zip(&wanted).all(|(a, b)| a.0 == b.0 && close(a.1, b.1));
        if same { Ok(()) } else { Err(format!("as a range got {middle:#?}")) }
    }

    fn range(&self, kind: &str, spec: (i64, i64, i64), text: &str, body: &[&str]) -> Result<(), String> {
        let result = self.run_range(text, spec);
        if kind == "eval_fail" {
            return expect_failure(result, body);
        }
        let got = result.map_err(|error| error.to_string())?;
        let mut wanted = Vec::new();
        for line in body {
            let (labels, values) = split_series(line)?;
            let points = (0..).zip(parse_values(values)?);
            let points: Vec<Point> = points
                .filter_map(|(i, value)| Some(Point { at_ms: spec.0 + i64::from(i) * spec.2, value: value? }))
                .collect();
            wanted.push(Series { labels, points });
        }
        wanted.sort_by(|a, b| a.labels.cmp(&b.labels));
        let same_points = |a: &[Point], b: &[Point]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.at_ms == b.at_ms && close(a.value, b.value))
        };
        let same = got.len() == wanted.len()
            && got.iter().zip(&wanted).all(|(a, b)| a.labels == b.labels && same_points(&a.points, &b.points));
        if same { Ok(()) } else { Err(format!("got {got:#?}")) }
    }
}

fn expect_failure<T: std::fmt::Debug>(result: Result<T, QueryError>, body: &[&str]) -> Result<(), String> {
    let error = match result {
        Ok(value) => return Err(format!("must fail, got {value:?}")),
        Err(error) => error.to_string(),
    };
    match body.iter().find_map(|line| line.trim().strip_prefix("expect ")) {
        Some(text) if !error.contains(text) => Err(format!("must fail with {text:?}, failed with {error:?}")),
        _ => Ok(()),
    }
}

/// Runs a script; returns every problem and the number of evaluations.
fn run_script(path: &Path) -> (String, usize) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut runner = Runner::default();
    let (mut problems, mut evaluations) = (String::new(), 0);
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let mut body = Vec::new();
        while let Some((_, next)) = lines.next_if(|(_, next)| next.starts_with([' ', '\t'])) {
            body.push(next.trim());
        }
        evaluations += usize::from(line.starts_with("eval"));
        if let Err(problem) = runner.command(line.trim(), &body) {
            writeln!(problems, "{}:{}: {line}\n    {problem}", path.display(), number + 1).unwrap();
        }
    }
    (problems, evaluations)
}

#[test]
fn scripts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promql");
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "test"));
    paths.sort();
    assert!(!paths.is_empty());
    let mut all_problems = String::new();
    for path in paths {
        let (problems, evaluations) = run_script(&path);
        assert!(evaluations > 0, "{} evaluates nothing", path.display());
        all_problems += &problems;
    }
    assert!(all_problems.is_empty(), "\n{all_problems}");
}
