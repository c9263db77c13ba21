//! The life of alerts: pending, firing, resolved, as a state machine over query results.
//!
//! As in Prometheus, except for restarts: every change of an alert is handed out to be stored, and
//! [`RuleSet::restore`] brings all of it back before the first evaluation, `for` and `keep_firing_for` included.
//! A query error changes nothing: nothing fires and nothing resolves.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::alert::{ALERT_NAME, Annotations, Fingerprint};
use crate::model::labels::METRIC_NAME;
use crate::model::sample::STALE_NAN;
use crate::model::{Alert, Labels, Sample, Timestamp};
use crate::store::state::Table;

use super::file::{Language, Rule, RuleGroup, RuleKind};
use super::template::{Template, TemplateContext, Value};

/// Resolved alerts are remembered this long, so that their end reaches everybody.
pub const RESOLVED_RETENTION: Duration = Duration::from_mins(15);

/// For this long after a restart a restored alert is not taken as over: what it watches may not have been asked yet.
pub const RESTORED_GRACE: Duration = Duration::from_secs(45);

/// Alert states by rule and fingerprint.
pub const ALERT_STATES: Table<ActiveAlert> = Table::new("alert_states");

/// Where rules read from and write to.
pub trait RuleData {
    /// The instant vector that the expression gives (a scalar is one sample without labels).
    fn query(&self, expr: &str, at: Timestamp) -> Result<Vec<(Labels, f64)>, String>;

    /// The same for an expression in LogQL.
    fn query_logs(&self, expr: &str, at: Timestamp) -> Result<Vec<(Labels, f64)>, String> {
        Err(format!("there are no logs to ask {expr:?} at {at}"))
    }

    /// Takes what a rule produced; the next rule of the group sees it.
    fn append(&mut self, samples: Vec<Sample>);
}

/// Where an alert is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertPhase {
    /// Over; remembered for [`RESOLVED_RETENTION`].
    Inactive,
    Pending,
    Firing,
}

impl AlertPhase {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

/// One alert of one rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActiveAlert {
    pub phase: AlertPhase,
    pub labels: Labels,
    pub annotations: Annotations,
    #[serde(with = "value_bits")]
    pub value: f64,
    /// Since when the expression holds.
    pub active_at: Timestamp,
    pub fired_at: Option<Timestamp>,
    pub resolved_at: Option<Timestamp>,
    /// Since when it fires only because of `keep_firing_for`.
    pub keep_firing_since: Option<Timestamp>,
}

/// JSON has no NaN and no infinity: the bits of the float.
mod value_bits {
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.to_bits())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}

/// Whether the last evaluation of a rule worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleHealth {
    Unknown,
    Ok,
    Err,
}

impl RuleHealth {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Err => "err",
        }
    }
}

/// What a rule knows between evaluations.
#[derive(Clone, Debug)]
pub struct RuleState {
    pub id: String,
    pub alerts: BTreeMap<Fingerprint, ActiveAlert>,
    pub health: RuleHealth,
    pub last_error: Option<String>,
    pub last_evaluation: Option<Timestamp>,
    /// How long the last evaluation took.
    pub evaluation_time: Duration,
    /// Series written last time; one that is missing now gets a stale marker.
    written: Vec<Labels>,
}

/// A group and what its rules know.
#[derive(Clone, Debug)]
pub struct GroupState {
    pub group: RuleGroup,
    pub rules: Vec<RuleState>,
    next_at: Option<Timestamp>,
    pub last_evaluation: Option<Timestamp>,
    /// Slots that were skipped because the evaluation came too late.
    pub iterations_missed: u64,
}

/// A change to store: `None` deletes the row.
pub type StateChange = (String, Option<ActiveAlert>);

/// What an evaluation did.
#[derive(Debug, Default)]
pub struct Evaluation {
    /// Rows of [`ALERT_STATES`] that changed.
    pub changes: Vec<StateChange>,
    pub groups_evaluated: usize,
    /// Rules that failed, as `file: group: rule: error`.
    pub errors: Vec<String>,
}

