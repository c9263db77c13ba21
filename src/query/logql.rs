//! LogQL: parser and engine.
