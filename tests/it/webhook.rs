//! Webhooks against a real HTTP server that fails first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::post;
use daraji::notify::outbox::Delivery;
use daraji::platform::clock::Clock;
use daraji::platform::tasks::TaskGroup;
use parking_lot::Mutex;

use crate::alerting::{NoData, Worker, failover, open, until};

/// What arrived: headers by name, and the body.
type Requests = Arc<Mutex<Vec<(BTreeMap<String, String>, String)>>>;

async fn receive(State(requests): State<Requests>, headers: HeaderMap, body: String) -> axum::response::Response {
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let mut requests = requests.lock();
    requests.push((headers, body));
    match requests.len() {
        1 => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")], "overloaded").into_response(),
        _ => StatusCode::OK.into_response(),
    }
}

#[tokio::test]
async fn a_webhook_is_retried_with_the_same_key_and_keeps_the_order() {
    let requests = Requests::default();
    let app = axum::Router::new().route("/hook", post(receive)).with_state(Arc::clone(&requests));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let group = TaskGroup::new("receiver");
    group.spawn_until_stop("server", async move { axum::serve(listener, app).await.unwrap() });

    let dir = tempfile::tempdir().unwrap();
    let secrets = tempfile::tempdir().unwrap();
    std::fs::write(secrets.path().join("password"), "s3cret\n").unwrap();
    let text = format!(
        "route: {{receiver: ops}}
receivers:
  - name: ops
    webhook_configs:
      - {{url: 'http://127.0.0.1:{port}/hook', http_config: {{basic_auth: {{username: u, password_file: {}/password}}}}}}",
        secrets.path().display()
    );
    let alerting = open(dir.path(), &text);
    let now = Clock::system().now();
    let opened_at = now - Duration::from_mins(1);
    // Opened and settled before the receiver could be told.
    alerting.tick(now, &mut NoData, &[failover(opened_at, None)]).unwrap();
    alerting.tick(now + Duration::from_secs(1), &mut NoData, &[failover(opened_at, Some(now))]).unwrap();
    let worker = Worker::start(&alerting);
    until("three requests", || (requests.lock().len() == 3).then_some(())).await;
    let done = || alerting.outbox().list(10).unwrap().iter().all(|row| row.state == Delivery::Done).then_some(());
    until("both rows", done).await;
    worker.stop().await;
    group.stop(Duration::from_secs(5)).await;

    let requests = requests.lock();
    let parsed: Vec<serde_json::Value> = requests.iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect();
    assert_eq!(requests[0].0["webhook-id"], requests[1].0["webhook-id"]);
    assert_ne!(requests[1].0["webhook-id"], requests[2].0["webhook-id"]);
    assert_eq!(requests[0].1, requests[1].1);
    assert_eq!((&parsed[1]["status"], &parsed[2]["status"]), (&"firing".into(), &"resolved".into()));
    assert_eq!(parsed[1]["incident"]["timeline"][0]["event"], "leader_lost");
    assert_eq!(parsed[2]["incident"]["state"], "settled");
    assert_eq!(requests[0].0["authorization"], "Basic dTpzM2NyZXQ=");
    assert_eq!(requests[0].0["content-type"], "application/json");
}
