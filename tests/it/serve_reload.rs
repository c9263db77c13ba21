//! Reading the configuration again: what changes at once, what needs a restart and says so, what is refused as a whole.

use std::fs;

use crate::alerting::until;
use crate::prometheus_api::client;
use crate::serve_targets::{start_with, wait_for};
use crate::server::{Server, home};

async fn reload(server: &Server) -> (u16, String) {
    let response = client().post(server.url("/-/reload")).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn a_reload_says_what_it_took_what_needs_a_restart_and_what_is_wrong() {
    let home = home("reload");
    let rules =
        |name: &str| format!("groups: [{{name: g, interval: 1s, rules: [{{alert: {name}, expr: vector(1)}}]}}]\n");
    fs::write(home.path().join("r.yml"), rules("Before")).unwrap();
    let server = start_with(home.path(), "rule_files: [r.yml]\nscrape_configs: [{job_name: a}]\n").await;
    let config = home.path().join("daraji.yml");
    let before = fs::read_to_string(&config).unwrap();
    let alert = |name: &str| format!("/api/v1/alerts?{name}");
    let fires = |name: &'static str| {
        move |answer: &serde_json::Value| {
            let alerts = answer["data"]["alerts"].as_array().unwrap();
            alerts.len() == 1 && alerts[0]["labels"]["alertname"] == name
        }
    };
    wait_for(&server, &alert("before"), fires("Before")).await;
    assert_eq!(reload(&server).await, (200, "rules, routes and receivers are read again\n".to_owned()));

    fs::write(home.path().join("r.yml"), rules("After")).unwrap();
    let changed =
        before.replace("job_name: a", "job_name: b") + "clusters: [{patroni: [http://127.0.0.1:1]}]\nauth: none\n";
    fs::write(&config, &changed).unwrap();
    let said = "rules, routes and receivers are read again; restart the server for the changes of clusters, scrape_configs, auth";
    assert_eq!(reload(&server).await, (200, format!("{said}\n")));
    wait_for(&server, &alert("after"), fires("After")).await;
    // By signal the log says the same.
    server.signal("HUP");
    let count = || server.lines().iter().filter(|line| line["message"] == said).count();
    until("the reload by signal", || (count() == 2).then_some(())).await;

    fs::write(home.path().join("r.yml"), "groups: [{name: g, rules: [{alert: A, expr: 'sum('}]}]\n").unwrap();
    fs::write(&config, changed.replace("auth: none", "autth: none")).unwrap();
    let (status, text) = reload(&server).await;
    assert_eq!(status, 500, "{text}");
    for expected in ["the old one stays in force", "unknown key \"autth\"", "r.yml:1:45: ", "daraji.yml:"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    wait_for(&server, &alert("still"), fires("After")).await;
    let told = async || {
        let info = server.get("/api/v1/status/runtimeinfo").await;
        let metrics = client().get(server.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let gauge =
            metrics.lines().find(|line| line.contains("config_last_reload_successful ") && !line.starts_with('#'));
        (info["data"]["reloadConfigSuccess"].as_bool().unwrap(), gauge.unwrap().ends_with(" 1"))
    };
    assert_eq!(told().await, (false, false));
    fs::write(home.path().join("r.yml"), rules("After")).unwrap();
    fs::write(&config, &before).unwrap();
    assert_eq!(reload(&server).await.0, 200);
    assert_eq!(told().await, (true, true));
    assert_eq!(server.terminate().await.code(), Some(0));
}
