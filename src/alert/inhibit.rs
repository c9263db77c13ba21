//! Inhibition: an alert that explains others holds them back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::model::alert::{Fingerprint, INCIDENT_ALERT_NAME};
use crate::model::{Alert, Matcher, Timestamp};

use super::matchers::{MatcherList, all_match};

/// After an incident has settled its cluster's alerts are held back for this long, so that one that ends a moment
/// later is not announced.
pub const INCIDENT_LINGER: Duration = Duration::from_secs(30);

/// One entry of `inhibit_rules`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InhibitRule {
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub source_matchers: MatcherList,
    #[serde(default)]
    pub target_matchers: MatcherList,
    /// Labels in which source and target must agree; missing in both counts as agreeing.
    #[serde(default)]
    pub equal: Vec<String>,
    #[serde(default)]
    pub source_match: BTreeMap<String, String>,
    #[serde(default)]
    pub target_match: BTreeMap<String, String>,
}

impl InhibitRule {
    /// Turns the deprecated `*_match` forms into matchers.
    #[must_use]
    pub fn compiled(mut self) -> Self {
        let equal = |map: BTreeMap<String, String>| map.into_iter().map(|(name, value)| Matcher::equal(name, value));
        self.source_matchers.0.extend(equal(std::mem::take(&mut self.source_match)));
        self.target_matchers.0.extend(equal(std::mem::take(&mut self.target_match)));
        self
    }
}

/// Which alerts hold back which, at one moment.
#[derive(Debug)]
pub(super) struct Inhibition<'a> {
    rules: &'a [InhibitRule],
    /// Unresolved sources by rule.
    sources: Vec<Vec<&'a Alert>>,
    /// Incidents that are open, or were a moment ago.
    incidents: Vec<&'a Alert>,
}

impl<'a> Inhibition<'a> {
    pub(super) fn new(rules: &'a [InhibitRule], alerts: &'a [Alert], now: Timestamp) -> Self {
        let firing = || alerts.iter().filter(|alert| !alert.is_resolved(now));
        let sources = rules
            .iter()
            .map(|rule| firing().filter(|alert| all_match(&rule.source_matchers.0, &alert.labels)).collect())
            .collect();
        let lingering = |alert: &&Alert| alert.ends_at.is_none_or(|end| end + INCIDENT_LINGER > now);
        let incidents = alerts.iter().filter(|alert| alert.name() == INCIDENT_ALERT_NAME).filter(lingering).collect();
        Self { rules, sources, incidents }
    }

    /// The alerts that hold this one back; empty when none does.
    pub(super) fn inhibited_by(&self, target: &Alert) -> Vec<Fingerprint> {
        let mut by = Vec::new();
        let explains = |incident: &&&Alert| incident.incident.as_deref().is_some_and(|known| target.is_part_of(known));
        by.extend(self.incidents.iter().filter(explains).map(|incident| incident.fingerprint));
        for (rule, sources) in self.rules.iter().zip(&self.sources) {
            if !all_match(&rule.target_matchers.0, &target.labels) {
                continue;
            }
            let is_source = all_match(&rule.source_matchers.0, &target.labels);
            let holder = sources.iter().find(|source| {
                source.fingerprint != target.fingerprint
                    && rule.equal.iter().all(|name| source.label(name) == target.label(name))
                    // An alert that is source and target is not held back by another such one.
                    && !(is_source && all_match(&rule.target_matchers.0, &source.labels))
            });
            by.extend(holder.map(|source| source.fingerprint));
        }
        by.sort_unstable();
        by.dedup();
        by
    }
}
