//! Looking signs up: proven with the records that prove it, not found though it would have been seen, or not observed
//! because its source was not there. The last is never taken for absence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::model::incident::Evidence;
use crate::model::{Labels, LogRecord, Matcher, Timestamp};
use crate::query::logql::{self, LogExpr};
use crate::query::promql::ast::ExprKind;
use crate::query::promql::{self, RangeSpec, SeriesSource};

use super::file::{Around, Look, Sign};
use super::links;
use super::scene::{Pulse, Scene};
use super::variables::{Bindings, Variable};

/// Records that one sign shows at most.
const SHOWN_MAX: usize = 3;
/// Characters of a record that are shown.
const TEXT_CHARS_MAX: usize = 300;
/// A silence is longer than this many of the stream's usual pauses.
const PAUSES: f64 = 1.8;
/// Pauses that are needed to know which are usual.
const PAUSES_MIN: usize = 2;
const SAMPLE_STEP: Duration = Duration::from_secs(5);
const SAMPLES_TIMEOUT: Duration = Duration::from_millis(500);

/// What became of a sign.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Finding {
    Proven(Proof),
    /// Its source was there and does not show it.
    NotFound,
    /// Why it could not be seen.
    Unobserved(String),
}

/// A sign that is there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proof {
    /// When it first showed.
    pub(super) at: Timestamp,
    pub(super) evidence: Vec<Evidence>,
}

/// Looks a sign up for one set of values.
pub(super) fn look_up(sign: &Sign, scene: &Scene, metrics: Option<&dyn SeriesSource>, bindings: &Bindings) -> Finding {
    let anchor = match sign.around {
        Around::Opening => scene.opened_at,
        Around::Takeover => scene.taken_over_at.unwrap_or(scene.opened_at),
    };
    let shifted = |offset: i64| Timestamp(anchor.0.saturating_add(offset));
    let window = (shifted(sign.from_ns).max(scene.start), shifted(sign.to_ns).min(scene.end));
    let search = Search { sign, scene, bindings: bindings.with_window(window.0, window.1), window };
    let found = match &sign.look {
        Look::Lines { any_of, at_least, members, absent } => search.lines(any_of, (*at_least, *members), *absent),
        Look::Silence { selector, at_least } => search.silence(selector, *at_least),
        Look::Samples { expr, absent } => search.samples(expr, metrics, *absent),
    };
    found.unwrap_or_else(|variable| Finding::Unobserved(not_known(variable)))
}

fn not_known(variable: Variable) -> String {
    let what = match variable {
        Variable::NewLeader => "who took over",
        Variable::Leader | Variable::Member => "who led before",
        Variable::Cluster | Variable::Start | Variable::End => "the window",
    };
    format!("it is not known {what}")
}

struct Search<'a> {
    sign: &'a Sign,
    scene: &'a Scene,
    bindings: Bindings,
    window: (Timestamp, Timestamp),
}

