//! Incidents that ended long ago are forgotten, so that the state stays small. Open ones never are.

use crate::model::Timestamp;
use crate::model::incident::Incident;
use crate::store::state::tables::INCIDENTS;
use crate::store::state::{StateError, StateStore};

/// Over a year, so that last year's same season can be looked up.
const KEPT: std::time::Duration = std::time::Duration::from_hours(400 * 24);
/// Of the rest, so many of the newest.
const INCIDENTS_MAX: usize = 20_000;

/// Deletes what is too old or too much; returns how many.
pub(super) fn forget_incidents(state: &StateStore, now: Timestamp) -> Result<usize, StateError> {
    forget(state, now, INCIDENTS_MAX)
}

fn forget(state: &StateStore, now: Timestamp, count_max: usize) -> Result<usize, StateError> {
    let rows = state.read()?.scan(&INCIDENTS, "", usize::MAX)?;
    let mut settled: Vec<(Timestamp, String)> = rows
        .into_iter()
        .filter_map(|(id, row)| {
            // What cannot be read is left alone: a newer version may have written it.
            let incident: Incident = serde_json::from_value(row).ok()?;
            Some((incident.settled_at?, id))
        })
        .collect();
    settled.sort_unstable();
    let surplus = settled.len().saturating_sub(count_max);
    let old = settled.iter().take_while(|(at, _)| now.since(*at) > KEPT).count();
    let gone = surplus.max(old);
    if gone > 0 {
        state.write(|tx| {
            settled.iter().take(gone).try_for_each(|(_, id)| tx.delete(&INCIDENTS, id).map(drop))?;
            Ok::<(), StateError>(())
        })?;
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn only_what_ended_long_ago_or_is_too_much_goes() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::from_secs(1_764_000_000);
        let state = StateStore::open(dir.path(), now).unwrap();
        let day = |days: u64| now - Duration::from_hours(days * 24);
        let row = |settled_at: Option<Timestamp>| {
            json!({
                "id": "i", "cluster": "demo", "title": "t", "subject": "s", "severity": "critical", "state": "settled",
                "opened_at": day(900), "settled_at": settled_at,
            })
        };
        let put = |id: &str, row: &serde_json::Value| state.write(|tx| tx.put(&INCIDENTS, id, row)).unwrap();
        put("old", &row(Some(day(401))));
        put("open", &row(None));
        put("foreign", &json!({"settled_at": day(900)}));
        for (id, days) in [("a", 30), ("b", 20), ("c", 10)] {
            put(id, &row(Some(day(days))));
        }
        assert_eq!(forget(&state, now, 10).unwrap(), 1);
        assert_eq!(forget(&state, now, 2).unwrap(), 1);
        let left: Vec<String> =
            state.read().unwrap().scan(&INCIDENTS, "", 100).unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(left, ["b", "c", "foreign", "open"]);
    }
}
