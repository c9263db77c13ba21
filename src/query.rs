//! The two query languages, each over a source that a store or a test provides.

pub mod logql;
pub mod promql;
