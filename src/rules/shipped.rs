//! The rule files that Daraji brings along, loaded unless the configuration names others.

/// Name and text of each shipped rule file.
pub const FILES: &[(&str, &str)] = &[];
