//! Results in Loki's shape. Grafana reads them as a stream: `resultType` and `encodingFlags` come before `result`, and
//! `stats` after it.

use std::time::Duration;

use axum::Json;
use rustc_hash::FxHashMap;
use serde_json::{Map, Value, json};

use super::params::Params;
use crate::model::{Labels, Timestamp};
use crate::query::logql::{self, Grid, Line};
use crate::store::logs::SearchStats;

fn success(kind: &str, flags: &[String], result: Vec<Value>, stats: &Value) -> Json<Value> {
    let mut data = Map::new();
    data.insert("resultType".to_owned(), kind.into());
    if !flags.is_empty() {
        data.insert("encodingFlags".to_owned(), flags.into());
    }
    data.insert("result".to_owned(), result.into());
    data.insert("stats".to_owned(), stats.clone());
    Json(json!({"status": "success", "data": data}))
}

/// Lines by stream, each stream's in the order given.
pub(super) fn lines(lines: &[Line], params: &Params, stats: &Value) -> Json<Value> {
    success("streams", &params.flags, streams(lines, params.categorize()), stats)
}

/// `[{"stream": {…}, "values": [[…], …]}, …]` in the order of the first line of each. With `categorize` a stream has
/// only its own labels and each value a third element; without, a stream is one set of all labels.
pub(super) fn streams(lines: &[Line], categorize: bool) -> Vec<Value> {
    let mut places: FxHashMap<Vec<(&str, &str)>, usize> = FxHashMap::default();
    let mut streams: Vec<(Value, Vec<Value>)> = Vec::new();
    for line in lines {
        let labels = if categorize { line.stream.iter().collect() } else { merged(line) };
        let place = *places.entry(labels).or_insert_with_key(|labels| {
            streams.push((members(labels.iter().copied()), Vec::new()));
            streams.len() - 1
        });
        let nanos = line.at.nanos().to_string();
        let value = if categorize {
            let mut categories = Map::new();
            if !line.metadata.is_empty() {
                categories.insert("structuredMetadata".to_owned(), object(&line.metadata));
            }
            if !line.parsed.is_empty() {
                categories.insert("parsed".to_owned(), members(made(line)));
            }
            json!([nanos, line.line, categories])
        } else {
            json!([nanos, line.line])
        };
        if let Some((_, values)) = streams.get_mut(place) {
            values.push(value);
        }
    }
    streams.into_iter().map(|(labels, values)| json!({"stream": labels, "values": values})).collect()
}

/// All labels of a line in order of their names, which are unique.
fn merged(line: &Line) -> Vec<(&str, &str)> {
    let mut labels: Vec<_> = line.stream.iter().chain(line.metadata.iter()).chain(made(line)).collect();
    labels.sort_unstable();
    labels
}

/// What stages made.
fn made(line: &Line) -> impl Iterator<Item = (&str, &str)> {
    line.parsed.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

pub(super) fn object(labels: &Labels) -> Value {
    members(labels.iter())
}

fn members<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    pairs.map(|(name, value)| (name.to_owned(), Value::from(value))).collect::<Map<_, _>>().into()
}

/// Numbers on steps.
pub(super) fn matrix(value: logql::Value, grid: &Grid, stats: &Value) -> Json<Value> {
    let time = |step| seconds(Timestamp::from_nanos(grid.at_ns(step)));
    let series: Vec<Value> = match value {
        logql::Value::Scalar(values) => {
            let values: Vec<Value> =
                values.iter().enumerate().map(|(step, v)| json!([time(step), number(*v)])).collect();
            vec![json!({"metric": {}, "values": values})]
        }
        logql::Value::Vector(series) => series
            .iter()
            .map(|series| {
                let values = series.values.iter().enumerate();
                let values: Vec<Value> =
                    values.filter_map(|(step, v)| Some(json!([time(step), number((*v)?)]))).collect();
                json!({"metric": object(&series.labels), "values": values})
            })
            .collect(),
    };
    success("matrix", &[], series, stats)
}

/// Numbers at one time.
pub(super) fn instant(value: logql::Value, at: Timestamp, stats: &Value) -> Json<Value> {
    match value {
        logql::Value::Scalar(values) => {
            let value = number(values.first().copied().unwrap_or(f64::NAN));
            success("scalar", &[], vec![seconds(at), value.into()], stats)
        }
        logql::Value::Vector(series) => {
            let samples = series.iter().filter_map(|series| {
                let value = series.values.first().copied().flatten()?;
                Some(json!({"metric": object(&series.labels), "value": [seconds(at), number(value)]}))
            });
            success("vector", &[], samples.collect(), stats)
        }
    }
}

/// Samples that were made here: labels that may be empty, at times of their own.
pub(super) fn volumes(series: &[(Value, Vec<(Timestamp, u64)>)], is_range: bool) -> Json<Value> {
    let sample = |(at, bytes): &(Timestamp, u64)| json!([seconds(*at), bytes.to_string()]);
    let result = series.iter().filter_map(|(metric, samples)| {
        if is_range {
            let values: Vec<Value> = samples.iter().map(sample).collect();
            Some(json!({"metric": metric, "values": values}))
        } else {
            Some(json!({"metric": metric, "value": sample(samples.first()?)}))
        }
    });
    let kind = if is_range { "matrix" } else { "vector" };
    success(kind, &[], result.collect(), &stats(&SearchStats::default(), Duration::ZERO))
}

/// Seconds with at most three decimals.
fn seconds(at: Timestamp) -> Value {
    let millis = at.millis();
    if millis % 1000 == 0 { json!(millis / 1000) } else { json!(millis as f64 / 1000.0) }
}

fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

/// What a query cost, under the names that Grafana shows.
pub(super) fn stats(stats: &SearchStats, took: Duration) -> Value {
    let seconds = took.as_secs_f64();
    let per_second = |count: u64| if seconds > 0.0 { (count as f64 / seconds).round() } else { 0.0 };
    json!({
        "summary": {
            "bytesProcessedPerSecond": per_second(stats.bytes),
            "linesProcessedPerSecond": per_second(stats.lines),
            "totalBytesProcessed": stats.bytes,
            "totalLinesProcessed": stats.lines,
            "execTime": seconds,
            "queueTime": 0,
            "totalEntriesReturned": stats.found,
        },
        "store": {
            "totalChunksRef": 0,
            "totalChunksDownloaded": 0,
            "chunksDownloadTime": 0,
            "headChunkBytes": 0,
            "headChunkLines": 0,
            "decompressedBytes": stats.bytes,
            "decompressedLines": stats.lines,
            "compressedBytes": 0,
            "totalDuplicates": 0,
        },
        "ingester": {
            "totalReached": 1,
            "totalChunksMatched": 0,
            "totalBatches": 0,
            "totalLinesSent": 0,
            "headChunkBytes": 0,
            "headChunkLines": 0,
            "decompressedBytes": 0,
            "decompressedLines": 0,
            "compressedBytes": 0,
            "totalDuplicates": 0,
        },
    })
}
