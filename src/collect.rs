//! Collectors: what goes out to ask, and what comes back as batches.

pub mod logs;
