//! What alerting and access know survives the program: pending and firing alerts, silences and tokens are the same after
//! SIGKILL and after SIGTERM.

use std::fs;
use std::path::Path;
use std::time::Duration;

use daraji::model::Timestamp;
use daraji::platform::clock::Clock;
use serde_json::{Value, json};

use crate::alerting::PATIENCE;
use crate::prometheus_api::client;
use crate::server::{Server, complaints, home, run};

const RULES: &str = "groups:
  - name: restart
    interval: 1s
    rules:
      - {alert: Waiting, expr: vector(1), for: 1h, labels: {cluster: demo}}
      - {alert: Burning, expr: vector(1), labels: {cluster: demo, severity: warning}}
      - {alert: Quiet, expr: vector(1) > 2, labels: {cluster: demo}}
";

/// Alerts of the rules as (name, state, when it began), once there are two.
async fn alerts(server: &Server) -> Vec<(String, String, String)> {
    let ask = async {
        loop {
            let answer = server.get("/api/v1/alerts").await;
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let row =
                |alert: &Value| (text(&alert["labels"]["alertname"]), text(&alert["state"]), text(&alert["activeAt"]));
            let mut found: Vec<_> = answer["data"]["alerts"].as_array().unwrap().iter().map(row).collect();
            if found.len() == 2 {
                found.sort();
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.expect("two alerts")
}

/// Alertmanager's view of the firing alert, once it is there.
async fn burning(server: &Server) -> Value {
    let ask = async {
        loop {
            if let Some(alert) = server.get("/api/v2/alerts").await.as_array().unwrap().first() {
                return alert.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.expect("the firing alert")
}

async fn silence(server: &Server, name: &str, starts_at: Timestamp) -> String {
    let body = json!({
        "matchers": [{"name": "alertname", "value": name, "isRegex": false, "isEqual": true}],
        "startsAt": starts_at, "endsAt": starts_at + Duration::from_hours(2),
        "createdBy": "a person", "comment": "known",
    });
    let (status, answer) = server.post("/api/v2/silences", &body).await;
    assert_eq!(status, 200, "{answer}");
    answer["silenceID"].as_str().unwrap().to_owned()
}

/// Silences as (id, state, updatedAt).
async fn silences(server: &Server) -> Vec<[Value; 3]> {
    let answer = server.get("/api/v2/silences").await;
    let row =
        |silence: &Value| [silence["id"].clone(), silence["status"]["state"].clone(), silence["updatedAt"].clone()];
    answer.as_array().unwrap().iter().map(row).collect()
}

/// What the guarded address answers to a token.
async fn status_with(server: &Server, token: &str) -> u16 {
    let url = format!("{}/api/daraji/v1/clusters", server.urls[1]);
    client().get(url).bearer_auth(token).send().await.unwrap().status().as_u16()
}

async fn start(home: &Path) -> Server {
    Server::start(home, &["--config", home.join("daraji.yml").to_str().unwrap()]).await
}

#[tokio::test]
async fn alerts_silences_and_tokens_survive_the_program() {
    let home = home("restart");
    let data = home.path().join("data");
    let config = format!(
        "listen: [127.0.0.1:0, 0.0.0.0:0]\nrule_files: [rules.yml]\nstorage: {{path: {}}}\n\
         route: {{receiver: nobody}}\nreceivers: [{{name: nobody}}]\n",
        data.display()
    );
    fs::write(home.path().join("daraji.yml"), config).unwrap();
    fs::write(home.path().join("rules.yml"), RULES).unwrap();
    let mut server = start(home.path()).await;

    let alerts_before = alerts(&server).await;
    let phases: Vec<_> = alerts_before.iter().map(|(name, state, _)| (name.as_str(), state.as_str())).collect();
    assert_eq!(phases, [("Burning", "firing"), ("Waiting", "pending")]);
    let began = burning(&server).await["startsAt"].clone();
    let now = Clock::system().now();
    let active = silence(&server, "Burning", now).await;
    let later = silence(&server, "Later", now + Duration::from_hours(1)).await;
    let past = silence(&server, "Past", now).await;
    let url = server.url(&format!("/api/v2/silence/{past}"));
    assert_eq!(client().delete(url).send().await.unwrap().status(), 200);
    let silences_before = silences(&server).await;
    assert_eq!(silences_before.iter().map(|row| &row[1]).collect::<Vec<_>>(), ["active", "pending", "expired"]);
    assert_eq!(silences_before.iter().map(|row| &row[0]).collect::<Vec<_>>(), [&active, &later, &past]);
    let mut tokens = Vec::new();
    for name in ["kept", "revoked"] {
        let (status, answer) = server.post("/api/daraji/v1/tokens", &json!({"name": name, "role": "viewer"})).await;
        assert_eq!(status, 200, "{answer}");
        tokens.push(answer["token"].as_str().unwrap().to_owned());
    }
    assert_eq!(status_with(&server, &tokens[1]).await, 200);
    let url = server.url("/api/daraji/v1/tokens/revoked");
    assert_eq!(client().delete(url).send().await.unwrap().status(), 204);

    for ending in ["KILL", "TERM"] {
        if ending == "KILL" {
            server.kill();
        } else {
            assert_eq!(server.terminate().await.code(), Some(0));
        }
        server = start(home.path()).await;
        assert_eq!(alerts(&server).await, alerts_before, "after {ending}");
        let firing = burning(&server).await;
        assert_eq!(firing["startsAt"], began, "after {ending}");
        assert_eq!(firing["status"]["silencedBy"], json!([active]), "after {ending}");
        assert_eq!(silences(&server).await, silences_before, "after {ending}");
        assert_eq!(status_with(&server, &tokens[0]).await, 200, "after {ending}");
        assert_eq!(status_with(&server, &tokens[1]).await, 401, "after {ending}");
    }
    assert_eq!(server.terminate().await.code(), Some(0));

    // The same tokens, asked of the stopped server's directory.
    let listed = run(&["token", "list", "--data", data.to_str().unwrap()]).await;
    let text = String::from_utf8(listed.stdout.clone()).unwrap();
    assert!(listed.status.success(), "{}", complaints(&listed));
    assert!(text.contains("kept") && !text.contains("revoked") && !text.contains(&tokens[0]), "{text}");
}
