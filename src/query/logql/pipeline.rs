//! A line on its way through the stages of a log expression.

use std::borrow::Cow;

use crate::model::LogRecord;

use super::ast::{Conversion, LabelSource, LogExpr, Stage, Unwrap};
use super::labels::{Category, LineLabels};
use super::parsers;
use super::units::{parse_bytes, parse_duration_ns};

/// A line that passed, and its labels.
pub(super) struct Passed<'a> {
    pub(super) line: Cow<'a, str>,
    pub(super) labels: LineLabels<'a>,
}

/// The level that Grafana colours by, from the stream's `severity`.
fn level_of(severity: &str) -> &str {
    match severity {
        "notice" => "info",
        "warning" => "warn",
        other => other,
    }
}

/// Labels as the record brings them.
pub(super) fn record_labels(record: &LogRecord, detect_level: bool) -> LineLabels<'_> {
    let mut labels = LineLabels::default();
    for (name, value) in record.stream.iter() {
        labels.add(name, value, Category::Stream);
    }
    for (name, value) in &record.fields {
        labels.add(name, value, Category::Metadata);
    }
    if let Some(severity) = record.stream.get("severity").filter(|_| detect_level) {
        labels.add("detected_level", level_of(severity), Category::Metadata);
    }
    labels
}

impl LogExpr {
    /// Texts that every line which passes must contain in the store.
    pub(super) fn needles(&self) -> Vec<String> {
        let rewrites = |stage: &&Stage| !matches!(stage, Stage::LineFormat(_) | Stage::Decolorize | Stage::Unpack);
        let before = self.stages.iter().take_while(rewrites);
        before
            .filter_map(|stage| match stage {
                Stage::Line(filter) => filter.needle().map(str::to_owned),
                _ => None,
            })
            .collect()
    }

    /// Runs the stages; `None` when a filter holds the line back.
    pub(super) fn run<'a>(&self, record: &'a LogRecord, detect_level: bool) -> Option<Passed<'a>> {
        let mut passed = Passed { line: Cow::Borrowed(record.line.as_str()), labels: LineLabels::default() };
        let mut filled = false;
        for stage in &self.stages {
            // Most lines fail a line filter: their labels are never built.
            if let Stage::Line(filter) = stage {
                if !filter.passes(&passed.line) {
                    return None;
                }
                continue;
            }
            if !filled {
                passed.labels = record_labels(record, detect_level);
                filled = true;
            }
            if !stage.run(&mut passed, record.at.nanos()) {
                return None;
            }
        }
        if !filled {
            passed.labels = record_labels(record, detect_level);
        }
        Some(passed)
    }
}

impl Stage {
    fn run(&self, passed: &mut Passed<'_>, at_ns: i64) -> bool {
        let Passed { line, labels } = passed;
        match self {
            Self::Line(filter) => return filter.passes(line),
            Self::Label(filter) => return filter.passes(labels),
            Self::Json(extractions) if extractions.is_empty() => parsers::json_all(line, labels),
            Self::Json(extractions) => parsers::json_some(line, extractions, labels),
            Self::Logfmt { strict, keep_empty, extractions } => {
                parsers::logfmt(line, (*strict, *keep_empty), extractions, labels);
            }
            Self::Regexp(parser) => parser.apply(line, labels),
            Self::Pattern(parser) => parser.apply(line, labels),
            Self::Unpack => {
                if let Some(entry) = parsers::unpack(line, labels) {
                    *line = Cow::Owned(entry);
                }
            }
            Self::Decolorize => *line = Cow::Owned(parsers::decolorize(line)),
            Self::LineFormat(template) => match template.render(line, at_ns, labels) {
                Ok(text) => *line = Cow::Owned(text),
                Err(details) => labels.set_error("TemplateFormatErr", details),
            },
            Self::LabelFormat(formats) => format_labels(formats, line, at_ns, labels),
            Self::Drop(picks) => labels.retain(|name, value| !picks.iter().any(|pick| pick.picks(name, value))),
            Self::Keep(picks) => labels
                .retain(|name, value| name.starts_with("__error") || picks.iter().any(|pick| pick.picks(name, value))),
        }
        true
    }
}

fn format_labels(formats: &[(String, LabelSource)], line: &str, at_ns: i64, labels: &mut LineLabels<'_>) {
    for (name, source) in formats {
        match source {
            LabelSource::Label(from) => {
                if let Some(value) = labels.remove(from) {
                    labels.set(name, value);
                }
            }
            LabelSource::Template(template) => match template.render(line, at_ns, labels) {
                Ok(value) => labels.set(name, value),
                Err(details) => labels.set_error("TemplateFormatErr", details),
            },
        }
    }
}

impl Unwrap {
    /// The sample of a line, `None` when the label is missing or a filter after it holds the line back.
    pub(super) fn value(&self, labels: &mut LineLabels<'_>) -> Option<f64> {
        let text = labels.get(&self.label)?;
        let value = match self.conversion {
            Conversion::Number => text.parse().ok(),
            Conversion::Duration => parse_duration_ns(text).map(|ns| ns / 1e9),
            Conversion::Bytes => parse_bytes(text),
        };
        let details = if value.is_none() { format!("{text:?} is not a value for unwrap") } else { String::new() };
        if value.is_none() {
            labels.set_error("SampleExtractionErr", details);
        }
        let passes = self.post_filters.iter().all(|filter| filter.passes(labels));
        labels.remove(&self.label);
        passes.then(|| value.unwrap_or(0.0))
    }
}
