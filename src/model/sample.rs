//! Samples: a series, a time, a float.

use crate::model::{Labels, Timestamp};

/// The NaN that Prometheus writes when a series ends ("stale marker"). Other NaNs are values.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// The stale marker as a float. Compare by [`is_stale`], never by `==`.
pub const STALE_NAN: f64 = f64::from_bits(STALE_NAN_BITS);

/// Whether the value is the stale marker.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// One value of one series at one time.
#[derive(Clone, Debug)]
pub struct Sample {
    pub labels: Labels,
    pub at: Timestamp,
    pub value: f64,
}

impl Sample {
    pub fn new(labels: Labels, at: Timestamp, value: f64) -> Self {
        Self { labels, at, value }
    }
}

/// Equal bits: two NaNs with the same payload are equal, 0 and -0 are not.
impl PartialEq for Sample {
    fn eq(&self, other: &Self) -> bool {
        self.labels == other.labels && self.at == other.at && self.value.to_bits() == other.value.to_bits()
    }
}
