//! Causes: why an incident happened, with what proves it, what speaks against it and what could not be seen.
//!
//! Causes are data (`alerts/causes/*.yml`, documented in `docs/causes.md`). An incident's window of logs is read once
//! ([`scene`]), each cause that explains what happened is assessed for each member that it may be about ([`signs`]),
//! and the assessments are ranked ([`rank`]).
//!
//! The rule, in which a wrong confident verdict is the worst outcome:
//!
//! - A sign is *proven* by records or samples; *not found* when its source was alive after the opening (or the end of
//!   the sign's window) and does not show it; otherwise *not observed*. What was not observed never counts as absent:
//!   also `absent: true` holds only while the source was alive.
//! - A cause whose required sign is not found is out. Its score is (proven - against) / (proven + not found + half of
//!   what was not observed), in weights. Under 0.3 it is out.
//! - *High* needs all required signs proven, the order of signs kept (clocks may differ by 2 s), nothing strong against
//!   it, a score of 0.7, a known member, and a lead of 0.15 before the runner-up, unless that is its symptom or is
//!   superseded by it. *Medium* needs all required signs proven, nothing strong against it and 0.5. The rest is *low*.
//! - An incident is about the gravest of its effects ([`effects`]). A cause that explains only lesser ones is an aside:
//!   never surer than low, and behind all others.
//! - No effect, or no cause above the threshold: there is no verdict, and that is said, with what is missing.

pub mod effects;
mod file;
mod links;
mod rank;
mod scene;
pub mod shipped;
mod signs;
pub mod test_runner;
mod variables;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use tokio_util::sync::CancellationToken;

use crate::model::incident::{Confidence, Verdict};
use crate::model::{LogRecord, Matcher, Timestamp};
use crate::platform::yaml::Problem;
use crate::query::logql;
use crate::query::promql::SeriesSource;
use crate::store::logs::{Budget, LogQuery, LogStore, LogStoreError};

pub use file::{About, Around, CauseRule, LOOK_BACK_MAX, Look, Sign, load};
pub use scene::Case;

use rank::Assessment;
use scene::{Interest, Reader, Scene};
use variables::{Bindings, Variable};

/// Bytes of logs that one assessment reads at most.
const READ_BYTES_MAX: u64 = 256 << 20;
/// Missing pieces that a verdict without a cause lists at most.
const MISSING_MAX: usize = 12;

/// The records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CauseError {
    #[error("read the logs of the incident")]
    Logs(#[from] LogStoreError),
}

/// Where records come from, in order of time.
pub trait CaseLogs {
    /// Hands over every record of the cluster in `[start, end)`.
    fn visit(
        &self,
        cluster: &str,
        range: (Timestamp, Timestamp),
        each: &mut dyn FnMut(&LogRecord),
    ) -> Result<(), CauseError>;
}

