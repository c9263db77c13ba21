//! Ranking: assessed causes in, a verdict out. Pure; the rule stands at the top of [`super`].

use std::cmp::Ordering;

use crate::model::Timestamp;
use crate::model::incident::{Cause, Confidence, Evidence};

use super::file::{CauseRule, Sign};
use super::signs::Finding;
use super::variables::Bindings;

/// Members' clocks may differ by this much before an order is wrong.
const SKEW_NS: i64 = 2_000_000_000;
const HIGH_MIN: f64 = 0.7;
const MEDIUM_MIN: f64 = 0.5;
const LOW_MIN: f64 = 0.3;
/// The runner-up of a sure cause is behind by this much.
const LEAD_MIN: f64 = 0.15;
/// A sign that could not be observed counts this much of one that is not there.
const UNOBSERVED_SHARE: f64 = 0.5;
/// Causes of one verdict at most.
const CAUSES_MAX: usize = 8;
/// Pieces of evidence of one cause at most.
const EVIDENCE_MAX: usize = 24;

/// A cause with what became of its signs, for one member.
#[derive(Debug)]
pub(super) struct Assessment<'a> {
    pub(super) rule: &'a CauseRule,
    pub(super) member: Option<String>,
    pub(super) bindings: Bindings,
    /// In the order of the rule's signs.
    pub(super) signs: Vec<Finding>,
    pub(super) against: Vec<Finding>,
    /// It explains only what is less grave than what happened.
    pub(super) is_aside: bool,
    /// The member is a guess: it is not known who led.
    pub(super) is_guess: bool,
}

/// An assessment with its place.
#[derive(Debug)]
struct Ranked<'a> {
    assessment: Assessment<'a>,
    score: f64,
    confidence: Confidence,
    /// The ranked cause that brings it about.
    root: Option<String>,
}

/// The causes that are worth telling, the likeliest first.
pub(super) fn rank(assessments: Vec<Assessment<'_>>) -> Vec<Cause> {
    let mut ranked: Vec<Ranked<'_>> = assessments.into_iter().filter_map(weigh).collect();
    ranked.sort_by(order);
    // Of one cause the likeliest member counts; several of the same likelihood are told each.
    let best: Vec<(String, f64)> = best_scores(&ranked);
    ranked.retain(|one| best.iter().any(|(name, score)| *name == one.assessment.rule.name && one.score >= *score));
    drop_superseded(&mut ranked);
    find_roots(&mut ranked);
    ranked.sort_by(|a, b| a.root.is_some().cmp(&b.root.is_some()).then_with(|| order(a, b)));
    temper(&mut ranked);
    ranked.sort_by(|a, b| a.root.is_some().cmp(&b.root.is_some()).then_with(|| order(a, b)));
    ranked.truncate(CAUSES_MAX);
    ranked.into_iter().map(Ranked::into_cause).collect()
}

fn order(a: &Ranked<'_>, b: &Ranked<'_>) -> Ordering {
    let aside = a.assessment.is_aside.cmp(&b.assessment.is_aside);
    let sure = b.confidence.cmp(&a.confidence);
    aside
        .then(sure)
        .then_with(|| b.score.total_cmp(&a.score))
        .then_with(|| a.assessment.rule.name.cmp(&b.assessment.rule.name))
}

