//! Differential test: the same data and expressions in a real Prometheus and in ours must give the same answers.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use daraji::model::sample::STALE_NAN;
use daraji::model::{Labels, Sample, Timestamp};
use daraji::wire::remote_write;
use serde_json::Value;

use crate::programs::program;
use crate::prometheus_api::{START_SECS, Served, client};

/// Values may differ by this share.
const TOLERANCE: f64 = 1e-9;

struct Prometheus {
    child: Child,
    base: String,
    _dir: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

async fn start_prometheus() -> Prometheus {
    let program = program("bin/prometheus", "prometheus");
    let dir = tempfile::Builder::new().prefix("daraji-promql-oracle-").tempdir().unwrap();
    let config = dir.path().join("prometheus.yml");
    std::fs::write(&config, "global: {}\n").unwrap();
    // The port is free now and nobody else is told of it.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = Command::new(&program)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y", "--log.level=error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
    let prometheus = Prometheus { child, base: format!("http://127.0.0.1:{port}"), _dir: dir };
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

/// Half an hour of counters with resets, gauges, histograms, gaps and stale markers, with jitter.
fn data() -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut random = 12345u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as f64 / 2_147_483_648.0
    };
    for (series, member) in ["n1", "n2", "n3"].into_iter().enumerate() {
        let (mut counter, mut buckets) = (0.0, [0.0; 4]);
        for tick in 0..120 {
            #[expect(clippy::cast_possible_truncation, reason = "below 20")]
            let jitter_ms = (next() * 20.0) as i64;
            let at = Timestamp::from_millis((START_SECS - 1800 + tick * 15) * 1000 + jitter_ms);
            let mut push = |name: &str, extra: &[(&str, &str)], value: f64| {
                let labels = Labels::metric(name, &[&[("member", member), ("cluster", "c1")], extra].concat());
                samples.push(Sample::new(labels, at, value));
            };
            for bucket in &mut buckets {
                *bucket += (next() * 5.0).floor();
            }
            let (gauge, step) = ((next() - 0.5) * 50.0, (next() * 100.0).floor());
            counter = if tick % 47 == 46 { 0.0 } else { counter + step };
            push("requests_total", &[], counter);
            if !(series == 1 && (40..60).contains(&tick)) {
                push("temperature", &[], gauge);
            }
            let up = if series == 2 && tick == 100 { STALE_NAN } else { 1.0 };
            if !(series == 2 && tick > 100) {
                push("up", &[("job", "pg")], up);
            }
            let mut total = 0.0;
            for (bucket, le) in buckets.iter().zip(["0.1", "0.5", "1", "+Inf"]) {
                total += bucket;
                push("latency_seconds_bucket", &[("le", le)], total);
            }
            push("role", &[("role", if series == 0 { "primary" } else { "replica" })], 1.0);
        }
    }
    samples
}

const QUERIES: &[&str] = &[
    "1 + 1",
    "up",
    "up offset 5m",
    "up @ end()",
    "temperature{member=~\"n[12]\"}",
    "{__name__=~\"up|role\",member!=\"n1\"}",
    "rate(requests_total[5m])",
    "irate(requests_total[1m])",
    "increase(requests_total[2m])",
    "increase(requests_total[1m] offset 3m)",
    "delta(temperature[5m])",
    "idelta(temperature[5m])",
    "deriv(temperature[5m])",
    "predict_linear(temperature[5m], 600)",
    "changes(up[10m])",
    "resets(requests_total[20m])",
    "avg_over_time(temperature[3m])",
    "sum_over_time(temperature[3m])",
    "min_over_time(temperature[3m])",
    "max_over_time(temperature[3m])",
    "count_over_time(temperature[3m])",
    "stddev_over_time(temperature[3m])",
    "stdvar_over_time(temperature[3m])",
    "last_over_time(temperature[3m])",
    "present_over_time(up[3m])",
    "absent_over_time(up{member=\"n3\"}[3m])",
    "absent_over_time(nothing[3m])",
    "quantile_over_time(0.9, temperature[5m])",
    "absent(up{member=\"n3\"})",
    "absent(nothing{a=\"b\"})",
    "sum(rate(requests_total[5m]))",
    "sum by (member) (rate(requests_total[5m]))",
    "avg without (member) (temperature)",
    "stddev(temperature)",
    "stdvar by (cluster) (temperature)",
    "quantile(0.3, temperature)",
    "count by (job) (up)",
    "group(up)",
    "min(temperature)",
    "max(temperature)",
    "topk(2, temperature)",
    "bottomk(1, temperature)",
    "count_values(\"v\", up)",
    "count(count by (member) (up))",
    "histogram_quantile(0.99, sum by (le) (rate(latency_seconds_bucket[5m])))",
    "histogram_quantile(0.5, latency_seconds_bucket)",
    "temperature > 0",
    "temperature > bool 0",
    "temperature * on (member) group_left (role) role",
    "role * on (member) group_right (role) temperature",
    "up and on (member) role{role=\"primary\"}",
    "up unless on (member) role{role=\"primary\"}",
    "up{member=\"n1\"} or temperature",
    "nothing or vector(0)",
    "requests_total / ignoring (role) role",
    "requests_total % 7",
    "2 ^ temperature",
    "temperature atan2 temperature",
    "-temperature",
    "scalar(up{member=\"n1\"})",
    "time()",
    "timestamp(temperature)",
    "time() - timestamp(up)",
    "vector(time())",
    "label_replace(up, \"short\", \"$1\", \"member\", \"n(.)\")",
    "label_join(up, \"both\", \"-\", \"cluster\", \"member\")",
    "clamp(temperature, -1, 1)",
    "clamp_min(temperature, 0)",
    "clamp_max(temperature, 0)",
    "round(temperature, 0.1)",
    "round(temperature)",
    "floor(temperature)",
    "ceil(temperature)",
    "abs(temperature)",
    "sgn(temperature)",
    "sqrt(temperature)",
    "exp(temperature)",
    "ln(temperature)",
    "log2(temperature)",
    "log10(temperature)",
    "sort(temperature)",
    "sort_desc(temperature)",
    "hour(timestamp(up))",
    "minute()",
    "day_of_week()",
    "day_of_month()",
    "day_of_year()",
    "days_in_month()",
    "month()",
    "year()",
    "max_over_time(rate(requests_total[1m])[10m:1m])",
    "avg_over_time(temperature[10m:])",
    "sum_over_time(up[5m:30s] offset 1m)",
    "min_over_time(sum(temperature)[5m:17s])",
    "rate(requests_total[5m] @ end())",
    "sum(up) > 2 and sum(up) < 10",
    "(up == 1) * 5",
    "count(up == 1) by (cluster)",
    "sum(",
    "up + up{member=\"n1\"}",
    "role * on (cluster) up",
    "foo(up)",
    "rate(up)",
    "1 == 1",
    "up[5m] + 1",
    "limitk(1, up) + 1 + ",
];

