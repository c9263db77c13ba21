//! Silences: alerts that nobody wants to hear of for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Labels, Matcher, Timestamp};
use crate::platform::random;
use crate::store::state::Table;

use super::matchers::{ApiMatcher, all_match};

/// Expired silences are shown for this long.
pub const RETENTION: Duration = Duration::from_hours(120);

/// More than a fleet ever has; a script that loops is stopped.
const SILENCES_MAX: usize = 10_000;

/// Silences by id.
pub const SILENCES: Table<Silence> = Table::new("silences");

/// A silence as it is stored and as Alertmanager's API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Silence {
    #[serde(default)]
    pub id: String,
    pub matchers: Vec<ApiMatcher>,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    #[serde(default = "epoch")]
    pub updated_at: Timestamp,
    #[serde(default)]
    pub created_by: String,
    #[serde(default)]
    pub comment: String,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

const fn epoch() -> Timestamp {
    Timestamp(0)
}

impl Silence {
    /// `pending`, `active` or `expired`.
    pub fn state(&self, now: Timestamp) -> &'static str {
        if self.ends_at <= now {
            "expired"
        } else if self.starts_at > now {
            "pending"
        } else {
            "active"
        }
    }
}

/// A silence that cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum SilenceError {
    #[error("a silence needs at least one matcher")]
    NoMatcher,
    #[error("a silence needs a matcher that does not accept every alert")]
    MatchesEverything,
    #[error("matcher of label {name:?} is not valid")]
    Matcher { name: String, source: crate::model::matcher::MatcherError },
    #[error("a silence must start before it ends")]
    StartAfterEnd,
    #[error("a silence must end in the future")]
    EndInPast,
    #[error("there is no silence {0:?}")]
    NotFound(String),
    #[error("there are {SILENCES_MAX} silences already; expire some")]
    TooMany,
    #[error("make a silence's id")]
    Id(#[from] crate::store::state::StateError),
}

/// All silences, with their matchers compiled.
#[derive(Clone, Debug, Default)]
pub struct Silences {
    by_id: BTreeMap<String, (Silence, Vec<Matcher>)>,
}

impl Silences {
    /// Takes stored silences; ones that cannot be used any more are left out.
    pub fn restore(rows: impl IntoIterator<Item = Silence>) -> Self {
        let by_id = rows
            .into_iter()
            .filter_map(|silence| compile(&silence).ok().map(|matchers| (silence.id.clone(), (silence, matchers))));
        Self { by_id: by_id.collect() }
    }

    /// Adds a silence, or changes the one with its id. Returns the rows to store; the last one is the silence set.
    ///
    /// The id stays only if the change keeps the matchers and does not rewrite the past; otherwise the old silence is
    /// expired and a new one made.
    pub fn set(&mut self, mut silence: Silence, now: Timestamp) -> Result<Vec<Silence>, SilenceError> {
        let matchers = compile(&silence)?;
        if silence.matchers.is_empty() {
            return Err(SilenceError::NoMatcher);
        }
        if matchers.iter().all(Matcher::matches_empty) {
            return Err(SilenceError::MatchesEverything);
        }
        if silence.starts_at >= silence.ends_at {
            return Err(SilenceError::StartAfterEnd);
        }
        if silence.ends_at <= now {
            return Err(SilenceError::EndInPast);
        }
        if self.by_id.len() >= SILENCES_MAX {
            return Err(SilenceError::TooMany);
        }
        let mut rows = Vec::new();
        silence.updated_at = now;
        if !silence.id.is_empty() {
            let known = self.get(&silence.id).ok_or_else(|| SilenceError::NotFound(silence.id.clone()))?;
            if !can_update(known, &silence, now) {
                if known.state(now) != "expired" {
                    rows.push(self.expire(&silence.id.clone(), now)?);
                }
                silence.id.clear();
            }
        }
        if silence.id.is_empty() {
            silence.id = random::uuid().map_err(crate::store::state::StateError::Random)?;
            silence.starts_at = silence.starts_at.max(now);
        }
        self.by_id.insert(silence.id.clone(), (silence.clone(), matchers));
        rows.push(silence);
        Ok(rows)
    }

    /// Ends a silence now. Returns the row to store.
    pub fn expire(&mut self, id: &str, now: Timestamp) -> Result<Silence, SilenceError> {
        let (silence, _) = self.by_id.get_mut(id).ok_or_else(|| SilenceError::NotFound(id.to_owned()))?;
        if silence.state(now) != "expired" {
            silence.starts_at = silence.starts_at.min(now);
            silence.ends_at = now;
            silence.updated_at = now;
        }
        Ok(silence.clone())
    }

