//! One cluster: finds its scope and members, and keeps one set of collectors per member running.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::collect::config::{Address, ClusterConfig, HttpUrl, TlsConfig};
use crate::collect::directory::Directory;
use crate::collect::discovery::scope_of;
use crate::collect::etcd::keys::{self, KeysCollector};
use crate::collect::etcd::watch::{KeySpace, watch};
use crate::collect::known::{FoundIn, KnownCluster, known_as};
use crate::collect::patroni::{self, PatroniCollector, Place};
use crate::collect::pgbouncer::{self, Dsn, PgBouncerCollector};
use crate::collect::poll::{Audience, CollectError, Collector, PollSpec, poll, target_labels};
use crate::collect::postgres::ha_state::{self, HaStateCollector};
use crate::collect::postgres::statistics::{self, StatisticsCollector};
use crate::collect::postgres::write_probe::{self, WriteProbe};
use crate::collect::scrape::{self, ScrapeCollector};
use crate::collect::services::Services;
use crate::collect::targets::{Attempt, Change, Schedule, TargetKey};
use crate::model::observation::{Claim, FailureKind, MemberAddress, Source};
use crate::model::{Batch, Observation};
use crate::platform::error::chain;
use crate::platform::http_client::{HttpClient, HttpError};
use crate::platform::tasks::TaskGroup;

/// How often seeds are asked until the scope is known, and how often presence is looked at.
const SCOPE_EVERY: Duration = Duration::from_secs(2);
const MEMBERS_EVERY: Duration = Duration::from_secs(1);
/// Interval and deadline of proxies' metrics pages.
const PROXY_EVERY: Duration = Duration::from_secs(10);
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);
/// Grace for the collectors of a member that moved or is forgotten.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Collectors that died of a panic are not started again sooner than this.
const RESTART_AFTER: Duration = Duration::from_secs(10);

/// A cluster to watch.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) config: ClusterConfig,
    /// Where the DCS was searched.
    pub(crate) found: Option<Found>,
}

/// A cluster that was found in a DCS.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) scope: String,
    /// Key prefix: not always `/namespace/scope/`.
    pub(crate) prefix: String,
    pub(crate) place: FoundIn,
}

/// Watches a cluster until its group stops; again from the start when a task of it panicked.
pub(crate) async fn run(watched: Watched, services: Services) {
    let stop = services.group.stop_token();
    loop {
        let started = Instant::now();
        run_once(watched.clone(), services.clone()).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(started + RESTART_AFTER) => {}
        }
    }
}

/// Returns when its group stops, a task panicked, or it cannot begin.
async fn run_once(watched: Watched, services: Services) {
    let stop = services.group.stop_token();
    let http = match rest_client(&watched.config.patroni_tls) {
        Ok(http) => http,
        Err(error) => {
            let name = watched.config.name.clone().unwrap_or_default();
            let url = watched.config.patroni.first().map_or("", HttpUrl::as_str);
            let error = CollectError::new(FailureKind::Other, chain(&error)).with_hint("check patroni_tls.ca_file");
            return record(&services, &name, "discovery", url, Err(error));
        }
    };
    let directory = tokio::select! {
        () = stop.cancelled() => return,
        directory = find(&watched, &http, &services) => Arc::new(directory),
    };
    let name = watched.config.name.clone().unwrap_or_else(|| directory.scope().to_owned());
    if !services.names.claim(&name) {
        let error = CollectError::new(FailureKind::Other, format!("two clusters are called {name:?}"))
            .with_hint("give one of them a name: of its own");
        return record(&services, &name, "discovery", directory.scope(), Err(error));
    }
    if let Some(known) = services.known.snapshot().get(&name).filter(|known| known.scope == directory.scope()) {
        directory.remember(&known.members);
    }
    info!(cluster = name, scope = directory.scope(), "watching cluster");
    let cluster = Cluster {
        name,
        http,
        directory,
        group: services.group.child("cluster"),
        services,
        config: watched.config,
        members: BTreeMap::new(),
        found_in: watched.found.as_ref().map(|found| found.place.clone()),
    };
    cluster.run(watched.found.map(|found| found.prefix)).await;
}

