//! The text that exporters answer with: Prometheus text format 0.0.4 and OpenMetrics 1.0.
//!
//! Bounds: a line has at most [`LINE_BYTES_MAX`] bytes and [`LABELS_MAX`] labels, an answer at most [`SAMPLES_MAX`]
//! samples. Exemplars are skipped. An error names the line.

use crate::model::labels::{LabelsBuilder, METRIC_NAME};
use crate::model::{Families, Labels};

/// Longer lines are an error.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Longer help texts are cut.
pub const HELP_BYTES_MAX: usize = 4096;
/// More labels on one sample are an error.
pub const LABELS_MAX: usize = 256;
/// More samples in one answer are an error.
pub const SAMPLES_MAX: usize = 1_000_000;

/// A value as an exporter shows it.
#[derive(Clone, Debug)]
pub struct ExposedSample {
    pub labels: Labels,
    pub value: f64,
    /// Where the exporter gives one.
    pub timestamp_ms: Option<i64>,
}

/// A parsed answer.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    pub samples: Vec<ExposedSample>,
    pub metadata: Families,
}

/// Why an answer cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ExpositionError {
    pub line: usize,
    pub problem: Problem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("it is longer than {LINE_BYTES_MAX} bytes")]
    LineTooLong,
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("there are more than {SAMPLES_MAX} samples")]
    TooManySamples,
    #[error("there are more than {LABELS_MAX} labels")]
    TooManyLabels,
    #[error("the metric name is missing")]
    NoName,
    #[error("the label set is malformed")]
    BadLabels,
    #[error("a label is given twice")]
    DuplicateLabel,
    #[error("the value is not a number")]
    BadValue,
    #[error("the timestamp is not a number")]
    BadTimestamp,
    #[error("text follows the sample")]
    TrailingText,
    #[error("text follows # EOF")]
    AfterEof,
    #[error("# EOF is missing: the answer was cut off")]
    NoEof,
}

/// Parses an answer; `content_type` tells OpenMetrics from the older format.
pub fn parse(text: &[u8], content_type: &str) -> Result<Exposition, ExpositionError> {
    let open_metrics = content_type.trim_start().starts_with("application/openmetrics-text");
    let mut exposition = Exposition::default();
    let mut ended = false;
    let mut number = 0;
    for bytes in text.split(|byte| *byte == b'\n') {
        number += 1;
        let fail = |problem| ExpositionError { line: number, problem };
        if bytes.len() > LINE_BYTES_MAX {
            return Err(fail(Problem::LineTooLong));
        }
        let line = std::str::from_utf8(bytes).map_err(|_| fail(Problem::NotUtf8))?;
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() {
            continue;
        }
        if ended {
            return Err(fail(Problem::AfterEof));
        }
        if let Some(comment) = line.strip_prefix('#') {
            ended = open_metrics && comment.trim() == "EOF";
            note(comment, &mut exposition.metadata);
            continue;
        }
        if exposition.samples.len() >= SAMPLES_MAX {
            return Err(fail(Problem::TooManySamples));
        }
        exposition.samples.push(sample(line, open_metrics).map_err(fail)?);
    }
    if open_metrics && !ended {
        return Err(ExpositionError { line: number, problem: Problem::NoEof });
    }
    Ok(exposition)
}

/// Reads `HELP`, `TYPE` and `UNIT`; any other comment means nothing.
fn note(comment: &str, metadata: &mut Families) {
    let mut words = comment.trim_start().splitn(3, [' ', '\t']);
    let (Some(kind), Some(name)) = (words.next(), words.next()) else { return };
    let text = words.next().unwrap_or("").trim_start();
    let name = name.trim_matches('"');
    match kind {
        "HELP" => metadata.entry(name.to_owned()).or_default().help = unescape_help(cut(text)),
        "TYPE" => text.trim().clone_into(&mut metadata.entry(name.to_owned()).or_default().kind),
        "UNIT" => text.trim().clone_into(&mut metadata.entry(name.to_owned()).or_default().unit),
        _ => {}
    }
}

