//! The server: builds every part, starts them in order, and stops them in reverse.
//!
//! Addresses are bound before anything acts, and answered when all parts stand: a second server on a taken port asks and
//! sends nothing. Stop order: listeners refuse, collectors end, what they found is written, the judge ends, the outbox rests, the
//! stores are synced. A second signal ends the process at once.

mod agents;
mod alerting;
mod causes;
mod judging;
mod known;
mod local_logs;
mod plan;
mod retention;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use crate::collect::known::KnownClusters;
use crate::collect::{self, CollectConfig, CollectHandle, Sink, Targets};
use crate::config::Config;
use crate::http::auth::TokenCheck;
use crate::http::listen::{ListenError, Listener, TlsFiles};
use crate::http::{self, ConfigState, Parts, ReloadReport};
use crate::incident;
use crate::intake::Intake;
use crate::model::Batch;
use crate::notify::Alerting;
use crate::notify::pipeline::AlertingOptions;
use crate::platform::clock::Clock;
use crate::platform::disk::Disk;
use crate::platform::error::chain;
use crate::platform::tasks::{TaskGroup, blocking};
use crate::platform::telemetry::{self, Telemetry};
use crate::store::logs::{LogOptions, LogStore};
use crate::store::metrics::{MetricOptions, MetricStore};
use crate::store::state::StateStore;
use plan::Plan;

/// Batches that collectors may be ahead of the stores.
const BATCHES_MAX: usize = 256;
/// Groups of observations that collectors may be ahead of the judge.
const OBSERVATIONS_MAX: usize = 256;
/// Requests to read the configuration again that may wait.
const RELOADS_MAX: usize = 4;
/// How long each part gets to end.
const GRACE: Duration = Duration::from_secs(5);
/// How often it is looked whether logs in memory are old enough; large ones are sealed at once.
const SEAL_EVERY: Duration = Duration::from_secs(1);
const SYNC_EVERY: Duration = Duration::from_secs(1);
const FORGET_EVERY: Duration = Duration::from_hours(1);
const MAINTAIN_EVERY: Duration = Duration::from_mins(1);

/// What `daraji serve` takes.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  daraji serve --patroni http://10.0.0.11:8008
  daraji serve --config /etc/daraji/daraji.yml
  daraji serve                                      no cluster: keeps and answers what is pushed")]
pub struct ServeArgs {
    /// Configuration file
    #[arg(long, env = "DARAJI_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Patroni's REST API of any member; the others are found. May be repeated
    #[arg(long, value_name = "URL")]
    pub patroni: Vec<String>,
    /// Address to listen on [default: 127.0.0.1:7432]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Directory for everything that is kept [default: data]
    #[arg(long, env = "DARAJI_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Checks a configuration file and the rule files that it names, as the server does before it starts. All problems, a
/// line each.
pub fn check(config: &Path) -> Result<(), Vec<String>> {
    let args = ServeArgs { config: Some(config.to_owned()), patroni: Vec::new(), listen: None, data: None };
    Plan::load(&args).map(drop)
}

/// Runs the server until a signal.
pub async fn main(args: ServeArgs, clock: Clock) -> anyhow::Result<ExitCode> {
    telemetry::init_logging();
    let plan = match Plan::load(&args) {
        Ok(plan) => plan,
        Err(problems) => {
            for problem in problems {
                error!("{problem}");
            }
            return Ok(ExitCode::from(2));
        }
    };
    let (reload, mut reloads) = mpsc::channel(RELOADS_MAX);
    let server = Server::start(plan, args, reload, clock).await?;
    let ended = server.run_until_signal(&mut reloads).await;
    server.stop().await;
    Ok(match ended {
        Ended::Asked => ExitCode::SUCCESS,
        // A supervisor starts again what ends with a failure.
        Ended::PartDied => ExitCode::FAILURE,
    })
}

/// Why the server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Asked,
    PartDied,
}

#[derive(Clone, Debug)]
struct Stores {
    metrics: Arc<MetricStore>,
    logs: Arc<LogStore>,
    state: Arc<StateStore>,
}