/// What rules know of the world outside.
#[derive(Clone, Debug, Default)]
pub struct RuleOptions {
    pub external_url: String,
    pub external_labels: Labels,
}

/// All rules with their state.
#[derive(Debug, Default)]
pub struct RuleSet {
    pub groups: Vec<GroupState>,
    options: RuleOptions,
    first_evaluation: Option<Timestamp>,
}

impl RuleSet {
    pub fn new(groups: Vec<RuleGroup>, options: RuleOptions) -> Self {
        let groups = groups
            .into_iter()
            .map(|group| {
                let rules = group.rules.iter().map(RuleState::new).collect();
                GroupState { group, rules, next_at: None, last_evaluation: None, iterations_missed: 0 }
            })
            .collect();
        Self { groups, options, first_evaluation: None }
    }

    /// Brings alerts back as they were stored. Rows of rules that are gone are returned for deletion.
    pub fn restore(&mut self, rows: Vec<(String, ActiveAlert)>) -> Vec<StateChange> {
        let mut orphans = Vec::new();
        for (key, alert) in rows {
            let id = key.split('/').next().unwrap_or("");
            let rule = self.groups.iter_mut().flat_map(|group| &mut group.rules).find(|rule| rule.id == id);
            match rule {
                Some(rule) => {
                    rule.alerts.insert(Fingerprint::of(&alert.labels), alert);
                }
                None => orphans.push((key, None)),
            }
        }
        orphans
    }

    /// Takes over the state of rules that are the same in an older set, at a reload.
    #[must_use]
    pub fn inherit(mut self, old: &Self) -> Self {
        self.first_evaluation = old.first_evaluation;
        for group in &mut self.groups {
            for rule in &mut group.rules {
                let same = old.groups.iter().flat_map(|group| &group.rules).find(|known| known.id == rule.id);
                if let Some(known) = same {
                    *rule = known.clone();
                }
            }
        }
        self
    }

    /// The rows of rules that an older set had and this one has not, to be deleted.
    pub fn left_by(&self, old: &Self) -> Vec<StateChange> {
        let kept: BTreeSet<&str> = self.rules().map(|(_, _, state)| state.id.as_str()).collect();
        let gone = old.rules().map(|(_, _, state)| state).filter(|state| !kept.contains(state.id.as_str()));
        gone.flat_map(|state| state.alerts.keys().map(|fingerprint| (row_key(&state.id, *fingerprint), None))).collect()
    }

    /// Evaluates the groups that are due. The first evaluation of each is due at once.
    pub fn evaluate(&mut self, now: Timestamp, data: &mut dyn RuleData) -> Evaluation {
        let mut evaluation = Evaluation::default();
        let first = *self.first_evaluation.get_or_insert(now);
        for group in &mut self.groups {
            if let Some(at) = group.take_slot(now) {
                evaluation.groups_evaluated += 1;
                group.evaluate((at, first), data, &self.options, &mut evaluation);
            }
        }
        evaluation
    }

    /// Alerts that fire, and those that have ended within [`RESOLVED_RETENTION`], for routing.
    pub fn alerts(&self) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for (group, rule, state) in self.rules() {
            for alert in state.alerts.values() {
                let Some(fired_at) = alert.fired_at else { continue };
                let mut labels = self.options.external_labels.to_builder();
                for (name, value) in alert.labels.iter() {
                    labels.set(name, value);
                }
                let labels = labels.build();
                alerts.push(Alert {
                    fingerprint: Fingerprint::of(&labels),
                    labels,
                    annotations: alert.annotations.clone(),
                    starts_at: fired_at,
                    ends_at: alert.resolved_at,
                    updated_at: alert.resolved_at.or(group.last_evaluation).unwrap_or(fired_at),
                    generator_url: self.generator_url(&rule.expr),
                    incident: None,
                });
            }
        }
        alerts
    }

    /// Every rule with its group and state.
    pub fn rules(&self) -> impl Iterator<Item = (&GroupState, &Rule, &RuleState)> {
        self.groups
            .iter()
            .flat_map(|group| group.group.rules.iter().zip(&group.rules).map(move |(rule, state)| (group, rule, state)))
    }

    fn generator_url(&self, expr: &str) -> String {
        let base = self.options.external_url.trim_end_matches('/');
        format!("{base}/graph?g0.expr={}&g0.tab=1", super::template::escape_query(expr))
    }
}

