//! A runner for scripts in Prometheus' promqltest language.
//!
//! ```text
//! clear                                    forget the data
//! load 1m                                  series with a value every minute from the epoch on
//!   up{job="a"} 1 2 _ stale 0+10x5 NaN
//! eval instant at 5m EXPR                  then one expected sample a line: `{labels} value`, or a bare scalar
//!   expect ordered                         the order counts
//!   expect fail msg: TEXT                  or `regex: RE`, or nothing; likewise warn, info, no_warn, no_info
//!   expect string "TEXT"
//!   expect range vector from 0 to 5m step 1m
//! eval range from 0 to 5m step 1m EXPR     `{labels} value _ value ...`, one value a step
//! ```
//!
//! A block ends at an empty line or a comment. `eval_fail`, `eval_warn`, `eval_info` and `eval_ordered` are the older
//! forms of `expect`. Every instant evaluation is also run as the middle of a range, which must agree.

use std::path::{Path, PathBuf};
use std::time::Duration;

use daraji::model::{Labels, Timestamp};
use daraji::query::promql::{
    Engine, EngineOptions, InstantSample, Limits, MemorySource, Output, QueryError, RangeSpec, Value, parse,
};
use daraji::store::metrics::{Point, Series};

use crate::notation::{Given, parse_values, split_series, time_ms};

/// How the engine behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As a server behaves.
    Default,
    /// As Prometheus' own scripts expect: names go at the end of a query.
    Promqltest,
}

impl Profile {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "default" => Some(Self::Default),
            "promqltest" => Some(Self::Promqltest),
            _ => None,
        }
    }

    /// Expected and actual value may differ by this share.
    fn tolerance(self) -> f64 {
        match self {
            Self::Default => 1e-9,
            Self::Promqltest => 1e-6,
        }
    }
}

/// What `expect` lines say.
#[derive(Debug, Default)]
struct Expected {
    ordered: bool,
    fail: Option<Text>,
    warn: Option<Text>,
    info: Option<Text>,
    no_warn: bool,
    no_info: bool,
    string: Option<String>,
    range_vector: Option<(i64, i64, i64)>,
    lines: Vec<String>,
}

/// What a message must be.
#[derive(Debug)]
enum Text {
    Any,
    Exactly(String),
    Matching(regex::Regex),
}

impl Text {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(message) = text.strip_prefix("msg:") {
            return Ok(Self::Exactly(message.trim().to_owned()));
        }
        match text.strip_prefix("regex:") {
            Some(pattern) => Ok(Self::Matching(regex::Regex::new(pattern.trim()).map_err(|error| error.to_string())?)),
            None if text.is_empty() => Ok(Self::Any),
            None => Err(format!("{text:?} is neither msg: nor regex:")),
        }
    }

    fn fits(&self, message: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(text) => message == text,
            Self::Matching(pattern) => pattern.is_match(message),
        }
    }
}

