//! Prometheus' API over TCP, as Grafana, promtool and remote writers use it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daraji::http::prometheus_api::{PrometheusState, router};
use daraji::model::{Labels, Sample, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::platform::tasks::TaskGroup;
use daraji::query::promql::Engine;
use daraji::store::metrics::{MetricOptions, MetricStore};
use daraji::wire::remote_write;
use serde_json::{Value, json};

use crate::programs::program;

/// A served store; stops with its directory when dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<MetricStore>,
    tasks: TaskGroup,
    _dir: tempfile::TempDir,
}

pub(crate) const START_SECS: i64 = 1_700_000_000;

impl Served {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("daraji-prometheus-api-").tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_secs(START_SECS));
        let (store, _) = MetricStore::open(dir.path(), MetricOptions::default(), &Disk::real(), &clock).unwrap();
        let store = Arc::new(store);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = router(PrometheusState::new(Arc::clone(&store), Engine::default(), clock));
        let tasks = TaskGroup::new("test");
        tasks.spawn_until_stop("http", async move { axum::serve(listener, app).await.unwrap() });
        Self { address, store, tasks, _dir: dir }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn stop(self) {
        self.tasks.stop(Duration::from_secs(5)).await;
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let response = client().get(self.url(path)).send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    async fn post(&self, path: &str, form: &str) -> (u16, Value) {
        let request = client().post(self.url(path)).header("content-type", "application/x-www-form-urlencoded");
        let response = request.body(form.to_owned()).send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }
}

pub(crate) fn client() -> reqwest::Client {
    // The first one wins; all are the same.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap()
}

fn up(job: &str, at_secs: i64, value: f64) -> Sample {
    Sample::new(Labels::metric("up", &[("job", job)]), Timestamp::from_secs(at_secs), value)
}

#[tokio::test]
async fn grafanas_health_check_and_queries() {
    let served = Served::start().await;
    served.store.append(&[up("a", START_SECS - 30, 1.0), up("b", START_SECS - 30, 0.1)]).unwrap();

    let (status, body) = served.post("/api/v1/query", "query=1%2B1&time=4").await;
    let expected = json!({"status": "success", "data": {"resultType": "scalar", "result": [4, "2"]}});
    assert_eq!((status, body), (200, expected));
    let response = client().get(served.url("/api/v1/query?query=1&time=4")).send().await.unwrap();
    assert!(response.text().await.unwrap().find("resultType") < Some(60), "Grafana wants the type before the result");

    let (_, body) = served.get("/api/v1/query?query=up").await;
    let sample =
        |job: &str, value: &str| json!({"metric": {"__name__": "up", "job": job}, "value": [START_SECS, value]});
    assert_eq!(body["data"], json!({"resultType": "vector", "result": [sample("a", "1"), sample("b", "0.1")]}));

    let range = format!("query=sum(up)&start={}&end={}.5&step=15s", START_SECS - 45, START_SECS);
    let (_, body) = served.post("/api/v1/query_range", &range).await;
    let values = json!([[START_SECS - 30, "1.1"], [START_SECS - 15, "1.1"], [START_SECS, "1.1"]]);
    assert_eq!(body["data"], json!({"resultType": "matrix", "result": [{"metric": {}, "values": values}]}));

    let (_, body) = served.get("/api/v1/query?query=up&limit=1").await;
    assert_eq!(body["data"]["result"].as_array().unwrap().len(), 1);
    assert_eq!(body["warnings"], json!(["results truncated due to limit"]));

    let (_, body) = served.get("/api/v1/status/buildinfo").await;
    assert!(body["data"]["features"].is_null(), "Grafana takes features for a sign of Mimir");
    assert_eq!(body["data"]["version"].as_str().unwrap().split('.').count(), 3);
    served.stop().await;
}

#[tokio::test]
async fn labels_series_and_metadata() {
    let served = Served::start().await;
    served.store.append(&[up("a", START_SECS, 1.0), up("b", START_SECS, 1.0)]).unwrap();
    let family = daraji::wire::exposition::parse(b"# TYPE up gauge\n# HELP up is it\nup 1\n", "text/plain").unwrap();
    served.store.set_metadata(&family.metadata);
    let cases = [
        ("/api/v1/labels", json!(["__name__", "job"])),
        ("/api/v1/labels?match[]=nothing", json!([])),
        ("/api/v1/label/job/values", json!(["a", "b"])),
        ("/api/v1/label/__name__/values?limit=40000&start=0&end=1800000000", json!(["up"])),
        ("/api/v1/label/job/values?match[]=up%7Bjob%3D%22b%22%7D", json!(["b"])),
        ("/api/v1/label/job/values?start=0&end=1", json!(["a", "b"])),
        ("/api/v1/series?match[]=up%7Bjob!%3D%22b%22%7D", json!([{"__name__": "up", "job": "a"}])),
        ("/api/v1/metadata?limit=40000", json!({"up": [{"type": "gauge", "unit": "", "help": "is it"}]})),
        ("/api/v1/query_exemplars?query=up", json!([])),
        ("/api/v1/format_query?query=sum(up)by(job)", json!("sum by (job) (up)")),
    ];
    for (path, data) in cases {
        assert_eq!(served.get(path).await, (200, json!({"status": "success", "data": data})), "{path}");
    }
    for path in ["config", "flags", "runtimeinfo", "tsdb"] {
        assert_eq!(served.get(&format!("/api/v1/status/{path}")).await.0, 200, "{path}");
    }
    let text = client().get(served.url("/federate?match[]=up")).send().await.unwrap().text().await.unwrap();
    assert!(text.contains(&format!("up{{job=\"a\"}} 1 {START_SECS}000\n")), "{text}");
    served.stop().await;
}

