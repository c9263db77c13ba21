//! Patroni's REST API of one member.
//!
//! Invariant: one request in flight per Patroni, each on a fresh connection: its server is tiny, and a kept connection
//! hides a hung one.

pub(crate) mod parse;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::collect::config::HttpUrl;
use crate::collect::directory::Directory;
use crate::collect::exposition::{self, Page};
use crate::collect::poll::{CollectError, Collector, Found, Said};
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
/// Four requests in a row at worst.
pub(crate) const DEADLINE: Duration = Duration::from_secs(6);
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
}

impl PatroniCollector {
    pub(crate) fn new(http: HttpClient, clock: Clock, url: HttpUrl, at: Place) -> Self {
        let Place { member, labels, directory } = at;
        Self { http, clock, url, member, labels, directory, metrics_at: None, config_at: None }
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

    /// Dynamic configuration and the history's length as samples.
    async fn config(&self, at: Timestamp) -> Result<Vec<Sample>, CollectError> {
        let mut samples = Vec::new();
        let mut put = |name: &str, value: f64| {
            samples.push(Sample::new(self.labels.with(crate::model::labels::METRIC_NAME, name), at, value));
        };
        let answer = self.http.get(&self.url.join("/config")).await?;
        let config = parse::config(&answer.body).map_err(|error| not_patroni(&answer, &self.url, &error))?;
        for (name, value) in config {
            put(name, value);
        }
        let answer = self.http.get(&self.url.join("/history")).await?;
        let history = parse::history(&answer.body).map_err(|error| not_patroni(&answer, &self.url, &error))?;
        if let Some(last) = history.last().and_then(|line| line.at) {
            put("patroni_last_timeline_change_seconds", last.secs_f64());
        }
        put("daraji_patroni_history_lines", history.len() as f64);
        Ok(samples)
    }
}

impl Collector for PatroniCollector {
    async fn collect(&mut self, at: Timestamp) -> Result<Found, CollectError> {
        let mut found = Found::default();
        let status = self.status().await?;
        found.claims.push(status);
        if self.directory.take_view_turn(&self.member) {
            match self.cluster_view().await {
                Ok(view) => found.claims.push(view),
                Err(error) => found.problem = Some(cluster_view_problem(error)),
            }
        }
        if due(&mut self.metrics_at, METRICS_EVERY) {
            match self.metrics(at).await {
                Ok(page) => found.take_page("metrics", page),
                Err(error) => found.problem = Some(error),
            }
        }
        if due(&mut self.config_at, CONFIG_EVERY) {
            match self.config(at).await {
                Ok(samples) => found.sections.push(("config", samples)),
                Err(error) => found.problem = Some(error),
            }
        }
        Ok(found)
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
