//! How much there is: bytes and lines by stream, from what the store knows without reading a line.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use rustc_hash::FxHashMap;
use serde_json::{Map, Value, json};

use super::params::Params;
use super::{Answer, ApiError, LokiApi, matchers, shapes};
use crate::model::{Labels, MatchOp, Matcher, Timestamp};
use crate::store::logs::{Budget, LogQuery, Measure};

const SERIES_DEFAULT: usize = 100;

pub(super) async fn stats(State(api): State<LokiApi>, params: Params) -> Answer {
    let (start, end) = params.range(api.clock.now())?;
    let matchers = matchers(&params, "query")?;
    let counted = api.run(move |store, _, stop| {
        let mut query = LogQuery::new(matchers, start, end);
        query.budget = Budget { stop: stop.clone(), ..Budget::default() };
        let (mut entries, mut bytes) = (0u64, 0u64);
        let mut streams = std::collections::HashSet::new();
        store.tally(&query, Measure::Record, &mut |_, labels, length| {
            entries += 1;
            bytes += length;
            if !streams.contains(labels) {
                streams.insert(labels.clone());
            }
        })?;
        Ok((streams.len(), entries, bytes))
    });
    let (streams, entries, bytes) = counted.await?;
    // A stream is what chunks are to Loki: the unit of storing.
    Ok(Json(json!({"streams": streams, "chunks": streams, "bytes": bytes, "entries": entries})))
}

pub(super) async fn instant(State(api): State<LokiApi>, params: Params) -> Answer {
    let (start, end) = params.range(api.clock.now())?;
    let plan = Plan::new(&params, (start, end), None)?;
    Ok(shapes::volumes(&plan.run(&api).await?, false))
}

pub(super) async fn range(State(api): State<LokiApi>, params: Params) -> Answer {
    let (start, end) = params.range(api.clock.now())?;
    let step = params.step((start, end))?;
    let step_ns = i64::try_from(step.as_nanos()).unwrap_or(i64::MAX);
    let plan = Plan::new(&params, (start, end), Some(step_ns))?;
    Ok(shapes::volumes(&plan.run(&api).await?, true))
}

/// What a stream counts for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    /// Together with all streams that have the same values of the targets.
    Series(Labels),
    /// For one of its labels, whatever the value.
    Label(String),
}

impl Key {
    fn metric(&self) -> Value {
        match self {
            Self::Series(labels) => shapes::object(labels),
            Self::Label(name) => Map::from_iter([(name.clone(), Value::from(""))]).into(),
        }
    }
}

struct Plan {
    matchers: Vec<Matcher>,
    start: Timestamp,
    end: Timestamp,
    /// One sample for all, at the end, when there is none.
    step_ns: Option<i64>,
    /// Labels that series are told apart by; all when empty.
    targets: Vec<String>,
    by_label: bool,
    series_max: usize,
}

impl Plan {
    fn new(params: &Params, (start, end): (Timestamp, Timestamp), step_ns: Option<i64>) -> Result<Self, ApiError> {
        let mut matchers = matchers(params, "query")?;
        let wanted = params.get("targetLabels").unwrap_or("");
        let mut targets: Vec<String> =
            wanted.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let by_label = match params.get("aggregateBy").unwrap_or("series") {
            "series" => false,
            "labels" => true,
            other => return Err(ApiError::bad(format!("invalid aggregateBy {other:?}: series or labels is taken"))),
        };
        for name in &targets {
            if !matchers.iter().any(|matcher| matcher.name == *name) {
                let has = Matcher::new(name.as_str(), MatchOp::Regex, ".+");
                matchers.push(has.map_err(|error| ApiError::bad(error.to_string()))?);
            }
        }
        if targets.is_empty() && !by_label {
            targets = matchers.iter().map(|matcher| matcher.name.clone()).collect();
        }
        let series_max = params.count(&["limit"], SERIES_DEFAULT)?;
        Ok(Self { matchers, start, end, step_ns, targets, by_label, series_max })
    }

    fn keys(&self, labels: &Labels) -> Vec<Key> {
        let wanted = |name: &str| self.targets.is_empty() || self.targets.iter().any(|target| target == name);
        if self.by_label {
            return labels
                .iter()
                .filter(|(name, _)| wanted(name))
                .map(|(name, _)| Key::Label(name.to_owned()))
                .collect();
        }
        vec![Key::Series(Labels::from_pairs(labels.iter().filter(|(name, _)| wanted(name))))]
    }

    fn bucket(&self, at: Timestamp) -> Timestamp {
        let Some(step) = self.step_ns else { return self.end };
        let start = self.start.nanos();
        Timestamp::from_nanos(start + (at.nanos() - start).div_euclid(step) * step)
    }

    /// The largest first.
    async fn run(self, api: &LokiApi) -> Result<Vec<(Value, Vec<(Timestamp, u64)>)>, ApiError> {
        api.run(move |store, _, stop| {
            let mut query = LogQuery::new(self.matchers.clone(), self.start, self.end);
            query.budget = Budget { stop: stop.clone(), ..Budget::default() };
            let mut keys: FxHashMap<Labels, Vec<Key>> = FxHashMap::default();
            let mut volumes: BTreeMap<Key, BTreeMap<Timestamp, u64>> = BTreeMap::new();
            store.tally(&query, Measure::Record, &mut |at, labels, length| {
                if !keys.contains_key(labels) {
                    keys.insert(labels.clone(), self.keys(labels));
                }
                for key in keys.get(labels).into_iter().flatten() {
                    if let Some(buckets) = volumes.get_mut(key) {
                        *buckets.entry(self.bucket(at)).or_default() += length;
                    } else {
                        volumes.insert(key.clone(), BTreeMap::from([(self.bucket(at), length)]));
                    }
                }
            })?;
            let mut ordered: Vec<_> = volumes.into_iter().collect();
            ordered.sort_by_key(|(_, buckets)| std::cmp::Reverse(buckets.values().sum::<u64>()));
            ordered.truncate(self.series_max);
            Ok(ordered.into_iter().map(|(key, buckets)| (key.metric(), buckets.into_iter().collect())).collect())
        })
        .await
    }
}