impl RuleState {
    fn new(rule: &Rule) -> Self {
        Self {
            id: rule.id(),
            alerts: BTreeMap::new(),
            health: RuleHealth::Unknown,
            last_error: None,
            last_evaluation: None,
            evaluation_time: Duration::ZERO,
            written: Vec::new(),
        }
    }

    /// The worst phase of the rule's alerts.
    pub fn phase(&self) -> AlertPhase {
        self.alerts.values().map(|alert| alert.phase).max().unwrap_or(AlertPhase::Inactive)
    }
}

impl GroupState {
    /// The slot to evaluate, if one is due. Slots are aligned to the epoch; missed ones are skipped.
    fn take_slot(&mut self, now: Timestamp) -> Option<Timestamp> {
        let interval = i64::try_from(self.group.interval.as_nanos()).unwrap_or(i64::MAX).max(1);
        let slot = Timestamp(now.nanos() - now.nanos().rem_euclid(interval));
        let at = match self.next_at {
            None => now,
            Some(next) if slot >= next => {
                let missed = (slot.nanos() - next.nanos()) / interval;
                self.iterations_missed += u64::try_from(missed).unwrap_or(0);
                slot
            }
            // The clock was set back by more than an interval: start over.
            Some(next) if next.nanos() - now.nanos() > interval => now,
            Some(_) => return None,
        };
        self.next_at = Some(slot + self.group.interval);
        Some(at)
    }

    fn evaluate(
        &mut self,
        (at, first): (Timestamp, Timestamp),
        data: &mut dyn RuleData,
        options: &RuleOptions,
        evaluation: &mut Evaluation,
    ) {
        self.last_evaluation = Some(at);
        let read_at = at - self.group.query_offset;
        for (rule, state) in self.group.rules.iter().zip(&mut self.rules) {
            state.last_evaluation = Some(at);
            let started = tokio::time::Instant::now();
            let (limit, language) = (self.group.limit, self.group.language);
            let step = Step { rule, at, read_at, limit, language, options, first };
            let result = match rule.kind {
                RuleKind::Recording => step.record(data),
                RuleKind::Alerting { hold, keep_firing } => {
                    step.alert(state, data, (hold, keep_firing), &mut evaluation.changes)
                }
            };
            state.evaluation_time = started.elapsed();
            match result {
                Ok(samples) => {
                    state.health = RuleHealth::Ok;
                    state.last_error = None;
                    data.append(state.with_stale_markers(samples, read_at));
                }
                Err(message) => {
                    evaluation.errors.push(format!(
                        "{}: group {:?}: rule {:?}: {message}",
                        self.group.file, self.group.name, rule.name
                    ));
                    state.health = RuleHealth::Err;
                    state.last_error = Some(message);
                }
            }
        }
    }
}

impl RuleState {
    /// Adds the end of every series that was written last time and is not written now.
    fn with_stale_markers(&mut self, mut samples: Vec<Sample>, at: Timestamp) -> Vec<Sample> {
        let written: Vec<Labels> = samples.iter().map(|sample| sample.labels.clone()).collect();
        let mut sorted = written.clone();
        sorted.sort();
        for gone in self.written.drain(..).filter(|labels| sorted.binary_search(labels).is_err()) {
            samples.push(Sample::new(gone, at, STALE_NAN));
        }
        self.written = written;
        samples
    }
}

/// One evaluation of one rule.
struct Step<'a> {
    rule: &'a Rule,
    at: Timestamp,
    read_at: Timestamp,
    limit: usize,
    language: Language,
    options: &'a RuleOptions,
    /// When rules were first evaluated since the start.
    first: Timestamp,
}