fn cut(help: &str) -> &str {
    help.get(..help.floor_char_boundary(HELP_BYTES_MAX)).unwrap_or_default()
}

fn unescape_help(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

fn sample(line: &str, open_metrics: bool) -> Result<ExposedSample, Problem> {
    let mut builder = LabelsBuilder::default();
    let name_len = line.find(['{', ' ', '\t']).ok_or(Problem::BadValue)?;
    let (name, mut rest) = line.split_at_checked(name_len).ok_or(Problem::NoName)?;
    if !name.is_empty() {
        builder.set(METRIC_NAME, name);
    }
    rest = rest.trim_start_matches([' ', '\t']);
    if let Some(inside) = rest.strip_prefix('{') {
        rest = labels(inside, &mut builder)?;
    }
    let labels = builder.build();
    if labels.get(METRIC_NAME).is_none() {
        return Err(Problem::NoName);
    }
    // What follows '#' is an exemplar.
    let numbers = rest.split_once(" # ").map_or(rest, |(numbers, _)| numbers);
    let mut words = numbers.split_ascii_whitespace();
    let value = number(words.next().ok_or(Problem::BadValue)?).ok_or(Problem::BadValue)?;
    let timestamp_ms = match words.next() {
        None => None,
        Some(text) if open_metrics => Some(seconds_to_ms(text)?),
        Some(text) => Some(text.parse::<i64>().map_err(|_| Problem::BadTimestamp)?),
    };
    match words.next() {
        None => Ok(ExposedSample { labels, value, timestamp_ms }),
        Some(_) => Err(Problem::TrailingText),
    }
}

fn seconds_to_ms(text: &str) -> Result<i64, Problem> {
    let seconds: f64 = text.parse().map_err(|_| Problem::BadTimestamp)?;
    let ms = (seconds * 1000.0).round();
    if !ms.is_finite() || ms.abs() > 9e15 {
        return Err(Problem::BadTimestamp);
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    Ok(ms as i64)
}

/// A float as Go reads it: decimal or `Inf`/`NaN` in any case, no hexadecimal.
fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// Reads `name="value", ...}` and returns what follows the brace.
fn labels<'a>(mut rest: &'a str, builder: &mut LabelsBuilder) -> Result<&'a str, Problem> {
    let mut seen: Vec<&str> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        if seen.len() >= LABELS_MAX {
            return Err(Problem::TooManyLabels);
        }
        let quoted = rest.strip_prefix('"').and_then(|body| body.split_once('"'));
        let (name, after) = match quoted {
            Some(found) => found,
            None => rest
                .split_at_checked(rest.find(['=', ' ', '\t', ',', '}']).ok_or(Problem::BadLabels)?)
                .ok_or(Problem::BadLabels)?,
        };
        let after = after.trim_start_matches([' ', '\t']);
        let Some(value) = after.strip_prefix('=') else {
            // A quoted name alone is the metric's own, in the notation for any UTF-8 name.
            if quoted.is_none() || builder.get(METRIC_NAME).is_some() {
                return Err(Problem::BadLabels);
            }
            builder.set(METRIC_NAME, name);
            rest = after.strip_prefix(',').unwrap_or(after);
            continue;
        };
        if name.is_empty() || seen.contains(&name) || name == METRIC_NAME {
            return Err(if name.is_empty() { Problem::BadLabels } else { Problem::DuplicateLabel });
        }
        seen.push(name);
        let value = value.trim_start_matches([' ', '\t']).strip_prefix('"').ok_or(Problem::BadLabels)?;
        let (value, after) = quoted_value(value)?;
        builder.set(name, value);
        let after = after.trim_start_matches([' ', '\t']);
        rest = match after.strip_prefix(',') {
            Some(next) => next,
            None if after.starts_with('}') => after,
            None => return Err(Problem::BadLabels),
        };
    }
}