impl Stores {
    fn open(plan: &Plan, clock: &Clock) -> anyhow::Result<Self> {
        let disk = Disk::real();
        let dir = &plan.config.storage.path;
        std::fs::create_dir_all(dir).with_context(|| format!("create the data directory {}", dir.display()))?;
        let state = StateStore::open(dir, clock.now())?;
        if let Some(path) = state.set_aside() {
            error!(path = %path.display(), "the state was damaged; it is set aside and a fresh one started");
        }
        let mut metric_options = MetricOptions::default();
        let storage = &plan.config.storage;
        metric_options.retention = storage.metrics.retention.unwrap_or(metric_options.retention);
        metric_options.max_bytes = storage.metrics.max_bytes;
        let (metrics, recovery) = MetricStore::open(&dir.join("metrics"), metric_options, &disk, clock)?;
        info!(?recovery, "metrics opened");
        let mut log_options = LogOptions::default();
        log_options.retention = storage.logs.retention.unwrap_or(log_options.retention);
        log_options.max_bytes = storage.logs.max_bytes.or(log_options.max_bytes);
        let (logs, recovery) = LogStore::open(&dir.join("logs"), log_options, &disk, clock)?;
        info!(?recovery, "logs opened");
        Ok(Self { metrics: Arc::new(metrics), logs: Arc::new(logs), state: Arc::new(state) })
    }

    /// Syncs once a second, seals logs when they are due and tidies once a minute, until the group stops.
    fn keep(&self, group: &TaskGroup, clock: Clock) {
        let stores = self.clone();
        group.spawn_until_stop("sync", every(SYNC_EVERY, move || stores.sync()));
        group.spawn_until_stop("seal", seal_logs(Arc::clone(&self.logs), clock.clone()));
        let (state, time) = (Arc::clone(&self.state), clock.clone());
        group.spawn_until_stop("incidents", every(FORGET_EVERY, move || forget_incidents(&state, &time)));
        let stores = self.clone();
        group.spawn_until_stop("maintain", every(MAINTAIN_EVERY, move || stores.maintain(&clock)));
    }

    fn sync(&self) {
        if let Err(error) = self.metrics.sync() {
            error!(error = %chain(&error), "metrics are not safe against power loss");
        }
        if let Err(error) = self.logs.sync() {
            error!(error = %chain(&error), "logs are not safe against power loss");
        }
    }

    fn maintain(&self, clock: &Clock) {
        if let Err(error) = self.metrics.maintain(clock.now()) {
            warn!(error = %chain(&error), "metrics could not be tidied; trying again in a minute");
        }
        if let Err(error) = self.logs.maintain(clock.now()) {
            warn!(error = %chain(&error), "logs could not be tidied; trying again in a minute");
        }
    }

    fn close(&self) {
        if let Err(error) = self.metrics.close() {
            error!(error = %chain(&error), "metrics did not close");
        }
        self.sync();
    }
}

fn forget_incidents(state: &StateStore, clock: &Clock) {
    match retention::forget_incidents(state, clock.now()) {
        Ok(0) => {}
        Ok(count) => info!(count, "incidents that ended long ago are forgotten"),
        Err(error) => warn!(error = %chain(&error), "old incidents could not be forgotten; trying again in an hour"),
    }
}

/// Moves logs from memory into their partitions whenever there is enough, however fast they come.
async fn seal_logs(logs: Arc<LogStore>, clock: Clock) {
    let mut is_failing = false;
    loop {
        if is_failing {
            tokio::time::sleep(SEAL_EVERY).await;
        } else {
            // An elapsed timeout is the other reason to look.
            drop(tokio::time::timeout(SEAL_EVERY, logs.seal_wanted()).await);
        }
        let (store, now) = (Arc::clone(&logs), clock.now());
        let failed = blocking(move || store.seal_due(now)).await.err();
        if let Some(error) = failed.as_ref().filter(|_| !is_failing) {
            error!(error = %chain(error), "logs stay in memory; what comes is refused when that is full; trying again");
        }
        is_failing = failed.is_some();
    }
}

/// Runs blocking work again and again, the next round after the last has ended.
async fn every(interval: Duration, work: impl Fn() + Clone + Send + 'static) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        blocking(work.clone()).await;
    }
}

/// What the APIs need of the parts that run.
#[derive(Debug)]
struct Wired {
    clock: Clock,
    telemetry: Telemetry,
    intake: Intake,
    incident_desk: Arc<incident::handle::Desk>,
    targets: Targets,
    belief: watch::Receiver<http::v1::Belief>,
    judged_at: watch::Receiver<tokio::time::Instant>,
}

/// A running server.
#[derive(Debug)]
struct Server {
    args: ServeArgs,
    stores: Stores,
    alerting: Arc<Alerting>,
    /// As it was at the start: what runs of it runs until the end.
    running: Config,
    reload: http::ReloadRequests,
    config_state: watch::Sender<ConfigState>,
    config_is_good: Gauge,
    clock: Clock,
    listeners: TaskGroup,
    collectors: TaskGroup,
    writers: TaskGroup,
    brains: TaskGroup,
    keepers: TaskGroup,
}

