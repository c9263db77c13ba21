//! PostgreSQL's write-ahead log positions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A byte position in the write-ahead log. Text is PostgreSQL's `16/B374D848`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// The text is not two hexadecimal numbers of at most 32 bits around a slash.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a WAL position like 16/B374D848")]
pub struct ParseLsnError {
    text: String,
}

impl Lsn {
    /// Bytes from `earlier` to `self`; negative when `earlier` is ahead.
    pub fn bytes_since(self, earlier: Self) -> i64 {
        let bytes = i128::from(self.0) - i128::from(earlier.0);
        i64::try_from(bytes).unwrap_or(if bytes < 0 { i64::MIN } else { i64::MAX })
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (high, low) = text.split_once('/')?;
            let hex = |part: &str| {
                let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
                if plain { u32::from_str_radix(part, 16).ok() } else { None }
            };
            Some(Self(u64::from(hex(high)?) << 32 | u64::from(hex(low)?)))
        };
        parse().ok_or_else(|| ParseLsnError { text: text.to_owned() })
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_postgresql_prints_and_nothing_else() {
        for (text, value) in [("0/0", 0), ("16/B374D848", 0x16_B374_D848), ("FFFFFFFF/FFFFFFFF", u64::MAX)] {
            assert_eq!(text.parse(), Ok(Lsn(value)));
            assert_eq!(Lsn(value).to_string(), text);
        }
        for bad in ["", "/", "1", "1/", "/1", "+1/1", "1/100000000", "g/1", "1/1/1"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn distance_has_a_sign() {
        assert_eq!(Lsn(10).bytes_since(Lsn(4)), 6);
        assert_eq!(Lsn(4).bytes_since(Lsn(10)), -6);
        assert_eq!(Lsn(u64::MAX).bytes_since(Lsn(0)), i64::MAX);
    }
}
