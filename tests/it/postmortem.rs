//! `daraji postmortem` on recorded faults: the whole way from files to the printed account.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use daraji::model::Timestamp;
use daraji::store::state::StateStore;
use daraji::store::state::tables::INCIDENTS;
use serde_json::Value;

use crate::prometheus_api::client;
use crate::server::{Server, home};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_daraji"))
        .arg("postmortem")
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap()
}

/// Folder and expectation of each recording, as the cause catalogue's tests have them.
fn recordings() -> Vec<(PathBuf, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("alerts/causes/tests/faults.yml")).unwrap();
    let tests = daraji::platform::yaml::from_yaml::<Value>("faults.yml", &text).unwrap();
    let one = |test: &Value| {
        let name = test["recording"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        (Path::new("tests/data/faults").join(name), test["expect"].clone())
    };
    tests["tests"].as_array().unwrap().iter().map(one).collect()
}

#[test]
fn each_recording_is_one_incident_with_the_injected_cause_or_a_notice() {
    let recordings = recordings();
    assert!(recordings.len() >= 25);
    for (folder, expected) in recordings {
        let told: Value = serde_json::from_str(&stdout(&[folder.to_str().unwrap(), "-o", "json"])).unwrap();
        let incidents = told["incidents"].as_array().unwrap();
        let cause = expected["cause"].as_str().unwrap();
        if cause == "switchover" {
            assert_eq!(incidents.len(), 0, "{}", folder.display());
            let notices: Vec<_> =
                told["notices"].as_array().unwrap().iter().map(|n| n["event"].as_str().unwrap()).collect();
            assert_eq!(notices, ["switchover_requested", "leader_changed"], "{}", folder.display());
            continue;
        }
        assert_eq!(incidents.len(), 1, "{}", folder.display());
        let first = &incidents[0]["causes"][0];
        let rank = expected["rank"].as_u64().unwrap_or(1);
        assert!(rank > 1 || first["name"] == cause, "{}: {first}", folder.display());
        for name in ["member", "confidence"] {
            if rank == 1 && !expected[name].is_null() {
                assert_eq!(first[name], expected[name], "{}", folder.display());
            }
        }
        assert!(!incidents[0]["timeline"].as_array().unwrap().is_empty());
    }
}

#[test]
fn what_is_printed() {
    for name in ["01-kill9-postmaster-leader", "10-switchover-rest", "27-switchover-pgctl-stop-fast-leader"] {
        let folder = format!("tests/data/faults/{name}");
        insta::assert_snapshot!(format!("{name}.txt"), stdout(&[&folder]));
        insta::assert_snapshot!(format!("{name}.html"), stdout(&[&folder, "-o", "html"]));
        let json: Value = serde_json::from_str(&stdout(&[&folder, "-o", "json"])).unwrap();
        insta::assert_json_snapshot!(format!("{name}.json"), json);
    }
}

#[test]
fn exit_codes() {
    for (arguments, code, says) in [
        (&["/nonexistent"][..], 1, "/nonexistent"),
        (&["Cargo.toml"], 1, "Cargo.toml: is not a log"),
        (&["tests/data/faults/10-switchover-rest", "--skew", "n9=1"], 2, "n9"),
        (&["tests/data/faults/10-switchover-rest", "--timezone", "Mars"], 2, "Mars"),
        (&["tests/data/faults/10-switchover-rest", "--member", "n1"], 2, "GLOB=NAME"),
        (&["tests/data/faults/10-switchover-rest", "--from", "now", "--to", "1h"], 2, "--from"),
        (&[], 2, "PATH"),
    ] {
        let output = run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(says) && output.stdout.is_empty(), "{arguments:?}: {stderr}");
    }
}

#[test]
fn hostile_lines_stay_text() {
    let dir = tempfile::tempdir().unwrap();
    let attack = "<script>alert(1)</script><img src=x onerror=alert(1)>\u{1b}[2J{{ 7*7 }}";
    let text = format!(
        "2026-11-23 05:46:38,252 INFO: no action. I am (n1), the leader with the lock\n\
         2026-11-23 05:46:39,252 INFO: removed leader key after trying and failing to start postgres {attack}\n\
         2026-11-23 05:46:40,252 INFO: Lock owner: <b>x</b>; I am n1\n"
    );
    std::fs::write(dir.path().join("<i>n1.log"), text).unwrap();
    let path = dir.path().to_str().unwrap();
    let html = stdout(&[path, "--cluster", "<u>c</u>", "-o", "html"]);
    for tag in ["<script", "<img", "<b>x", "<i>n1", "<u>c"] {
        assert!(!html.contains(tag), "{tag}");
    }
    assert!(html.contains("&lt;script&gt;") && html.contains("{{ 7*7 }}"));
    assert!(!stdout(&[path]).contains('\u{1b}'));
}

/// The server gives its incidents out as the same page.
#[tokio::test]
async fn an_incident_of_the_server_as_a_page() {
    let home = home("page");
    let data = home.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let folder = "tests/data/faults/05-partition-leader-from-peers-not-clients";
    let told: Value = serde_json::from_str(&stdout(&[folder, "-o", "json"])).unwrap();
    let incident = &told["incidents"][0];
    let id = incident["id"].as_str().unwrap();
    let state = StateStore::open(&data, Timestamp::default()).unwrap();
    state.write(|tx| tx.put(&INCIDENTS, id, incident)).unwrap();
    drop(state);
    let server = Server::start_on(home.path(), &data).await;
    let get = async |query: &str| {
        let answer = client().get(server.url(&format!("/api/daraji/v1/incidents/{id}{query}"))).send().await.unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (answer.status().as_u16(), kind, answer.text().await.unwrap())
    };
    let (status, kind, page) = get("?format=html").await;
    assert_eq!((status, kind.as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.starts_with("<!doctype html>") && page.contains("n2 lost the leader key"), "{page}");
    let (status, kind, body) = get("").await;
    assert_eq!((status, kind.as_str()), (200, "application/json"));
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["id"], *id);
    assert_eq!(get("?format=pdf").await.0, 400);
}