fn rest_client(tls: &TlsConfig) -> Result<HttpClient, HttpError> {
    if tls.insecure_skip_verify {
        return HttpClient::without_verification(patroni::REQUEST_TIMEOUT, patroni::BODY_BYTES_MAX);
    }
    HttpClient::new(patroni::REQUEST_TIMEOUT, patroni::BODY_BYTES_MAX, tls.ca_file.as_deref())
}

/// Asks the seeds in turn until one tells the scope; when none answers, the DCS may know whose they are, and when that
/// does not answer either, what was known before a restart counts.
async fn find(watched: &Watched, http: &HttpClient, services: &Services) -> Directory {
    if let Some(found) = &watched.found {
        return Directory::new(&found.scope);
    }
    let name = watched.config.name.clone().unwrap_or_default();
    if watched.config.patroni.is_empty() {
        // The configuration check asks for a name in this case.
        return Directory::new(&name);
    }
    loop {
        for seed in &watched.config.patroni {
            let started = Instant::now();
            let result = ask_seed(http, seed).await;
            let found = match result {
                Ok(directory) => Some(directory),
                Err(error) => {
                    record_since(services, &TargetKey::new(&name, "", "discovery", seed.as_str()), started, Err(error));
                    None
                }
            };
            if let Some(directory) = found {
                forget_seeds(watched, &name, services);
                return directory;
            }
        }
        if let Some(dcs) = &watched.config.dcs
            && let Some(scope) = scope_of(dcs, &watched.config.patroni).await
        {
            forget_seeds(watched, &name, services);
            return Directory::new(&scope);
        }
        if let Some((known, cluster)) = known_as(&services.known.snapshot(), &watched.config) {
            warn!(cluster = known, "neither seeds nor DCS answer; asking the members that were known before");
            forget_seeds(watched, &name, services);
            return Directory::new(&cluster.scope);
        }
        tokio::time::sleep(SCOPE_EVERY).await;
    }
}

/// What was listed as a seed is now listed as a member.
fn forget_seeds(watched: &Watched, name: &str, services: &Services) {
    for seed in &watched.config.patroni {
        services.context.targets.forget(&TargetKey::new(name, "", "discovery", seed.as_str()));
    }
}

async fn ask_seed(http: &HttpClient, seed: &HttpUrl) -> Result<Directory, CollectError> {
    let hint = |error: CollectError| {
        if error.hint.is_some() {
            return error;
        }
        error.with_hint("list the REST API of any member that answers under patroni:")
    };
    let answer = http.get(&seed.join("/patroni")).await.map_err(|error| hint(error.into()))?;
    let parsed = patroni::parse::status(&answer.body);
    let (_, identity) = parsed.map_err(|error| patroni::not_patroni(&answer, seed, &error))?;
    let answer = http.get(&seed.join("/cluster")).await.map_err(|error| hint(error.into()))?;
    let parsed = patroni::parse::cluster(&answer.body);
    let view = parsed.map_err(|error| patroni::not_patroni(&answer, seed, &error))?;
    let scope = identity.scope.or_else(|| view.scope.clone()).filter(|scope| !scope.is_empty());
    let scope =
        scope.ok_or_else(|| CollectError::new(FailureKind::Other, format!("{seed} does not tell its scope")))?;
    let directory = Directory::new(&scope);
    directory.learn_from_view(&view);
    Ok(directory)
}

fn record(services: &Services, cluster: &str, source: &'static str, url: &str, result: Result<(), CollectError>) {
    record_since(services, &TargetKey::new(cluster, "", source, url), Instant::now(), result);
}

