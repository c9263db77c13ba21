//! What is said about metric families: their type, help and unit.

use std::collections::BTreeMap;

/// Families by name.
pub type Families = BTreeMap<String, FamilyMetadata>;

/// What is said about a metric family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FamilyMetadata {
    /// counter, gauge, histogram, summary, untyped, unknown, info, stateset.
    pub kind: String,
    pub help: String,
    pub unit: String,
}
