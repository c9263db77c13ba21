//! The API over TCP, as Grafana and shippers use it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::model::{Labels, Timestamp};
use crate::platform::disk::Disk;
use crate::platform::tasks::TaskGroup;
use crate::store::logs::LogOptions;

const BASE_SECS: i64 = 1_700_000_000;

/// A served store; stops with its directory when dropped.
struct Served {
    address: SocketAddr,
    logs: Arc<LogStore>,
    tasks: TaskGroup,
    _dir: tempfile::TempDir,
}

/// A sink that writes to the store.
fn storing(logs: &Arc<LogStore>) -> PushSink {
    let logs = Arc::clone(logs);
    Arc::new(move |records| {
        let logs = Arc::clone(&logs);
        Box::pin(async move {
            let stored = blocking(move || logs.append(None, &records)).await;
            stored.map(drop).map_err(|error| PushError::Unavailable(chain(&error)))
        })
    })
}

impl Served {
    async fn start() -> Self {
        Self::start_with(storing).await
    }

    async fn start_with(sink: fn(&Arc<LogStore>) -> PushSink) -> Self {
        Self::start_as(sink, LokiConfig::default()).await
    }

    async fn start_as(sink: fn(&Arc<LogStore>) -> PushSink, config: LokiConfig) -> Self {
        let dir = tempfile::Builder::new().prefix("daraji-loki-api-").tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_secs(BASE_SECS + 60));
        let (logs, _) = LogStore::open(dir.path(), LogOptions::default(), &Disk::real(), &clock).unwrap();
        let logs = Arc::new(logs);
        let api = LokiApi::new(Arc::clone(&logs), clock, sink(&logs), config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskGroup::new("test");
        let app = router(api);
        tasks.spawn_until_stop("http", async move { axum::serve(listener, app).await.unwrap() });
        Self { address, logs, tasks, _dir: dir }
    }

    async fn with_lines() -> Self {
        let served = Self::start().await;
        let lines = [
            record(1, "n1", "info", "took=5ms path=/a", &[("pid", "7")]),
            record(2, "n2", "error", "{\"took\": \"7ms\", \"req\": {\"size\": 12}}", &[]),
            record(3, "n1", "info", "took=9ms path=/b", &[("pid", "8")]),
        ];
        served.logs.append(None, &lines).unwrap();
        served
    }