/// Notes an attempt of something that is no regular poll.
pub(crate) fn record_since(services: &Services, key: &TargetKey, started: Instant, result: Result<(), CollectError>) {
    let labels = target_labels(&key.cluster, &key.member, &key.url, key.source);
    services.context.targets.expect(key, Schedule { interval: SCOPE_EVERY, deadline: SCOPE_EVERY, labels });
    let error = result.err();
    let attempt = Attempt {
        up: error.is_none(),
        at: services.context.clock.now(),
        duration: started.elapsed(),
        error: error.as_ref().map(|error| error.error.clone()),
        hint: error.as_ref().and_then(|error| error.hint.clone()),
    };
    let change = services.context.targets.record(key, attempt);
    if let (Some(Change::Down), Some(error)) = (change, error) {
        let hint = error.hint.unwrap_or_default();
        warn!(cluster = key.cluster, source = key.source, url = key.url, error = error.error, hint, "target failed");
    }
}

struct Cluster {
    name: String,
    http: HttpClient,
    directory: Arc<Directory>,
    group: TaskGroup,
    services: Services,
    config: ClusterConfig,
    members: BTreeMap<String, MemberTasks>,
    found_in: Option<FoundIn>,
}

/// The collectors of one member.
struct MemberTasks {
    address: MemberAddress,
    started: Instant,
    group: TaskGroup,
    targets: Vec<TargetKey>,
}

impl Cluster {
    async fn run(mut self, prefix: Option<String>) {
        let stop = self.group.stop_token();
        let audience = self.start_dcs(prefix);
        self.start_proxies();
        self.start_write_probes();
        let mut told: Option<Vec<MemberAddress>> = None;
        while !stop.is_cancelled() {
            let members = self.directory.members();
            self.reconcile(&members).await;
            self.services.known.note(&self.name, self.as_known(members.clone()));
            if !members.is_empty() && told.as_ref() != Some(&members) {
                if self.tell_members(members.clone()).await.is_err() {
                    break;
                }
                told = Some(members);
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.directory.changed() => {}
                () = tokio::time::sleep(MEMBERS_EVERY) => {}
            }
        }
        for tasks in self.members.values() {
            tasks.group.stop(STOP_GRACE).await;
        }
        if let Some(audience) = audience {
            audience.leave(&self.name);
        }
        self.group.stop(STOP_GRACE).await;
        self.services.names.release(&self.name);
    }

    fn as_known(&self, members: Vec<MemberAddress>) -> KnownCluster {
        KnownCluster {
            scope: self.directory.scope().to_owned(),
            seeds: self.config.patroni.iter().map(HttpUrl::to_string).collect(),
            found_in: self.found_in.clone(),
            members,
        }
    }

    async fn tell_members(&self, members: Vec<MemberAddress>) -> Result<(), crate::collect::sink::SinkClosed> {
        let now = self.services.context.clock.now();
        let observation = Observation {
            cluster: self.name.clone(),
            source: Source::Dcs,
            sent: now,
            received: now,
            claim: Claim::Members(members),
        };
        let batch = Batch { observations: vec![observation], ..Batch::default() };
        self.services.context.sink.accept(batch).await
    }

    /// Starts, restarts and stops collectors so that they fit the members.
    async fn reconcile(&mut self, members: &[MemberAddress]) {
        let same_place = |tasks: &MemberTasks, address: &MemberAddress| {
            (&tasks.address.host, tasks.address.port, &tasks.address.rest_url)
                == (&address.host, address.port, &address.rest_url)
        };
        // The group of a task that panicked has stopped by itself; it is started again like one that moved.
        let is_dead = |tasks: &MemberTasks| tasks.group.is_stopped() && tasks.started.elapsed() >= RESTART_AFTER;
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(name, tasks)| {
                is_dead(tasks) || !members.iter().any(|address| address.member == **name && same_place(tasks, address))
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some(tasks) = self.members.remove(&name) {
                info!(cluster = self.name, member = name, "collectors of member stopped");
                tasks.group.stop(STOP_GRACE).await;
                for key in &tasks.targets {
                    self.services.context.targets.forget(key);
                }
            }
        }
        for address in members {
            if !self.members.contains_key(&address.member) {
                let tasks = self.start_member(address.clone());
                self.members.insert(address.member.clone(), tasks);
            }
        }
    }

