//! Patroni's REST API of one member.
//!
//! Invariant: one request in flight per Patroni, each on a fresh connection: its server is tiny, and a kept connection
//! hides a hung one.

pub(crate) mod parse;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::collect::config::HttpUrl;
use crate::collect::directory::Directory;
use crate::collect::exposition::{self, Page};
use crate::collect::poll::{CollectError, Collector, Found, Said};
use crate::model::labels::METRIC_NAME;
use crate::model::observation::{Claim, FailureKind};
use crate::model::{Labels, Sample, Timestamp};
use crate::platform::clock::Clock;
use crate::platform::error::chain;
use crate::platform::http_client::{HttpAnswer, HttpClient};

/// Patroni itself gives peers 2 s in an election; a little less, so that a hanging one delays no next question.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_millis(1900);
/// Enough for a `/cluster` of hundreds of members and a long `/history`.
pub(crate) const BODY_BYTES_MAX: usize = 4 << 20;
/// Interval of `/patroni`, and of `/cluster` over all members together.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);
/// One request, which has a deadline of its own.
pub(crate) const DEADLINE: Duration = Duration::from_secs(3);
const METRICS_EVERY: Duration = Duration::from_secs(10);
const CONFIG_EVERY: Duration = Duration::from_secs(30);

/// Whose Patroni it is.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) member: String,
    pub(crate) labels: Labels,
    pub(crate) directory: Arc<Directory>,
}

/// Asks one Patroni.
#[derive(Debug)]
pub(crate) struct PatroniCollector {
    http: HttpClient,
    clock: Clock,
    url: HttpUrl,
    member: String,
    labels: Labels,
    directory: Arc<Directory>,
    metrics_at: Option<Instant>,
    config_at: Option<Instant>,
    history_at: Option<Instant>,
    is_view_first: bool,
    /// What was not answered besides the status, by question, until it is.
    problems: BTreeMap<&'static str, CollectError>,
}

impl PatroniCollector {
    pub(crate) fn new(http: HttpClient, clock: Clock, url: HttpUrl, at: Place) -> Self {
        let Place { member, labels, directory } = at;
        Self {
            http,
            clock,
            url,
            member,
            labels,
            directory,
            metrics_at: None,
            config_at: None,
            history_at: None,
            is_view_first: false,
            problems: BTreeMap::new(),
        }
    }

    async fn status(&self) -> Result<Said, CollectError> {
        let sent = self.clock.now();
        let answer = self.http.get(&self.url.join("/patroni")).await?;
        let between = Some((sent, self.clock.now()));
        let (status, identity) =
            parse::status(&answer.body).map_err(|error| not_patroni(&answer, &self.url, &error))?;
        if let Some(scope) = identity.scope
            && scope != self.directory.scope()
        {
            let error = format!("{} belongs to scope {scope:?} now, not to {:?}", self.url, self.directory.scope());
            return Err(CollectError::new(FailureKind::Other, error).with_hint(
                "if the host was given to another cluster, list that one under clusters: with a Patroni URL of its own",
            ));
        }
        if let Some(name) = identity.name
            && name != self.member
        {
            let error = format!("{} is member {name:?} now, not {:?}", self.url, self.member);
            return Err(CollectError::new(FailureKind::Other, error)
                .with_hint("check that each member's restapi.connect_address is its own"));
        }
        Ok(Said { claim: Claim::Patroni(status), between })
    }

    async fn cluster_view(&self) -> Result<Said, CollectError> {
        let sent = self.clock.now();
        let answer = self.http.get(&self.url.join("/cluster")).await?;
        let between = Some((sent, self.clock.now()));
        let view = parse::cluster(&answer.body).map_err(|error| not_patroni(&answer, &self.url, &error))?;
        self.directory.learn_from_view(&view);
        Ok(Said { claim: Claim::ClusterView(view), between })
    }

    /// `/metrics` under Patroni's own names and labels, plus ours.
    async fn metrics(&self, at: Timestamp) -> Result<Page, CollectError> {
        let answer = self.http.get(&self.url.join("/metrics")).await?;
        if answer.status != 200 {
            let error = format!("{}/metrics answered HTTP {}", self.url, answer.status);
            return Err(CollectError::new(FailureKind::Other, error));
        }
        exposition::read(&answer, &self.labels, at)
    }

