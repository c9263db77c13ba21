//! stub
use crate::model::{Labels,Timestamp};
#[derive(Debug, Default)] pub struct Engine;
#[derive(Debug, thiserror::Error)] #[error("stub")] pub struct QueryError;
pub struct Value;
impl Value { pub fn into_instant_vector(self) -> Result<Vec<(Labels,f64)>, String> { Err("stub".into()) } }
impl Engine { pub fn instant(&self, _: &crate::store::metrics::MetricStore, _: &str, _: Timestamp) -> Result<Value, QueryError> { Err(QueryError) } }
pub fn parse(_: &str) -> Result<(), QueryError> { Ok(()) }
