//! Points in time: nanoseconds since the Unix epoch, UTC, one type everywhere.
//!
//! The metric store rounds to milliseconds at its own edge. Text is RFC 3339 with at least milliseconds.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nanoseconds since 1970-01-01T00:00:00Z. Reaches from 1677 to 2262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// The text is neither RFC 3339 nor inside the range that nanoseconds can hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not an RFC 3339 time between 1677 and 2262")]
pub struct ParseTimestampError {
    text: String,
}

impl Timestamp {
    /// The earliest representable time; sorts before every real one.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest representable time; sorts after every real one.
    pub const MAX: Self = Self(i64::MAX);

    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Saturates at the ends of the range.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Saturates at the ends of the range.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// Seconds with a fraction, as Prometheus' API sends them; saturates, NaN becomes the epoch.
    #[expect(clippy::cast_possible_truncation, reason = "float to int casts saturate, which is what is wanted")]
    pub fn from_secs_f64(secs: f64) -> Self {
        Self((secs * 1e9).round() as i64)
    }

    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Milliseconds, rounded towards the past.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    pub fn secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Later by `seconds`, or earlier when they are negative; saturates.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "float to int casts saturate, which is what is wanted")]
    pub fn shifted(self, seconds: f64) -> Self {
        Self(self.0.saturating_add((seconds * 1e9).round() as i64))
    }

    /// Parses RFC 3339, any offset.
    pub fn parse_rfc3339(text: &str) -> Result<Self, ParseTimestampError> {
        let error = || ParseTimestampError { text: text.to_owned() };
        let parsed = DateTime::parse_from_rfc3339(text).map_err(|_| error())?;
        parsed.timestamp_nanos_opt().map(Self).ok_or_else(error)
    }

    /// RFC 3339 in UTC with exactly three decimals, for tables and mails.
    pub fn to_rfc3339_millis(self) -> String {
        DateTime::<Utc>::from_timestamp_nanos(self.0).to_rfc3339_opts(SecondsFormat::Millis, true)
    }
}

/// RFC 3339 in UTC with 3, 6 or 9 decimals, whichever loses nothing.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = match self.0.rem_euclid(1_000_000) {
            0 => SecondsFormat::Millis,
            n if n % 1_000 == 0 => SecondsFormat::Micros,
            _ => SecondsFormat::Nanos,
        };
        f.write_str(&DateTime::<Utc>::from_timestamp_nanos(self.0).to_rfc3339_opts(format, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_rfc3339(&text).map_err(serde::de::Error::custom)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(rhs.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(rhs.as_nanos()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_keeps_every_digit_and_at_least_milliseconds() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_500_000_000, "1970-01-01T00:00:01.500Z"),
            (1_001, "1970-01-01T00:00:00.000001001Z"),
            (1_000, "1970-01-01T00:00:00.000001Z"),
            (-1_000_000, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp(nanos).to_string(), text);
            assert_eq!(Timestamp::parse_rfc3339(text), Ok(Timestamp(nanos)));
        }
        assert!(Timestamp::parse_rfc3339("yesterday").is_err());
        assert!(Timestamp::parse_rfc3339("3000-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
        assert_eq!(Timestamp::MIN - Duration::from_secs(1), Timestamp::MIN);
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(-1).millis(), -1);
    }
}
