//! PromQL: parser and engine, with the semantics of Prometheus 3 on floats.
//!
//! An expression is evaluated once for all steps of a range: a node yields columns, one value per step and series.
//! Series are decoded one at a time; budget, deadline and cancellation are checked between them.

pub mod ast;
pub mod format;

mod aggregate;
mod binary;
mod calls;
mod check;
mod durations;
mod engine;
mod eval;
mod functions;
mod histogram;
mod info;
mod label_calls;
mod label_hash;
mod lexer;
mod literal;
mod parser;
mod pick;
mod print;
mod source;
mod window;

pub use ast::{Expr, ValueType};
pub use engine::{Engine, EngineOptions, InstantSample, Limits, Output, QueryError, RangeSpec, Value};
pub use literal::parse_duration_ms;
pub use parser::{ParseError, parse, parse_selector, parse_series_labels};
pub use source::{MemorySource, SeriesIter, SeriesSource};
