//! Recorded answers of a real Loki (3.7.6, its defaults, discovery of services and levels off), and ours.
//!
//! `corpus.ndjson` holds 20 minutes of lines that were made for this: logfmt, JSON, and text that is neither.
//! `answers.ndjson` holds queries and Loki's answers: the newest 12 lines, the samples of an instant, points from 600 s
//! on. Times count from the start of the hour of which these are the last 20 minutes, [`BASE_SECS`] here.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;

use daraji::http::loki_api::{LokiApi, LokiConfig, PushError, PushSink, router};
use daraji::model::Timestamp;
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::platform::error::chain;
use daraji::store::logs::{LogOptions, LogStore};

/// A whole step, as the recorded one began at.
const BASE_SECS: i64 = 1_700_000_400;
const FIRST_SECS: i64 = 2400;
const END_SECS: i64 = 3600;
const INSTANT_SECS: i64 = 3300;
const FIRST_STEP_SECS: i64 = 3000;
const LINES: usize = 12;

fn recorded(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/loki").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

struct Loki {
    router: Router,
    logs: Arc<LogStore>,
    _dir: tempfile::TempDir,
}

impl Loki {
    fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("daraji-loki-answers-").tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_secs(BASE_SECS + END_SECS + 60));
        let (logs, _) = LogStore::open(dir.path(), LogOptions::default(), &Disk::real(), &clock).unwrap();
        let logs = Arc::new(logs);
        let store = Arc::clone(&logs);
        let push: PushSink = Arc::new(move |records| {
            let stored = store.append(None, &records).map(drop);
            Box::pin(async move { stored.map_err(|error| PushError::Unavailable(chain(&error))) })
        });
        let config = LokiConfig { discover_service_name: Vec::new(), discover_log_levels: false };
        let router = router(LokiApi::new(Arc::clone(&logs), clock, push, config));
        Self { router, logs, _dir: dir }
    }

    async fn push(&self, lines: &[Value]) {
        let mut streams = BTreeMap::<String, Vec<Value>>::new();
        for line in lines {
            let at = (BASE_SECS * 1_000_000_000 + line["at"].as_i64().unwrap()).to_string();
            let values = streams.entry(line["stream"].to_string()).or_default();
            values.push(json!([at, line["line"], line["fields"]]));
        }
        let stream = |(labels, values): (String, Vec<Value>)| json!({"stream": serde_json::from_str::<Value>(&labels).unwrap(), "values": values});
        let body = json!({"streams": streams.into_iter().map(stream).collect::<Vec<_>>()});
        let request = Request::post("/loki/api/v1/push").header("content-type", "application/json");
        let (status, text) = self.call(request.body(Body::from(body.to_string())).unwrap()).await;
        assert_eq!(status, 204, "{text}");
    }

    async fn call(&self, request: Request<Body>) -> (u16, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Asks as the recorder did; the answer in the form of the recording.
    async fn ask(&self, recorded: &Value) -> Value {
        let (query, call) = (recorded["query"].as_str().unwrap(), recorded["call"].as_str().unwrap());
        let first = if recorded["type"] == "matrix" { FIRST_STEP_SECS } else { FIRST_SECS };
        let range = [("start", (BASE_SECS + first).to_string()), ("end", (BASE_SECS + END_SECS).to_string())];
        let mut parameters = BTreeMap::<&str, String>::new();
        let path = match call {
            "api" => {
                let (path, more) = query.split_once(' ').unwrap();
                let more: BTreeMap<String, String> = serde_json::from_str(more).unwrap();
                parameters.extend(range);
                parameters.extend(more.get("query").map(|query| ("query", query.clone())));
                path.to_owned()
            }
            "query" => {
                parameters.insert("time", (BASE_SECS + INSTANT_SECS).to_string());
                parameters.insert("query", query.to_owned());
                "/loki/api/v1/query".to_owned()
            }
            _ => {
                parameters.extend(range);
                parameters.extend([("query", query.to_owned()), ("step", "120s".to_owned())]);
                parameters.insert("limit", LINES.to_string());
                "/loki/api/v1/query_range".to_owned()
            }
        };
        let form = reqwest::Url::parse_with_params("http://loki/", &parameters).unwrap();
        let target = format!("{path}?{}", form.query().unwrap());
        let (status, text) = self.call(Request::get(target).body(Body::empty()).unwrap()).await;
        if status != 200 {
            return json!({"status": status});
        }
        let answer: Value = serde_json::from_str(&text).unwrap();
        let data = &answer["data"];
        let Some(kind) = data.get("resultType") else { return json!({"status": 200, "result": data}) };
        json!({"status": 200, "type": kind, "result": results(kind.as_str().unwrap(), data["result"].as_array().unwrap())})
    }
}

fn results(kind: &str, found: &[Value]) -> Vec<Value> {
    let since_base = |nanos: i64| nanos - BASE_SECS * 1_000_000_000;
    let mut results = Vec::new();
    for one in found {
        match kind {
            "streams" => results.extend(one["values"].as_array().unwrap().iter().map(|value| {
                json!([since_base(value[0].as_str().unwrap().parse().unwrap()), one["stream"], value[1]])
            })),
            "vector" => results.push(json!([one["metric"], one["value"][1]])),
            _ => {
                let point = |p: &Value| json!([since_base(p[0].as_i64().unwrap() * 1_000_000_000), p[1]]);
                let points: Vec<Value> = one["values"].as_array().unwrap().iter().map(point).collect();
                results.push(json!([one["metric"], points]));
            }
        }
    }
    results
}

/// With members of objects and results in order, and numbers as close texts: what has no order or no last digit.
fn canonical(answer: &Value) -> String {
    fn walk(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let sorted: BTreeMap<_, _> = members.iter().map(|(name, value)| (name.clone(), walk(value))).collect();
                sorted.into_iter().collect::<Map<_, _>>().into()
            }
            Value::Array(items) => items.iter().map(walk).collect(),
            Value::String(text) => match text.parse::<f64>() {
                Ok(number) if text.contains('.') => format!("{number:.9e}").into(),
                _ => value.clone(),
            },
            other => other.clone(),
        }
    }
    let mut results: Vec<String> =
        answer["result"].as_array().map_or(&[][..], Vec::as_slice).iter().map(|one| walk(one).to_string()).collect();
    results.sort();
    format!("{} {}\n{}", answer["status"], answer["type"], results.join("\n"))
}

#[tokio::test]
async fn answers_are_those_of_a_real_loki() {
    let loki = Loki::start();
    let corpus = recorded("corpus.ndjson");
    // Half of it sealed, half in memory.
    let (old, new) = corpus.split_at(corpus.len() / 2);
    loki.push(old).await;
    loki.logs.seal().unwrap();
    loki.push(new).await;
    let answers = recorded("answers.ndjson");
    assert!(answers.len() > 60, "recordings are missing");
    let mut wrong = Vec::new();
    for expected in &answers {
        let found = canonical(&loki.ask(expected).await);
        let expected_text = canonical(expected);
        if found != expected_text {
            wrong.push(format!("{} {}\nLoki: {expected_text}\nours: {found}\n", expected["call"], expected["query"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} answers differ:\n{}", wrong.len(), answers.len(), wrong.join("\n"));
}