impl CaseLogs for LogStore {
    fn visit(
        &self,
        cluster: &str,
        (start, end): (Timestamp, Timestamp),
        each: &mut dyn FnMut(&LogRecord),
    ) -> Result<(), CauseError> {
        let mut query = LogQuery::new(vec![Matcher::equal("cluster", cluster)], start, end);
        query.budget = Budget { bytes_max: READ_BYTES_MAX, stop: CancellationToken::new() };
        let read = self.search(&query, &mut |_, record| {
            each(record);
            ControlFlow::Continue(())
        });
        match read {
            // What was read is judged; the rest is as if it had not been observed.
            Ok(_) | Err(LogStoreError::BudgetExceeded { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Records in order of time.
impl CaseLogs for [LogRecord] {
    fn visit(
        &self,
        cluster: &str,
        (start, end): (Timestamp, Timestamp),
        each: &mut dyn FnMut(&LogRecord),
    ) -> Result<(), CauseError> {
        let inside = |record: &&LogRecord| record.at >= start && record.at < end;
        self.iter().filter(inside).filter(|record| record.stream.get("cluster") == Some(cluster)).for_each(each);
        Ok(())
    }
}

/// All causes that are known.
#[derive(Debug, Default)]
pub struct Catalogue {
    causes: Vec<CauseRule>,
    interest: Interest,
}

impl Catalogue {
    /// The causes of several files, each with its name and text. All problems of all files at once.
    pub fn load<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Vec<Problem>> {
        let (mut causes, mut problems): (Vec<CauseRule>, Vec<Problem>) = (Vec::new(), Vec::new());
        let mut last = "";
        for (name, text) in files {
            last = name;
            match load(name, text) {
                Ok(more) => causes.extend(more),
                Err(more) => problems.extend(more),
            }
        }
        if problems.is_empty() {
            let dangling = file::dangling(&causes).into_iter();
            problems.extend(dangling.map(|message| Problem { file: last.to_owned(), line: 1, column: 1, message }));
        }
        if problems.is_empty() { Ok(Self::new(causes)) } else { Err(problems) }
    }

    fn new(causes: Vec<CauseRule>) -> Self {
        let mut interest = Interest::default();
        let signs = causes.iter().flat_map(|cause| cause.signs.iter().chain(&cause.against));
        for sign in signs {
            let Look::Lines { any_of, .. } = &sign.look else { continue };
            for text in any_of {
                let Ok(logql::Expr::Log(expr)) = logql::parse(&variables::with_examples(text)) else { continue };
                if let Some(events) = expr.required_values("event") {
                    interest.events.extend(events);
                } else {
                    let sources = expr.matchers.iter().filter(|matcher| matcher.name == "source");
                    interest.sources.extend(sources.flat_map(|m| m.value.split('|').map(str::to_owned)));
                }
            }
        }
        Self { causes, interest }
    }

    /// Names of all causes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.causes.iter().map(|cause| cause.name.as_str())
    }

    /// Why it happened, as far as the logs and metrics tell.
    pub fn explain(
        &self,
        case: &Case<'_>,
        logs: &(impl CaseLogs + ?Sized),
        metrics: Option<&dyn SeriesSource>,
    ) -> Result<Verdict, CauseError> {
        let mut reader = Reader::new(case, &self.interest);
        logs.visit(case.cluster, (case.start, case.end), &mut |record| reader.record(record))?;
        let scene = reader.finish();
        let mut assessments = Vec::new();
        for rule in &self.causes {
            assess(rule, case, &scene, metrics, &mut assessments);
        }
        let missing = missing(&assessments, &scene);
        let causes = rank::rank(assessments);
        let text = text(&causes, &scene);
        Ok(Verdict { text, causes, missing })
    }
}

/// Assesses a cause for every member that it may be about, if it explains anything of what happened.
fn assess<'a>(
    rule: &'a CauseRule,
    case: &Case<'_>,
    scene: &Scene,
    metrics: Option<&dyn SeriesSource>,
    assessments: &mut Vec<Assessment<'a>>,
) {
    let explained = rule.explains.iter().filter_map(|effect| scene.effects.get(effect)).map(|seen| seen.gravity).max();
    let Some(explained) = explained else { return };
    let others = || scene.members.iter().filter(|member| Some(*member) != scene.leader.as_ref()).cloned();
    let (members, is_guess): (Vec<Option<String>>, bool) = match (rule.about, &scene.leader) {
        (About::Cluster, _) => (vec![None], false),
        (About::Leader, Some(leader)) => (vec![Some(leader.clone())], false),
        (About::Leader, None) => (scene.members.iter().cloned().map(Some).collect(), true),
        (About::Replica, leader) => (others().map(Some).collect(), leader.is_none()),
        (About::Member, _) => (scene.members.iter().cloned().map(Some).collect(), false),
    };
    for member in members {
        let mut bindings = Bindings::default();
        bindings.set(Variable::Cluster, case.cluster);
        for (variable, value) in
            [(Variable::Member, &member), (Variable::Leader, &scene.leader), (Variable::NewLeader, &scene.new_leader)]
        {
            if let Some(value) = value {
                bindings.set(variable, value.as_str());
            }
        }
        let find = |sign: &Sign| signs::look_up(sign, scene, metrics, &bindings);
        let (signs, against) = (rule.signs.iter().map(find).collect(), rule.against.iter().map(find).collect());
        let is_aside = Some(explained) < scene.gravity();
        assessments.push(Assessment { rule, member, bindings, signs, against, is_aside, is_guess });
    }
}

/// What could not be seen and would have told more.
fn missing(assessments: &[Assessment<'_>], scene: &Scene) -> Vec<String> {
    let mut missing: BTreeSet<String> = BTreeSet::new();
    for assessment in assessments.iter().filter(|assessment| !assessment.is_aside) {
        for (sign, finding) in assessment.rule.signs.iter().zip(&assessment.signs) {
            if let (true, signs::Finding::Unobserved(why)) = (sign.required, finding) {
                missing.insert(why.clone());
            }
        }
    }
    let mut list: Vec<String> = missing.into_iter().take(MISSING_MAX).collect();
    if scene.left_out > 0 {
        list.push(format!("{} log records were too many to look at", scene.left_out));
    }
    list
}

fn text(causes: &[crate::model::incident::Cause], scene: &Scene) -> String {
    match causes.first() {
        Some(cause) if cause.confidence == Confidence::High => cause.title.clone(),
        Some(cause) if cause.confidence == Confidence::Medium => format!("Probably: {}", cause.title),
        Some(cause) => format!("Not enough evidence. A possible cause: {}", cause.title),
        None if scene.effects.is_empty() => "Nothing that needs a cause was found".to_owned(),
        None => "Not enough evidence for any known cause".to_owned(),
    }
}

#[cfg(test)]
mod tests;
