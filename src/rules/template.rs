//! Go templates, as far as alerting rules use them: labels and annotations with `{{ $labels.x }}`, `{{ $value }}`.
//!
//! Names of functions and variables are checked when a template is parsed, as Go does. Rendering is bounded in steps
//! and output bytes and has no side effects. Left out (parse errors): methods, `call`, `js`, `slice`, times.

mod exec;
mod format;
mod functions;
mod lex;
mod parse;
mod value;

#[cfg(test)]
mod tests;

use crate::model::Labels;

pub use format::format_value;
pub(crate) use format::go_float;
pub(crate) use functions::escape_query;
pub use value::{MapKind, Value};

/// Runs a query for the template function `query`.
pub type QueryFn<'a> = &'a dyn Fn(&str) -> Result<Vec<(Labels, f64)>, String>;

/// A template that cannot be parsed or rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template line {line}: {message}")]
pub struct TemplateError {
    /// Line inside the template, from 1.
    pub line: usize,
    pub message: String,
}

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    root: Vec<parse::Node>,
    defined: std::collections::BTreeMap<String, Vec<parse::Node>>,
}

/// What a template sees.
pub struct TemplateContext<'a> {
    /// The value of `.`.
    pub dot: Value,
    /// `$labels`, `$value` …, names without the `$`.
    pub variables: Vec<(&'static str, Value)>,
    /// What `externalURL` answers.
    pub external_url: &'a str,
    pub query: Option<QueryFn<'a>>,
    /// What `now` answers, in seconds.
    pub now_seconds: f64,
}

impl std::fmt::Debug for TemplateContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TemplateContext").field("variables", &self.variables).finish_non_exhaustive()
    }
}

impl Template {
    /// Parses a template that may use the named variables.
    pub fn parse(text: &str, variables: &[&str]) -> Result<Self, TemplateError> {
        parse::parse(text, variables)
    }

    /// Renders; an error stops at the first problem.
    pub fn render(&self, context: &TemplateContext<'_>) -> Result<String, TemplateError> {
        exec::Exec::new(self, context).run()
    }
}