    fn start_member(&self, address: MemberAddress) -> MemberTasks {
        info!(cluster = self.name, member = address.member, host = address.host, port = address.port, "member found");
        let mut tasks =
            MemberTasks { address, started: Instant::now(), group: self.group.child("member"), targets: Vec::new() };
        let member = tasks.address.member.clone();
        if let Some(url) = tasks.address.rest_url.as_deref().and_then(|url| HttpUrl::parse(url).ok()) {
            let labels = target_labels(&self.name, &member, &url.instance(), "patroni");
            let mut spec = self.spec(&member, "rest", url.as_str(), &labels);
            spec.source = Some(Source::Rest { member: member.clone() });
            (spec.interval, spec.deadline) = (patroni::INTERVAL, patroni::DEADLINE);
            let place = Place { member: member.clone(), labels, directory: Arc::clone(&self.directory) };
            let clock = self.services.context.clock.clone();
            let collector = PatroniCollector::new(self.http.clone(), clock, url, place);
            self.start(&mut tasks, spec, collector);
        }
        if !tasks.address.host.is_empty() && tasks.address.port != 0 {
            let address = Address { host: tasks.address.host.clone(), port: tasks.address.port };
            let instance = address.to_string();
            let labels = target_labels(&self.name, &member, &instance, "postgres");
            let mut spec = self.spec(&member, "sql", &format!("postgres://{instance}"), &labels);
            spec.source = Some(Source::Sql { member: member.clone() });
            (spec.interval, spec.deadline) = (ha_state::INTERVAL, ha_state::DEADLINE);
            spec.fast = Some(self.services.fast.receiver(&self.name));
            let clock = self.services.context.clock.clone();
            let collector = HaStateCollector::new(self.config.postgres.clone(), address, clock, tasks.group.clone());
            self.start(&mut tasks, spec, collector);
            self.start_statistics(&mut tasks, &member);
        }
        tasks
    }

    fn start_statistics(&self, tasks: &mut MemberTasks, member: &str) {
        let address = Address { host: tasks.address.host.clone(), port: tasks.address.port };
        let instance = address.to_string();
        let up_labels = target_labels(&self.name, member, &instance, "postgres_statistics");
        let mut spec = self.spec(member, "statistics", &format!("postgres://{instance}"), &up_labels);
        (spec.interval, spec.deadline) = (statistics::INTERVAL, statistics::DEADLINE);
        let labels = target_labels(&self.name, member, &instance, "postgres");
        let collector = StatisticsCollector::new(self.config.postgres.clone(), address, labels, tasks.group.clone());
        self.start(tasks, spec, collector);
    }

    fn spec(&self, member: &str, source: &'static str, url: &str, labels: &crate::model::Labels) -> PollSpec {
        PollSpec {
            target: TargetKey::new(&self.name, member, source, url),
            labels: labels.clone(),
            interval: SCOPE_EVERY,
            deadline: SCOPE_EVERY,
            source: None,
            audience: None,
            fast: None,
        }
    }

    fn start(&self, tasks: &mut MemberTasks, spec: PollSpec, collector: impl Collector) {
        tasks.targets.push(spec.target.clone());
        let name = format!("{} {} {}", self.name, spec.target.member, spec.target.source);
        tasks.group.spawn_until_stop(name, poll(spec, collector, self.services.context.clone()));
    }

