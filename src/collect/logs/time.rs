//! Times as logs write them.
//!
//! Accepts `2026-01-01 10:00:00.123 UTC`, `2026-01-01T10:00:00.123456Z`, `2026-01-01 10:00:00,123` and the like: date, a
//! blank or `T`, time, an optional fraction after `.` or `,`, an optional zone. A time without a zone, or with an
//! abbreviation that means several things, is read in the zone of the source's configuration.

use chrono::{Local, MappedLocalTime, NaiveDate, NaiveDateTime, Offset as _, TimeZone as _};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::model::Timestamp;

/// How times without a zone are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZoneSetting {
    /// As the host's own zone says.
    #[default]
    Local,
    /// Seconds east of UTC.
    Fixed(i32),
}

impl<'de> Deserialize<'de> for ZoneSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "local" {
            return Ok(Self::Local);
        }
        let zone = parse_zone(text.as_bytes());
        zone.and_then(|(zone, rest)| rest.is_empty().then_some(zone)?).map(Self::Fixed).ok_or_else(|| {
            D::Error::custom(format!("{text:?} is not a time zone here; give UTC, local, or an offset like +02:00"))
        })
    }
}

/// A time and what of the text it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedTime {
    pub at: Timestamp,
    /// Bytes of the text up to the end of the zone.
    pub length: usize,
}

/// Reads the time at the start of a text. `not_before` settles which of two equal local times is meant when clocks are
/// set back: the first that is not earlier.
pub fn parse_time(text: &[u8], zone: ZoneSetting, not_before: Option<Timestamp>) -> Option<ParsedTime> {
    let (local, rest) = parse_local(text)?;
    let (offset, rest) = match parse_zone(rest.strip_prefix(b" ").unwrap_or(rest)) {
        Some((offset, after)) => (offset, after),
        None => (None, rest),
    };
    let at = match offset {
        Some(offset) => at_offset(local, offset)?,
        None => in_zone(local, zone, not_before)?,
    };
    Some(ParsedTime { at, length: text.len() - rest.len() })
}

/// Reads `Mon dd hh:mm:ss`, which has no year: takes the year in which the time is nearest to `now`.
pub fn parse_syslog_time(text: &[u8], zone: ZoneSetting, now: Timestamp) -> Option<ParsedTime> {
    const MONTHS: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let name = text.get(..3)?;
    let month = u32::try_from(MONTHS.iter().position(|month| *month == name)? + 1).ok()?;
    let day_text = text.get(4..6)?;
    let day = digits(day_text.strip_prefix(b" ").unwrap_or(day_text))?;
    let (hour, minute, second) = clock_time(text.get(7..15)?)?;
    let year_now = chrono::DateTime::from_timestamp_nanos(now.nanos()).format("%Y").to_string().parse::<i32>().ok()?;
    let candidates = (year_now - 1..=year_now + 1).filter_map(|year| {
        let local = NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(hour, minute, second)?;
        in_zone(local, zone, None)
    });
    let at = candidates.min_by_key(|at| at.nanos().abs_diff(now.nanos()))?;
    Some(ParsedTime { at, length: 15 })
}

/// Seconds and a fraction since the epoch, as `%n` of `log_line_prefix` writes them.
pub fn parse_epoch(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (secs, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(Timestamp::from_nanos(secs.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)?))
}

fn parse_local(text: &[u8]) -> Option<(NaiveDateTime, &[u8])> {
    let [date, time] = [text.get(..10)?, text.get(11..19)?];
    if !matches!(text.get(10)?, b' ' | b'T') || date.get(4) != Some(&b'-') || date.get(7) != Some(&b'-') {
        return None;
    }
    let year = i32::try_from(digits(date.get(..4)?)?).ok()?;
    let day = NaiveDate::from_ymd_opt(year, digits(date.get(5..7)?)?, digits(date.get(8..10)?)?)?;
    let (hour, minute, second) = clock_time(time)?;
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(b'.' | b',') = rest.first() {
        let fraction = rest.get(1..)?;
        let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if (1..=9).contains(&length) {
            nanos = digits(fraction.get(..length)?)? * 10_u32.pow(9 - u32::try_from(length).ok()?);
            rest = fraction.get(length..)?;
        }
    }
    // A leap second is read as the second before it ends.
    let local = day.and_hms_nano_opt(hour, minute, second.min(59), nanos)?;
    Some((local, rest))
}

