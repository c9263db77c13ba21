//! What a record must look like before it is stored.
//!
//! Nothing is refused for its contents: a shipper drops what is refused. What does not fit is bounded, and the record
//! says so in its fields.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::model::{Labels, LogRecord, Timestamp};

/// Longer lines keep their head.
const LINE_BYTES_MAX: usize = 256 << 10;
/// Larger label sets are no streams: all but the known labels become fields.
const STREAM_BYTES_MAX: usize = 16 << 10;
const STREAM_LABELS: [&str; 6] = ["cluster", "member", "source", "severity", "service_name", "job"];
const STREAM_VALUE_BYTES_MAX: usize = 2 << 10;
/// Clocks may be ahead by this much; a record further in the future gets the time of its arrival.
const AHEAD_MAX: Duration = Duration::from_mins(10);

/// The record as it is stored, `None` when it is older than `oldest`.
pub(super) fn clean(record: &LogRecord, oldest: Timestamp, now: Timestamp) -> Option<LogRecord> {
    if record.at < oldest {
        return None;
    }
    let mut record = record.clone();
    if record.at > now + AHEAD_MAX {
        record.fields.push(("original_time".to_owned(), record.at.to_string()));
        record.at = now;
    }
    bound_line(&mut record);
    bound_stream(&mut record);
    Some(record)
}

fn bound_line(record: &mut LogRecord) {
    if record.line.len() <= LINE_BYTES_MAX {
        return;
    }
    let hash = format!("{:x}", Sha256::digest(record.line.as_bytes()));
    record.fields.push(("line_bytes".to_owned(), record.line.len().to_string()));
    record.fields.push(("line_sha256".to_owned(), hash));
    let mut end = LINE_BYTES_MAX;
    while !record.line.is_char_boundary(end) {
        end -= 1;
    }
    record.line.truncate(end);
}

fn bound_stream(record: &mut LogRecord) {
    let bytes: usize = record.stream.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    if bytes <= STREAM_BYTES_MAX {
        return;
    }
    let stays = |name: &str, value: &str| STREAM_LABELS.contains(&name) && value.len() <= STREAM_VALUE_BYTES_MAX;
    let (labels, fields): (Vec<_>, Vec<_>) = record.stream.iter().partition(|(name, value)| stays(name, value));
    record.fields.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    record.stream = Labels::from_pairs(labels);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(at: Timestamp, line: String) -> LogRecord {
        LogRecord { at, stream: Labels::from_pairs([("source", "etcd")]), line, fields: Vec::new() }
    }

    #[test]
    fn records_are_bounded_and_say_so() {
        let now = Timestamp::from_secs(1_000_000);
        let oldest = Timestamp::from_secs(10);
        assert_eq!(clean(&record(Timestamp::from_secs(9), String::new()), oldest, now), None);

        let ordinary = record(now + AHEAD_MAX, "x".repeat(LINE_BYTES_MAX));
        assert_eq!(clean(&ordinary, oldest, now), Some(ordinary.clone()));

        let future = clean(&record(Timestamp::MAX, "x".to_owned()), oldest, now).unwrap();
        assert_eq!(future.at, now);
        assert_eq!(future.field("original_time"), Some("2262-04-11T23:47:16.854775807Z"));

        let long = clean(&record(now, "é".repeat(LINE_BYTES_MAX)), oldest, now).unwrap();
        assert_eq!(long.line.len(), LINE_BYTES_MAX);
        assert_eq!(long.field("line_bytes"), Some("524288"));

        let mut wide = record(now, String::new());
        wide.stream = Labels::from_pairs((0..2_000).map(|i| (format!("l{i}"), "v")));
        wide.stream = wide.stream.with("cluster", "demo");
        let wide = clean(&wide, oldest, now).unwrap();
        assert_eq!(wide.stream, Labels::from_pairs([("cluster", "demo")]));
        assert_eq!(wide.field("l1999"), Some("v"));
    }
}
