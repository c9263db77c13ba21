//! What is asked, as Prometheus shows its targets: each poll is a target, its `job` the scrape pool.
//!
//! Nothing is relabelled away here, so no target is ever dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde_json::{Value, json};

use super::params::Params;
use super::{ApiError, ApiResult, PrometheusState, json};
use crate::collect::targets::TargetStatus;
use crate::model::labels::METRIC_NAME;
use crate::model::{Labels, Matcher};
use crate::platform::tasks::blocking;
use crate::platform::units::format_duration;
use crate::query::promql::{QueryError, parse_selector};
use crate::store::metrics::{MetricError, MetricStore};

/// What Go shows for no time.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// Series of this age at most tell which families a target has.
const FAMILIES_LOOKBACK: Duration = Duration::from_mins(5);
/// What a sample's name has beyond its family's.
const SUFFIXES: [&str; 4] = ["_bucket", "_count", "_sum", "_total"];

fn pool(target: &TargetStatus) -> &str {
    target.labels.get("job").unwrap_or(target.source)
}

fn labels(labels: &Labels) -> BTreeMap<&str, &str> {
    labels.iter().collect()
}

fn active(target: &TargetStatus) -> Value {
    let address = target.labels.get("instance").unwrap_or(&target.url);
    let discovered = BTreeMap::from([("__address__", address), ("job", pool(target))]);
    let problem = target.error.iter().chain(&target.error_hint).map(String::as_str).collect::<Vec<_>>().join("; ");
    json!({
        "discoveredLabels": discovered,
        "labels": labels(&target.labels),
        "scrapePool": pool(target),
        "scrapeUrl": target.url,
        "globalUrl": target.url,
        "lastError": problem,
        "lastScrape": target.last_try_at.map_or_else(|| NEVER.to_owned(), |at| at.to_string()),
        "lastScrapeDuration": target.duration_ms.unwrap_or(0.0) / 1000.0,
        "health": match target.up {
            Some(true) => "up",
            Some(false) => "down",
            None => "unknown",
        },
        "scrapeInterval": format_duration(Duration::from_secs_f64(target.interval_seconds)),
        "scrapeTimeout": format_duration(Duration::from_secs_f64(target.deadline_seconds)),
    })
}

/// `state` is `active`, `dropped` or `any`; anything else fits nothing, as in Prometheus.
pub(super) async fn targets(State(state): State<PrometheusState>, params: Params) -> ApiResult {
    let shows_active = matches!(params.get("state").unwrap_or("").to_lowercase().as_str(), "" | "any" | "active");
    let wanted = params.get("scrapePool").unwrap_or("");
    let mut found = state.targets.snapshot();
    found.retain(|target| shows_active && (wanted.is_empty() || pool(target) == wanted));
    let active: Vec<Value> = found.iter().map(active).collect();
    let data = json!({"activeTargets": active, "droppedTargets": [], "droppedTargetCounts": {}});
    Ok(json::success(&data.to_string()))
}

pub(super) async fn scrape_pools(State(state): State<PrometheusState>) -> ApiResult {
    let found = state.targets.snapshot();
    let pools: BTreeSet<&str> = found.iter().map(pool).collect();
    Ok(json::success(&json!({"scrapePools": pools}).to_string()))
}

/// What is said about the metric families that the matching targets have.
pub(super) async fn metadata(State(state): State<PrometheusState>, params: Params) -> ApiResult {
    let limit = match params.limit()? {
        0 => usize::MAX,
        limit => limit,
    };
    let matchers = match params.get("match_target").filter(|text| !text.is_empty()) {
        Some(text) => parse_selector(text).map_err(|error| ApiError::bad_parameter("match_target", error))?,
        None => Vec::new(),
    };
    let metric = params.get("metric").filter(|metric| !metric.is_empty()).map(str::to_owned);
    let mut wanted: Vec<Labels> = state.targets.snapshot().into_iter().map(|target| target.labels).collect();
    wanted.retain(|labels| matchers.iter().all(|matcher| matcher.matches(labels)));
    wanted.sort_unstable();
    wanted.dedup();
    let slot = Arc::clone(&state.slots).acquire_owned().await;
    let (store, now) = (Arc::clone(&state.store), state.clock.now());
    let rows = blocking(move || {
        let _slot = slot;
        let since = now - FAMILIES_LOOKBACK;
        let families = store.metadata(metric.as_deref());
        let mut rows = Vec::new();
        for target in wanted {
            for name in names(&store, &target, (since.millis(), now.millis()))? {
                let Some(family) = families.get(&name) else { continue };
                let kind = if family.kind.is_empty() { "unknown" } else { &family.kind };
                let row = json!({"target": labels(&target), "metric": name, "type": kind, "help": family.help, "unit": family.unit});
                if rows.len() >= limit {
                    return Ok(rows);
                }
                rows.push(row);
            }
        }
        Ok(rows)
    });
    let rows = rows.await.map_err(|error| ApiError::from(QueryError::Source(error)))?;
    Ok(json::success(&Value::Array(rows).to_string()))
}

/// Names that families of this target may have.
fn names(store: &MetricStore, target: &Labels, (start, end): (i64, i64)) -> Result<BTreeSet<String>, MetricError> {
    let matchers: Vec<Matcher> = target.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
    let mut names = BTreeSet::new();
    for labels in store.series(&matchers, start, end)? {
        let name = labels.get(METRIC_NAME).unwrap_or("");
        names.extend(SUFFIXES.iter().filter_map(|suffix| name.strip_suffix(suffix)).map(str::to_owned));
        names.insert(name.to_owned());
    }
    Ok(names)
}
