//! The life of an incident through the real program: opened by an alert, taken, written about, settled, opened again; with
//! SIGKILL in between.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use daraji::platform::tasks::TaskGroup;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::alerting::PATIENCE;
use crate::prometheus_api::client;
use crate::server::{Server, complaints, home, run};

const INCIDENTS: &str = "/api/daraji/v1/incidents";

/// Bodies of the messages that arrived.
type Messages = Arc<Mutex<Vec<Value>>>;

async fn receiver(messages: &Messages) -> (TaskGroup, u16) {
    let receive = async |State(messages): State<Messages>, body: String| {
        messages.lock().push(serde_json::from_str(&body).unwrap());
    };
    let app = axum::Router::new().route("/hook", post(receive)).with_state(Arc::clone(messages));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let group = TaskGroup::new("receiver");
    group.spawn_until_stop("server", async move { axum::serve(listener, app).await.unwrap() });
    (group, port)
}

/// Rules of which the alert fires, or not.
fn write_rules(home: &Path, fires: bool) {
    let expr = if fires { "vector(1)" } else { "vector(1) > 2" };
    let rules = format!(
        "groups:
  - name: incidents
    interval: 1s
    rules:
      - {{alert: NoLeader, expr: {expr}, labels: {{cluster: demo, severity: critical}}, annotations: {{incident: part, summary: demo has no leader}}}}
"
    );
    fs::write(home.join("rules.yml"), rules).unwrap();
}

async fn start(home: &Path) -> Server {
    Server::start(home, &["--config", home.join("daraji.yml").to_str().unwrap()]).await
}

async fn reload(server: &Server) {
    assert_eq!(client().post(server.url("/-/reload")).send().await.unwrap().status(), 200);
}

/// Asks again and again until the only incident fits.
async fn incident(server: &Server, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let ask = async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            ticks.tick().await;
            let all = server.get(&format!("{INCIDENTS}?cluster=demo")).await;
            let all = all.as_array().unwrap();
            assert!(all.len() <= 1, "{all:#?}");
            let Some(id) = all.first().map(|one| one["id"].as_str().unwrap()) else { continue };
            let one = server.get(&format!("{INCIDENTS}/{id}")).await;
            if fits(&one) {
                return one;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ask).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"))
}