fn close(a: &str, b: &str) -> bool {
    let (Ok(a), Ok(b)) = (a.parse::<f64>(), b.parse::<f64>()) else { return a == b };
    // Infinities have no distance.
    (a.is_nan() && b.is_nan())
        || a.to_bits() == b.to_bits()
        || (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0)
}

/// Equal up to rounding of numbers in strings.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => close(a, b),
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// The result, sorted where order means nothing; for errors only their kind.
async fn ask(url: &str, form: &[(&str, &str)], ordered: bool) -> Value {
    let url = reqwest::Url::parse_with_params(url, form).unwrap();
    let text = client().get(url).send().await.unwrap().text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap();
    if body["status"] != "success" {
        return body["errorType"].clone();
    }
    let mut data = body["data"].clone();
    if let (Some(result), false) = (data["result"].as_array_mut(), ordered) {
        result.sort_by_key(|series| {
            let metric = series["metric"].as_object().cloned().unwrap_or_default();
            metric
                .into_iter()
                .collect::<std::collections::BTreeMap<_, _>>()
                .into_iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect::<Vec<_>>()
        });
    }
    data
}

async fn write(base: &str, samples: &[Sample]) {
    let request = client().post(format!("{base}/api/v1/write")).header("content-encoding", "snappy");
    let request = request.header("content-type", "application/x-protobuf");
    let response = request.body(remote_write::encode(samples).unwrap()).send().await.unwrap();
    let status = response.status();
    assert!(status.is_success(), "{base}: {status} {}", response.text().await.unwrap());
}

#[tokio::test]
async fn same_answers_as_prometheus() {
    let prometheus = start_prometheus().await;
    let served = Served::start().await;
    let ours = served.url("");
    let mut samples = data();
    samples.sort_by_key(|sample| sample.at);
    write(&prometheus.base, &samples).await;
    write(&ours, &samples).await;
    let (start, end) = ((START_SECS - 1700).to_string(), (START_SECS + 200).to_string());
    let times: Vec<String> =
        [-1800, -900, -601, -290, 0, 250].iter().map(|offset| (START_SECS + offset).to_string()).collect();
    let mut problems = Vec::new();
    for query in QUERIES {
        let range = [("query", *query), ("start", &start), ("end", &end), ("step", "37")];
        let path = "/api/v1/query_range";
        let wanted = ask(&format!("{}{path}", prometheus.base), &range, false).await;
        let got = ask(&format!("{ours}{path}"), &range, false).await;
        if !same(&wanted, &got) {
            problems.push(format!("range {query}\n  prometheus {wanted}\n  daraji     {got}"));
        }
        for time in &times {
            let instant = [("query", *query), ("time", time)];
            let ordered = query.starts_with("sort") || query.starts_with("topk");
            let wanted = ask(&format!("{}/api/v1/query", prometheus.base), &instant, ordered).await;
            let got = ask(&format!("{ours}/api/v1/query"), &instant, ordered).await;
            if !same(&wanted, &got) {
                problems.push(format!("at {time} {query}\n  prometheus {wanted}\n  daraji     {got}"));
            }
        }
    }
    served.stop().await;
    assert!(problems.is_empty(), "{} differences:\n{}", problems.len(), problems.join("\n"));
}