impl Expected {
    fn parse(kind: &str, body: &[&str]) -> Result<Self, String> {
        let mut expected = Self::default();
        match kind {
            "eval_fail" => expected.fail = Some(Text::Any),
            "eval_warn" => expected.warn = Some(Text::Any),
            "eval_info" => expected.info = Some(Text::Any),
            "eval_ordered" => expected.ordered = true,
            _ => {}
        }
        for line in body {
            expected.line(line)?;
        }
        Ok(expected)
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(text) = line.strip_prefix("expected_fail_message ") {
            self.fail = Some(Text::Exactly(text.trim().to_owned()));
            return Ok(());
        }
        if let Some(text) = line.strip_prefix("expected_fail_regexp ") {
            self.fail = Some(Text::parse(&format!("regex:{text}"))?);
            return Ok(());
        }
        let Some(rest) = line.strip_prefix("expect ") else {
            self.lines.push(line.to_owned());
            return Ok(());
        };
        let (what, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match what {
            "ordered" => self.ordered = true,
            "fail" => self.fail = Some(Text::parse(rest.trim())?),
            "warn" => self.warn = Some(Text::parse(rest.trim())?),
            "info" => self.info = Some(Text::parse(rest.trim())?),
            "no_warn" => self.no_warn = true,
            "no_info" => self.no_info = true,
            "string" => self.string = Some(unquoted(rest.trim())?),
            "range" => {
                let words: Vec<&str> = rest.split_whitespace().collect();
                let ["vector", "from", from, "to", to, "step", step] = words[..] else {
                    return Err(format!("{line:?} is not `expect range vector from A to B step C`"));
                };
                self.range_vector = Some((time_ms(from)?, time_ms(to)?, time_ms(step)?));
            }
            other => return Err(format!("nothing can be expected by {other:?}")),
        }
        Ok(())
    }

    fn check_notes(&self, output: &Output) -> Result<(), String> {
        let checks = [
            ("warning", &self.warn, self.no_warn, &output.warnings),
            ("info", &self.info, self.no_info, &output.infos),
        ];
        for (kind, wanted, none, notes) in checks {
            if none && !notes.is_empty() {
                return Err(format!("expected no {kind}, got {notes:?}"));
            }
            if let Some(wanted) = wanted
                && !notes.iter().any(|note| wanted.fits(note))
            {
                return Err(format!("expected the {kind} {wanted:?}, got {notes:?}"));
            }
        }
        Ok(())
    }
}

fn unquoted(text: &str) -> Result<String, String> {
    let source = MemorySource::default();
    let output = Engine::default().instant_text(&source, text, Timestamp::from_millis(0));
    match output.map(|output| output.value) {
        Ok(Value::String { value, .. }) => Ok(value),
        other => Err(format!("{text} is not a string: {other:?}")),
    }
}

struct Runner {
    profile: Profile,
    source: MemorySource,
    engine: Engine,
    /// Whether series were left out that hold native histograms.
    incomplete: bool,
}

/// What became of a command.
enum Outcome {
    Passed,
    /// It needs native histograms.
    Skipped,
}

impl Runner {
    fn new(profile: Profile) -> Self {
        let delayed_name_removal = profile == Profile::Promqltest;
        let engine = Engine::new(EngineOptions { delayed_name_removal, ..EngineOptions::default() });
        Self { profile, source: MemorySource::default(), engine, incomplete: false }
    }

    fn command(&mut self, head: &str, body: &[&str]) -> Result<Outcome, String> {
        let (kind, rest) = head.split_once(char::is_whitespace).unwrap_or((head, ""));
        match kind {
            "clear" => {
                self.source = MemorySource::default();
                self.incomplete = false;
                Ok(Outcome::Passed)
            }
            "load" => self.load(time_ms(rest.trim())?, body).map(|()| Outcome::Passed),
            "load_with_nhcb" => {
                self.incomplete = true;
                self.load(time_ms(rest.trim())?, body).map(|()| Outcome::Passed)
            }
            "eval" | "eval_fail" | "eval_warn" | "eval_info" | "eval_ordered" => {
                let result = self.eval(kind, rest.trim(), body);
                if result.is_err() && (self.incomplete || body.iter().any(|line| line.contains("{{"))) {
                    return Ok(Outcome::Skipped);
                }
                result.map(|()| Outcome::Passed)
            }
            _ => Err("unknown command".to_owned()),
        }
    }

    fn load(&mut self, step_ms: i64, body: &[&str]) -> Result<(), String> {
        for line in body.iter().filter(|line| !line.contains("@st")) {
            let (labels, values) = split_series(line)?;
            let values = parse_values(values)?;
            if values.iter().any(|value| matches!(value, Given::Histogram)) {
                self.incomplete = true;
            }
            let points = (0..).zip(values).filter_map(|(i, value)| match value {
                Given::Float(value) => Some(Point { at_ms: i * step_ms, value }),
                Given::Gap | Given::Histogram => None,
            });
            let place = self.source.series.iter().position(|series| series.labels == labels).unwrap_or_else(|| {
                self.source.series.push(Series { labels, points: Vec::new() });
                self.source.series.len() - 1
            });
            let known = &mut self.source.series[place].points;
            known.extend(points);
            known.sort_by_key(|point| point.at_ms);
        }
        Ok(())
    }

