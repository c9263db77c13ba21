//! What clients ask about the server itself.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};

use super::params::Params;
use super::{ApiResult, PrometheusState, json};
use crate::model::labels::METRIC_NAME;
use crate::platform::tasks::blocking;
use crate::store::metrics::MetricStore;

/// Longest of the top-N lists.
const TOP_MAX: usize = 10_000;

/// The Prometheus whose API this is: clients choose features by it. Grafana takes any `features` key for a sign of
/// Mimir, so there is none.
pub(super) async fn build_info() -> ApiResult {
    let data = json!({
        "version": "2.53.0",
        "revision": env!("CARGO_PKG_VERSION"),
        "branch": "daraji",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    });
    Ok(json::success(&data.to_string()))
}

pub(super) async fn config() -> ApiResult {
    Ok(json::success(r#"{"yaml":""}"#))
}

pub(super) async fn flags() -> ApiResult {
    Ok(json::success("{}"))
}

pub(super) async fn runtime_info(State(state): State<PrometheusState>) -> ApiResult {
    let config = *state.config_state.borrow();
    let data = json!({
        "startTime": state.started_at.to_string(),
        "CWD": "",
        "hostname": "",
        "serverTime": state.clock.now().to_string(),
        "reloadConfigSuccess": config.is_good,
        "lastConfigTime": config.taken_at.to_string(),
        "corruptionCount": 0,
        "goroutineCount": 0,
        "GOMAXPROCS": 0,
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": "",
    });
    Ok(json::success(&data.to_string()))
}

fn top(list: Vec<(String, usize)>) -> Value {
    Value::Array(list.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect())
}

fn tsdb_status(store: &MetricStore, limit: usize) -> Value {
    let stats = store.stats();
    let names = store.top_metric_names(limit);
    json!({
        "headStats": {
            "numSeries": stats.series,
            "numLabelPairs": stats.label_pairs,
            "chunkCount": 0,
            "minTime": stats.min_ms.unwrap_or(0),
            "maxTime": stats.max_ms.unwrap_or(0),
        },
        "seriesCountByMetricName": top(names),
        "labelValueCountByLabelName": top(store.top_label_names(limit)),
        "memoryInBytesByLabelName": [],
        "seriesCountByLabelValuePair":
            top(store.top_label_pairs(limit).into_iter().filter(|(pair, _)| !pair.starts_with(METRIC_NAME)).collect()),
    })
}

pub(super) async fn tsdb(State(state): State<PrometheusState>, params: Params) -> ApiResult {
    let limit = match params.limit()? {
        0 => 10,
        limit => limit.min(TOP_MAX),
    };
    let store = Arc::clone(&state.store);
    let data = blocking(move || tsdb_status(&store, limit)).await;
    Ok(json::success(&data.to_string()))
}
