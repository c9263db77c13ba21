//! Label sets: what identifies a series or a log stream.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::quote::Quoted;

/// The label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// Whether a text can name a label.
pub fn is_label_name(text: &str) -> bool {
    let first_fits = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first_fits && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Label names and values, sorted by name, each name once, no empty value (an empty value means "absent").
///
/// Cheap to clone: the set and its strings are shared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl Labels {
    /// Builds a set from pairs in any order; of equal names the last wins, empty values are dropped.
    pub fn from_pairs<N: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let pairs: Vec<(Arc<str>, Arc<str>)> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        // Most sources have them in order already.
        if pairs.is_sorted_by(|a, b| a.0 < b.0) && pairs.iter().all(|(_, value)| !value.is_empty()) {
            return Self(pairs.into());
        }
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name, value);
        }
        builder.build()
    }

    /// A metric with its name and further labels.
    pub fn metric(name: &str, pairs: &[(&str, &str)]) -> Self {
        Self::from_pairs(std::iter::once((METRIC_NAME, name)).chain(pairs.iter().copied()))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let index = self.0.binary_search_by(|(n, _)| n.as_ref().cmp(name)).ok()?;
        self.0.get(index).map(|(_, value)| value.as_ref())
    }

    /// The metric's name, or "" where there is none.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME).unwrap_or("")
    }

    /// Pairs in order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// Pairs in order of their names, as shared strings.
    pub fn shared(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A builder that starts with these labels.
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder(self.0.iter().cloned().collect())
    }

    /// A copy with one label set; an empty value removes it.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut builder = self.to_builder();
        builder.set(name, value);
        builder.build()
    }

    /// A copy without the named labels.
    #[must_use]
    pub fn without(&self, names: &[&str]) -> Self {
        Self(self.0.iter().filter(|(name, _)| !names.contains(&name.as_ref())).cloned().collect())
    }

    /// A copy with only the named labels.
    #[must_use]
    pub fn only(&self, names: &[&str]) -> Self {
        Self(self.0.iter().filter(|(name, _)| names.contains(&name.as_ref())).cloned().collect())
    }
}

/// Collects labels; a later value replaces an earlier one of the same name, an empty value removes it.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder(BTreeMap<Arc<str>, Arc<str>>);

impl LabelsBuilder {
    pub fn set(&mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> &mut Self {
        let (name, value) = (name.into(), value.into());
        if value.is_empty() {
            self.0.remove(&name);
        } else {
            self.0.insert(name, value);
        }
        self
    }

    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.0.remove(name);
        self
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(AsRef::as_ref)
    }

    pub fn build(self) -> Labels {
        Labels(self.0.into_iter().collect())
    }
}

/// Prometheus' notation: `name{a="1", b="2"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.metric_name())?;
        let mut rest = self.iter().filter(|(name, _)| *name != METRIC_NAME).peekable();
        if rest.peek().is_none() && !self.metric_name().is_empty() {
            return Ok(());
        }
        f.write_str("{")?;
        for (i, (name, value)) in rest.enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={}", Quoted(value))?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_pairs(BTreeMap::<String, String>::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_sorted_unique_and_without_empty_values() {
        let labels = Labels::from_pairs([("b", "2"), ("a", "1"), ("b", "3"), ("c", "")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "3")]);
        assert_eq!(labels.get("b"), Some("3"));
        assert_eq!(labels.get("c"), None);
        assert_eq!(labels.with("a", "").to_string(), r#"{b="3"}"#);
    }

    #[test]
    fn names_have_letters_digits_and_underscores() {
        for (text, fits) in [("job", true), ("_x9", true), ("", false), ("9x", false), ("a-b", false), ("é", false)] {
            assert_eq!(is_label_name(text), fits, "{text:?}");
        }
    }

    #[test]
    fn text_is_prometheus_notation() {
        assert_eq!(Labels::metric("up", &[]).to_string(), "up");
        assert_eq!(Labels::metric("up", &[("job", "a\"b")]).to_string(), r#"up{job="a\"b"}"#);
        assert_eq!(Labels::default().to_string(), "{}");
    }
}
