use std::time::Duration;

use super::*;
use crate::model::Sample;
use crate::notify::AlertingConfig;
use crate::notify::pipeline::AlertingOptions;
use crate::platform::yaml;
use crate::rules::{RuleData, load};
use crate::store::state::StateStore;

const CONFIG: &str = "
route:
  receiver: ops
  routes: [{matchers: [severity=critical], receiver: page}]
receivers:
  - {name: ops, webhook_configs: [{url: 'http://x/SECRET'}]}
  - {name: page}
";

const RULES: &str = "
groups:
  - name: g
    interval: 1s
    rules:
      - {record: 'a:b', expr: down}
      - {alert: Down, expr: down, labels: {severity: critical}, annotations: {summary: 'x'}}
      - {alert: Broken, expr: broken}
";

struct Data;

impl RuleData for Data {
    fn query(&self, expr: &str, _: Timestamp) -> Result<Vec<(Labels, f64)>, String> {
        match expr {
            "down" => Ok(vec![(Labels::from_pairs([("cluster", "demo"), ("member", "n1")]), 15.0)]),
            _ => Err("no such thing".to_owned()),
        }
    }

    fn append(&mut self, _: Vec<Sample>) {}
}

/// A server on a port of its own; the directory lives as long as it.
pub(crate) struct Server {
    pub(crate) base: String,
    pub(crate) api: AlertmanagerApi,
    _dir: tempfile::TempDir,
    group: crate::platform::tasks::TaskGroup,
}