#[tokio::test]
async fn errors_have_prometheus_words_and_codes() {
    let served = Served::start().await;
    served.store.append(&[up("a", START_SECS, 1.0), up("b", START_SECS, 1.0)]).unwrap();
    let cases = [
        (
            "query",
            "query=sum(",
            400,
            "bad_data",
            "invalid parameter \"query\": 1:5: parse error: unclosed left parenthesis",
        ),
        ("query", "", 400, "bad_data", "no expression found in input"),
        (
            "query",
            "query=up&time=x",
            400,
            "bad_data",
            "invalid parameter \"time\": cannot parse \"x\" to a valid timestamp",
        ),
        ("query", "query=up*on()up", 422, "execution", "many-to-many matching not allowed"),
        ("query", "query=foo(up)", 400, "bad_data", "unknown function with name \"foo\""),
        (
            "query_range",
            "query=up&start=2&end=1&step=1",
            400,
            "bad_data",
            "end timestamp must not be before start time",
        ),
        ("query_range", "query=up&start=1&end=2&step=0", 400, "bad_data", "zero or negative query resolution step"),
        (
            "query_range",
            "query=up&start=0&end=11001&step=1",
            400,
            "bad_data",
            "exceeded maximum resolution of 11,000 points",
        ),
        ("series", "", 400, "bad_data", "no match[] parameter provided"),
        ("query", "query=up&timeout=0", 503, "timeout", "query timed out"),
    ];
    for (endpoint, form, code, kind, message) in cases {
        let (status, body) = served.post(&format!("/api/v1/{endpoint}"), form).await;
        let text = body["error"].as_str().unwrap_or_default();
        assert_eq!((status, body["errorType"].as_str()), (code, Some(kind)), "{endpoint} {form}: {body}");
        assert!(text.contains(message), "{endpoint} {form}: {text}");
        assert_eq!(body["status"], "error");
    }
    served.stop().await;
}

#[tokio::test]
async fn remote_write_is_idempotent_and_refuses_openly() {
    let served = Served::start().await;
    let send = async |samples: &[Sample], kind: &str| {
        let request = client()
            .post(served.url("/api/v1/write"))
            .header("content-type", kind)
            .header("content-encoding", "snappy");
        let response = request.body(remote_write::encode(samples).unwrap()).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let protobuf = "application/x-protobuf";
    assert_eq!(send(&[up("a", START_SECS, 1.0)], protobuf).await.0, 204);
    assert_eq!(send(&[up("a", START_SECS, 1.0)], protobuf).await.0, 204);
    let (status, text) = send(&[up("a", START_SECS, 2.0), up("b", START_SECS, 1.0)], protobuf).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("1 samples are out of order"), "{text}");
    assert_eq!(served.store.stats().samples_appended, 2, "the valid rest is kept");
    let version_2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    assert_eq!(send(&[up("a", START_SECS, 1.0)], version_2).await.0, 415);
    let response = client().post(served.url("/api/v1/write")).body("nonsense").send().await.unwrap();
    assert_eq!(response.status().as_u16(), 400);
    served.stop().await;
}

#[tokio::test]
async fn promtool_queries() {
    let program = program("bin/promtool", "promtool");
    let served = Served::start().await;
    served.store.append(&[up("a", START_SECS, 1.0)]).unwrap();
    let (url, time, later) = (served.url(""), START_SECS.to_string(), (START_SECS + 60).to_string());
    let cases: [(&[&str], &str); 5] = [
        (&["query", "instant", &url, "1+1"], "scalar: 2"),
        (&["query", "instant", "--time", &time, &url, "up"], "up{job=\"a\"} => 1"),
        (&["query", "range", "--start", &time, "--end", &later, "--step", "60s", &url, "up"], "1 @[1700000060]"),
        (&["query", "labels", "--start", &time, "--end", &later, &url, "job"], "a"),
        (&["query", "series", "--match", "up", "--start", &time, "--end", &later, &url], "job=\"a\""),
    ];
    for (arguments, expected) in cases {
        let output = tokio::process::Command::new(&program).args(arguments).env_remove("http_proxy").output().await;
        let output = output.unwrap_or_else(|error| panic!("cannot run {}: {error}", program.display()));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains(expected), "{arguments:?}: {text}{output:?}");
    }
    served.stop().await;
}
