//! Labels of streams: their names, values and combinations.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Path, State};
use serde_json::json;

use super::params::Params;
use super::shapes::object;
use super::{Answer, LokiApi, matchers};
use crate::model::Labels;

/// Labels that are worth offering whatever their values look like.
const KEPT: [&str; 9] =
    ["cluster", "member", "source", "severity", "namespace", "instance", "pod", "service_name", "job"];

pub(super) async fn names(State(api): State<LokiApi>, params: Params) -> Answer {
    let (start, end) = params.range(api.clock.now())?;
    let matchers = matchers(&params, "query")?;
    let names = api.run(move |store, _, _| Ok(store.label_names(&matchers, start, end))).await?;
    Ok(Json(json!({"status": "success", "data": names})))
}

pub(super) async fn values(State(api): State<LokiApi>, Path(name): Path<String>, params: Params) -> Answer {
    let (start, end) = params.range(api.clock.now())?;
    let matchers = matchers(&params, "query")?;
    let values = api.run(move |store, _, _| Ok(store.label_values(&name, &matchers, start, end))).await?;
    Ok(Json(json!({"status": "success", "data": values})))
}

pub(super) async fn series(State(api): State<LokiApi>, params: Params) -> Answer {
    let (start, end) = params.range(api.clock.now())?;
    let mut selectors = Vec::new();
    for text in params.all("match[]").chain(params.all("match")).filter(|text| !text.is_empty()) {
        selectors.push(if text == "{}" { Vec::new() } else { super::log_expr(text)?.matchers });
    }
    if selectors.is_empty() {
        selectors.push(Vec::new());
    }
    let streams = api.run(move |store, _, _| {
        let found = selectors.iter().flat_map(|matchers| store.streams(matchers, start, end));
        Ok(found.collect::<BTreeSet<Labels>>())
    });
    let data: Vec<_> = streams.await?.iter().map(object).collect();
    Ok(Json(json!({"status": "success", "data": data})))
}

/// Labels to choose streams by: not those whose every value is a number or an id.
pub(super) async fn detected(State(api): State<LokiApi>, params: Params) -> Answer {
    let (start, end) = params.range(api.clock.now())?;
    let matchers = matchers(&params, "query")?;
    let streams = api.run(move |store, _, _| Ok(store.streams(&matchers, start, end))).await?;
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in streams.iter().flat_map(Labels::iter) {
        values.entry(name).or_default().insert(value);
    }
    values.retain(|name, values| KEPT.contains(name) || !values.iter().all(|value| is_id(value)));
    let labels: Vec<_> =
        values.iter().map(|(name, values)| json!({"label": name, "cardinality": values.len()})).collect();
    Ok(Json(json!({"detectedLabels": labels})))
}

fn is_id(value: &str) -> bool {
    let is_uuid = value.len() == 36 && value.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uuid || value.parse::<f64>().is_ok()
}
