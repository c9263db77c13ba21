//! Reads the lines around an incident: those of the incident first and from its beginning, then those before it,
//! backwards, so that what time does not suffice for is what matters least.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Comparer, Comparison, Stream};
use crate::model::event::is_own;
use crate::model::incident::Incident;
use crate::model::{LogRecord, Matcher, Timestamp};
use crate::store::logs::{Budget, Direction, LogQuery, LogStore, LogStoreError};

/// The incident's window begins so long before its opening: what led to it is part of it.
const LEAD: Duration = Duration::from_mins(1);
/// The time before that it is compared with.
const BASELINE: Duration = Duration::from_hours(1);
/// Bytes that each side reads at most.
const BYTES_MAX: u64 = 256 << 20;

/// Compares the logs of an incident with those of the hour before, in about `patience`, half of it for each side. Ends
/// early when `stop` is cancelled. Blocks.
pub fn around(
    logs: &LogStore,
    incident: &Incident,
    now: Timestamp,
    (patience, stop): (Duration, &CancellationToken),
) -> Result<Comparison, LogStoreError> {
    let asked_at = Instant::now();
    let start = incident.last_opened_at() - LEAD;
    let end = incident.settled_at.unwrap_or(now).max(start);
    let mut reader =
        Reader { logs, cluster: &incident.cluster, stop, comparer: Comparer::new(&incident.cluster, start) };
    let past_end = end + Duration::from_nanos(1);
    let during = reader.read((start, past_end), Direction::Forward, asked_at + patience / 2)?;
    let earliest = start - BASELINE;
    let before = reader.read((earliest, start), Direction::Backward, asked_at + patience)?;
    let mut found = reader.comparer.finish(before.unwrap_or(earliest), during.unwrap_or(end));
    let cut = [
        during.map(|at| format!("the incident is read until {} only", at.to_rfc3339_millis())),
        before.map(|at| format!("the time before is read back to {} only", at.to_rfc3339_millis())),
    ];
    let parts: Vec<String> = cut.into_iter().flatten().chain(found.partial.take()).collect();
    found.partial = (!parts.is_empty()).then(|| parts.join("; "));
    Ok(found)
}

struct Reader<'a> {
    logs: &'a LogStore,
    cluster: &'a str,
    stop: &'a CancellationToken,
    comparer: Comparer,
}

impl Reader<'_> {
    /// Reads one side; returns how far, when that is not to its end.
    fn read(
        &mut self,
        (start, end): (Timestamp, Timestamp),
        direction: Direction,
        deadline: Instant,
    ) -> Result<Option<Timestamp>, LogStoreError> {
        let mut query = LogQuery::new(vec![Matcher::equal("cluster", self.cluster)], start, end);
        query.direction = direction;
        query.budget = Budget { bytes_max: BYTES_MAX, stop: self.stop.clone() };
        let mut reached = if direction == Direction::Forward { start } else { end };
        let mut is_cut = false;
        let mut stream = Stream::default();
        let searched = self.logs.search(&query, &mut |_, record| {
            is_cut = Instant::now() >= deadline || take(&mut self.comparer, record, &mut stream).is_break();
            if is_cut {
                return ControlFlow::Break(());
            }
            reached = record.at;
            ControlFlow::Continue(())
        });
        match searched {
            Ok(_) => Ok(is_cut.then_some(reached)),
            Err(LogStoreError::BudgetExceeded { .. } | LogStoreError::Cancelled) => Ok(Some(reached)),
            Err(error) => Err(error),
        }
    }
}

/// Adds a record that is not an event of ours. `stream` is that of the record before.
fn take(comparer: &mut Comparer, record: &LogRecord, stream: &mut Stream) -> ControlFlow<()> {
    if is_own(&record.stream) {
        return ControlFlow::Continue(());
    }
    let label = |name: &str| record.stream.get(name).unwrap_or("");
    if (stream.source.as_str(), stream.member.as_str()) != (label("source"), label("member")) {
        *stream = Stream { source: label("source").to_owned(), member: label("member").to_owned() };
    }
    comparer.add(record.at, stream, &record.line)
}
