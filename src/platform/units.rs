//! Durations and sizes as people write them: `15s`, `1h30m`, `512MiB`.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// The text is not a duration like `15s`, `1h30m` or `100ms`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a duration like 15s, 1h30m or 100ms")]
pub struct ParseDurationError {
    text: String,
}

/// The text is not a size like `512MiB` or `20GB`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a size like 512MiB, 20GB or 4096")]
pub struct ParseSizeError {
    text: String,
}

const DURATION_UNITS: [(&str, u64); 7] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
    ("y", 31_536_000_000),
];

/// Parses Prometheus' durations: numbers with units from large to small, each unit once; `0` alone is zero.
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let error = || ParseDurationError { text: text.to_owned() };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut last_unit_ms = u64::MAX;
    while !rest.is_empty() {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_where(after, |c| c.is_ascii_digit());
        let number: u64 = number.parse().map_err(|_| error())?;
        let unit_ms = DURATION_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?.1;
        if unit_ms >= last_unit_ms {
            return Err(error());
        }
        last_unit_ms = unit_ms;
        total_ms = number.checked_mul(unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(error)?;
        rest = after;
    }
    if text.is_empty() { Err(error()) } else { Ok(Duration::from_millis(total_ms)) }
}

/// Formats like Prometheus: `1h30m`, `15s`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let mut ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, unit_ms) in DURATION_UNITS.iter().rev() {
        // Years and weeks only when they divide evenly: 30d stays 30d.
        let coarse = matches!(*unit, "y" | "w");
        if ms >= *unit_ms && (!coarse || ms.is_multiple_of(*unit_ms)) {
            // Writing to a String cannot fail.
            let _ok = write!(text, "{}{unit}", ms / unit_ms);
            ms %= unit_ms;
        }
    }
    text
}

const SIZE_UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Parses a whole number of bytes with an optional unit.
pub fn parse_size_bytes(text: &str) -> Result<u64, ParseSizeError> {
    let error = || ParseSizeError { text: text.to_owned() };
    let (number, unit) = split_where(text, |c| !c.is_ascii_digit());
    let number: u64 = number.parse().map_err(|_| error())?;
    let unit = SIZE_UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(error)?.1;
    number.checked_mul(unit).ok_or_else(error)
}

fn split_where(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

/// For `#[serde(deserialize_with)]`: a duration as text.
pub fn deserialize_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

/// For `#[serde(deserialize_with)]`: an optional duration as text.
pub fn deserialize_optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_duration(&text).map_err(serde::de::Error::custom)).transpose()
}

/// For `#[serde(deserialize_with)]`: an optional size, as text or as a number of bytes.
pub fn deserialize_optional_size_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_size_bytes(&text).map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [("0", 0), ("15s", 15_000), ("1h30m", 5_400_000), ("100ms", 100), ("1d", 86_400_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "15", "s", "1m1h", "1s1s", "1.5s", "-1s", "99999999999999999y", "1é"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
        for (ms, text) in
            [(0, "0s"), (5_400_000, "1h30m"), (2_592_000_000, "30d"), (1_100, "1s100ms"), (604_800_000, "1w")]
        {
            assert_eq!(format_duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("4096", 4096), ("20GiB", 20 << 30), ("16 kB", 16_000), ("1TiB", 1 << 40)] {
            assert_eq!(parse_size_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GiB", "1.5GiB", "-1", "5 parsecs", "99999999999TiB"] {
            assert!(parse_size_bytes(bad).is_err(), "{bad:?}");
        }
    }
}
