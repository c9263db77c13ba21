//! Where the engine's series come from.

use std::collections::BTreeSet;

use crate::model::{Labels, Matcher};
use crate::store::metrics::{MetricError, MetricStore, Series};

/// Series one at a time, sorted by labels.
pub type SeriesIter<'a> = Box<dyn Iterator<Item = Result<Series, MetricError>> + 'a>;

/// A source of series; times are milliseconds, ranges include both ends.
pub trait SeriesSource: Send + Sync {
    /// Series that satisfy every matcher, with their points inside the range.
    fn select<'a>(&'a self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<SeriesIter<'a>, MetricError>;

    /// Labels of such series, sorted.
    fn series(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<Vec<Labels>, MetricError> {
        self.select(matchers, start_ms, end_ms)?.map(|series| Ok(series?.labels)).collect()
    }

    /// Names of the labels of such series.
    fn label_names(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<BTreeSet<String>, MetricError> {
        let found = self.series(matchers, start_ms, end_ms)?;
        Ok(found.iter().flat_map(Labels::iter).map(|(name, _)| name.to_owned()).collect())
    }

    /// Values of a label of such series.
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<BTreeSet<String>, MetricError> {
        let found = self.series(matchers, start_ms, end_ms)?;
        Ok(found.iter().filter_map(|labels| labels.get(name)).map(str::to_owned).collect())
    }
}

impl SeriesSource for MetricStore {
    fn select<'a>(&'a self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<SeriesIter<'a>, MetricError> {
        Ok(Box::new(Self::select(self, matchers, start_ms, end_ms)?))
    }

    fn series(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<Vec<Labels>, MetricError> {
        Self::series(self, matchers, start_ms, end_ms)
    }

    fn label_names(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<BTreeSet<String>, MetricError> {
        Self::label_names(self, matchers, start_ms, end_ms)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<BTreeSet<String>, MetricError> {
        Self::label_values(self, name, matchers, start_ms, end_ms)
    }
}

/// Series in memory, for tests of rules and of the engine: times may lie anywhere. Each series' points must be in order.
#[derive(Clone, Debug, Default)]
pub struct MemorySource {
    pub series: Vec<Series>,
}

impl MemorySource {
    fn matching(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Vec<Series> {
        let mut found = Vec::new();
        for series in self.series.iter().filter(|series| matchers.iter().all(|m| m.matches(&series.labels))) {
            let inside = |at_ms: i64| (start_ms..=end_ms).contains(&at_ms);
            let points: Vec<_> = series.points.iter().filter(|point| inside(point.at_ms)).copied().collect();
            if !points.is_empty() {
                found.push(Series { labels: series.labels.clone(), points });
            }
        }
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        found
    }
}

impl SeriesSource for MemorySource {
    fn select<'a>(&'a self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<SeriesIter<'a>, MetricError> {
        Ok(Box::new(self.matching(matchers, start_ms, end_ms).into_iter().map(Ok)))
    }
}
