//! Byte formats of others, to and from the model. Pure: bytes in, values out; every parser is bounded and fuzzed.

pub mod loki_push;