fn clock_time(text: &[u8]) -> Option<(u32, u32, u32)> {
    if text.get(2) != Some(&b':') || text.get(5) != Some(&b':') {
        return None;
    }
    Some((digits(text.get(..2)?)?, digits(text.get(3..5)?)?, digits(text.get(6..8)?)?))
}

fn digits(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 9 {
        return None;
    }
    text.iter().try_fold(0_u32, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')))
}

/// Zone abbreviations with one meaning among database hosts, in minutes east of UTC.
const ABBREVIATIONS: &[(&[u8], i32)] = &[
    (b"UTC", 0),
    (b"GMT", 0),
    (b"Z", 0),
    (b"WET", 0),
    (b"WEST", 60),
    (b"CET", 60),
    (b"CEST", 120),
    (b"EET", 120),
    (b"EEST", 180),
    (b"MSK", 180),
    (b"EST", -300),
    (b"EDT", -240),
    (b"CDT", -300),
    (b"MST", -420),
    (b"MDT", -360),
    (b"PST", -480),
    (b"PDT", -420),
    (b"JST", 540),
    (b"KST", 540),
];

/// A zone at the start of a text: seconds east of UTC, or `None` for an abbreviation that is not in the table.
fn parse_zone(text: &[u8]) -> Option<(Option<i32>, &[u8])> {
    match text.first()? {
        sign @ (b'+' | b'-') => {
            let rest = text.get(1..)?;
            let hours = i32::try_from(digits(rest.get(..2)?)?).ok()?;
            let rest = rest.get(2..)?;
            let (minutes, rest) = match (rest.first(), rest.get(1..3).and_then(digits), rest.get(..2).and_then(digits))
            {
                (Some(b':'), Some(minutes), _) => (minutes, rest.get(3..)?),
                (Some(_), _, Some(minutes)) => (minutes, rest.get(2..)?),
                _ => (0, rest),
            };
            let seconds = (hours * 60 + i32::try_from(minutes).ok()?) * 60;
            Some((Some(if *sign == b'-' { -seconds } else { seconds }), rest))
        }
        first if first.is_ascii_uppercase() => {
            let length = text.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
            let (name, rest) = text.split_at_checked(length)?;
            if length > 5
                || (length < 3 && name != b"Z")
                || rest.first().is_some_and(|next| next.is_ascii_lowercase() || *next == b':')
            {
                return None;
            }
            let minutes = ABBREVIATIONS.iter().find(|(known, _)| *known == name).map(|(_, minutes)| *minutes);
            Some((minutes.map(|minutes| minutes * 60), rest))
        }
        _ => None,
    }
}

fn at_offset(local: NaiveDateTime, offset_seconds: i32) -> Option<Timestamp> {
    let nanos = local.and_utc().timestamp_nanos_opt()?;
    nanos.checked_sub(i64::from(offset_seconds) * 1_000_000_000).map(Timestamp::from_nanos)
}

fn in_zone(local: NaiveDateTime, zone: ZoneSetting, not_before: Option<Timestamp>) -> Option<Timestamp> {
    let offset = match zone {
        ZoneSetting::Fixed(offset) => offset,
        ZoneSetting::Local => match Local.offset_from_local_datetime(&local) {
            MappedLocalTime::Single(offset) => offset.fix().local_minus_utc(),
            MappedLocalTime::Ambiguous(first, second) => {
                let first = first.fix().local_minus_utc();
                let is_past = not_before.is_some_and(|limit| at_offset(local, first).is_some_and(|at| at < limit));
                if is_past { second.fix().local_minus_utc() } else { first }
            }
            // Inside the hour that is skipped: such a clock was not in this zone; take it as UTC.
            MappedLocalTime::None => 0,
        },
    };
    at_offset(local, offset)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<(String, usize)> {
        let parsed = parse_time(text.as_bytes(), ZoneSetting::Fixed(7200), None)?;
        Some((parsed.at.to_string(), parsed.length))
    }

    #[test]
    fn forms() {
        for (text, expected, length) in [
            ("2026-11-23 05:47:28.131 UTC,x", "2026-11-23T05:47:28.131Z", 27),
            ("2026-11-23 05:47:28 GMT", "2026-11-23T05:47:28.000Z", 23),
            ("2026-11-23T05:47:28.131456Z x", "2026-11-23T05:47:28.131456Z", 27),
            ("2026-11-23T05:47:28.131456+00:00 x", "2026-11-23T05:47:28.131456Z", 32),
            ("2026-11-23T05:47:28+0100", "2026-11-23T04:47:28.000Z", 24),
            ("2026-11-23 05:47:28.131 +03 [1]", "2026-11-23T02:47:28.131Z", 27),
            ("2026-11-23 05:47:28.131 -03:30 [1]", "2026-11-23T09:17:28.131Z", 30),
            ("2026-11-23 05:47:28.131 CET [1]", "2026-11-23T04:47:28.131Z", 27),
            ("2026-11-23 05:47:28,131 INFO: x", "2026-11-23T03:47:28.131Z", 23),
            ("2026-11-23 05:47:28,131 info", "2026-11-23T03:47:28.131Z", 23),
            ("2026-11-23 05:47:28", "2026-11-23T03:47:28.000Z", 19),
            ("2026-11-23 05:47:60", "2026-11-23T03:47:59.000Z", 19),
        ] {
            assert_eq!(parse(text), Some((expected.to_owned(), length)), "{text}");
        }
        for bad in [
            "",
            "2026-11-23",
            "2026-13-23 05:47:28",
            "2026-11-23 25:47:28",
            "2026-11-23x05:47:28",
            "yesterday at noon, or so",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn syslog_times_get_the_nearest_year() {
        let now = Timestamp::parse_rfc3339("2026-01-01T00:00:10Z").unwrap();
        for (text, expected) in
            [("Dec 31 23:59:59 h", "2025-12-31T23:59:59.000Z"), ("Jan  1 00:00:05 h", "2026-01-01T00:00:05.000Z")]
        {
            let parsed = parse_syslog_time(text.as_bytes(), ZoneSetting::Fixed(0), now).unwrap();
            assert_eq!(parsed.at.to_string(), expected);
        }
        assert_eq!(parse_syslog_time(b"Foo  1 00:00:05", ZoneSetting::Fixed(0), now), None);
    }

    #[test]
    fn epochs_and_settings() {
        assert_eq!(parse_epoch(b"1767261600.123"), Some(Timestamp::from_millis(1_767_261_600_123)));
        assert_eq!(parse_epoch(b"x"), None);
        for (text, zone) in [("UTC", 0), ("+02:00", 7200), ("-0330", -12_600)] {
            let setting: ZoneSetting = serde_json::from_value(text.into()).unwrap();
            assert_eq!(setting, ZoneSetting::Fixed(zone));
        }
        assert!(serde_json::from_value::<ZoneSetting>("Europe/Tbilisi".into()).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..50), tail in "[ +:A-Z0-9-]{0,10}") {
            let _ = parse_time(&bytes, ZoneSetting::Local, None);
            let _ = parse_syslog_time(&bytes, ZoneSetting::Local, Timestamp::MAX);
            let text = format!("2026-11-23 05:47:28{tail}");
            let _ = parse_time(text.as_bytes(), ZoneSetting::Local, None);
        }
    }
}