    /// Status, content type and body; `headers` are whole lines.
    async fn ask(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut head =
            format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        for line in headers {
            head.push_str(line);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or("");
        (status, kind.to_owned(), body.to_owned())
    }

    async fn get(&self, target: &str) -> Value {
        let (status, kind, body) = self.ask("GET", target, &[], b"").await;
        assert_eq!((status, kind.as_str()), (200, "application/json"), "{target}: {body}");
        without_stats(serde_json::from_str(&body).unwrap())
    }

    async fn push(&self, body: &Value) -> u16 {
        let body = body.to_string();
        let kind = ["Content-Type: application/json"];
        self.ask("POST", "/loki/api/v1/push", &kind, body.as_bytes()).await.0
    }
}

/// Stats hold times of this run; that they are there and last is all that counts.
fn without_stats(mut answer: Value) -> Value {
    let data = answer.get_mut("data").and_then(Value::as_object_mut);
    if let Some(data) = data.filter(|data| data.contains_key("resultType")) {
        assert_eq!(data.keys().next_back().map(String::as_str), Some("stats"));
        assert!(data.remove("stats").unwrap()["summary"]["totalBytesProcessed"].is_u64());
    }
    answer
}

fn record(second: i64, member: &str, severity: &str, line: &str, fields: &[(&str, &str)]) -> LogRecord {
    LogRecord {
        at: Timestamp::from_secs(BASE_SECS + second),
        stream: Labels::from_pairs([("cluster", "demo"), ("member", member), ("severity", severity)]),
        line: line.to_owned(),
        fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

/// The query string of a query in the time range of the test lines.
fn range(query: &str, more: &str) -> String {
    encoded(&format!("query_range?start={BASE_SECS}&end={}{more}&", BASE_SECS + 60), query)
}

fn encoded(target: &str, query: &str) -> String {
    let mut encoded = String::new();
    for byte in query.bytes() {
        write!(encoded, "%{byte:02X}").unwrap();
    }
    format!("/loki/api/v1/{target}query={encoded}")
}

#[tokio::test]
async fn lines_have_two_elements_and_all_labels() {
    let served = Served::with_lines().await;
    let answer = served.get(&range(r#"{cluster="demo"} |= "took""#, "&limit=2")).await;
    let expected = json!({"status": "success", "data": {"resultType": "streams", "result": [
        {"stream": {"cluster": "demo", "detected_level": "info", "member": "n1", "pid": "8", "severity": "info"},
         "values": [["1700000003000000000", "took=9ms path=/b"]]},
        {"stream": {"cluster": "demo", "detected_level": "error", "member": "n2", "severity": "error"},
         "values": [["1700000002000000000", "{\"took\": \"7ms\", \"req\": {\"size\": 12}}"]]},
    ]}});
    assert_eq!(answer, expected);
    let empty = served.get(&range(r#"{cluster="none"}"#, "")).await;
    assert_eq!(empty, json!({"status": "success", "data": {"resultType": "streams", "result": []}}));
}

#[tokio::test]
async fn labels_made_by_stages_may_be_empty() {
    let served = Served::start().await;
    served.logs.append(None, &[record(1, "n1", "info", "user= took=5ms", &[])]).unwrap();
    let target = range(r#"{member="n1"} | logfmt --keep-empty | drop cluster, severity"#, "");
    let answer = served.get(&target).await;
    let stream = json!({"detected_level": "info", "member": "n1", "took": "5ms", "user": ""});
    assert_eq!(answer["data"]["result"][0]["stream"], stream);
    let flags = ["X-Loki-Response-Encoding-Flags: categorize-labels"];
    let (_, _, body) = served.ask("GET", &target, &flags, b"").await;
    assert!(body.contains(r#""parsed":{"took":"5ms","user":""}"#), "{body}");
}

#[tokio::test]
async fn categorized_lines_have_three_elements_and_the_flags_come_first() {
    let served = Served::with_lines().await;
    let target = range(r#"{member="n1"} | logfmt | drop detected_level"#, "&direction=FORWARD");
    let flags = ["X-Loki-Response-Encoding-Flags: categorize-labels,other"];
    let (status, _, body) = served.ask("GET", &target, &flags, b"").await;
    assert_eq!(status, 200);
    let data = body
        .find("\"data\":{\"resultType\":\"streams\",\"encodingFlags\":[\"categorize-labels\",\"other\"],\"result\":");
    assert!(data.is_some(), "{body}");
    let answer = without_stats(serde_json::from_str(&body).unwrap());
    let expected = json!([{"stream": {"cluster": "demo", "member": "n1", "severity": "info"}, "values": [
        ["1700000001000000000", "took=5ms path=/a",
         {"structuredMetadata": {"pid": "7"}, "parsed": {"took": "5ms", "path": "/a"}}],
        ["1700000003000000000", "took=9ms path=/b",
         {"structuredMetadata": {"pid": "8"}, "parsed": {"took": "9ms", "path": "/b"}}],
    ]}]);
    assert_eq!(answer["data"]["result"], expected);
    let plain = range(r#"{member="n2"} | keep member"#, "");
    let (_, _, body) = served.ask("GET", &plain, &flags, b"").await;
    assert!(body.contains("{\\\"size\\\": 12}}\",{}]]"), "{body}");
}

#[tokio::test]
async fn numbers_at_one_time_and_on_steps() {
    let served = Served::with_lines().await;
    // What Grafana asks to see whether the datasource works.
    let health = served.get("/loki/api/v1/query?query=vector(1)%2Bvector(1)&time=4000000000").await;
    let expected = json!({"resultType": "vector", "result": [{"metric": {}, "value": [4_000_000_000_i64, "2"]}]});
    assert_eq!(health["data"], expected);
    let scalar = served.get("/loki/api/v1/query?query=1.5%2F0&time=1.5").await;
    assert_eq!(scalar["data"], json!({"resultType": "scalar", "result": [1.5, "+Inf"]}));
    let query = r#"sum by (member) (count_over_time({cluster="demo"}[20s]))"#;
    let matrix = served.get(&range(query, "&step=20000ms")).await;
    let expected = json!({"resultType": "matrix", "result": [
        {"metric": {"member": "n1"}, "values": [[1_700_000_020, "2"]]},
        {"metric": {"member": "n2"}, "values": [[1_700_000_020, "1"]]},
    ]});
    assert_eq!(matrix["data"], expected);
    let form = b"query=vector(3)&time=5";
    let kind = ["Content-Type: application/x-www-form-urlencoded"];
    let (status, _, body) = served.ask("POST", "/loki/api/v1/query", &kind, form).await;
    assert_eq!(status, 200);
    assert!(body.contains("\"value\":[5,\"3\"]"), "{body}");
}

#[tokio::test]
async fn labels_and_series() {
    let served = Served::with_lines().await;
    for target in ["labels", "label", "labels?query=%7Bmember%3D%22n1%22%7D"] {
        let answer = served.get(&format!("/loki/api/v1/{target}")).await;
        assert_eq!(answer, json!({"status": "success", "data": ["cluster", "member", "severity"]}), "{target}");
    }
    let values = served.get("/loki/api/v1/label/member/values").await;
    assert_eq!(values["data"], json!(["n1", "n2"]));
    let values = served.get(&encoded("label/member/values?", r#"{severity="error"}"#)).await;
    assert_eq!(values["data"], json!(["n2"]));
    let none = served.get("/loki/api/v1/label/member/values?start=5&end=6").await;
    assert_eq!(none["data"], json!([]));
    let series =
        served.get("/loki/api/v1/series?match[]=%7Bmember%3D%22n1%22%7D&match[]=%7Bmember%3D%22n1%22%7D").await;
    let n1 = json!({"cluster": "demo", "member": "n1", "severity": "info"});
    assert_eq!(series["data"], json!([n1]));
    assert_eq!(served.get("/loki/api/v1/series").await["data"].as_array().unwrap().len(), 2);
    let detected = served.get("/loki/api/v1/detected_labels").await;
    let expected = [("cluster", 1), ("member", 2), ("severity", 2)];
    let expected = expected.map(|(label, cardinality)| json!({"label": label, "cardinality": cardinality}));
    assert_eq!(detected, json!({"detectedLabels": expected}));
}

#[tokio::test]
async fn volumes_and_stats() {
    let served = Served::with_lines().await;
    // Fields weigh too: 8 bytes each, and every text once.
    let stats = served.get(&encoded("index/stats?", r#"{member="n1"}"#)).await;
    assert_eq!(stats, json!({"streams": 1, "chunks": 1, "bytes": 53, "entries": 2}));
    let at = BASE_SECS + 60;
    let volume = served.get(&encoded("index/volume?", r#"{cluster="demo"}"#)).await;
    assert_eq!(volume["data"]["result"], json!([{"metric": {"cluster": "demo"}, "value": [at, "89"]}]));
    let volume = served.get(&encoded("index/volume?targetLabels=member&", r#"{cluster="demo"}"#)).await;
    let expected = json!([
        {"metric": {"member": "n1"}, "value": [at, "53"]},
        {"metric": {"member": "n2"}, "value": [at, "36"]},
    ]);
    assert_eq!(volume["data"]["result"], expected);
    let volume = served.get(&encoded("index/volume?aggregateBy=labels&limit=1&", r#"{cluster="demo"}"#)).await;
    assert_eq!(volume["data"]["result"], json!([{"metric": {"cluster": ""}, "value": [at, "89"]}]));
    let times = format!("index/volume_range?targetLabels=member&start={BASE_SECS}&end={at}&step=2&");
    let volume = served.get(&encoded(&times, r#"{member="n1"}"#)).await;
    let values = json!([[BASE_SECS, "28"], [BASE_SECS + 2, "25"]]);
    assert_eq!(
        volume["data"],
        json!({"resultType": "matrix", "result": [{"metric": {"member": "n1"}, "values": values}]})
    );
}

#[tokio::test]
async fn fields_are_found_in_lines() {
    let served = Served::with_lines().await;
    let fields = served.get(&encoded("detected_fields?", r#"{cluster="demo"}"#)).await;
    let expected = json!({"limit": 1000, "fields": [
        {"label": "detected_level", "type": "string", "cardinality": 2, "parsers": null},
        {"label": "path", "type": "string", "cardinality": 2, "parsers": ["logfmt"]},
        {"label": "pid", "type": "int", "cardinality": 2, "parsers": null},
        {"label": "req_size", "type": "int", "cardinality": 1, "parsers": ["json"], "jsonPath": ["req", "size"]},
        {"label": "took", "type": "duration", "cardinality": 3, "parsers": ["json", "logfmt"], "jsonPath": ["took"]},
    ]});
    assert_eq!(fields, expected);
    let values = served.get(&encoded("detected_field/took/values?limit=2&", r#"{cluster="demo"}"#)).await;
    assert_eq!(values, json!({"values": ["5ms", "7ms"], "limit": 2}));
    let patterns = served.get(&encoded("patterns?", r#"{cluster="demo"}"#)).await;
    assert_eq!(patterns, json!({"status": "success", "data": []}));
}

#[tokio::test]
async fn small_answers() {
    let served = Served::start().await;
    let formatted = served.get(&encoded("format_query?", r#"{a="b"}|="c"|json"#)).await;
    assert_eq!(formatted, json!({"status": "success", "data": r#"{a="b"} |= "c" | json"#}));
    assert!(served.get("/loki/api/v1/status/buildinfo").await["version"].as_str().unwrap().starts_with("3."));
    assert_eq!(served.get("/loki/api/v1/drilldown-limits").await["limits"]["volume_enabled"], true);
}

#[tokio::test]
async fn errors_are_text_and_unknown_paths_json() {
    let served = Served::start().await;
    for (target, status, message) in [
        (range("{a=", ""), 400, "parse error at line 1, col "),
        (range(r#"{a="b"}"#, "&limit=0"), 400, "limit must be a positive value\n"),
        (range(r#"{a="b"}"#, "&limit=5001"), 400, "max entries limit per query exceeded"),
        (range(r#"{a="b"}"#, "&direction=up"), 400, "invalid direction"),
        (range("vector(1)", "&step=0"), 400, "zero or negative query resolution"),
        (encoded("query?", r#"{a="b"}"#), 400, "log queries are not supported as an instant query type"),
        ("/loki/api/v1/labels?start=x".to_owned(), 400, "cannot parse start"),
        ("/loki/api/v1/query_range?query=vector(1)&start=9&end=8".to_owned(), 400, "end timestamp must not be before"),
        (encoded("tail?delay_for=6&", r#"{a="b"}"#), 400, "delay_for can't be greater than 5"),
        (encoded("tail?", "vector(1)"), 400, "only log queries"),
    ] {
        let (got, kind, body) = served.ask("GET", &target, &[], b"").await;
        assert_eq!((got, kind.as_str()), (status, "text/plain; charset=utf-8"), "{target}: {body}");
        assert!(body.starts_with(message), "{target}: {body}");
    }
    for path in ["/loki/api/v1/rules", "/loki/api/v1/nothing/here", "/loki/x", "/api/prom/rules/test/test"] {
        let (status, kind, body) = served.ask("GET", path, &[], b"").await;
        assert_eq!((status, kind.as_str()), (404, "application/json"), "{path}");
        let expected = json!({"message": format!("no such path: {path}")});
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    }
}

#[tokio::test]
async fn pushed_lines_are_searchable() {
    let served = Served::start().await;
    let time = ((BASE_SECS + 1) * 1_000_000_000).to_string();
    let body = |time: Value| json!({"streams": [{"stream": {"cluster": "demo", "app": "web"}, "values": [[time, "hello", {"pid": "1"}]]}]});
    assert_eq!(served.push(&body(json!(time))).await, 204);
    let answer = served.get(&range(r#"{service_name="web"}"#, "")).await;
    let stream = json!({"app": "web", "cluster": "demo", "pid": "1", "service_name": "web"});
    assert_eq!(answer["data"]["result"], json!([{"stream": stream, "values": [[time, "hello"]]}]));
    // A time as a number is what clients expect to be refused.
    assert_eq!(served.push(&body(json!(1_700_000_001_000_000_000_i64))).await, 400);
    // What is old is dropped, and not refused.
    assert_eq!(served.push(&body(json!("1000000000"))).await, 204);
    assert_eq!(served.push(&json!({"streams": []})).await, 204);
    // Nobody forges our own events.
    let forged = json!({"streams": [{"stream": {"source": "daraji"}, "values": [[time, "leader lost"]]}]});
    assert_eq!(served.push(&forged).await, 400);
    let (status, _, body) = served.ask("POST", "/loki/api/v1/push", &[], b"\xff\xff\xff\xff\xff\xff").await;
    assert_eq!(status, 400);
    assert!(body.starts_with("the request is not a snappy block"), "{body}");
    // Larger than is taken, by its own header.
    let (status, ..) = served.ask("POST", "/loki/api/v1/push", &[], b"\x80\x80\x80\x80\x04x").await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn discovery_is_as_configured() {
    let time = ((BASE_SECS + 1) * 1_000_000_000).to_string();
    let pushed = json!({"streams": [
        {"stream": {"severity": "warning", "app": "web", "team": "db"}, "values": [[time, "hello"]]},
        {"stream": {"severity": "warning", "app": "api"}, "values": [[time, "hello"]]},
    ]});
    for (labels, levels, streams) in [
        (&["team", "app"][..], false, ["api", "db"].map(|name| json!({"service_name": name}))),
        (
            &["team"],
            true,
            ["unknown_service", "db"].map(|name| json!({"service_name": name, "detected_level": "warn"})),
        ),
        (&[], true, [json!({"detected_level": "warn"}), json!({"detected_level": "warn"})]),
    ] {
        let names: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let config = LokiConfig { discover_service_name: names, discover_log_levels: levels };
        let served = Served::start_as(storing, config).await;
        assert_eq!(served.push(&pushed).await, 204);
        for (app, stream) in ["api", "web"].iter().zip(streams) {
            let answer = served.get(&range(&format!("{{app={app:?}}} | drop app, team, severity"), "")).await;
            assert_eq!(answer["data"]["result"][0]["stream"], stream, "{app}: {labels:?}");
        }
        let answer =
            served.get(&encoded("query?time=1700000010&", r#"sum by (detected_level) (rate({app="web"}[1m]))"#)).await;
        let metric = if levels { json!({"detected_level": "warn"}) } else { json!({}) };
        assert_eq!(answer["data"]["result"][0]["metric"], metric);
        let limits = served.get("/loki/api/v1/drilldown-limits").await;
        assert_eq!(limits["limits"]["discover_service_name"], json!(labels));
        assert_eq!(limits["limits"]["discover_log_levels"], levels);
    }
}

#[tokio::test]
async fn a_store_that_cannot_take_lines_makes_the_sender_repeat() {
    let refusing = |_: &Arc<LogStore>| -> PushSink {
        Arc::new(|_| Box::pin(async { Err(PushError::Unavailable("no space left".to_owned())) }))
    };
    let served = Served::start_with(refusing).await;
    let body = json!({"streams": [{"stream": {"a": "b"}, "values": [["1700000000000000000", "x"]]}]});
    assert_eq!(served.push(&body).await, 503);
}

#[tokio::test]
async fn work_that_takes_too_long_is_cut_off_and_gives_its_place_back() {
    let served = Served::with_lines().await;
    let mut api = LokiApi::new(Arc::clone(&served.logs), Clock::system(), storing(&served.logs), LokiConfig::default());
    api.patience = Duration::from_millis(50);
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let endless = move |stop: CancellationToken| {
        count.fetch_add(1, Ordering::SeqCst);
        while !stop.is_cancelled() {
            std::thread::yield_now();
        }
        Ok(())
    };
    for _ in 0..QUERIES_AT_ONCE * 2 {
        let endless = endless.clone();
        let error = api.run(move |_, _, stop| endless(stop.clone())).await.unwrap_err();
        assert_eq!(error.status, StatusCode::GATEWAY_TIMEOUT, "{}", error.message);
    }
    assert!(begun.load(Ordering::SeqCst) > QUERIES_AT_ONCE, "places were given back");
}

/// The client's end of a websocket: only what these tests need.
struct Socket(TcpStream);

impl Socket {
    async fn open(served: &Served, target: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    /// The opcode and payload of the next frame.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let (first, second) = (self.0.read_u8().await.unwrap(), self.0.read_u8().await.unwrap());
        let length = match second {
            126 => u64::from(self.0.read_u16().await.unwrap()),
            127 => self.0.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.unwrap();
        (first & 0x0f, payload)
    }

    /// The next text frame.
    async fn json(&mut self) -> Value {
        let next = async {
            loop {
                if let (1, payload) = self.frame().await {
                    return serde_json::from_slice(&payload).unwrap();
                }
            }
        };
        timeout(Duration::from_secs(30), next).await.unwrap()
    }

    /// The lines of the next frames, until there are so many.
    async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.len() < count {
            let frame = self.json().await;
            for stream in frame["streams"].as_array().unwrap() {
                lines.extend(
                    stream["values"].as_array().unwrap().iter().map(|value| value[1].as_str().unwrap().to_owned()),
                );
            }
        }
        lines
    }
}

#[tokio::test]
async fn a_tail_gives_what_is_there_and_what_comes() {
    let served = Served::with_lines().await;
    let target = encoded(&format!("tail?start={BASE_SECS}&"), r#"{member="n1"} |= "took""#);
    let mut socket = Socket::open(&served, &target, "").await;
    let stream = |pid: &str| json!({"cluster": "demo", "detected_level": "info", "member": "n1", "pid": pid, "severity": "info"});
    let expected = json!({"streams": [
        {"stream": stream("7"), "values": [["1700000001000000000", "took=5ms path=/a"]]},
        {"stream": stream("8"), "values": [["1700000003000000000", "took=9ms path=/b"]]},
    ], "dropped_entries": []});
    assert_eq!(socket.json().await, expected);
    served.logs.append(None, &[record(4, "n2", "info", "took of another", &[])]).unwrap();
    served.logs.append(None, &[record(5, "n1", "info", "other", &[])]).unwrap();
    served.logs.append(None, &[record(6, "n1", "info", "took 1", &[("pid", "9")])]).unwrap();
    let expected = json!({"streams": [
        {"stream": stream("9"), "values": [["1700000006000000000", "took 1"]]},
    ], "dropped_entries": []});
    assert_eq!(socket.json().await, expected);
    let flags = "X-Loki-Response-Encoding-Flags: categorize-labels\r\n";
    let mut socket =
        Socket::open(&served, &encoded("tail?limit=1&", r#"{member="n1"} | drop detected_level"#), flags).await;
    let expected = json!({"encodingFlags": ["categorize-labels"], "streams": [
        {"stream": {"cluster": "demo", "member": "n1", "severity": "info"},
         "values": [["1700000006000000000", "took 1", {"structuredMetadata": {"pid": "9"}}]]},
    ], "dropped_entries": []});
    assert_eq!(socket.json().await, expected);
}

#[tokio::test]
async fn a_tail_loses_and_repeats_no_line() {
    let served = Served::start().await;
    let logs = Arc::clone(&served.logs);
    let appended = served.tasks.clone();
    // Many more batches than a live reader may fall behind, while the tail opens.
    appended.spawn("writer", async move {
        blocking(move || {
            for n in 0..3000 {
                logs.append(None, &[record(1 + n % 5, "n1", "info", &format!("line {n}"), &[])]).unwrap();
            }
        })
        .await;
    });
    let target = encoded(&format!("tail?limit=5000&start={BASE_SECS}&"), r#"{member="n1"}"#);
    let mut socket = Socket::open(&served, &target, "").await;
    let mut lines = socket.lines(3000).await;
    lines.sort();
    let mut expected: Vec<String> = (0..3000).map(|n| format!("line {n}")).collect();
    expected.sort();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_delayed_tail_puts_late_lines_in_order() {
    let served = Served::start().await;
    let mut socket = Socket::open(&served, &encoded("tail?delay_for=1&", r#"{member="n1"}"#), "").await;
    // A ping says that the tail has subscribed.
    while socket.frame().await.0 != 9 {}
    served.logs.append(None, &[record(5, "n1", "info", "second", &[]), record(3, "n1", "info", "first", &[])]).unwrap();
    assert_eq!(socket.lines(2).await, ["first", "second"]);
}