/// Status and answer of a request with a token, at the guarded address.
async fn with_token(server: &Server, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
    let request = client().request(method.parse().unwrap(), format!("{}{path}", server.urls[1]));
    let response = request.bearer_auth(token).json(body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn token(server: &Server, name: &str, role: &str) -> String {
    let (status, answer) = server.post("/api/daraji/v1/tokens", &json!({"name": name, "role": role})).await;
    assert_eq!(status, 200, "{answer}");
    answer["token"].as_str().unwrap().to_owned()
}

/// Takes it and writes about it, with and without the right to; returns the incident after that.
async fn people_act(server: &Server, id: &str) -> Value {
    let (acknowledge, notes) = (format!("{INCIDENTS}/{id}/acknowledge"), format!("{INCIDENTS}/{id}/notes"));
    let (anna, vera) = (token(server, "anna", "operator").await, token(server, "vera", "viewer").await);
    let (status, refused) = with_token(server, "POST", &acknowledge, &vera, &json!({})).await;
    assert_eq!((status, &refused["error"]["code"]), (403, &json!("forbidden")));
    let (status, taken) = with_token(server, "POST", &acknowledge, &anna, &json!({"comment": "on my way"})).await;
    assert_eq!((status, &taken["state"], &taken["acknowledged_by"]), (200, &json!("acknowledged"), &json!("anna")));
    let (status, noted) = server.post(&notes, &json!({"text": "no power"})).await;
    assert_eq!(status, 200, "{noted}");
    let told: Vec<_> = noted["notes"].as_array().unwrap().iter().map(|note| (&note["by"], &note["text"])).collect();
    assert_eq!(told, [(&json!("anna"), &json!("on my way")), (&json!("local"), &json!("no power"))]);
    for (path, body, expected) in [
        (&notes, json!({"text": " "}), 400),
        (&notes, json!({"words": "x"}), 400),
        (&notes, json!({"text": "x".repeat(5000)}), 400),
        (&acknowledge, json!({"comment": 1}), 400),
        (&format!("{INCIDENTS}/nothing/notes"), json!({"text": "x"}), 404),
    ] {
        let (status, answer) = server.post(path, &body).await;
        assert_eq!(status, expected, "{path} {answer}");
        assert!(answer["error"]["message"].is_string());
    }
    let patterns = server.get(&format!("{INCIDENTS}/{id}/patterns")).await;
    assert_eq!((&patterns["new"], &patterns["partial"]), (&json!([]), &json!(null)), "{patterns}");
    noted
}

/// One thread, and a closing that says what is unknown.
fn check_messages(messages: &[Value]) {
    let seen: Vec<(String, String)> = messages
        .iter()
        .filter(|message| message["alerts"][0]["labels"]["alertname"] == "Incident")
        .map(|message| (message["notification_reason"].to_string(), message["groupKey"].to_string()))
        .collect();
    let reasons: Vec<&str> = seen.iter().map(|(reason, _)| reason.trim_matches('"')).collect();
    assert_eq!(reasons, ["first notification", "all alerts resolved", "the incident is open again"]);
    assert!(seen.iter().all(|(_, key)| *key == seen[0].1), "one thread: {seen:?}");
    let closing = messages.iter().find(|message| message["status"] == "resolved").unwrap();
    let annotations = &closing["commonAnnotations"];
    assert_eq!((&annotations["write_outage"], &annotations["lost_wal"]), (&json!("unknown"), &json!("unknown")));
    assert!(
        annotations["verdict"].is_string()
            && annotations["description"].as_str().unwrap().contains("WAL lost: unknown")
    );
}

async fn check_terminal(server: &Server, id: &str) {
    let shown = run(&["incidents", id, "--ack", "--note", "again", "--url", &server.urls[0]]).await;
    let text = String::from_utf8(shown.stdout.clone()).unwrap();
    assert!(shown.status.success(), "{}", complaints(&shown));
    for wanted in
        ["acknowledged", "by local", "no power", "local: again", "open again", "verdict", "opening", "closing"]
    {
        assert!(text.contains(wanted), "{wanted:?} is not in:\n{text}");
    }
    let listed = run(&["incidents", "--url", &server.urls[0]]).await;
    assert!(String::from_utf8(listed.stdout).unwrap().contains("acknowledged"));
    let refused = run(&["incidents", "nothing", "--ack", "--url", &server.urls[0]]).await;
    assert!(!refused.status.success() && complaints(&refused).contains("no incident has the id"));
}

#[tokio::test]
async fn an_incident_is_taken_written_about_settled_and_opened_again_across_restarts() {
    let messages = Messages::default();
    let (_receiver, port) = receiver(&messages).await;
    let home = home("incidents");
    let config = format!(
        "listen: [127.0.0.1:0, 0.0.0.0:0]\nrule_files: [rules.yml]\nstorage: {{path: {}}}\nroute: {{receiver: ops}}\n\
         receivers:\n  - name: ops\n    webhook_configs: [{{url: 'http://127.0.0.1:{port}/hook'}}]\n",
        home.path().join("data").display()
    );
    fs::write(home.path().join("daraji.yml"), config).unwrap();
    write_rules(home.path(), true);
    let server = start(home.path()).await;
    let opened = incident(&server, "an incident that was told", |one| one["notifications"][0]["state"] == "done").await;
    let id = opened["id"].as_str().unwrap().to_owned();
    assert_eq!((&opened["state"], &opened["notes"], &opened["reopened"]), (&json!("open"), &json!([]), &json!(0)));
    assert_eq!((&opened["notifications"][0]["kind"], &opened["similar"]), (&json!("opening"), &json!([])));

    let noted = people_act(&server, &id).await;

    // It is the same after a crash, and stays so while the judge goes on.
    server.kill();
    let server = start(home.path()).await;
    let same = incident(&server, "the incident", |_| true).await;
    for name in ["state", "acknowledged_at", "acknowledged_by", "notes", "opened_at", "notifications"] {
        assert_eq!(same[name], noted[name], "{name}");
    }
    write_rules(home.path(), false);
    reload(&server).await;
    let settled = incident(&server, "its end, told", |one| one["notifications"][1]["state"] == "done").await;
    assert_eq!((&settled["state"], &settled["acknowledged_by"]), (&json!("settled"), &json!("anna")));
    assert_eq!(settled["notes"], noted["notes"]);
    let (status, refused) = server.post(&format!("{INCIDENTS}/{id}/acknowledge"), &json!({})).await;
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("conflict")));

    // It comes back.
    write_rules(home.path(), true);
    reload(&server).await;
    let again = incident(&server, "it to come back, told", |one| one["notifications"][2]["state"] == "done").await;
    assert_eq!((&again["id"], &again["state"], &again["reopened"]), (&json!(id), &json!("open"), &json!(1)));
    assert_eq!((&again["acknowledged_by"], again["notes"].as_array().unwrap().len()), (&json!(null), 2));
    let events = server.get("/api/daraji/v1/events?event=incident_reopened").await;
    assert_eq!(events.as_array().unwrap().len(), 1, "{events}");

    check_messages(&messages.lock());
    check_terminal(&server, &id).await;
}