/// Reads up to the closing quote; `text` begins after the opening one.
fn quoted_value(text: &str) -> Result<(String, &str), Problem> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, text.get(at + 1..).unwrap_or_default())),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => out.push('\n'),
                Some(c @ ('"' | '\\')) => out.push(c),
                Some(c) => {
                    out.push('\\');
                    out.push(c);
                }
                None => return Err(Problem::BadLabels),
            },
            c => out.push(c),
        }
    }
    Err(Problem::BadLabels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FamilyMetadata;
    use proptest::prelude::*;

    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";

    fn one(line: &str) -> (String, f64, Option<i64>) {
        let exposition = parse(line.as_bytes(), "text/plain; version=0.0.4").unwrap();
        let sample = &exposition.samples[0];
        (sample.labels.to_string(), sample.value, sample.timestamp_ms)
    }

    #[test]
    fn samples_of_the_older_format() {
        let cases = [
            ("up 1", "up", 1.0, None),
            ("up\t1 1000", "up", 1.0, Some(1000)),
            ("up{} -Inf", "up", f64::NEG_INFINITY, None),
            (r#"up{job="a",} 1e3"#, r#"up{job="a"}"#, 1000.0, None),
            (r#"up { job = "a" , b="" } 2"#, r#"up{job="a"}"#, 2.0, None),
            (r#"up{job="a\"b\\c\nd}"} +Inf 5"#, r#"up{job="a\"b\\c\nd}"}"#, f64::INFINITY, Some(5)),
            (r#"{"up",job="a"} 3"#, r#"up{job="a"}"#, 3.0, None),
        ];
        for (line, labels, value, timestamp_ms) in cases {
            assert_eq!(one(line), (labels.to_owned(), value, timestamp_ms), "{line}");
        }
        assert!(one("up NaN").1.is_nan());
    }

    #[test]
    fn metadata_and_openmetrics() {
        let text = "# HELP a some \\n help\n# TYPE a counter\n# UNIT a seconds\na_total{x=\"1\"} 5 1.5 # {id=\"7\"} 0.2 1.4\n# EOF\n";
        let exposition = parse(text.as_bytes(), OPEN_METRICS).unwrap();
        assert_eq!(exposition.samples[0].timestamp_ms, Some(1500));
        let expected =
            FamilyMetadata { kind: "counter".to_owned(), help: "some \n help".to_owned(), unit: "seconds".to_owned() };
        assert_eq!(exposition.metadata["a"], expected);
    }

    #[test]
    fn errors_name_the_line() {
        let cases = [
            ("up", Problem::BadValue),
            ("up x", Problem::BadValue),
            ("up 1 x", Problem::BadTimestamp),
            ("up 1 2 3", Problem::TrailingText),
            (r#"up{a="1",a="2"} 1"#, Problem::DuplicateLabel),
            (r#"up{a="1" 1"#, Problem::BadLabels),
            ("up{a=1} 1", Problem::BadLabels),
            (r#"{a="1"} 1"#, Problem::NoName),
        ];
        for (line, problem) in cases {
            let error = parse(format!("ok 1\n{line}\n").as_bytes(), "").unwrap_err();
            assert_eq!(error, ExpositionError { line: 2, problem }, "{line}");
        }
        assert_eq!(parse(b"up 1\n", OPEN_METRICS).unwrap_err().problem, Problem::NoEof);
        assert_eq!(parse(b"# EOF\nup 1\n", OPEN_METRICS).unwrap_err().problem, Problem::AfterEof);
        assert_eq!(parse(b"\xff 1\n", "").unwrap_err().problem, Problem::NotUtf8);
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(parse(&bytes, OPEN_METRICS));
        }

        #[test]
        fn any_label_value_comes_back(value in "\\PC{1,20}", number in any::<f64>()) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let exposition = parse(format!("m{{a=\"{escaped}\"}} {number}\n").as_bytes(), "").unwrap();
            prop_assert_eq!(exposition.samples[0].labels.get("a"), Some(value.as_str()));
            prop_assert_eq!(exposition.samples[0].value.to_bits(), number.to_bits());
        }
    }
}