    fn eval(&self, kind: &str, rest: &str, body: &[&str]) -> Result<(), String> {
        let expected = Expected::parse(kind, body)?;
        if let Some(rest) = rest.strip_prefix("instant at ") {
            let (at, text) = rest.split_once(char::is_whitespace).ok_or("no expression")?;
            return self.instant(time_ms(at)?, text.trim(), &expected);
        }
        let rest = rest.strip_prefix("range from ").ok_or("neither `instant at` nor `range from`")?;
        let words: Vec<&str> = rest.splitn(6, char::is_whitespace).collect();
        let [from, "to", to, "step", step, text] = words[..] else {
            return Err("expected `from A to B step C EXPR`".to_owned());
        };
        self.range((time_ms(from)?, time_ms(to)?, time_ms(step)?), text.trim(), &expected)
    }

    fn run_range(&self, text: &str, (from, to, step): (i64, i64, i64)) -> Result<Output, QueryError> {
        let spec = RangeSpec {
            start: Timestamp::from_millis(from),
            end: Timestamp::from_millis(to),
            step: Duration::from_millis(step.unsigned_abs()),
        };
        self.engine.range(&self.source, &parse(text)?, spec, &Limits::default())
    }

    fn close(&self, a: f64, b: f64) -> bool {
        // Infinities have no distance.
        (a.is_nan() && b.is_nan())
            || a.to_bits() == b.to_bits()
            || (a - b).abs() <= self.profile.tolerance() * a.abs().max(b.abs())
    }

    fn instant(&self, at_ms: i64, text: &str, expected: &Expected) -> Result<(), String> {
        let result = self.engine.instant_text(&self.source, text, Timestamp::from_millis(at_ms));
        let Some(output) = expect_failure(result, expected)? else { return Ok(()) };
        expected.check_notes(&output)?;
        let mut got = match output.value {
            Value::Scalar { value, .. } => {
                let wanted = one_value(&expected.lines.join(" "))?;
                return if self.close(value, wanted) { Ok(()) } else { Err(format!("got {value}")) };
            }
            Value::String { value, .. } => {
                let fits = expected.string.as_ref().is_some_and(|wanted| *wanted == value);
                return if fits { Ok(()) } else { Err(format!("got the string {value:?}")) };
            }
            Value::Matrix(series) => {
                let spec = expected.range_vector.ok_or("a range vector was not expected")?;
                return self.same_series(&series, &wanted_series(&expected.lines, spec)?);
            }
            Value::Vector(samples) => samples,
        };
        let mut wanted = Vec::new();
        for line in &expected.lines {
            let (labels, values) = split_series(line)?;
            wanted.push(InstantSample { labels, at_ms, value: one_value(values)? });
        }
        if !expected.ordered {
            got.sort_by(|a, b| a.labels.cmp(&b.labels));
            wanted.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        let same = |(a, b): (&InstantSample, &InstantSample)| a.labels == b.labels && self.close(a.value, b.value);
        if got.len() != wanted.len() || !got.iter().zip(&wanted).all(same) {
            return Err(format!("got {}", shown(got.iter().map(|sample| (&sample.labels, vec![sample.value])))));
        }
        self.middle_of_range(at_ms, text, &got)
    }

    fn middle_of_range(&self, at_ms: i64, text: &str, instant: &[InstantSample]) -> Result<(), String> {
        // What depends on the query's times is another thing there.
        if ["start()", "end()", "step()", "range()"].iter().any(|call| text.contains(call)) {
            return Ok(());
        }
        let series = match self.run_range(text, (at_ms - 60_000, at_ms + 60_000, 60_000)).map(|output| output.value) {
            Ok(Value::Matrix(series)) => series,
            Ok(other) => return Err(format!("as a range got {other:?}")),
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
            middle.len() == wanted.len() && middle.iter().zip(&wanted).all(|(a, b)| a.0 == b.0 && self.close(a.1, b.1));
        if same { Ok(()) } else { Err(format!("as a range got {middle:?}")) }
    }

    fn range(&self, spec: (i64, i64, i64), text: &str, expected: &Expected) -> Result<(), String> {
        let Some(output) = expect_failure(self.run_range(text, spec), expected)? else { return Ok(()) };
        expected.check_notes(&output)?;
        let Value::Matrix(got) = output.value else { return Err("a range query yields a matrix".to_owned()) };
        self.same_series(&got, &wanted_series(&expected.lines, spec)?)
    }

    fn same_series(&self, got: &[Series], wanted: &[Series]) -> Result<(), String> {
        let same_points = |a: &[Point], b: &[Point]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.at_ms == b.at_ms && self.close(a.value, b.value))
        };
        let same = got.len() == wanted.len()
            && got.iter().zip(wanted).all(|(a, b)| a.labels == b.labels && same_points(&a.points, &b.points));
        let values = |series: &Series| series.points.iter().map(|point| point.value).collect();
        if same {
            Ok(())
        } else {
            Err(format!("got {}", shown(got.iter().map(|series| (&series.labels, values(series))))))
        }
    }
}

fn shown<'a>(series: impl Iterator<Item = (&'a Labels, Vec<f64>)>) -> String {
    let lines: Vec<String> = series.map(|(labels, values)| format!("\n      {labels} {values:?}")).collect();
    lines.concat()
}