impl Step<'_> {
    fn query(&self, data: &dyn RuleData, expr: &str) -> Result<Vec<(Labels, f64)>, String> {
        match self.language {
            Language::PromQl => data.query(expr, self.read_at),
            Language::LogQl => data.query_logs(expr, self.read_at),
        }
    }

    fn record(&self, data: &dyn RuleData) -> Result<Vec<Sample>, String> {
        let mut samples: Vec<Sample> = Vec::new();
        let mut seen = BTreeSet::new();
        for (labels, value) in self.query(data, &self.rule.expr)? {
            let mut builder = labels.to_builder();
            builder.set(METRIC_NAME, self.rule.name.as_str());
            for (name, value) in &self.rule.labels {
                builder.set(name.as_str(), value.as_str());
            }
            let labels = builder.build();
            if !seen.insert(labels.clone()) {
                return Err("vector contains metrics with the same labelset after applying rule labels".to_owned());
            }
            samples.push(Sample::new(labels, self.read_at, value));
        }
        self.check_limit(samples.len(), "series")?;
        Ok(samples)
    }

    fn check_limit(&self, found: usize, what: &str) -> Result<(), String> {
        if self.limit > 0 && found > self.limit {
            return Err(format!("exceeded limit of {} with {found} {what}", self.limit));
        }
        Ok(())
    }

    fn alert(
        &self,
        state: &mut RuleState,
        data: &dyn RuleData,
        (hold, keep_firing): (Duration, Duration),
        changes: &mut Vec<StateChange>,
    ) -> Result<Vec<Sample>, String> {
        let mut found: BTreeMap<Fingerprint, ActiveAlert> = BTreeMap::new();
        for (labels, value) in self.query(data, &self.rule.expr)? {
            let alert = self.fresh(&labels, value, data);
            if found.insert(Fingerprint::of(&alert.labels), alert).is_some() {
                return Err("vector contains metrics with the same labelset after applying alert labels".to_owned());
            }
        }
        let before = state.alerts.clone();
        for (fingerprint, fresh) in &found {
            match state.alerts.get_mut(fingerprint) {
                Some(known) if known.phase != AlertPhase::Inactive => {
                    known.value = fresh.value;
                    known.annotations.clone_from(&fresh.annotations);
                }
                _ => {
                    state.alerts.insert(*fingerprint, fresh.clone());
                }
            }
        }
        state.alerts.retain(|fingerprint, alert| {
            if found.contains_key(fingerprint) {
                self.present(alert, hold);
                return true;
            }
            self.absent(alert, keep_firing);
            !self.is_forgotten(alert)
        });
        let active = state.alerts.values().filter(|alert| alert.phase != AlertPhase::Inactive).count();
        let limited = self.check_limit(active, "alerts");
        if limited.is_err() {
            state.alerts.clear();
        }
        collect_changes(&state.id, &before, &state.alerts, changes);
        limited?;
        Ok(self.samples(state))
    }

    fn fresh(&self, labels: &Labels, value: f64, data: &dyn RuleData) -> ActiveAlert {
        let query = |expr: &str| self.query(data, expr);
        let template_labels = Value::strings(labels.iter());
        let external_labels = Value::strings(self.options.external_labels.iter());
        let external_url = Value::Str(self.options.external_url.clone());
        let context = TemplateContext {
            dot: Value::object([
                ("Labels", template_labels.clone()),
                ("ExternalLabels", external_labels.clone()),
                ("ExternalURL", external_url.clone()),
                ("Value", Value::Float(value)),
            ]),
            variables: vec![
                ("labels", template_labels),
                ("externalLabels", external_labels),
                ("externalURL", external_url),
                ("value", Value::Float(value)),
            ],
            external_url: &self.options.external_url,
            query: Some(&query),
            now_seconds: self.at.secs_f64(),
        };
        // A template that fails must not silence the alert: the text says what went wrong.
        let expand = |template: &Template| {
            template.render(&context).unwrap_or_else(|error| format!("<error expanding template: {error}>"))
        };
        let mut builder = labels.without(&[METRIC_NAME]).to_builder();
        for (name, template) in &self.rule.label_templates {
            builder.set(name.as_str(), expand(template));
        }
        builder.set(ALERT_NAME, self.rule.name.as_str());
        let annotations = self.rule.annotation_templates.iter();
        ActiveAlert {
            phase: AlertPhase::Pending,
            labels: builder.build(),
            annotations: annotations.map(|(name, template)| (name.clone(), expand(template))).collect(),
            value,
            active_at: self.at,
            fired_at: None,
            resolved_at: None,
            keep_firing_since: None,
        }
    }

    fn present(&self, alert: &mut ActiveAlert, hold: Duration) {
        alert.keep_firing_since = None;
        let long_enough = self.at.since(alert.active_at) >= hold;
        match alert.phase {
            AlertPhase::Pending if long_enough => {
                alert.phase = AlertPhase::Firing;
                alert.fired_at = Some(self.at);
            }
            // `for` was raised by a reload.
            AlertPhase::Firing if !long_enough => {
                alert.phase = AlertPhase::Pending;
                alert.fired_at = None;
            }
            _ => {}
        }
    }

    fn absent(&self, alert: &mut ActiveAlert, keep_firing: Duration) {
        if alert.phase != AlertPhase::Firing {
            return;
        }
        let restored = alert.fired_at.is_some_and(|fired_at| fired_at < self.first);
        if restored && self.at.since(self.first) < RESTORED_GRACE {
            return;
        }
        if !keep_firing.is_zero() {
            let since = *alert.keep_firing_since.get_or_insert(self.at);
            if self.at.since(since) < keep_firing {
                return;
            }
        }
        alert.phase = AlertPhase::Inactive;
        alert.resolved_at = Some(self.at);
    }

    /// Whether an absent alert need not be remembered: it never fired, or it is over for long.
    fn is_forgotten(&self, alert: &ActiveAlert) -> bool {
        match alert.phase {
            AlertPhase::Inactive => alert.resolved_at.is_none_or(|end| self.at.since(end) > RESOLVED_RETENTION),
            AlertPhase::Pending => true,
            AlertPhase::Firing => false,
        }
    }

    fn samples(&self, state: &RuleState) -> Vec<Sample> {
        let mut samples = Vec::new();
        for alert in state.alerts.values().filter(|alert| alert.phase != AlertPhase::Inactive) {
            let mut builder = alert.labels.to_builder();
            builder.set(METRIC_NAME, "ALERTS_FOR_STATE");
            samples.push(Sample::new(builder.clone().build(), self.read_at, alert.active_at.secs_f64().floor()));
            builder.set(METRIC_NAME, "ALERTS");
            builder.set("alertstate", alert.phase.as_str());
            samples.push(Sample::new(builder.build(), self.read_at, 1.0));
        }
        samples
    }
}

fn row_key(rule_id: &str, fingerprint: Fingerprint) -> String {
    format!("{rule_id}/{fingerprint}")
}

/// Rows to write: alerts whose life changed, not those whose value alone did.
fn collect_changes(
    rule_id: &str,
    before: &BTreeMap<Fingerprint, ActiveAlert>,
    after: &BTreeMap<Fingerprint, ActiveAlert>,
    changes: &mut Vec<StateChange>,
) {
    let same = |a: &ActiveAlert, b: &ActiveAlert| {
        (a.phase, a.active_at, a.fired_at, a.resolved_at, a.keep_firing_since)
            == (b.phase, b.active_at, b.fired_at, b.resolved_at, b.keep_firing_since)
    };
    for (fingerprint, alert) in after {
        if !before.get(fingerprint).is_some_and(|known| same(known, alert)) {
            changes.push((row_key(rule_id, *fingerprint), Some(alert.clone())));
        }
    }
    for fingerprint in before.keys().filter(|fingerprint| !after.contains_key(fingerprint)) {
        changes.push((row_key(rule_id, *fingerprint), None));
    }
}
