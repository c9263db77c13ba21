//! Rules over PromQL: the metric store for the server, memory for unit tests of rules.

use std::collections::BTreeMap;

use crate::model::{Labels, Sample, Timestamp};
use crate::query::promql::{Engine, EngineOptions, MemorySource, SeriesSource, Value};
use crate::store::metrics::{Point, Series};

use super::evaluate::RuleData;

/// Answers an expression in LogQL.
pub type LogQueryFn<'a> = &'a dyn Fn(&str, Timestamp) -> Result<Vec<(Labels, f64)>, String>;

/// Rules over a source of series. What they produce goes to `append`, and must be visible in `source` afterwards.
pub struct PromqlData<'a> {
    pub engine: &'a Engine,
    pub source: &'a dyn SeriesSource,
    pub append: &'a mut dyn FnMut(Vec<Sample>),
    pub logs: Option<LogQueryFn<'a>>,
}

impl std::fmt::Debug for PromqlData<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PromqlData").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl RuleData for PromqlData<'_> {
    fn query(&self, expr: &str, at: Timestamp) -> Result<Vec<(Labels, f64)>, String> {
        instant(self.engine, self.source, expr, at)
    }

    fn query_logs(&self, expr: &str, at: Timestamp) -> Result<Vec<(Labels, f64)>, String> {
        match self.logs {
            Some(query) => query(expr, at),
            None => Err("there is no log store to ask".to_owned()),
        }
    }

    fn append(&mut self, samples: Vec<Sample>) {
        (self.append)(samples);
    }
}

fn instant(
    engine: &Engine,
    source: &dyn SeriesSource,
    expr: &str,
    at: Timestamp,
) -> Result<Vec<(Labels, f64)>, String> {
    let output = engine.instant_text(source, expr, at).map_err(|error| crate::platform::error::chain(&error))?;
    match output.value {
        Value::Vector(samples) => Ok(samples.into_iter().map(|sample| (sample.labels, sample.value)).collect()),
        Value::Scalar { value, .. } => Ok(vec![(Labels::default(), value)]),
        Value::String { .. } | Value::Matrix(_) => Err("rule result is not a vector or scalar".to_owned()),
    }
}

/// Whether an expression can be parsed; for [`super::file::load`].
pub fn check(expr: &str) -> Result<(), String> {
    crate::query::promql::parse(expr).map(drop).map_err(|error| error.to_string())
}

/// Whether a LogQL expression can be parsed and gives numbers; for [`super::file::load`].
pub fn check_logql(expr: &str) -> Result<(), String> {
    crate::query::logql::parse_rule(expr).map(drop).map_err(|error| error.to_string())
}

/// An empty store in memory, for [`super::test_runner`].
#[derive(Debug, Default)]
pub struct MemoryData {
    engine: Engine,
    source: MemorySource,
    places: BTreeMap<Labels, usize>,
}

impl MemoryData {
    pub fn new(options: EngineOptions) -> Self {
        Self { engine: Engine::new(options), ..Self::default() }
    }
}

impl RuleData for MemoryData {
    fn query(&self, expr: &str, at: Timestamp) -> Result<Vec<(Labels, f64)>, String> {
        instant(&self.engine, &self.source, expr, at)
    }

    fn append(&mut self, samples: Vec<Sample>) {
        for sample in samples {
            let place = *self.places.entry(sample.labels.clone()).or_insert_with(|| {
                self.source.series.push(Series { labels: sample.labels.clone(), points: Vec::new() });
                self.source.series.len() - 1
            });
            if let Some(series) = self.source.series.get_mut(place) {
                series.points.push(Point { at_ms: sample.at.millis(), value: sample.value });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::rules::test_runner::{TestEngine, run};

    #[test]
    fn the_shipped_rules_pass_their_tests_with_our_own_engine() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/tests");
        let engine = TestEngine {
            new_store: &|| Box::new(MemoryData::default()),
            check: &check,
            read_file: &|path| std::fs::read_to_string(dir.join(path)).map_err(|error| error.to_string()),
        };
        let mut tests = 0;
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let report = run(&path.display().to_string(), &text, &engine).unwrap();
            assert_eq!(report.failures, Vec::<String>::new(), "{}", path.display());
            tests += report.tests;
        }
        assert!(tests >= 28, "{tests}");
    }
}
