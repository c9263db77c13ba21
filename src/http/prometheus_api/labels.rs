//! Labels, series and metadata.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};

use super::params::Params;
use super::{ApiError, ApiResult, PrometheusState, json};
use crate::model::{Labels, Matcher};
use crate::platform::tasks::blocking;
use crate::query::promql::QueryError;
use crate::store::metrics::{MetricError, MetricStore};

/// Runs a lookup once for every selector, or once without any, and joins what it finds.
async fn union<T: Ord + Send + 'static>(
    state: &PrometheusState,
    selectors: Vec<Vec<Matcher>>,
    lookup: impl Fn(&MetricStore, &[Matcher]) -> Result<BTreeSet<T>, MetricError> + Send + 'static,
) -> Result<BTreeSet<T>, ApiError> {
    let store = Arc::clone(&state.store);
    let found = blocking(move || {
        if selectors.is_empty() {
            return lookup(&store, &[]);
        }
        let mut all = BTreeSet::new();
        for matchers in &selectors {
            all.append(&mut lookup(&store, matchers)?);
        }
        Ok(all)
    });
    found.await.map_err(|error| ApiError::from(QueryError::Source(error)))
}

pub(super) async fn names(State(state): State<PrometheusState>, params: Params) -> ApiResult {
    let (start, end) = params.range_ms()?;
    let limit = params.limit()?;
    let names = union(&state, params.selectors()?, move |store, m| store.label_names(m, start, end)).await?;
    Ok(json::success_list(names.iter().map(|name| json::string(name)).collect(), limit))
}

pub(super) async fn values(
    State(state): State<PrometheusState>,
    Path(name): Path<String>,
    params: Params,
) -> ApiResult {
    let (start, end) = params.range_ms()?;
    let limit = params.limit()?;
    let name = unescape_name(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data(format!("invalid label name: {name:?}")));
    }
    let values = union(&state, params.selectors()?, move |store, m| store.label_values(&name, m, start, end)).await?;
    Ok(json::success_list(values.iter().map(|value| json::string(value)).collect(), limit))
}

pub(super) async fn series(State(state): State<PrometheusState>, params: Params) -> ApiResult {
    let selectors = params.selectors()?;
    if selectors.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let (start, end) = params.range_ms()?;
    let limit = params.limit()?;
    let found: BTreeSet<Labels> =
        union(&state, selectors, move |store, m| Ok(store.series(m, start, end)?.into_iter().collect())).await?;
    Ok(json::success_list(found.iter().map(json::labels).collect(), limit))
}

pub(super) async fn metadata(State(state): State<PrometheusState>, params: Params) -> ApiResult {
    let limit = params.limit()?;
    let families = state.store.metadata(params.get("metric"));
    let take = if limit == 0 { usize::MAX } else { limit };
    let object: serde_json::Map<String, serde_json::Value> = families
        .into_iter()
        .take(take)
        .map(|(name, family)| {
            let kind = if family.kind.is_empty() { "unknown".to_owned() } else { family.kind };
            (name, serde_json::json!([{"type": kind, "unit": family.unit, "help": family.help}]))
        })
        .collect();
    Ok(json::success(&serde_json::Value::Object(object).to_string()))
}

/// Undoes Prometheus' escaping of names that are not plain: `U__my_2e_label` is `my.label`.
fn unescape_name(name: &str) -> String {
    let Some(escaped) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut out = String::new();
    let mut rest = escaped;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        if c != '_' {
            out.push(c);
            rest = after;
        } else if let Some(next) = after.strip_prefix('_') {
            out.push('_');
            rest = next;
        } else {
            let code = after.split_once('_');
            let Some((Some(c), next)) =
                code.map(|(hex, next)| (u32::from_str_radix(hex, 16).ok().and_then(char::from_u32), next))
            else {
                return name.to_owned();
            };
            out.push(c);
            rest = next;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_read() {
        let cases = [("job", "job"), ("U__my_2e_label", "my.label"), ("U__a__b", "a_b"), ("U__bad_zz_", "U__bad_zz_")];
        for (escaped, name) in cases {
            assert_eq!(unescape_name(escaped), name);
        }
    }
}
