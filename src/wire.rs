//! Byte formats of others, to and from the model. Pure: bytes in, values out; every parser is bounded and fuzzed.

pub mod agent;
pub mod exposition;
pub mod loki_push;
pub mod remote_write;
