//! Remote write and federation: samples in and out in bulk.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::params::Params;
use super::{ApiError, ApiResult, PrometheusState, no_content};
use crate::model::labels::METRIC_NAME;
use crate::model::sample::is_stale;
use crate::model::{Labels, Matcher};
use crate::platform::error::chain;
use crate::platform::tasks::blocking;
use crate::query::promql::QueryError;
use crate::query::promql::format::decimal;
use crate::store::metrics::{AppendOutcome, EncodedSample, MetricError, MetricStore, Point};
use crate::wire::remote_write::{self, RemoteWriteError, WalkedRequest};

/// Samples older than this are not federated.
const LOOKBACK: Duration = Duration::from_mins(5);
/// So many invalid series are told to the sender.
const PROBLEMS_MAX: usize = 5;

/// Takes a remote write 1.0 request. What is valid is stored even if the rest is refused; repeating is harmless.
pub(super) async fn write(State(state): State<PrometheusState>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let encoding = header(header::CONTENT_ENCODING);
    if !encoding.is_empty() && encoding != "snappy" {
        let problem = format!("{encoding} encoding is not supported; send snappy\n");
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, problem).into_response();
    }
    let kind = header(header::CONTENT_TYPE);
    let is_version_1 =
        kind.is_empty() || kind == "application/x-protobuf" || kind.ends_with("proto=prometheus.WriteRequest");
    if !is_version_1 {
        let problem = format!("{kind} is not supported; send application/x-protobuf (remote write 1.0)\n");
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, problem).into_response();
    }
    let store = Arc::clone(&state.store);
    blocking(move || store_request(&store, &body)).await
}

fn store_request(store: &MetricStore, body: &[u8]) -> Response {
    let refused = |error: RemoteWriteError| (StatusCode::BAD_REQUEST, format!("{}\n", chain(&error))).into_response();
    let plain = match remote_write::decompress(body) {
        Ok(plain) => plain,
        Err(error) => return refused(error),
    };
    let request = match remote_write::walk(&plain) {
        Ok(request) => request,
        Err(error) => return refused(error),
    };
    let point = |at_ms, value| Point { at_ms, value };
    let samples: Vec<EncodedSample<'_>> = request
        .samples
        .iter()
        .map(|(labels, at_ms, value)| EncodedSample { labels, point: point(*at_ms, *value) })
        .collect();
    let mut invalid = Vec::new();
    let appended = store.append_encoded(&samples, |bytes| {
        let read = remote_write::read_labels(bytes);
        read.map_err(|why| (invalid.len() < PROBLEMS_MAX).then(|| invalid.push(why))).ok()
    });
    match appended {
        // A sender repeats after 5xx, which is what a full disk needs.
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", chain(&error))).into_response(),
        Ok(outcome) => {
            let problems = problems(invalid, &request, outcome);
            if problems.is_empty() {
                no_content()
            } else {
                (StatusCode::BAD_REQUEST, format!("{}\n", problems.join("; "))).into_response()
            }
        }
    }
}

/// What was not stored, invalid series first.
fn problems(mut problems: Vec<String>, request: &WalkedRequest<'_>, outcome: AppendOutcome) -> Vec<String> {
    let counted = [
        (outcome.out_of_order, "samples are out of order, too old, or differ from one at the same time"),
        (outcome.too_far_in_future, "samples are too far in the future"),
        (outcome.over_series_limit, "samples belong to series beyond the limit of series in memory"),
        (request.histograms, "native histograms are not supported"),
    ];
    problems.extend(counted.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")));
    problems
}

/// The newest sample of every selected series in the text format.
pub(super) async fn federate(State(state): State<PrometheusState>, params: Params) -> ApiResult {
    let selectors = params.selectors()?;
    if selectors.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let now_ms = state.clock.now().millis();
    let store = Arc::clone(&state.store);
    let text = blocking(move || federate_text(&store, &selectors, now_ms)).await;
    let text = text.map_err(|error| ApiError::from(QueryError::Source(error)))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

fn federate_text(store: &MetricStore, selectors: &[Vec<Matcher>], now_ms: i64) -> Result<String, MetricError> {
    let start_ms = now_ms - i64::try_from(LOOKBACK.as_millis()).unwrap_or(0);
    let mut newest = std::collections::BTreeMap::new();
    for matchers in selectors {
        for series in store.select(matchers, start_ms, now_ms)? {
            let series = series?;
            if let Some(point) = series.points.last().filter(|point| !is_stale(point.value)) {
                newest.insert(series.labels, *point);
            }
        }
    }
    let mut out = String::new();
    let mut family = String::new();
    for (labels, point) in newest {
        if labels.metric_name() != family {
            labels.metric_name().clone_into(&mut family);
            // Writing to a String cannot fail.
            let _ok = writeln!(out, "# TYPE {family} untyped");
        }
        let _ok = writeln!(out, "{family}{} {} {}", label_text(&labels), decimal(point.value), point.at_ms);
    }
    Ok(out)
}

fn label_text(labels: &Labels) -> String {
    let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs = labels.iter().filter(|(name, _)| *name != METRIC_NAME);
    let pairs: Vec<String> = pairs.map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}