    fn start_dcs(&self, prefix: Option<String>) -> Option<Audience> {
        let Some(dcs) = &self.config.dcs else {
            let error =
                CollectError::new(FailureKind::Other, "the DCS is not configured: leader and lease are unknown")
                    .with_hint("add to the cluster: dcs: {etcd: [http://HOST:2379], namespace: /service}");
            record(&self.services, &self.name, "dcs", "etcd", Err(error));
            return None;
        };
        let label = self.services.etcd_label(dcs, &self.name);
        let etcd = match self.services.etcds.get(dcs, &label, &self.services.context, &self.services.group) {
            Ok(etcd) => etcd,
            Err(error) => {
                let error = CollectError::new(FailureKind::Other, chain(&error)).with_hint("check dcs.ca_file");
                record(&self.services, &self.name, "dcs", "etcd", Err(error));
                return None;
            }
        };
        etcd.audience.join(&self.name);
        let prefix =
            prefix.unwrap_or_else(|| format!("/{}/{}/", dcs.namespace.trim_matches('/'), self.directory.scope()));
        let url = format!("etcd:{prefix}");
        let space = Arc::new(KeySpace::new(&self.name, prefix, etcd.client, Arc::clone(&self.directory)));
        let mut spec = self.spec("", "dcs", &url, &target_labels(&self.name, "", &url, "dcs"));
        spec.source = Some(Source::Dcs);
        (spec.interval, spec.deadline) = (keys::INTERVAL, keys::DEADLINE);
        let context = &self.services.context;
        let collector = KeysCollector::new(Arc::clone(&space));
        self.group.spawn_until_stop(format!("{} dcs", self.name), poll(spec, collector, context.clone()));
        self.group.spawn_until_stop(format!("{} watch", self.name), watch(space, context.clone()));
        Some(etcd.audience)
    }

    fn start_proxies(&self) {
        let http = HttpClient::new(PROXY_TIMEOUT, scrape::BODY_BYTES_MAX, None);
        for url in &self.config.haproxy {
            let labels = target_labels(&self.name, "", &url.instance(), "haproxy");
            let mut spec = self.spec("", "haproxy", url.as_str(), &labels);
            (spec.interval, spec.deadline) = (PROXY_EVERY, PROXY_TIMEOUT);
            match &http {
                Ok(http) => {
                    let collector = ScrapeCollector::plain(http.clone(), url.join(""), labels);
                    let task = poll(spec, collector, self.services.context.clone());
                    self.group.spawn_until_stop(format!("{} haproxy", self.name), task);
                }
                Err(error) => {
                    let error = CollectError::new(FailureKind::Other, chain(error));
                    record(&self.services, &self.name, "haproxy", url.as_str(), Err(error));
                }
            }
        }
        for text in &self.config.pgbouncer {
            let dsn = match Dsn::parse(text) {
                Ok(dsn) => dsn,
                Err(error) => {
                    record(&self.services, &self.name, "pgbouncer", text, Err(error));
                    continue;
                }
            };
            let instance = format!("{}:{}", dsn.host, dsn.port);
            let labels = target_labels(&self.name, "", &instance, "pgbouncer");
            let mut spec = self.spec("", "pgbouncer", text, &labels);
            (spec.interval, spec.deadline) = (pgbouncer::INTERVAL, pgbouncer::DEADLINE);
            let collector = PgBouncerCollector::new(dsn, labels, self.group.clone());
            let task = poll(spec, collector, self.services.context.clone());
            self.group.spawn_until_stop(format!("{} pgbouncer", self.name), task);
        }
    }
    fn start_write_probes(&self) {
        for address in &self.config.write_probe {
            let address_text = address.to_string();
            let labels = target_labels(&self.name, "", &address_text, "write_probe");
            let mut spec = self.spec("", "write_probe", &format!("postgres://{address_text}"), &labels);
            spec.source = Some(Source::Proxy { address: address_text });
            (spec.interval, spec.deadline) = (write_probe::INTERVAL, write_probe::DEADLINE);
            let probe = WriteProbe::new(self.config.postgres.clone(), address.clone(), self.group.clone());
            let task = poll(spec, probe, self.services.context.clone());
            self.group.spawn_until_stop(format!("{} write probe", self.name), task);
        }
    }
}