    /// Dynamic configuration as samples.
    async fn config(&self, at: Timestamp) -> Result<Vec<Sample>, CollectError> {
        let answer = self.http.get(&self.url.join("/config")).await?;
        let config = parse::config(&answer.body).map_err(|error| not_patroni(&answer, &self.url, &error))?;
        Ok(config.into_iter().map(|(name, value)| self.sample(name, at, value)).collect())
    }

    /// The history's length and last line as samples.
    async fn history(&self, at: Timestamp) -> Result<Vec<Sample>, CollectError> {
        let answer = self.http.get(&self.url.join("/history")).await?;
        let history = parse::history(&answer.body).map_err(|error| not_patroni(&answer, &self.url, &error))?;
        let mut samples = vec![self.sample("daraji_patroni_history_lines", at, history.len() as f64)];
        if let Some(last) = history.last().and_then(|line| line.at) {
            samples.push(self.sample("patroni_last_timeline_change_seconds", at, last.secs_f64()));
        }
        Ok(samples)
    }

    fn sample(&self, name: &str, at: Timestamp, value: f64) -> Sample {
        Sample::new(self.labels.with(METRIC_NAME, name), at, value)
    }
}

impl Collector for PatroniCollector {
    async fn collect(&mut self, _at: Timestamp) -> Result<Found, CollectError> {
        let status = self.status().await?;
        let problem = self.problems.values().next().cloned();
        Ok(Found { claims: vec![status], problem, ..Found::default() })
    }

    /// One question each time, so that the next status is asked for in time even where each takes as long as it may.
    /// Every other time `/cluster` goes first, else what is due rarely.
    async fn collect_more(&mut self, at: Timestamp) -> Found {
        let mut found = Found::default();
        self.is_view_first = !self.is_view_first;
        let takes_view = self.is_view_first && self.directory.take_view_turn(&self.member);
        let (name, result) = if !takes_view && due(&mut self.metrics_at, METRICS_EVERY) {
            ("metrics", self.metrics(at).await.map(|page| found.take_page("metrics", page)))
        } else if !takes_view && due(&mut self.config_at, CONFIG_EVERY) {
            ("config", self.config(at).await.map(|samples| found.sections.push(("config", samples))))
        } else if !takes_view && due(&mut self.history_at, CONFIG_EVERY) {
            ("history", self.history(at).await.map(|samples| found.sections.push(("history", samples))))
        } else if takes_view || self.directory.take_view_turn(&self.member) {
            let view = self.cluster_view().await.map_err(cluster_view_problem);
            ("cluster", view.map(|view| found.claims.push(view)))
        } else {
            return found;
        };
        match result {
            Ok(()) => drop(self.problems.remove(name)),
            Err(error) => drop(self.problems.insert(name, error)),
        }
        found
    }
}

/// Whether something is due again; notes that it is being done.
pub(crate) fn due(last: &mut Option<Instant>, every: Duration) -> bool {
    // Half a second of slack, so that a grid of 2 s does not turn 10 s into 12 s.
    let due = last.is_none_or(|last| last.elapsed() + Duration::from_millis(500) >= every);
    if due {
        *last = Some(Instant::now());
    }
    due
}

/// Patroni closes the connection without an answer when it cannot read its DCS.
fn cluster_view_problem(error: CollectError) -> CollectError {
    if error.kind == FailureKind::Reset {
        error.with_hint("Patroni answers /patroni but not /cluster: it cannot read its DCS")
    } else {
        error
    }
}

/// The answer could not be understood.
pub(crate) fn not_patroni(answer: &HttpAnswer, url: &HttpUrl, error: &parse::PatroniParseError) -> CollectError {
    let error = format!("{url} answered HTTP {}: {}", answer.status, chain(error));
    CollectError::new(FailureKind::Other, error)
        .with_hint("is this the address of Patroni's REST API (restapi.connect_address)?")
}