impl Search<'_> {
    fn says(&self) -> String {
        self.bindings.show(&self.sign.says)
    }

    fn evidence(&self, source: &str, time: Timestamp, text: String, link: String) -> Evidence {
        Evidence { source: source.to_owned(), time, text, link: Some(link), sign: self.says() }
    }

    /// The error is the variable that has no value.
    fn lines(&self, any_of: &[String], (at_least, members): (usize, usize), absent: bool) -> Result<Finding, Variable> {
        let mut hits: BTreeSet<usize> = BTreeSet::new();
        let mut streams: Vec<(&(String, String), &Pulse)> = Vec::new();
        for text in any_of {
            // It was checked with the file; a value can only make a regular expression of it too large.
            let Ok(logql::Expr::Log(expr)) = logql::parse(&self.bindings.fill(text)?) else { continue };
            hits.extend(self.hits(&expr));
            streams.extend(self.streams(&expr.matchers));
        }
        let mut lines_of: BTreeMap<&str, usize> = BTreeMap::new();
        for record in hits.iter().filter_map(|index| self.scene.records.get(*index)) {
            *lines_of.entry(member_of(record)).or_default() += 1;
        }
        let enough = lines_of.values().filter(|lines| **lines >= at_least).count() >= members;
        let flowing: BTreeSet<&str> =
            streams.iter().filter(|(_, pulse)| self.flows(pulse)).map(|((_, member), _)| member.as_str()).collect();
        if enough {
            return Ok(if absent { Finding::NotFound } else { Finding::Proven(self.proof(&hits)) });
        }
        if flowing.len() < members {
            return Ok(Finding::Unobserved(self.silent_source(any_of, &streams)));
        }
        if absent && hits.is_empty() {
            let sources: BTreeSet<String> = streams.iter().map(|(key, _)| stream_name(key)).collect();
            let text = format!("no such line of {}", sources.into_iter().collect::<Vec<_>>().join(", "));
            let source = streams.first().map_or("", |((source, _), _)| source.as_str());
            let link = links::logs(self.bindings.get(Variable::Cluster).unwrap_or(""), "", source, self.window.0);
            let at = self.scene.opened_at.min(self.window.1);
            return Ok(Finding::Proven(Proof { at, evidence: vec![self.evidence(source, at, text, link)] }));
        }
        Ok(Finding::NotFound)
    }

    fn hits(&self, expr: &LogExpr) -> Vec<usize> {
        let (engine, records) = (logql::Engine::default(), &self.scene.records);
        let fits = |index: usize| {
            let Some(record) = records.get(index) else { return false };
            record.at >= self.window.0 && record.at < self.window.1 && engine.line(expr, record).is_some()
        };
        match expr.required_values("event") {
            Some(events) => {
                let indices = events.iter().filter_map(|event| self.scene.by_event.get(event)).flatten();
                indices.copied().filter(|index| fits(*index)).collect()
            }
            None => (0..records.len()).filter(|index| fits(*index)).collect(),
        }
    }

    /// Streams that the matchers mean, whatever their severity.
    fn streams(&self, matchers: &[Matcher]) -> Vec<(&(String, String), &Pulse)> {
        let cluster = self.bindings.get(Variable::Cluster).unwrap_or("");
        let names = ["cluster", "member", "source"];
        let fits = |(source, member): &(String, String)| {
            let labels = Labels::from_pairs([("cluster", cluster), ("member", member), ("source", source)]);
            matchers.iter().filter(|matcher| names.contains(&matcher.name.as_str())).all(|m| m.matches(&labels))
        };
        self.scene.streams.iter().filter(|(key, _)| fits(key)).collect()
    }

    /// Whether the stream still wrote when the sign was due, so that its not being there means something.
    fn flows(&self, pulse: &Pulse) -> bool {
        pulse.last >= self.scene.opened_at.min(self.window.1)
    }

    fn silent_source(&self, any_of: &[String], streams: &[(&(String, String), &Pulse)]) -> String {
        if let Some((key, pulse)) = streams.iter().max_by_key(|(_, pulse)| pulse.last) {
            return format!("nothing of {} after {}", stream_name(key), clock(pulse.last));
        }
        let wanted = any_of.first().and_then(|text| self.bindings.fill(text).ok()).unwrap_or_default();
        let selector = wanted.split_once('}').map_or(wanted.as_str(), |(head, _)| head);
        format!("no log of {selector}}}")
    }

    fn proof(&self, hits: &BTreeSet<usize>) -> Proof {
        let all: Vec<&LogRecord> = hits.iter().filter_map(|index| self.scene.records.get(*index)).collect();
        let at = all.iter().map(|record| record.at).min().unwrap_or(self.window.0);
        // The first ones, and the last: from when, and until when.
        let mut shown: Vec<&LogRecord> = all.iter().take(SHOWN_MAX - 1).copied().collect();
        shown.extend(all.get(SHOWN_MAX - 1..).and_then(<[_]>::last).copied());
        let evidence = shown.into_iter().map(|record| {
            let source = record.stream.get("source").unwrap_or("");
            let member = member_of(record);
            let cluster = self.bindings.get(Variable::Cluster).unwrap_or("");
            let text =
                if member.is_empty() { shorten(&record.line) } else { format!("{member}: {}", shorten(&record.line)) };
            self.evidence(source, record.at, text, links::logs(cluster, member, source, record.at))
        });
        Proof { at, evidence: evidence.collect() }
    }

    fn silence(&self, selector: &str, at_least: Duration) -> Result<Finding, Variable> {
        let Ok(matchers) = logql::parse_selector(&self.bindings.fill(selector)?) else { return Ok(Finding::NotFound) };
        let streams = self.streams(&matchers);
        if streams.is_empty() {
            let selector = self.bindings.fill(selector)?;
            return Ok(Finding::Unobserved(format!("no log of {selector}")));
        }
        let mut known = false;
        for (key, pulse) in streams {
            let Some(threshold) =
                usual_pause(pulse, self.scene.opened_at).map(|usual| at_least.max(usual.mul_f64(PAUSES)))
            else {
                continue;
            };
            known = true;
            if let Some((from, to)) = self.gap(key, pulse, threshold) {
                let length = to.since(from).as_secs_f64();
                let goes_on = if to >= self.scene.end { "to the end" } else { "then it wrote again" };
                let text =
                    format!("{} wrote nothing from {} for {length:.0} s, {goes_on}", stream_name(key), clock(from));
                let cluster = self.bindings.get(Variable::Cluster).unwrap_or("");
                let link = links::logs(cluster, &key.1, &key.0, from);
                return Ok(Finding::Proven(Proof {
                    at: from,
                    evidence: vec![self.evidence(&key.0, from, text, link)],
                }));
            }
        }
        Ok(if known { Finding::NotFound } else { Finding::Unobserved("the stream wrote too rarely".to_owned()) })
    }

    /// The first pause inside the window that is long enough and in which somebody else wrote.
    fn gap(&self, key: &(String, String), pulse: &Pulse, threshold: Duration) -> Option<(Timestamp, Timestamp)> {
        let ends = pulse.times.iter().skip(1).copied().chain(std::iter::once(self.scene.end));
        pulse.times.iter().copied().zip(ends).find(|(from, to)| {
            *from >= self.window.0 && *from < self.window.1 && to.since(*from) >= threshold && {
                let others = self.scene.streams.iter().filter(|((_, member), _)| *member != key.1);
                others.flat_map(|(_, other)| &other.times).any(|at| at > from && at < to)
            }
        })
    }

    fn samples(&self, expr: &str, metrics: Option<&dyn SeriesSource>, absent: bool) -> Result<Finding, Variable> {
        let text = self.bindings.fill(expr)?;
        let (Some(source), Ok(parsed)) = (metrics, promql::parse(&text)) else {
            return Ok(Finding::Unobserved("no metrics".to_owned()));
        };
        if self.window.0 >= self.window.1 {
            return Ok(Finding::Unobserved("its time has not come".to_owned()));
        }
        let mut there = true;
        parsed.walk(&mut |part| {
            if let ExprKind::Selector(selector) | ExprKind::Range { selector, .. } = &part.kind {
                let found = source.series(&selector.matchers, self.window.0.millis(), self.window.1.millis());
                there &= found.is_ok_and(|series| !series.is_empty());
            }
        });
        if !there {
            return Ok(Finding::Unobserved(format!("no samples for {text}")));
        }
        let spec = RangeSpec { start: self.window.0, end: self.window.1, step: SAMPLE_STEP };
        let limits = promql::Limits { timeout: Some(SAMPLES_TIMEOUT), ..promql::Limits::default() };
        let series = match promql::Engine::default().range(source, &parsed, spec, &limits).map(|output| output.value) {
            Ok(promql::Value::Matrix(series)) => series,
            Ok(_) => Vec::new(),
            Err(error) => return Ok(Finding::Unobserved(format!("{text}: {error}"))),
        };
        let first =
            series.iter().filter_map(|one| Some((one.points.first()?, &one.labels))).min_by_key(|(p, _)| p.at_ms);
        let link = links::metrics(&text, self.window);
        Ok(match (first, absent) {
            (Some((point, labels)), false) => {
                let at = Timestamp::from_millis(point.at_ms);
                let text = format!("{labels} = {}", point.value);
                Finding::Proven(Proof { at, evidence: vec![self.evidence("metrics", at, text, link)] })
            }
            (None, true) => {
                let at = self.window.0;
                let text = format!("never in this time: {text}");
                Finding::Proven(Proof { at, evidence: vec![self.evidence("metrics", at, text, link)] })
            }
            _ => Finding::NotFound,
        })
    }
}

/// The median pause of a stream before the opening; `None` when there are too few to tell.
fn usual_pause(pulse: &Pulse, opened_at: Timestamp) -> Option<Duration> {
    let before = pulse.times.iter().zip(pulse.times.iter().skip(1)).take_while(|(_, at)| **at <= opened_at);
    let mut pauses: Vec<Duration> = before.map(|(from, to)| to.since(*from)).collect();
    if pauses.len() < PAUSES_MIN {
        return None;
    }
    pauses.sort();
    pauses.get((pauses.len() - 1) / 2).copied()
}

fn member_of(record: &LogRecord) -> &str {
    record.stream.get("member").unwrap_or("")
}

fn stream_name((source, member): &(String, String)) -> String {
    if member.is_empty() { format!("{source}'s log") } else { format!("{member}'s {source} log") }
}

/// The time of day, as logs show it.
fn clock(at: Timestamp) -> String {
    let text = at.to_rfc3339_millis();
    text.get(11..23).unwrap_or(&text).to_owned()
}

fn shorten(line: &str) -> String {
    let first = line.lines().next().unwrap_or("").trim();
    let mut text: String = first.chars().take(TEXT_CHARS_MAX).collect();
    if text.len() < first.len() {
        text.push('…');
    }
    text
}