impl Server {
    async fn start(plan: Plan, args: ServeArgs, reload: http::ReloadRequests, clock: Clock) -> anyhow::Result<Self> {
        // First of all: whoever cannot be reached must not act either.
        let addresses = bind(&plan).await?;
        let opening = (plan.clone(), clock.clone());
        let stores = blocking(move || Stores::open(&opening.0, &opening.1)).await?;
        let telemetry = Telemetry::default();
        let alerting = Arc::new(Alerting::open(
            Arc::clone(&stores.state),
            AlertingOptions {
                external_url: plan.external_url(),
                external_labels: crate::model::Labels::default(),
                rules: plan.rules.clone(),
                config: plan.compile_alerting()?,
            },
        )?);
        let (observation_sender, observations) = mpsc::channel(OBSERVATIONS_MAX);
        let intake = Intake::new(Arc::clone(&stores.metrics), Arc::clone(&stores.logs), observation_sender, &telemetry);
        let mut server = Self {
            args,
            stores,
            alerting,
            running: plan.config.clone(),
            reload,
            config_state: watch::Sender::new(ConfigState { is_good: true, taken_at: clock.now() }),
            config_is_good: config_gauge(&telemetry),
            clock: clock.clone(),
            listeners: TaskGroup::new("listeners"),
            collectors: TaskGroup::new("collectors"),
            writers: TaskGroup::new("writers"),
            brains: TaskGroup::new("brains"),
            keepers: TaskGroup::new("keepers"),
        };
        server.stores.keep(&server.keepers, clock.clone());
        let known = known::load(&server.stores.state, &plan)?;
        let watched = known.keys().cloned().collect();
        let collection = server.start_collecting(&plan, &intake, known, clock.clone());
        known::keep(collection.known.clone(), Arc::clone(&server.stores.state), &server.keepers);
        let (incident_desk, handled) = incident::handle::Desk::new(Arc::clone(&server.stores.state));
        let judging = judging::start(
            judging::Wiring {
                handled,
                intake: intake.clone(),
                state: Arc::clone(&server.stores.state),
                fast_probe: collection.fast_probe.clone(),
                clock: clock.clone(),
                watched,
            },
            observations,
            &server.brains,
        )?;
        agents::watch(&collection.targets, &intake, &server.stores.state, &server.keepers, clock.clone())?;
        let desk = alerting::Desk {
            stores: server.stores.clone(),
            alerting: Arc::clone(&server.alerting),
            log_options: plan.config.loki.engine_options(),
        };
        let (incidents, verdicts) = (judging.incidents.clone(), judging.verdicts.clone());
        let catalogue = Arc::clone(&plan.causes);
        causes::start(catalogue, &server.stores, (incidents, verdicts), (&server.keepers, clock.clone()));
        alerting::start(desk, &judging, &server.brains, clock.clone());
        local_logs::start(&plan, &intake, &server.stores.logs, &server.collectors, clock.clone()).await?;
        let (belief, judged_at) = (judging.belief, judging.looked_at);
        let incident_desk = Arc::new(incident_desk);
        let wired = Wired { clock, telemetry, intake, incident_desk, targets: collection.targets, belief, judged_at };
        server.start_listening(addresses, plan.tls().as_ref(), wired);
        Ok(server)
    }

    fn start_collecting(&mut self, plan: &Plan, intake: &Intake, known: KnownClusters, clock: Clock) -> CollectHandle {
        let (sink, mut batches) = Sink::channel(BATCHES_MAX);
        let intake = intake.clone();
        self.writers.spawn("intake", async move {
            // Ends when the last collector has dropped its sink, so that nothing found is lost.
            let mut failing = false;
            while let Some(first) = batches.recv().await {
                let mut batch = first;
                while let Ok(more) = batches.try_recv() {
                    merge(&mut batch, more);
                }
                let failed = intake.accept(batch).await.err();
                match &failed {
                    Some(error) if !failing => error!(error = %chain(error), "collected facts could not be written"),
                    None if failing => info!("collected facts are written again"),
                    _ => {}
                }
                failing = failed.is_some();
            }
        });
        let config = CollectConfig {
            clusters: plan.config.clusters.clone(),
            discover: plan.config.discover.clone(),
            scrape_configs: plan.config.scrape_configs.clone(),
            known,
        };
        collect::start(config, &self.collectors, sink, clock)
    }