fn one_value(text: &str) -> Result<f64, String> {
    match parse_values(text)?.as_slice() {
        [Given::Float(value)] => Ok(*value),
        _ => Err(format!("expected one value, not {text:?}")),
    }
}

fn wanted_series(lines: &[String], (from, _, step): (i64, i64, i64)) -> Result<Vec<Series>, String> {
    let mut wanted = Vec::new();
    for line in lines {
        let (labels, values) = split_series(line)?;
        let points = (0..).zip(parse_values(values)?).filter_map(|(i, value)| match value {
            Given::Float(value) => Some(Point { at_ms: from + i * step, value }),
            Given::Gap | Given::Histogram => None,
        });
        wanted.push(Series { labels, points: points.collect() });
    }
    wanted.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(wanted)
}

/// The output, or `None` when the query failed as it should.
fn expect_failure(result: Result<Output, QueryError>, expected: &Expected) -> Result<Option<Output>, String> {
    match (result, &expected.fail) {
        (Ok(output), None) => Ok(Some(output)),
        (Ok(output), Some(_)) => Err(format!("must fail, got {:?}", output.value)),
        (Err(error), Some(text)) if text.fits(&error.to_string()) => Ok(None),
        (Err(error), Some(text)) => Err(format!("must fail with {text:?}, failed with {:?}", error.to_string())),
        (Err(error), None) => Err(error.to_string()),
    }
}

/// Counts of some scripts.
#[derive(Default)]
struct Score {
    passed: usize,
    skipped: usize,
    problems: Vec<String>,
}

fn run_script(path: &Path, profile: Profile, score: &mut Score) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut runner = Runner::new(profile);
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|line| if line.starts_with('#') { "" } else { line }).collect();
    let mut number = 0;
    while let Some(head) = lines.get(number) {
        let at = number + 1;
        number += 1;
        if head.is_empty() {
            continue;
        }
        let has_body = *head != "clear";
        let body = lines[number..].iter().take_while(|line| has_body && !line.is_empty());
        let body: Vec<&str> = body.copied().collect();
        number += body.len();
        match runner.command(head, &body) {
            Ok(Outcome::Passed) => score.passed += usize::from(head.starts_with("eval")),
            Ok(Outcome::Skipped) => score.skipped += 1,
            Err(problem) => score.problems.push(format!("{}:{at}: {head}\n    {problem}", path.display())),
        }
    }
}

/// Runs files, and the `*.test` files of folders; true when everything passed.
pub(crate) fn run(paths: &[PathBuf], profile: Profile) -> bool {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
            files.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "test")));
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    let mut score = Score::default();
    for file in &files {
        run_script(file, profile, &mut score);
    }
    for problem in &score.problems {
        println!("{problem}");
    }
    let (passed, skipped, failed) = (score.passed, score.skipped, score.problems.len());
    println!("{} scripts: {passed} evaluations passed, {skipped} need native histograms, {failed} failed", files.len());
    failed == 0 && passed > 0
}
