//! What the real server says about its targets, in our own shape and in Prometheus'.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::alerting::PATIENCE;
use crate::server::{Server, home};

/// Asks until the answer is as wanted.
pub(crate) async fn wait_for(server: &Server, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let ask = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            ticks.tick().await;
            last = server.get(path).await;
            if fits(&last) {
                return;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, ask).await;
    assert!(found.is_ok(), "{path}: {last:#}\n{:#?}", server.lines());
    last
}

/// A server with this configuration and its data below `home`.
pub(crate) async fn start_with(home: &Path, config: &str) -> Server {
    let path = home.join("daraji.yml");
    fs::write(&path, format!("listen: 127.0.0.1:0\nstorage: {{path: {}}}\n{config}", home.join("data").display()))
        .unwrap();
    Server::start(home, &["--config", path.to_str().unwrap()]).await
}

#[tokio::test]
async fn targets_pools_and_metadata_in_prometheus_shape() {
    let (home, exporter_home) = (home("targets"), home("exporter"));
    let exporter = Server::start_on(exporter_home.path(), &exporter_home.path().join("data")).await;
    let address = exporter.url("").trim_start_matches("http://").to_owned();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let job = |name: &str, target: &str| {
        format!(
            "{{job_name: {name}, scrape_interval: 1s, scrape_timeout: 900ms, static_configs: [{{targets: ['{target}'], labels: {{env: test}}}}]}}"
        )
    };
    let config = format!("scrape_configs: [{}, {}]\n", job("alive", &address), job("dead", &closed.to_string()));
    let server = start_with(home.path(), &config).await;
    let health = |answer: &Value| {
        let active = answer["data"]["activeTargets"].as_array().unwrap().iter();
        active.map(|target| target["health"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let answer =
        wait_for(&server, "/api/v1/targets", |answer| health(answer).iter().all(|word| word != "unknown")).await;
    assert_eq!(answer["data"]["droppedTargets"], json!([]));
    let targets = answer["data"]["activeTargets"].as_array().unwrap();
    let of = |pool: &str| targets.iter().find(|target| target["scrapePool"] == pool).unwrap();
    let (alive, dead) = (of("alive"), of("dead"));
    assert_eq!(alive["health"], "up");
    assert_eq!(alive["lastError"], "");
    assert_eq!(alive["labels"], json!({"env": "test", "instance": address, "job": "alive"}));
    assert_eq!(alive["scrapeUrl"], format!("http://{address}/metrics"));
    assert_eq!((&alive["scrapeInterval"], &alive["scrapeTimeout"]), (&json!("1s"), &json!("900ms")));
    assert!(
        alive["lastScrape"].as_str().unwrap() > "2020" && alive["lastScrapeDuration"].as_f64().unwrap() > 0.0,
        "{alive}"
    );
    assert_eq!(dead["health"], "down");
    assert!(dead["lastError"].as_str().unwrap().contains("refused"), "{dead}");
    // The same as our own list.
    let own = server.get("/api/daraji/v1/targets").await;
    assert_eq!(own.as_array().unwrap().len(), targets.len());

    for (query, expected) in [
        ("state=active", 2),
        ("state=any", 2),
        ("state=dropped", 0),
        ("state=rubbish", 0),
        ("scrapePool=dead", 1),
        ("scrapePool=dead&state=dropped", 0),
        ("scrapePool=other", 0),
    ] {
        assert_eq!(health(&server.get(&format!("/api/v1/targets?{query}")).await).len(), expected, "{query}");
    }
    assert_eq!(server.get("/api/v1/scrape_pools").await["data"]["scrapePools"], json!(["alive", "dead"]));

    let family = "daraji_intake_samples";
    let said =
        wait_for(&server, &format!("/api/v1/metadata?metric={family}"), |answer| answer["data"] != json!({})).await;
    let text = json!({"type": "counter", "unit": "", "help": "Samples accepted."});
    assert_eq!(said["data"], json!({family: [text]}));
    let path = |pool: &str| format!("/api/v1/targets/metadata?metric={family}&match_target=%7Bjob%3D%22{pool}%22%7D");
    let expected = json!([{
        "target": alive["labels"], "metric": family, "type": "counter", "unit": "", "help": "Samples accepted.",
    }]);
    assert_eq!(wait_for(&server, &path("alive"), |answer| answer["data"] != json!([])).await["data"], expected);
    assert_eq!(server.get(&path("dead")).await["data"], json!([]));
    assert_eq!(server.terminate().await.code(), Some(0));
}
