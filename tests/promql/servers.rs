//! A real Prometheus and our own API over TCP, each with a store of its own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use daraji::http::prometheus_api::{PrometheusState, router};
use daraji::model::{Sample, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::platform::tasks::TaskGroup;
use daraji::query::promql::Engine;
use daraji::store::metrics::{MetricOptions, MetricStore};
use daraji::wire::remote_write;
use serde_json::Value;

use crate::corpus::END_SECS;
use crate::programs::program;

/// What Prometheus has behind flags and we always have.
const FEATURES: &str = "--enable-feature=promql-experimental-functions,promql-duration-expr";

/// A running Prometheus; ends when dropped.
pub(crate) struct Prometheus {
    child: Child,
    pub(crate) base: String,
    _dir: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Prometheus {
    pub(crate) async fn start() -> Self {
        let program = program("bin/prometheus", "prometheus");
        let dir = tempfile::Builder::new().prefix("daraji-promql-").tempdir().unwrap();
        let config = dir.path().join("prometheus.yml");
        std::fs::write(&config, "global: {}\n").unwrap();
        // The port is free now and nobody else is told of it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(&program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y", FEATURES])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let prometheus = Self { child, base: format!("http://127.0.0.1:{port}"), _dir: dir };
        let ready = async {
            loop {
                if let Ok(response) = client().get(format!("{}/-/ready", prometheus.base)).send().await
                    && response.status().is_success()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ready).await.expect("prometheus is not ready");
        prometheus
    }
}

/// Our API, served in this process.
pub(crate) struct Daraji {
    pub(crate) base: String,
    tasks: TaskGroup,
    _dir: tempfile::TempDir,
}

impl Daraji {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("daraji-promql-").tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_secs(END_SECS));
        let (store, _) = MetricStore::open(dir.path(), MetricOptions::default(), &Disk::real(), &clock).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let app = router(PrometheusState::new(Arc::new(store), Engine::default(), clock));
        let tasks = TaskGroup::new("test");
        tasks.spawn_until_stop("http", async move { axum::serve(listener, app).await.unwrap() });
        Self { base, tasks, _dir: dir }
    }

    pub(crate) async fn stop(self) {
        self.tasks.stop(Duration::from_secs(5)).await;
    }
}

fn client() -> &'static reqwest::Client {
    static CLIENT: std::sync::OnceLock<reqwest::Client> = std::sync::OnceLock::new();
    CLIENT.get_or_init(|| {
        // The first one wins; all are the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(1)).build().unwrap()
    })
}

pub(crate) async fn write(base: &str, samples: &[Sample]) {
    let request = client().post(format!("{base}/api/v1/write")).header("content-encoding", "snappy");
    let request = request.header("content-type", "application/x-protobuf");
    let response = request.body(remote_write::encode(samples).unwrap()).send().await.unwrap();
    let status = response.status();
    assert!(status.is_success(), "{base}: {status} {}", response.text().await.unwrap());
}

/// Status and body of an answer.
pub(crate) async fn ask(base: &str, path: &str, form: &[(&'static str, String)]) -> (u16, Value) {
    let url = format!("{base}/api/v1/{path}");
    let pairs = form.iter().map(|(name, value)| (*name, value.as_str()));
    let body = reqwest::Url::parse_with_params("http://x/", pairs).unwrap().query().unwrap_or_default().to_owned();
    let request = client().post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{base} answers {form:?} with {text:?}: {error}"));
    (status, body)
}
