//! LogQL: parser and engine.
//!
//! A log expression is a stream selector and a pipeline that each line goes through; a metric expression counts or
//! measures the lines that pass, at one time or on a grid of steps. Unsupported constructs are parse errors.

mod aggregate;
mod ast;
mod binary;
mod engine;
mod filters;
mod labels;
mod lexer;
mod parser;
mod parsers;
mod pipeline;
mod template;
mod units;
mod window;

use std::fmt;

pub use ast::{Expr, LogExpr, MetricExpr};
pub use engine::{Engine, EngineOptions, Grid, Line, LinesQuery, QueryError, Series, Value, parse_rule};
pub use lexer::Place;
pub use parser::{parse, parse_selector};

/// Why a text is no LogQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    pub place: Place,
    pub message: String,
}

impl ParseError {
    fn at(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into() }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parse error at line {}, col {}: {}", self.place.line, self.place.column, self.message)
    }
}

impl std::error::Error for ParseError {}
