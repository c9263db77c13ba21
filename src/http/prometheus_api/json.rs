//! Prometheus' JSON, written by hand: results are large and their numbers have a form of their own.

use std::fmt::Write as _;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use crate::model::Labels;
use crate::query::promql::format::api_number;
use crate::query::promql::{Output, Value};

/// More notes of a kind than this are counted instead of listed.
const NOTES_MAX: usize = 10;
pub(super) const TRUNCATED: &str = "results truncated due to limit";

pub(super) fn response(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A quoted and escaped string.
pub(super) fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(super) fn error(kind: &str, message: &str) -> String {
    format!("{{\"status\":\"error\",\"errorType\":{},\"error\":{}}}", string(kind), string(message))
}

/// A success with `data`, which is JSON already.
pub(super) fn success(data: &str) -> Response {
    response(StatusCode::OK, format!("{{\"status\":\"success\",\"data\":{data}}}"))
}

/// A success with a list of JSON texts, cut at `limit` (0: no limit).
pub(super) fn success_list(mut items: Vec<String>, limit: usize) -> Response {
    let cut = limit > 0 && items.len() > limit;
    if cut {
        items.truncate(limit);
    }
    let warnings = if cut { format!(",\"warnings\":[{}]", string(TRUNCATED)) } else { String::new() };
    response(StatusCode::OK, format!("{{\"status\":\"success\",\"data\":[{}]{warnings}}}", items.join(",")))
}

/// Seconds with as many decimals as milliseconds need.
fn push_time(out: &mut String, at_ms: i64) {
    let sign = if at_ms < 0 { "-" } else { "" };
    let (seconds, ms) = (at_ms.unsigned_abs() / 1000, at_ms.unsigned_abs() % 1000);
    // Writing to a String cannot fail.
    let _ok = if ms == 0 {
        write!(out, "{sign}{seconds}")
    } else {
        write!(out, "{sign}{seconds}.{}", format!("{ms:03}").trim_end_matches('0'))
    };
}

fn push_pair(out: &mut String, at_ms: i64, value: &str) {
    out.push('[');
    push_time(out, at_ms);
    out.push(',');
    out.push_str(value);
    out.push(']');
}

fn push_sample(out: &mut String, at_ms: i64, value: f64) {
    push_pair(out, at_ms, &format!("\"{}\"", api_number(value)));
}

/// Labels as an object.
pub(super) fn labels(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{}:{}", string(name), string(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// The answer to a query; `limit` (0: none) bounds the series.
pub(super) fn query_response(output: Output, limit: usize) -> Response {
    let mut warnings = output.warnings;
    let (kind, result) = match output.value {
        Value::Scalar { at_ms, value } => {
            let mut out = String::new();
            push_sample(&mut out, at_ms, value);
            ("scalar", out)
        }
        Value::String { at_ms, value } => {
            let mut out = String::new();
            push_pair(&mut out, at_ms, &string(&value));
            ("string", out)
        }
        Value::Vector(mut samples) => {
            cut(&mut samples, limit, &mut warnings);
            let mut out = String::from("[");
            for (i, sample) in samples.iter().enumerate() {
                out.push_str(if i > 0 { ",{\"metric\":" } else { "{\"metric\":" });
                out.push_str(&labels(&sample.labels));
                out.push_str(",\"value\":");
                push_sample(&mut out, sample.at_ms, sample.value);
                out.push('}');
            }
            out.push(']');
            ("vector", out)
        }
        Value::Matrix(mut series) => {
            cut(&mut series, limit, &mut warnings);
            let mut out = String::from("[");
            for (i, series) in series.iter().enumerate() {
                out.push_str(if i > 0 { ",{\"metric\":" } else { "{\"metric\":" });
                out.push_str(&labels(&series.labels));
                out.push_str(",\"values\":[");
                for (i, point) in series.points.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    push_sample(&mut out, point.at_ms, point.value);
                }
                out.push_str("]}");
            }
            out.push(']');
            ("matrix", out)
        }
    };
    let notes = notes("warnings", &warnings) + &notes("infos", &output.infos);
    let data = format!("{{\"resultType\":\"{kind}\",\"result\":{result}}}");
    response(StatusCode::OK, format!("{{\"status\":\"success\",\"data\":{data}{notes}}}"))
}

fn cut<T>(items: &mut Vec<T>, limit: usize, warnings: &mut Vec<String>) {
    if limit > 0 && items.len() > limit {
        items.truncate(limit);
        warnings.push(TRUNCATED.to_owned());
    }
}

fn notes(name: &str, notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let mut shown: Vec<String> = notes.iter().take(NOTES_MAX).map(|note| string(note)).collect();
    if notes.len() > NOTES_MAX {
        let kind = name.trim_end_matches('s');
        shown.push(string(&format!("{} more {kind} annotations omitted", notes.len() - NOTES_MAX)));
    }
    format!(",{name:?}:[{}]", shown.join(","))
}
