//! Values of templates.

use std::collections::BTreeMap;

use crate::model::Labels;

/// What a missing key of a map means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// Texts by name, such as labels: a missing one is "".
    Strings,
    /// A thing with fields: a missing one is an error.
    Object,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    List(Vec<Value>),
    Map(MapKind, BTreeMap<String, Value>),
}

impl Value {
    /// Texts by name.
    pub fn strings<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let entries = pairs.into_iter().map(|(name, text)| (name.to_owned(), Self::Str(text.to_owned())));
        Self::Map(MapKind::Strings, entries.collect())
    }

    /// A thing with fields.
    pub fn object<const N: usize>(fields: [(&str, Self); N]) -> Self {
        Self::Map(MapKind::Object, fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// One sample of a query's result.
    pub(super) fn sample(labels: &Labels, value: f64) -> Self {
        Self::object([("Labels", Self::strings(labels.iter())), ("Value", Self::Float(value))])
    }

    /// Go's idea of truth: not the zero value, not empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(MapKind::Strings, entries) => !entries.is_empty(),
            Self::Map(MapKind::Object, _) => true,
        }
    }

    /// Go's name of the type.
    pub(super) const fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Str(_) => "string",
            Self::List(_) => "[]interface {}",
            Self::Map(MapKind::Strings, _) => "map[string]string",
            Self::Map(MapKind::Object, _) => "struct",
        }
    }

    pub(super) fn field(&self, name: &str) -> Result<Self, String> {
        match self {
            Self::Map(MapKind::Strings, entries) => {
                Ok(entries.get(name).cloned().unwrap_or_else(|| Self::Str(String::new())))
            }
            Self::Map(MapKind::Object, entries) => {
                entries.get(name).cloned().ok_or_else(|| format!("can't evaluate field {name}"))
            }
            Self::Nil => Err(format!("nil has no field {name}")),
            other => Err(format!("can't evaluate field {name} in type {}", other.type_name())),
        }
    }

    /// A number, or text that reads as one.
    pub(super) fn to_float(&self) -> Result<f64, String> {
        match self {
            Self::Float(value) => Ok(*value),
            #[expect(clippy::cast_precision_loss, reason = "templates show numbers")]
            Self::Int(value) => Ok(*value as f64),
            Self::Str(text) => parse_go_float(text).ok_or_else(|| format!("{text:?} is not a number")),
            other => Err(format!("can't convert {} to float", other.type_name())),
        }
    }

    pub(super) fn as_text(&self) -> Result<&str, String> {
        match self {
            Self::Str(text) => Ok(text),
            other => Err(format!("expected string, found {}", other.type_name())),
        }
    }
}

/// Reads a float as Go does, with `+Inf` and `NaN`.
fn parse_go_float(text: &str) -> Option<f64> {
    text.parse().ok()
}