    fn start_listening(&mut self, addresses: Vec<Listener>, tls: Option<&TlsFiles>, wired: Wired) {
        let state = Arc::clone(&self.stores.state);
        let tokens = TokenCheck::new(move |secret| match state.verify_token(secret) {
            Ok(token) => token,
            Err(error) => {
                error!(error = %chain(&error), "tokens cannot be read");
                None
            }
        });
        let router = http::router(Parts {
            started_at: wired.clock.now(),
            clock: wired.clock,
            telemetry: wired.telemetry,
            intake: wired.intake,
            metrics: Arc::clone(&self.stores.metrics),
            logs: Arc::clone(&self.stores.logs),
            state: Arc::clone(&self.stores.state),
            incident_desk: wired.incident_desk,
            alerting: Arc::clone(&self.alerting),
            targets: wired.targets,
            belief: wired.belief,
            judged_at: wired.judged_at,
            tokens,
            loki: self.running.loki.clone(),
            reload: self.reload.clone(),
            config_state: self.config_state.subscribe(),
        });
        for listener in addresses {
            info!(url = %listener.url(), token_needed = !listener.is_open(), "listening");
            listener.serve(router.clone(), &self.listeners, tls.cloned());
        }
    }

    /// Waits for a signal to end; SIGHUP and `POST /-/reload` read the configuration again.
    async fn run_until_signal(&self, reloads: &mut mpsc::Receiver<oneshot::Sender<ReloadReport>>) -> Ended {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
        else {
            error!("signals cannot be received; stop the server by SIGKILL");
            return std::future::pending().await;
        };
        info!("ready");
        let died = self.groups().map(|group| Box::pin(group.stop_token().cancelled_owned()));
        let mut died = futures_util::future::select_all(died);
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ended::Asked,
                _ = terminate.recv() => return Ended::Asked,
                _ = hangup.recv() => drop(self.read_configuration_again()),
                // Whoever asked may be gone.
                Some(answer) = reloads.recv() => drop(answer.send(self.read_configuration_again())),
                _ = &mut died => {
                    let dead: Vec<&str> =
                        self.groups().into_iter().filter(|group| group.is_stopped()).map(TaskGroup::name).collect();
                    error!(?dead, "a part of the server died, stopping");
                    return Ended::PartDied;
                }
            }
        }
    }

    /// In the order in which they stop.
    fn groups(&self) -> [&TaskGroup; 5] {
        [&self.listeners, &self.collectors, &self.writers, &self.brains, &self.keepers]
    }

    /// Takes rules, routes and receivers of the changed file, or nothing; says what else has changed.
    fn read_configuration_again(&self) -> ReloadReport {
        let read = Plan::load(&self.args).and_then(|plan| match plan.compile_alerting() {
            Ok(compiled) => Ok((plan, compiled)),
            Err(error) => Err(vec![error.to_string()]),
        });
        let report = match read {
            Ok((plan, compiled)) => {
                let needs_restart = plan.config.needs_restart(&self.running);
                self.alerting.reload(plan.rules, compiled);
                ReloadReport { needs_restart, ..ReloadReport::default() }
            }
            Err(problems) => ReloadReport { problems, ..ReloadReport::default() },
        };
        let is_good = report.problems.is_empty();
        self.config_is_good.set(i64::from(is_good));
        self.config_state.send_modify(|state| {
            state.is_good = is_good;
            if is_good {
                state.taken_at = self.clock.now();
            }
        });
        if report.problems.is_empty() && report.needs_restart.is_empty() {
            info!("{report}");
        } else if report.problems.is_empty() {
            warn!("{report}");
        }
        for problem in &report.problems {
            error!("{problem}");
        }
        if !report.problems.is_empty() {
            error!("the configuration has problems; the old one stays in force");
        }
        report
    }

    async fn stop(self) {
        info!("stopping");
        let impatient = TaskGroup::new("impatient");
        impatient.spawn("second-signal", async {
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(1);
            }
        });
        for group in self.groups() {
            group.stop(GRACE).await;
        }
        let stores = self.stores.clone();
        blocking(move || stores.close()).await;
        info!("stopped");
    }
}

/// As other servers name it, so that their rules fit.
fn config_gauge(telemetry: &Telemetry) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(1);
    let help = "Whether the last configuration file that was read could be taken";
    telemetry.register(|registry| registry.register("config_last_reload_successful", help, gauge.clone()));
    gauge
}

/// Takes all addresses of the configuration, or none.
async fn bind(plan: &Plan) -> Result<Vec<Listener>, ListenError> {
    let tls = plan.tls();
    let mut bound = Vec::new();
    for address in plan.listen() {
        bound.push(Listener::bind(&address, plan.is_open(&address), tls.as_ref()).await?);
    }
    Ok(bound)
}

fn merge(batch: &mut Batch, more: Batch) {
    batch.samples.extend(more.samples);
    batch.logs.extend(more.logs);
    batch.observations.extend(more.observations);
    batch.families.extend(more.families);
}
