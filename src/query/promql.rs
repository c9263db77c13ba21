//! PromQL: parser and engine.
