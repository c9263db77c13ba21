//! What was seen already: batches by their origin's high-water mark, events by their id.
//!
//! Invariant: both are bounded; forgetting the oldest only means that a repeat would be stored twice.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rustc_hash::FxHashSet;

use crate::model::Timestamp;

use super::Origin;

/// Spools of one agent that are remembered: a new one comes only with a new data directory.
const GENERATIONS_PER_AGENT_MAX: usize = 8;
const AGENTS_MAX: usize = 10_000;
const EVENT_IDS_MAX: usize = 100_000;
/// How long a repeated event is recognised.
pub(super) const EVENT_MEMORY: Duration = Duration::from_hours(1);

/// High-water marks: the last batch stored of each (agent, generation).
#[derive(Debug, Default)]
pub(super) struct HighWater(BTreeMap<String, Vec<(u64, u64)>>);

impl HighWater {
    pub(super) fn get(&self, agent: &str, generation: u64) -> Option<u64> {
        let marks = self.0.get(agent)?;
        marks.iter().find(|(g, _)| *g == generation).map(|(_, seq)| *seq)
    }

    pub(super) fn covers(&self, origin: &Origin) -> bool {
        self.get(&origin.agent, origin.generation).is_some_and(|seq| origin.seq <= seq)
    }

    /// Whether one more agent can be remembered.
    pub(super) fn has_room_for(&self, agent: &str) -> bool {
        self.0.len() < AGENTS_MAX || self.0.contains_key(agent)
    }

    pub(super) fn raise(&mut self, origin: &Origin) {
        let marks = self.0.entry(origin.agent.clone()).or_default();
        let known = marks.iter().position(|(g, _)| *g == origin.generation);
        let seq = known.map_or(origin.seq, |index| marks.remove(index).1.max(origin.seq));
        // The one written last stays longest.
        marks.push((origin.generation, seq));
        if marks.len() > GENERATIONS_PER_AGENT_MAX {
            marks.remove(0);
        }
    }

    pub(super) fn marks(&self) -> Vec<Origin> {
        let all = self.0.iter().flat_map(|(agent, marks)| marks.iter().map(move |mark| (agent, *mark)));
        all.map(|(agent, (generation, seq))| Origin { agent: agent.clone(), generation, seq }).collect()
    }
}

/// Ids of the events of the last hour.
#[derive(Debug, Default)]
pub(super) struct EventIds {
    known: FxHashSet<String>,
    oldest_first: VecDeque<(Timestamp, String)>,
}

impl EventIds {
    pub(super) fn contains(&self, id: &str) -> bool {
        self.known.contains(id)
    }

    pub(super) fn insert(&mut self, at: Timestamp, id: &str, now: Timestamp) {
        let horizon = now - EVENT_MEMORY;
        while let Some((oldest, _)) = self.oldest_first.front() {
            if *oldest >= horizon && self.oldest_first.len() < EVENT_IDS_MAX {
                break;
            }
            if let Some((_, id)) = self.oldest_first.pop_front() {
                self.known.remove(&id);
            }
        }
        if self.known.insert(id.to_owned()) {
            self.oldest_first.push_back((at, id.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_only_rise_and_the_latest_generations_stay() {
        let mut marks = HighWater::default();
        let origin = |generation, seq| Origin { agent: "n1".to_owned(), generation, seq };
        marks.raise(&origin(1, 5));
        marks.raise(&origin(1, 3));
        assert_eq!(marks.get("n1", 1), Some(5));
        assert!(marks.covers(&origin(1, 5)) && !marks.covers(&origin(1, 6)) && !marks.covers(&origin(2, 0)));
        for generation in 2..12 {
            marks.raise(&origin(generation, 0));
        }
        assert_eq!(marks.get("n1", 1), None);
        assert_eq!(marks.marks().len(), GENERATIONS_PER_AGENT_MAX);
    }

    #[test]
    fn events_are_forgotten_after_an_hour() {
        let mut ids = EventIds::default();
        let at = |minutes: i64| Timestamp::from_secs(minutes * 60);
        ids.insert(at(0), "a", at(0));
        ids.insert(at(59), "b", at(60));
        assert!(ids.contains("a") && ids.contains("b"));
        ids.insert(at(61), "c", at(61));
        assert!(!ids.contains("a") && ids.contains("b"));
    }
}
