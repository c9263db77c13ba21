//! Alerts that other programs post: they fire until their end passes, and merge with what is known.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::alert::{Annotations, Fingerprint};
use crate::model::{Alert, Labels, Timestamp};
use crate::store::state::Table;

/// An alert without an end counts as over this long after it was last posted.
pub const RESOLVE_TIMEOUT_DEFAULT: Duration = Duration::from_mins(5);

/// Ended alerts are remembered this long, so that their end reaches everybody.
const RETENTION: Duration = Duration::from_mins(15);

/// More are refused: a client that posts without end must not fill memory.
const ALERTS_MAX: usize = 10_000;

/// Posted alerts by fingerprint.
pub const POSTED_ALERTS: Table<Alert> = Table::new("posted_alerts");

/// What a client posts. Times in year 1 mean "not set".
#[derive(Clone, Debug, Default)]
pub struct PostedAlert {
    pub labels: Labels,
    pub annotations: Annotations,
    pub starts_at: Option<Timestamp>,
    pub ends_at: Option<Timestamp>,
    pub generator_url: String,
}

/// The posted alerts that live.
#[derive(Clone, Debug, Default)]
pub struct PostedAlerts {
    by_fingerprint: BTreeMap<Fingerprint, Alert>,
}

impl PostedAlerts {
    pub fn restore(rows: impl IntoIterator<Item = Alert>) -> Self {
        Self { by_fingerprint: rows.into_iter().map(|alert| (alert.fingerprint, alert)).collect() }
    }

    /// Takes an alert; the error says why not. Returns the row to store.
    pub fn post(&mut self, posted: PostedAlert, now: Timestamp, resolve_timeout: Duration) -> Result<Alert, String> {
        if posted.labels.is_empty() {
            return Err("an alert needs at least one label".to_owned());
        }
        let starts_at = posted.starts_at.or(posted.ends_at).unwrap_or(now);
        let ends_at = posted.ends_at.unwrap_or(now + resolve_timeout);
        if ends_at < starts_at {
            return Err("an alert cannot end before it starts".to_owned());
        }
        let mut alert = Alert::firing(posted.labels, posted.annotations, starts_at);
        alert.ends_at = Some(ends_at);
        alert.updated_at = now;
        alert.generator_url = posted.generator_url;
        match self.by_fingerprint.get(&alert.fingerprint) {
            // The same trouble, reported again: it began when it was first reported.
            Some(known) if !known.is_resolved(starts_at) => alert.starts_at = known.starts_at.min(starts_at),
            None if self.by_fingerprint.len() >= ALERTS_MAX => {
                return Err(format!("{ALERTS_MAX} posted alerts live already"));
            }
            _ => {}
        }
        self.by_fingerprint.insert(alert.fingerprint, alert.clone());
        Ok(alert)
    }

    /// Forgets alerts that ended long ago. Returns their keys.
    pub fn forget_old(&mut self, now: Timestamp) -> Vec<String> {
        let old = |alert: &Alert| alert.ends_at.is_some_and(|end| now.since(end) > RETENTION);
        let keys: Vec<Fingerprint> =
            self.by_fingerprint.values().filter(|alert| old(alert)).map(|alert| alert.fingerprint).collect();
        for key in &keys {
            self.by_fingerprint.remove(key);
        }
        keys.iter().map(ToString::to_string).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Alert> {
        self.by_fingerprint.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posted_alerts_merge_and_end_by_themselves() {
        let at = |seconds: i64| Timestamp::from_secs(1000 + seconds);
        let timeout = Duration::from_mins(1);
        let alert = || PostedAlert { labels: Labels::from_pairs([("alertname", "A")]), ..PostedAlert::default() };
        let mut posted = PostedAlerts::default();
        assert_eq!(posted.post(alert(), at(0), timeout).unwrap().ends_at, Some(at(60)));
        let again = posted.post(alert(), at(50), timeout).unwrap();
        assert_eq!((again.starts_at, again.ends_at), (at(0), Some(at(110))));
        let ended = PostedAlert { ends_at: Some(at(55)), ..alert() };
        assert!(posted.post(ended, at(55), timeout).unwrap().is_resolved(at(55)));
        assert_eq!(posted.post(alert(), at(70), timeout).unwrap().starts_at, at(70), "a new trouble");
        assert_eq!(posted.forget_old(at(130 + 15 * 60)).len(), 0);
        assert_eq!(posted.forget_old(at(131 + 15 * 60)).len(), 1);
        assert!(posted.post(PostedAlert::default(), at(0), timeout).is_err());
        let backwards = PostedAlert { starts_at: Some(at(5)), ends_at: Some(at(1)), ..alert() };
        assert!(posted.post(backwards, at(0), timeout).is_err());
    }
}