pub(crate) async fn serve() -> Server {
    crate::platform::tls::install();
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_secs(1_700_000_000));
    let store = Arc::new(StateStore::open(dir.path(), clock.now()).unwrap());
    let root = yaml::parse("c.yml", CONFIG).unwrap();
    let config: AlertingConfig = yaml::from_node("c.yml", &root).unwrap();
    let options = AlertingOptions {
        external_url: "http://d".to_owned(),
        rules: load("r.yml", RULES, Duration::from_mins(1), &|_| Ok(())).unwrap(),
        config: config.compile("c.yml", &root).unwrap(),
        ..AlertingOptions::default()
    };
    let alerting = Arc::new(Alerting::open(store, options).unwrap());
    alerting.tick(clock.now(), &mut Data, &[]).unwrap();
    let api = AlertmanagerApi { alerting, started_at: clock.now(), clock, revision: "" };
    let app = router(api.clone()).merge(crate::http::rules_api::router(Arc::clone(&api.alerting)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let group = crate::platform::tasks::TaskGroup::new("test");
    group.spawn_until_stop("server", async move { axum::serve(listener, app).await.unwrap() });
    Server { base, api, _dir: dir, group }
}

impl Server {
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.call(reqwest::Method::GET, path, None).await
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = reqwest::Client::new().request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn stop(self) {
        self.group.stop(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn alerts_are_listed_posted_and_grouped() {
    let server = serve().await;
    let (status, alerts) = server.get("/api/v2/alerts").await;
    assert_eq!(status, 200);
    let alert = &alerts[0];
    assert_eq!(alert["labels"]["alertname"], "Down");
    assert_eq!(alert["status"], json!({"inhibitedBy": [], "mutedBy": [], "silencedBy": [], "state": "active"}));
    assert_eq!(alert["receivers"], json!([{"name": "page"}]));
    assert_eq!(alert["startsAt"], "2023-11-14T22:13:20.000Z");
    assert!(alert["endsAt"].as_str().unwrap() > "2023-11-14T22:13:20.000Z");

    // As amtool sends it: times in year 1 mean "not set".
    let zero = "0001-01-01T00:00:00.000Z";
    let posted = json!([{"labels": {"alertname": "Manual", "cluster": "demo"}, "annotations": {}, "startsAt": zero, "endsAt": zero}]);
    assert_eq!(server.call(reqwest::Method::POST, "/api/v2/alerts", Some(posted)).await.0, 200);
    server.api.alerting.tick(server.api.clock.now(), &mut Data, &[]).unwrap();
    for (query, count) in [
        ("", 2),
        ("?filter=alertname%3DManual", 1),
        ("?filter=alertname%3D~%22M.*%7CDown%22&filter=cluster%3Ddemo", 2),
        ("?receiver=page", 1),
        ("?active=false", 0),
    ] {
        let (_, alerts) = server.get(&format!("/api/v2/alerts{query}")).await;
        assert_eq!(alerts.as_array().unwrap().len(), count, "{query}: {alerts}");
    }
    let (_, groups) = server.get("/api/v2/alerts/groups").await;
    let receivers: Vec<_> = groups.as_array().unwrap().iter().map(|group| group["receiver"]["name"].clone()).collect();
    assert_eq!(receivers, ["ops", "page"]);
    assert_eq!(groups[0]["labels"], json!({"cluster": "demo"}));

    for (body, text) in [(json!({}), "not a list of alerts"), (json!([{"labels": {}}]), "at least one label")] {
        let (status, message) = server.call(reqwest::Method::POST, "/api/v2/alerts", Some(body)).await;
        assert_eq!(status, 400);
        assert!(message.as_str().unwrap().contains(text), "{message}");
    }
    assert_eq!(server.get("/api/v2/alerts?filter=%7B").await.0, 400);
    server.stop().await;
}

#[tokio::test]
async fn silences_are_set_listed_and_expired() {
    let server = serve().await;
    let silence = json!({
        "matchers": [{"name": "cluster", "value": "demo", "isRegex": false, "isEqual": true}],
        "startsAt": "2023-11-14T22:13:20.000Z", "endsAt": "2023-11-14T23:13:20.000Z",
        "createdBy": "me", "comment": "maintenance",
    });
    let (status, answer) = server.call(reqwest::Method::POST, "/api/v2/silences", Some(silence.clone())).await;
    assert_eq!(status, 200, "{answer}");
    let id = answer["silenceID"].as_str().unwrap().to_owned();
    server.api.alerting.tick(server.api.clock.now(), &mut Data, &[]).unwrap();
    let (_, alerts) = server.get("/api/v2/alerts?silenced=true").await;
    assert_eq!(alerts[0]["status"]["silencedBy"], json!([id]));
    assert_eq!(server.get("/api/v2/alerts?silenced=false").await.1, json!([]));
    let (_, shown) = server.get(&format!("/api/v2/silence/{id}")).await;
    assert_eq!((&shown["status"]["state"], &shown["comment"]), (&json!("active"), &json!("maintenance")));
    assert_eq!(server.get("/api/v2/silences?filter=cluster%3Ddemo").await.1.as_array().unwrap().len(), 1);
    assert_eq!(server.get("/api/v2/silences?filter=cluster%3Dother").await.1, json!([]));
    assert_eq!(server.call(reqwest::Method::DELETE, &format!("/api/v2/silence/{id}"), None).await.0, 200);
    assert_eq!(server.get(&format!("/api/v2/silence/{id}")).await.1["status"]["state"], "expired");
    assert_eq!(server.get("/api/v2/silence/nope").await.0, 404);
    assert_eq!(server.call(reqwest::Method::DELETE, "/api/v2/silence/nope", None).await.0, 404);
    let mut bad = silence;
    bad["endsAt"] = json!("2020-01-01T00:00:00Z");
    let (status, message) = server.call(reqwest::Method::POST, "/api/v2/silences", Some(bad)).await;
    assert_eq!((status, message.as_str()), (400, Some("a silence must start before it ends")));
    server.stop().await;
}

#[tokio::test]
async fn the_status_shows_a_configuration_without_secrets() {
    let server = serve().await;
    let (_, status) = server.get("/api/v2/status").await;
    let original = status["config"]["original"].as_str().unwrap();
    assert!(!original.contains("SECRET"), "{original}");
    let shown: Value = serde_json::from_str(original).unwrap();
    assert_eq!(shown["route"]["routes"][0]["matchers"], json!(["severity=\"critical\""]));
    assert_eq!(shown["receivers"][0]["webhook_configs"][0]["url"], "http://redacted.invalid/");
    assert_eq!(server.get("/api/v2/receivers").await.1, json!([{"name": "ops"}, {"name": "page"}]));
    server.stop().await;
}