fn best_scores(ranked: &[Ranked<'_>]) -> Vec<(String, f64)> {
    let mut best: Vec<(String, f64)> = Vec::new();
    for one in ranked {
        let name = &one.assessment.rule.name;
        match best.iter_mut().find(|(known, _)| known == name) {
            Some((_, score)) => *score = score.max(one.score),
            None => best.push((name.clone(), one.score)),
        }
    }
    best
}

/// `None` when the cause is out: a required sign is not there, or too little is.
fn weigh(assessment: Assessment<'_>) -> Option<Ranked<'_>> {
    let rule = assessment.rule;
    let (mut proven, mut not_found, mut unobserved, mut against) = (0.0, 0.0, 0.0, 0.0);
    let mut all_required = true;
    for (sign, finding) in rule.signs.iter().zip(&assessment.signs) {
        match finding {
            Finding::Proven(_) => proven += sign.weight,
            Finding::NotFound if sign.required => return None,
            Finding::NotFound => not_found += sign.weight,
            Finding::Unobserved(_) => {
                all_required &= !sign.required;
                unobserved += sign.weight;
            }
        }
    }
    let mut refuted = false;
    for (sign, finding) in rule.against.iter().zip(&assessment.against) {
        if matches!(finding, Finding::Proven(_)) {
            against += sign.weight;
            refuted |= sign.strong;
        }
    }
    let score = ((proven - against) / (proven + not_found + UNOBSERVED_SHARE * unobserved)).clamp(0.0, 1.0);
    let in_order = is_in_order(rule, &assessment.signs);
    let confidence = if refuted || assessment.is_aside || !all_required {
        Confidence::Low
    } else if score >= HIGH_MIN && in_order && !assessment.is_guess {
        Confidence::High
    } else if score >= MEDIUM_MIN {
        Confidence::Medium
    } else {
        Confidence::Low
    };
    let confidence = confidence.min(rule.at_most);
    (proven > 0.0 && score >= LOW_MIN).then_some(Ranked { assessment, score, confidence, root: None })
}

fn is_in_order(rule: &CauseRule, findings: &[Finding]) -> bool {
    let at = |id: &String| {
        let index = rule.signs.iter().position(|sign| sign.id == *id)?;
        match findings.get(index)? {
            Finding::Proven(proof) => Some(proof.at),
            _ => None,
        }
    };
    let times: Vec<Timestamp> = rule.order.iter().filter_map(at).collect();
    times.iter().zip(times.iter().skip(1)).all(|(first, then)| first.0 <= then.0 + SKEW_NS)
}

/// Whether the first can push the second aside: it is at least as sure.
fn outweighs(one: &Ranked<'_>, other: &Ranked<'_>) -> bool {
    one.confidence >= Confidence::Medium && one.confidence >= other.confidence && !one.assessment.is_aside
}

fn drop_superseded(ranked: &mut Vec<Ranked<'_>>) {
    let gone: Vec<usize> = (0..ranked.len())
        .filter(|index| {
            let Some(other) = ranked.get(*index) else { return false };
            let name = &other.assessment.rule.name;
            ranked.iter().any(|one| one.assessment.rule.supersedes.contains(name) && outweighs(one, other))
        })
        .collect();
    let mut index = 0;
    ranked.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
}

fn find_roots(ranked: &mut [Ranked<'_>]) {
    let roots: Vec<Option<String>> = ranked
        .iter()
        .map(|other| {
            let brought_about = &other.assessment.rule.symptom_of;
            let root = ranked.iter().find(|one| {
                brought_about.contains(&one.assessment.rule.name)
                    && one.confidence >= Confidence::Medium
                    && !one.assessment.is_aside
            });
            root.map(|root| root.assessment.rule.name.clone())
        })
        .collect();
    for (one, root) in ranked.iter_mut().zip(roots) {
        one.root = root;
    }
}

/// Two causes that are nearly as likely cannot both be sure; neither is.
fn temper(ranked: &mut [Ranked<'_>]) {
    let mut rivals = ranked.iter().filter(|one| one.root.is_none() && !one.assessment.is_aside);
    let (Some(first), Some(second)) = (rivals.next(), rivals.next()) else { return };
    let is_close = second.confidence >= Confidence::Medium && first.score - second.score < LEAD_MIN;
    if is_close && first.assessment.rule.name != second.assessment.rule.name {
        for one in ranked.iter_mut().filter(|one| one.root.is_none()) {
            one.confidence = one.confidence.min(Confidence::Medium);
        }
    }
}

impl Ranked<'_> {
    fn into_cause(self) -> Cause {
        let Assessment { rule, member, bindings, signs, against, .. } = self.assessment;
        let mut evidence: Vec<Evidence> = proofs(&signs).collect();
        evidence.sort_by_key(|one| one.time);
        evidence.truncate(EVIDENCE_MAX);
        let mut refuting: Vec<Evidence> = proofs(&against).collect();
        refuting.truncate(EVIDENCE_MAX);
        Cause {
            name: rule.name.clone(),
            title: bindings.show(&rule.title),
            member,
            confidence: self.confidence,
            score: (self.score * 100.0).round() / 100.0,
            evidence,
            against: refuting,
            missing: missing(&rule.signs, &signs, &bindings),
            symptom_of: self.root,
            advice: bindings.show(&rule.advice),
            reopens: rule.reopens,
        }
    }
}

fn proofs(findings: &[Finding]) -> impl Iterator<Item = Evidence> {
    findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::Proven(proof) => Some(proof.evidence.clone()),
            _ => None,
        })
        .flatten()
}

/// Signs that were looked for and not found, and those that could not be seen.
fn missing(signs: &[Sign], findings: &[Finding], bindings: &Bindings) -> Vec<String> {
    let text = |(sign, finding): (&Sign, &Finding)| match finding {
        Finding::Proven(_) => None,
        Finding::NotFound => Some(format!("not found: {}", bindings.show(&sign.says))),
        Finding::Unobserved(why) => Some(format!("not observed: {} ({why})", bindings.show(&sign.says))),
    };
    signs.iter().zip(findings).filter_map(text).collect()
}