    /// Forgets silences that ended long ago. Returns their ids.
    pub fn forget_old(&mut self, now: Timestamp) -> Vec<String> {
        let old = |silence: &Silence| now.since(silence.ends_at) > RETENTION;
        let ids: Vec<String> =
            self.by_id.values().filter(|(silence, _)| old(silence)).map(|(silence, _)| silence.id.clone()).collect();
        for id in &ids {
            self.by_id.remove(id);
        }
        ids
    }

    pub fn get(&self, id: &str) -> Option<&Silence> {
        self.by_id.get(id).map(|(silence, _)| silence)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Silence> {
        self.by_id.values().map(|(silence, _)| silence)
    }

    /// Ids of the active silences that accept these labels.
    pub fn silenced_by(&self, labels: &Labels, now: Timestamp) -> Vec<String> {
        self.by_id
            .values()
            .filter(|(silence, matchers)| silence.state(now) == "active" && all_match(matchers, labels))
            .map(|(silence, _)| silence.id.clone())
            .collect()
    }
}

fn compile(silence: &Silence) -> Result<Vec<Matcher>, SilenceError> {
    silence
        .matchers
        .iter()
        .map(|matcher| {
            matcher.to_matcher().map_err(|source| SilenceError::Matcher { name: matcher.name.clone(), source })
        })
        .collect()
}

fn can_update(known: &Silence, new: &Silence, now: Timestamp) -> bool {
    known.matchers == new.matchers
        && match known.state(now) {
            "active" => known.starts_at == new.starts_at,
            "pending" => new.starts_at >= now,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(1000 + seconds)
    }

    fn silence(from: i64, to: i64) -> Silence {
        Silence {
            id: String::new(),
            matchers: vec![ApiMatcher { name: "a".into(), value: "b|c".into(), is_regex: true, is_equal: true }],
            starts_at: at(from),
            ends_at: at(to),
            updated_at: at(0),
            created_by: "me".into(),
            comment: "test".into(),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn a_silence_lives_and_ends() {
        let mut silences = Silences::default();
        let rows = silences.set(silence(-5, 60), at(0)).unwrap();
        let id = rows[0].id.clone();
        assert_eq!(rows[0].starts_at, at(0), "the past cannot be silenced");
        let labels = Labels::from_pairs([("a", "c")]);
        assert_eq!(silences.silenced_by(&labels, at(1)), std::slice::from_ref(&id));
        assert!(silences.silenced_by(&Labels::from_pairs([("a", "cc")]), at(1)).is_empty());
        assert!(silences.silenced_by(&labels, at(60)).is_empty());

        let mut longer = rows[0].clone();
        longer.ends_at = at(600);
        assert_eq!(silences.set(longer.clone(), at(2)).unwrap()[0].id, id, "a longer end keeps the id");
        longer.matchers[0].value = "d".into();
        let rows = silences.set(longer, at(3)).unwrap();
        assert_eq!((rows.len(), rows[0].state(at(3)), rows[1].state(at(3))), (2, "expired", "active"));
        assert_ne!(rows[1].id, id);
        assert_eq!(silences.expire(&rows[1].id, at(4)).unwrap().state(at(4)), "expired");
        assert_eq!(silences.forget_old(at(5) + RETENTION).len(), 2);
    }

    #[test]
    fn silences_that_cannot_be() {
        let mut silences = Silences::default();
        let mut everything = silence(0, 60);
        everything.matchers[0].value = ".*".into();
        let mut broken = silence(0, 60);
        broken.matchers[0].value = "(".into();
        let mut unknown = silence(0, 60);
        unknown.id = "x".into();
        let mut bare = silence(0, 60);
        bare.matchers.clear();
        for (bad, message) in [
            (silence(60, 0), "a silence must start before it ends"),
            (silence(-60, -5), "a silence must end in the future"),
            (everything, "a silence needs a matcher that does not accept every alert"),
            (broken, "matcher of label \"a\" is not valid"),
            (unknown, "there is no silence \"x\""),
            (bare, "a silence needs at least one matcher"),
        ] {
            assert_eq!(silences.set(bad, at(0)).unwrap_err().to_string(), message);
        }
    }
}
