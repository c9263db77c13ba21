//! What goes wrong around a server: broken files, a taken directory or port, requests that nobody can answer, a full
//! disk. Every one ends in a clear text and costs nothing that was acknowledged.

use std::fs::{self, File};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use daraji::model::{Batch, Labels, LogRecord, Sample, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::store::logs::{LogOptions, LogQuery, LogStore};
use daraji::wire::agent::{EncodedFrame, PUSH_BYTES_MAX, PUSH_PATH, Push, encode_batch, encode_push};
use daraji::wire::remote_write;
use serde_json::json;

use crate::prometheus_api::client;
use crate::server::{Random, Server, complaints, home, run};

/// One mistake per line that the test counts on; the lines stand in `EXPECTED`.
const BROKEN_CONFIG: &str = "clutsers: []
storage: {logs: {retention: 2 weeks}}
rule_files: [rules.yml, missing-*.yml]
route: {receiver: opss}
receivers: [{name: ops}]
";
const BROKEN_RULES: &str = "groups:
  - name: g
    rules:
      - {alert: A, expr: 'sum(up'}
      - {alert: B, expr: up, fro: 5m}
";
const EXPECTED: [(&str, &str); 6] = [
    ("daraji.yml:1:1: ", "unknown key \"clutsers\"; did you mean \"clusters\"?"),
    ("daraji.yml:2:29: ", "\"2 weeks\" is not a duration"),
    ("daraji.yml:3:25: ", "\"missing-*.yml\" matches no file"),
    ("daraji.yml:4:19: ", "there is no receiver \"opss\"; did you mean \"ops\"?"),
    ("rules.yml:4:26: ", "could not parse expression"),
    ("rules.yml:5:30: ", "unknown key \"fro\""),
];

#[tokio::test]
async fn everything_that_is_wrong_with_the_files_is_said_at_once() {
    let home = home("broken-files");
    let config = home.path().join("daraji.yml");
    fs::write(&config, BROKEN_CONFIG).unwrap();
    fs::write(home.path().join("rules.yml"), BROKEN_RULES).unwrap();
    let (config, data) = (config.to_str().unwrap(), home.path().join("data"));
    for arguments in [
        &["serve", "--config", config, "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"][..],
        &["check", config][..],
    ] {
        let output = run(arguments).await;
        let text = complaints(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty(), "{arguments:?}: data on stdout");
        for (place, message) in EXPECTED {
            // The server's log is JSON where it is no terminal.
            let message = if arguments[0] == "serve" { message.replace('"', "\\\"") } else { message.to_owned() };
            let found = text.lines().find(|line| line.contains(place));
            assert!(found.is_some_and(|line| line.contains(&message)), "{arguments:?}: {place}{message} in\n{text}");
        }
        assert_eq!(text.lines().count(), EXPECTED.len(), "{arguments:?}: something else is said\n{text}");
    }
    assert!(!data.exists(), "a server that must not start has made its data directory");
}

#[tokio::test]
async fn rules_over_logs_are_known_by_directory_or_flag() {
    const HINT: &str = "rules.yml: it is right as LogQL: give --logql, or keep it in a directory named logql";
    let home = home("logql-rules");
    let (plain, logql) = (home.path().join("rules.yml"), home.path().join("logql").join("rules.yml"));
    fs::create_dir(home.path().join("logql")).unwrap();
    let rules = |expr: &str| format!("groups:\n  - name: g\n    rules:\n      - {{alert: A, expr: '{expr}'}}\n");
    let right = rules(r#"sum(count_over_time({source="patroni"} |= "lock" [5m])) > 0"#);
    for (text, flags, file, expected) in [
        (&right, &[][..], &logql, &[][..]),
        (&right, &["--logql"], &plain, &[]),
        (&right, &[], &plain, &["rules.yml:4:26: ", HINT]),
        (&rules("sum(up)"), &[], &plain, &[]),
        (&rules("sum(up)"), &[], &logql, &["rules.yml:4:26: "]),
        (&rules(r#"{source="patroni"}"#), &[], &logql, &["rules.yml:4:26: "]),
        (&rules("sum("), &[], &plain, &["rules.yml:4:26: "]),
    ] {
        fs::write(file, text).unwrap();
        let file = file.to_str().unwrap();
        let arguments: Vec<&str> = ["check"].iter().chain(flags).copied().chain([file]).collect();
        let output = run(&arguments).await;
        let said = complaints(&output);
        let code = if expected.is_empty() { 0 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {text}: {said}");
        assert_eq!(said.lines().count(), expected.len(), "{arguments:?} {text}: {said}");
        for (line, expected) in said.lines().zip(expected) {
            assert!(line.contains(expected), "{arguments:?} {text}: {said}");
        }
    }
}

#[tokio::test]
async fn check_tells_what_would_fail_later() {
    let home = home("check-later");
    let file = home.path().join("f.yml");
    for (text, expected) in [
        (
            "tls: {cert_file: /nope/c.pem, key_file: /nope/k.pem}\n",
            &["f.yml:1:18: cert_file: read /nope/c.pem: No such file", "f.yml:1:41: key_file: "][..],
        ),
        (
            "cluster: demo\nmember: n1\nserver: monitor:7432\ntoken_file: /nope/t\n",
            &["f.yml:3:9: \"monitor:7432\" is no server address", "f.yml:4:13: token_file: "],
        ),
        ("tests: []\n", &["these are unit tests of rules; run them with `daraji test "]),
        (
            "groups:\n  - name: g\n    rules:\n      - {alert: A, expr: 'sum(', for: abc}\n  - name: g\n    rules: []\n",
            &[
                "f.yml:4:26: group \"g\", rule 1: could not parse expression",
                "f.yml:4:39: ",
                "f.yml:5:11: group name \"g\" stands twice",
            ],
        ),
    ] {
        fs::write(&file, text).unwrap();
        let output = run(&["check", file.to_str().unwrap()]).await;
        let said = complaints(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), expected.len()), "{text}{said}");
        for expected in expected {
            assert!(said.contains(expected), "{text}: {expected} in {said}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_no_yaml_or_not_there() {
    let home = home("no-yaml");
    let config = home.path().join("daraji.yml");
    let path = config.to_str().unwrap();
    for (text, expected) in [(None, "No such file"), (Some("clusters: [\nroute: {"), "daraji.yml:2:")] {
        if let Some(text) = text {
            fs::write(&config, text).unwrap();
        }
        for arguments in [&["serve", "--config", path][..], &["check", path][..]] {
            let output = run(arguments).await;
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", complaints(&output));
            assert!(complaints(&output).contains(expected), "{arguments:?}: {}", complaints(&output));
        }
    }
}

#[tokio::test]
async fn a_second_server_is_refused_the_directory_and_the_port() {
    let home = home("second");
    let (data, other) = (home.path().join("data"), home.path().join("other"));
    let (data, other) = (data.to_str().unwrap(), other.to_str().unwrap());
    let server = Server::start(home.path(), &["--data", data, "--listen", "127.0.0.1:0"]).await;
    let taken = server.url("").trim_start_matches("http://").to_owned();

    let output = run(&["serve", "--data", data, "--listen", "127.0.0.1:0"]).await;
    let text = complaints(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.contains("is another daraji running on this data directory?") && last.contains(data), "{last}");

    let output = run(&["serve", "--data", other, "--listen", &taken]).await;
    let text = complaints(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.contains(&taken) && last.contains("--listen"), "{last}");

    // The first one did not notice.
    assert_eq!(server.get("/api/v1/query?query=1").await["status"], "success");
    assert_eq!(server.terminate().await.code(), Some(0));
}

/// A port in use is found before anybody is asked, told or written to.
#[tokio::test]
async fn a_server_without_its_port_does_nothing() {
    let home = home("port");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let outside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    outside.set_nonblocking(true).unwrap();
    let (port, url) = (taken.local_addr().unwrap(), format!("http://{}", outside.local_addr().unwrap()));
    let (config, data) = (home.path().join("daraji.yml"), home.path().join("data"));
    fs::write(home.path().join("r.yml"), "groups: [{name: g, interval: 1s, rules: [{alert: A, expr: vector(1)}]}]\n")
        .unwrap();
    let text = format!(
        "listen: [127.0.0.1:0, '{port}']\nclusters: [{{patroni: ['{url}']}}]\nrule_files: [r.yml]\n\
         scrape_configs: [{{job_name: x, scrape_interval: 1s, static_configs: [{{targets: ['{}']}}]}}]\n\
         route: {{receiver: hook, group_wait: 0s}}\nreceivers: [{{name: hook, webhook_configs: [{{url: '{url}'}}]}}]\n\
         storage: {{path: {}}}\n",
        outside.local_addr().unwrap(),
        data.display()
    );
    fs::write(&config, text).unwrap();
    let output = run(&["serve", "--config", config.to_str().unwrap()]).await;
    let text = complaints(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.contains(&port.to_string()) && last.contains("is in use by another program"), "{last}");
    assert!(!data.exists(), "it made its data directory");
    let refused = outside.accept().map(drop).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock, "it called somebody");
}

#[tokio::test]
async fn unknown_paths_and_large_bodies() {
    let home = home("requests");
    let server = Server::start_on(home.path(), &home.path().join("data")).await;
    for path in
        ["/api/v1/nothing", "/api/v2/nothing", "/loki/api/v1/nothing", "/api/daraji/v1/nothing", "/api/daraji/v2/x"]
    {
        let response = client().get(server.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(response.headers()["content-type"], "application/json", "{path}");
        let body: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        if path.starts_with("/api/daraji/") {
            assert_eq!(body["error"]["code"], "not_found", "{path}");
            assert!(body["error"]["message"].as_str().unwrap().contains(path), "{path}: {body}");
        }
    }
    let (json, form, protobuf) = ("application/json", "application/x-www-form-urlencoded", "application/x-protobuf");
    for (path, kind, limit, expected) in [
        ("/api/v2/silences", json, 4 << 20, 413),
        ("/api/daraji/v1/tokens", json, 4 << 20, 413),
        // Prometheus' and Loki's own answer to a form that is too large.
        ("/api/v1/query", form, 4 << 20, 400),
        ("/loki/api/v1/query", form, 4 << 20, 400),
        ("/loki/api/v1/push", protobuf, 16 << 20, 413),
        ("/api/v1/write", protobuf, 16 << 20, 413),
        (PUSH_PATH, "application/octet-stream", PUSH_BYTES_MAX, 413),
    ] {
        // One byte too many: the whole body is read before it is refused, so the answer always arrives.
        let response = client().post(server.url(path)).header("content-type", kind);
        let response = response.body(vec![b' '; limit + 1]).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status == expected && text.contains("length limit exceeded"), "{path}: {status} {text}");
    }
    for (path, expected) in [(PUSH_PATH, "push"), ("/api/v1/write", "snappy")] {
        let response = client().post(server.url(path)).body("no such format").send().await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        let text = response.text().await.unwrap();
        assert!(text.contains(expected), "{path}: {text}");
    }
    assert_eq!(server.terminate().await.code(), Some(0));
}

/// A file system of its own, of a few MiB. Needs root, as the lab does.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        fs::create_dir(at).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "daraji-test"]).arg(at).output().unwrap();
        assert!(mount.status.success(), "this test mounts a small tmpfs, run it as root: {}", complaints(&mount));
        Self(at.to_owned())
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.0.join("filler")).unwrap();
        for bytes in [1 << 16, 1] {
            while file.write_all(&vec![1; bytes]).is_ok() {}
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// Lines that no compression makes small.
fn line(number: u64) -> String {
    let mut random = Random::new(number + 1);
    (0..4000).fold(format!("record {number}"), |line, _| format!("{line} {:x}", random.below(u64::MAX)))
}

struct Client<'a> {
    server: &'a Server,
    now: Timestamp,
}

impl Client<'_> {
    async fn post(&self, path: &str, body: Vec<u8>) -> (u16, String) {
        let response = client().post(self.server.url(path)).body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn push(&self, number: u64) -> (u16, String) {
        let stream = Labels::from_pairs([("cluster", "full"), ("member", "n1"), ("source", "postgresql")]);
        let record = LogRecord { at: self.now, stream, line: line(number), fields: Vec::new() };
        let body = encode_batch(&Batch { logs: vec![record], ..Batch::default() });
        let push = Push {
            agent: "agent".to_owned(),
            generation: 1,
            cluster: "full".to_owned(),
            member: "n1".to_owned(),
            sent_at: self.now,
            status: None,
            frames: vec![EncodedFrame { seq: number, body }],
        };
        self.post(PUSH_PATH, encode_push(&push)).await
    }

    /// Writes one sample of each of many series, so that it does not fit into the rest of a page.
    async fn write(&self, number: u64) -> (u16, String) {
        let labels = |i: u64| Labels::metric("full", &[("number", &number.to_string()), ("i", &i.to_string())]);
        let samples: Vec<Sample> = (0..2000).map(|i| Sample::new(labels(i), self.now, i as f64)).collect();
        self.post("/api/v1/write", remote_write::encode(&samples).unwrap()).await
    }

    async fn count(&self) -> serde_json::Value {
        let answer = self.server.get("/api/v1/query?query=count(full)").await;
        answer["data"]["result"][0]["value"][1].clone()
    }

    async fn silence(&self) -> (u16, serde_json::Value) {
        let body = json!({
            "matchers": [{"name": "alertname", "value": "Any", "isRegex": false, "isEqual": true}],
            "startsAt": self.now, "endsAt": self.now + Duration::from_hours(1),
            // Larger than what a page of the state may have left.
            "createdBy": "a person", "comment": "x".repeat(1 << 20),
        });
        self.server.post("/api/v2/silences", &body).await
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_mends_itself() {
    let home = home("full-disk");
    let data = home.path().join("data");
    let disk = SmallDisk::mount(&data);
    let server = Server::start_on(home.path(), &data).await;
    let now = Clock::system().now();
    let client = Client { server: &server, now };
    assert_eq!(client.push(0).await.0, 200);
    assert_eq!(client.write(0).await.0, 204);

    disk.fill();
    for round in 0..3 {
        for (status, text) in [client.push(1).await, client.write(1).await] {
            assert_eq!(status, 503, "round {round}: {text}");
            assert!(text.contains("No space left on device"), "round {round}: {text}");
        }
        let (status, body) = client.silence().await;
        assert!(
            status >= 500 && body.to_string().contains("No space left on device"),
            "round {round}: {status} {body}"
        );
        assert_eq!(client.count().await, "2000", "reads go on");
        assert_eq!(server.get("/api/v2/silences").await, json!([]), "reads go on");
        // From the state's file, as the check of every token is.
        assert_eq!(server.get("/api/daraji/v1/tokens").await, json!([]), "reads go on");
    }

    disk.make_room();
    let (status, text) = client.push(1).await;
    assert_eq!(status, 200, "{text}");
    let (status, text) = client.write(1).await;
    assert_eq!(status, 204, "{text}");
    assert_eq!(client.count().await, "4000");
    let (status, body) = client.silence().await;
    assert_eq!(status, 200, "{body}");
    let silence = body["silenceID"].clone();

    // Full again, and killed while it is: what was acknowledged is there when there is room for a start.
    disk.fill();
    assert_eq!(client.push(2).await.0, 503);
    server.kill();
    disk.make_room();
    let server = Server::start_on(home.path(), &data).await;
    let client = Client { server: &server, now };
    assert_eq!(client.count().await, "4000");
    assert_eq!(server.get("/api/v2/silences").await[0]["id"], silence);
    assert_eq!(client.push(2).await.0, 200);
    assert_eq!(server.terminate().await.code(), Some(0));

    let (store, recovery) =
        LogStore::open(&data.join("logs"), LogOptions::default(), &Disk::real(), &Clock::system()).unwrap();
    assert!(recovery.damaged.is_empty(), "{recovery:?}");
    let mut lines = Vec::new();
    let query = LogQuery::new(vec![daraji::model::Matcher::equal("cluster", "full")], Timestamp::MIN, Timestamp::MAX);
    let visit = &mut |_: u64, record: &LogRecord| {
        lines.push(record.line.clone());
        ControlFlow::Continue(())
    };
    store.search(&query, visit).unwrap();
    assert!(lines == [line(0), line(1), line(2)], "{} records", lines.len());
}
