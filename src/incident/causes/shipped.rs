//! The cause files that Daraji brings along, loaded unless the configuration names others.
//!
//! A new file is one more line here, and tests in `alerts/causes/tests/`.

use super::Catalogue;
use crate::platform::yaml::Problem;

/// Name and text of each shipped cause file.
pub const FILES: &[(&str, &str)] = &[
    ("clients.yml", include_str!("../../../alerts/causes/clients.yml")),
    ("dcs.yml", include_str!("../../../alerts/causes/dcs.yml")),
    ("host.yml", include_str!("../../../alerts/causes/host.yml")),
    ("operator.yml", include_str!("../../../alerts/causes/operator.yml")),
    ("patroni.yml", include_str!("../../../alerts/causes/patroni.yml")),
    ("postgres.yml", include_str!("../../../alerts/causes/postgres.yml")),
    ("replication.yml", include_str!("../../../alerts/causes/replication.yml")),
    ("storage.yml", include_str!("../../../alerts/causes/storage.yml")),
];

/// The shipped catalogue. A test proves that it loads.
pub fn catalogue() -> Result<Catalogue, Vec<Problem>> {
    Catalogue::load(FILES.iter().copied())
}
