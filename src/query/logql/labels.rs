//! Labels of one line while it goes through a pipeline.
//!
//! Unlike a stream's labels these may have empty values, and each knows where it came from.

use std::borrow::Cow;

/// Where a label came from; Grafana shows the three apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Category {
    Stream,
    /// The record's fields.
    Metadata,
    /// Made by a stage.
    Parsed,
}

pub(super) const ERROR: &str = "__error__";
pub(super) const ERROR_DETAILS: &str = "__error_details__";

#[derive(Clone, Debug)]
pub(super) struct Item<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) value: Cow<'a, str>,
    pub(super) category: Category,
}

/// The labels of a line; names are unique.
#[derive(Clone, Debug, Default)]
pub(super) struct LineLabels<'a>(Vec<Item<'a>>);

impl<'a> LineLabels<'a> {
    /// Adds a label that the record brings; the first of a name stays.
    pub(super) fn add(&mut self, name: &'a str, value: &'a str, category: Category) {
        if self.get(name).is_none() {
            self.0.push(Item { name: Cow::Borrowed(name), value: Cow::Borrowed(value), category });
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|item| item.name == name).map(|item| item.value.as_ref())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Item<'a>> {
        self.0.iter()
    }

    /// Sets a label as parsed, whatever it was.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        let value = Cow::Owned(value.into());
        self.0.push(Item { name: Cow::Owned(name.to_owned()), value, category: Category::Parsed });
    }

    /// Sets what a parser found: a name that the record itself has gets the suffix `_extracted`.
    pub(super) fn set_extracted(&mut self, name: &str, value: impl Into<String>) {
        let of_record = self.0.iter().any(|item| item.name == name && item.category != Category::Parsed);
        if of_record { self.set(&format!("{name}_extracted"), value) } else { self.set(name, value) }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|item| item.name == name)?;
        Some(self.0.swap_remove(index).value.into_owned())
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&str, &str) -> bool) {
        self.0.retain(|item| keep(&item.name, &item.value));
    }

    pub(super) fn has_error(&self) -> bool {
        self.get(ERROR).is_some_and(|error| !error.is_empty())
    }

    pub(super) fn set_error(&mut self, error: &str, details: impl Into<String>) {
        self.set(ERROR, error);
        self.set(ERROR_DETAILS, details);
    }
}

/// A name as a label may have it: other characters become `_`, a leading digit gets one before it.
pub(super) fn sanitize(name: &str) -> String {
    let mut clean: String =
        name.trim().chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    if clean.starts_with(|c: char| c.is_ascii_digit()) {
        clean.insert(0, '_');
    }
    clean
}
