//! Members that answer while those that name them do not: over a restart, and before the first answer.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use daraji::platform::tasks::TaskGroup;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::serve_targets::{start_with, wait_for};
use crate::server::{Server, home};

const GRACE: Duration = Duration::from_secs(5);

/// The Patroni of one member, as far as its REST API goes. Its PostgreSQL is down.
async fn patroni(name: &'static str, at: SocketAddr, members: &[(&str, SocketAddr)]) -> TaskGroup {
    let member = |(name, at): &(&str, SocketAddr)| {
        json!({"name": name, "role": "replica", "state": "running", "host": "127.0.0.1", "port": 1,
               "api_url": format!("http://{at}/patroni")})
    };
    let cluster = json!({"scope": "main", "members": members.iter().map(member).collect::<Vec<_>>()}).to_string();
    let status = json!({"state": "running", "role": "replica", "timeline": 1,
                        "patroni": {"version": "4.1.5", "scope": "main", "name": name}});
    let status = status.to_string();
    let router = Router::new()
        .route("/patroni", get(move || async { status }))
        .route("/cluster", get(move || async { cluster }))
        .route("/history", get(|| async { "[]" }))
        .route("/config", get(|| async { r#"{"ttl":30}"# }))
        .route("/metrics", get(|| async { "patroni_version 1\n" }));
    let listener = TcpListener::bind(at).await.unwrap();
    let group = TaskGroup::new("patroni");
    group.spawn_until_stop("patroni", async move { axum::serve(listener, router).await.unwrap() });
    group
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Whether the REST API of a member answers; `None` before it was asked, or when nobody knows it.
fn rest_up(targets: &Value, member: &str) -> Option<bool> {
    let mut targets = targets.as_array().unwrap().iter();
    targets.find(|target| target["source"] == "rest" && target["member"] == member)?["up"].as_bool()
}

async fn wait_for_members(server: &Server, expected: [(&str, bool); 2]) {
    wait_for(server, "/api/daraji/v1/targets", |targets| {
        expected.iter().all(|(member, up)| rest_up(targets, member) == Some(*up))
    })
    .await;
}

#[tokio::test]
async fn the_last_known_members_are_asked_after_a_restart_with_a_dead_seed() {
    for (case, name, host) in
        [("unnamed", "", "127.0.0.1"), ("named", "name: own, ", "127.0.0.1"), ("alias", "", "localhost")]
    {
        let home = home("known");
        let addresses = [free_address(), free_address()];
        let members = [("n1", addresses[0]), ("n2", addresses[1])];
        let (seed, other) = (patroni("n1", addresses[0], &members).await, patroni("n2", addresses[1], &members).await);
        let config = format!("clusters: [{{{name}patroni: ['http://{host}:{}']}}]\n", addresses[0].port());
        let server = start_with(home.path(), &config).await;
        wait_for_members(&server, [("n1", true), ("n2", true)]).await;
        assert_eq!(server.terminate().await.code(), Some(0));

        seed.stop(GRACE).await;
        let server = start_with(home.path(), &config).await;
        wait_for_members(&server, [("n1", false), ("n2", true)]).await;
        let belief = server.get("/api/daraji/v1/clusters").await;
        let cluster = if name.is_empty() { "main" } else { "own" };
        assert_eq!(belief[0]["name"], cluster, "{case}");
        assert_eq!(belief[0]["members"].as_array().unwrap().len(), 2, "{case}: {belief}");

        // The seed is back, and is a member like the others.
        let seed = patroni("n1", addresses[0], &members).await;
        wait_for_members(&server, [("n1", true), ("n2", true)]).await;
        assert_eq!(server.terminate().await.code(), Some(0));

        // Of a cluster that is configured no more nobody is asked.
        let server = start_with(home.path(), "clusters: [{patroni: ['http://127.0.0.1:1']}]\n").await;
        let is_tried = |targets: &Value| targets.as_array().unwrap().iter().any(|target| target["up"] == false);
        let targets = wait_for(&server, "/api/daraji/v1/targets", is_tried).await;
        assert_eq!(targets.as_array().unwrap().len(), 1, "{case}: {targets}");
        let belief = server.get("/api/daraji/v1/clusters").await;
        assert_eq!(belief, json!([]), "{case}: it is no longer watched, and nothing about it goes on");
        assert_eq!(server.terminate().await.code(), Some(0));
        seed.stop(GRACE).await;
        other.stop(GRACE).await;
    }
}

#[tokio::test]
async fn a_seed_that_is_dead_at_first_is_asked_until_it_answers() {
    let home = home("late-seed");
    let address = free_address();
    let server = start_with(home.path(), &format!("clusters: [{{patroni: ['http://{address}']}}]\n")).await;
    let discovery = |targets: &Value| {
        let mut targets = targets.as_array().unwrap().iter();
        targets.find(|target| target["source"] == "discovery").cloned()
    };
    let is_down = |targets: &Value| discovery(targets).is_some_and(|target| target["up"] == false);
    let targets = wait_for(&server, "/api/daraji/v1/targets", is_down).await;
    let target = discovery(&targets).unwrap();
    assert!(target["error"].as_str().unwrap().contains("refused"), "{target}");
    assert!(target["error_hint"].as_str().unwrap().contains("any member that answers"), "{target}");

    let seed = patroni("n1", address, &[("n1", address)]).await;
    let targets = wait_for(&server, "/api/daraji/v1/targets", |targets| rest_up(targets, "n1") == Some(true)).await;
    assert!(discovery(&targets).is_none(), "the seed is still listed beside the member: {targets}");
    assert_eq!(server.terminate().await.code(), Some(0));
    seed.stop(GRACE).await;
}
