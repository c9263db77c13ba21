//! The judge: folds observations into a belief about each cluster, and tells what changed as events.
//!
//! Pure: no I/O, no tasks, no clock. Time comes only from observations and from `now` arguments. The caller feeds
//! [`Judge::observe`] with every observation in the order of arrival, and calls [`Judge::tick`] about four times a
//! second: what is found by patience (silence, doubt, lag) is found there.
//!
//! Invariants: a leader is shown only while the DCS proves it; "writable" is PostgreSQL's own word, now; what cannot
//! be known is `None`. The first look at a cluster gives no events about what was so before.

mod clients;
mod dcs;
mod demotion;
mod draft;
mod fold;
mod health;
mod interruption;
mod lag;
mod leader;
mod loss;
mod measure;
mod member;
mod memory;
mod options;
mod quorum;
mod reach;
mod readiness;
mod replica;
mod request;
mod samples;
mod skew;
mod split_brain;
mod state;
pub mod text;
mod view;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use memory::{ClusterMemory, JudgeMemory};
pub use options::JudgeOptions;

use crate::model::cluster::Cluster;
use crate::model::{Event, Observation, Sample, Timestamp};
use draft::Draft;
use state::ClusterState;

/// Holds the belief about all clusters.
#[derive(Debug, Default)]
pub struct Judge {
    options: JudgeOptions,
    clusters: BTreeMap<String, ClusterState>,
    /// The newest time seen.
    newest: Option<Timestamp>,
}

impl Judge {
    pub fn new(options: JudgeOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// A judge that remembers: what was known before is no news, what changed meanwhile is.
    pub fn restore(options: JudgeOptions, memory: JudgeMemory) -> Self {
        let mut judge = Self::new(options);
        for (name, memory) in memory.clusters.into_iter().take(judge.options.clusters_max) {
            judge.clusters.insert(name, fold::remembered(memory));
        }
        judge
    }

    /// Names of the clusters that are known.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.clusters.keys().map(String::as_str)
    }

    /// What must be kept for [`Judge::restore`]. Cheap enough for once a second; compare to write only changes.
    pub fn memory(&self) -> JudgeMemory {
        JudgeMemory {
            clusters: self.clusters.iter().map(|(name, state)| (name.clone(), state.memory.clone())).collect(),
        }
    }

    /// Takes in one claim and returns what it changed. Observations of more clusters than allowed are dropped.
    pub fn observe(&mut self, observation: &Observation) -> Vec<Event> {
        self.time_is(observation.received);
        let name = &observation.cluster;
        if !self.clusters.contains_key(name) && self.clusters.len() >= self.options.clusters_max {
            return Vec::new();
        }
        let state = self.clusters.entry(name.clone()).or_default();
        let mut drafts = Vec::new();
        fold::observe(state, observation, &self.options, &mut drafts);
        finish(name, drafts)
    }

    /// Looks at what time alone changes: staleness, silence, doubt, lag.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Event> {
        self.time_is(now);
        let mut events = Vec::new();
        for (name, state) in &mut self.clusters {
            let mut drafts = Vec::new();
            fold::tick(state, now, &self.options, &mut drafts);
            events.extend(finish(name, drafts));
        }
        events
    }

    /// The belief about all clusters, by name.
    pub fn clusters(&self, now: Timestamp) -> Vec<Cluster> {
        self.clusters.iter().map(|(name, state)| view::cluster(name, state, now, &self.options)).collect()
    }

    /// The belief about one cluster.
    pub fn cluster(&self, name: &str, now: Timestamp) -> Option<Cluster> {
        self.clusters.get(name).map(|state| view::cluster(name, state, now, &self.options))
    }

    /// The belief as series; what is unknown gives no sample.
    pub fn samples(&self, now: Timestamp) -> Vec<Sample> {
        let series = |(name, state): (&String, &ClusterState)| {
            let broken = state.memory.member_facts.iter().filter(|(_, facts)| facts.broken.is_some());
            let broken: Vec<_> = broken.map(|(name, _)| name.as_str()).collect();
            samples::of(&view::cluster(name, state, now, &self.options), &broken, now)
        };
        self.clusters.iter().flat_map(series).collect()
    }

    /// Whether all members of the cluster should be probed every few hundred milliseconds: a leader is missing or new
    /// by surprise, or two members may take writes.
    pub fn wants_fast_probe(&self, cluster: &str, now: Timestamp) -> bool {
        self.clusters.get(cluster).is_some_and(|state| fold::wants_fast_probe(state, now))
    }

    /// Answers may overtake each other by seconds. Time that falls back further is a clock that was set back: what was
    /// heard before is then as good as after a restart, or it would count as current until the clock has caught up.
    fn time_is(&mut self, at: Timestamp) {
        if self.newest.is_some_and(|newest| newest.since(at) > self.options.clock_step) {
            let memory = self.memory();
            *self = Self::restore(self.options.clone(), memory);
        }
        self.newest = self.newest.max(Some(at));
    }

    /// Drops everything about a cluster that is no longer watched.
    pub fn forget(&mut self, cluster: &str) {
        self.clusters.remove(cluster);
    }
}

fn finish(cluster: &str, drafts: Vec<Draft>) -> Vec<Event> {
    drafts.into_iter().map(|draft| draft.into_event(cluster)).collect()
}
