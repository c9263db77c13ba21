//! Strangers at the door of the real server: tokens and their roles on a guarded address, TLS from files that change.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use daraji::model::{Labels, Sample};
use daraji::platform::clock::Clock;
use daraji::platform::http_client::HttpClient;
use daraji::wire::agent::{PUSH_PATH, Push, encode_push};
use daraji::wire::remote_write;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::alerting::PATIENCE;
use crate::prometheus_api::client;
use crate::server::{Server, complaints, home, run};

/// A request, and what it answers to: nobody, an agent, a viewer, an operator, an admin.
type Case = (Method, &'static str, [u16; 5]);

fn cases() -> Vec<Case> {
    let (get, post) = (Method::GET, Method::POST);
    vec![
        (get.clone(), "/-/healthy", [200; 5]),
        (get.clone(), "/-/ready", [200; 5]),
        (get.clone(), "/api/daraji/v1/clusters", [401, 403, 200, 200, 200]),
        (get.clone(), "/api/daraji/v1/events", [401, 403, 200, 200, 200]),
        (get.clone(), "/api/v1/query?query=1", [401, 403, 200, 200, 200]),
        (post.clone(), "/api/v1/query?query=1", [401, 403, 200, 200, 200]),
        (get.clone(), "/api/v1/rules", [401, 403, 200, 200, 200]),
        (get.clone(), "/prometheus/api/v1/rules", [401, 403, 200, 200, 200]),
        (get.clone(), "/prometheus/api/v1/alerts", [401, 403, 200, 200, 200]),
        (get.clone(), "/loki/api/v1/labels", [401, 403, 200, 200, 200]),
        (get.clone(), "/api/v2/alerts", [401, 403, 200, 200, 200]),
        (get.clone(), "/federate?match[]=up", [401, 403, 200, 200, 200]),
        (get.clone(), "/metrics", [401, 403, 200, 200, 200]),
        (get.clone(), "/api/daraji/v1/tokens", [401, 403, 403, 403, 200]),
        (get, "/api/v1/nothing", [401, 403, 404, 404, 404]),
        (post.clone(), "/api/v1/write", [401, 204, 403, 204, 204]),
        (post.clone(), PUSH_PATH, [401, 200, 403, 200, 200]),
        (post.clone(), "/api/v2/silences", [401, 403, 403, 200, 200]),
        (post.clone(), "/api/daraji/v1/tokens", [401, 403, 403, 403, 400]),
        (post, "/-/reload", [401, 403, 403, 403, 200]),
    ]
}

/// A body that the path takes; for the tokens a role that nobody can have.
fn body(path: &str) -> Vec<u8> {
    let now = Clock::system().now();
    match path {
        "/api/v1/write" => remote_write::encode(&[Sample::new(Labels::metric("up", &[]), now, 1.0)]).unwrap(),
        PUSH_PATH => encode_push(&Push { agent: "a".to_owned(), sent_at: now, ..Push::default() }),
        "/api/v2/silences" => json!({
            "matchers": [{"name": "alertname", "value": "Any", "isRegex": false}],
            "startsAt": now, "endsAt": now + Duration::from_hours(1), "createdBy": "a person", "comment": "c",
        })
        .to_string()
        .into_bytes(),
        "/api/daraji/v1/tokens" => json!({"name": "x", "role": "emperor"}).to_string().into_bytes(),
        _ => Vec::new(),
    }
}

async fn ask(base: &str, method: &Method, path: &str, token: Option<&str>) -> (u16, String) {
    let mut request = client().request(method.clone(), format!("{base}{path}"));
    if *method == Method::POST {
        request = request.header(
            "content-type",
            if path == "/api/v1/write" { "application/x-protobuf" } else { "application/json" },
        );
        request = request.body(body(path));
    }
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// A server with an open and a guarded address, and a token of each role.
async fn guarded(home: &Path) -> (Server, Vec<String>) {
    let config = home.join("daraji.yml");
    let text = format!("listen: [127.0.0.1:0, 0.0.0.0:0]\nstorage: {{path: {}}}\n", home.join("data").display());
    fs::write(&config, text).unwrap();
    let server = Server::start(home, &["--config", config.to_str().unwrap()]).await;
    let mut tokens = Vec::new();
    for role in ["agent", "viewer", "operator", "admin"] {
        let (status, answer) = server.post("/api/daraji/v1/tokens", &json!({"name": role, "role": role})).await;
        assert_eq!(status, 200, "{answer}");
        tokens.push(answer["token"].as_str().unwrap().to_owned());
    }
    (server, tokens)
}

#[tokio::test]
async fn each_role_may_do_its_part_and_strangers_nothing() {
    let home = home("roles");
    let (server, tokens) = guarded(home.path()).await;
    let address = server.urls[1].clone();
    let callers: Vec<Option<&str>> =
        std::iter::once(None).chain(tokens.iter().map(|token| Some(token.as_str()))).collect();
    for (method, path, expected) in cases() {
        for (who, (token, expected)) in
            ["nobody", "agent", "viewer", "operator", "admin"].iter().zip(callers.iter().zip(expected))
        {
            let (status, text) = ask(&address, &method, path, *token).await;
            assert_eq!(status, expected, "{method} {path} by {who}: {text}");
            assert!(!tokens.iter().any(|token| text.contains(token)), "{method} {path} by {who} shows a token");
        }
        let (status, _) = ask(&address, &method, path, Some("0123456789abcdef")).await;
        assert_eq!(status, expected[0], "{method} {path} with a wrong token");
        // The loopback address asks for nothing.
        let (status, text) = ask(&server.url(""), &method, path, None).await;
        assert_eq!(status, expected[4], "{method} {path} on loopback: {text}");
    }
    let (status, text) = ask(&address, &Method::GET, "/api/daraji/v1/clusters", None).await;
    assert!(status == 401 && text.contains("daraji token add"), "{text}");
    let log = serde_json::to_string(&server.lines()).unwrap();
    assert!(!tokens.iter().any(|token| log.contains(token)), "the log shows a token");
    assert_eq!(server.terminate().await.code(), Some(0));
}

/// What a page in the operator's browser could send to the open port: its own origin, or a name of its own.
#[tokio::test]
async fn a_foreign_page_reaches_nothing_on_loopback() {
    let home = home("foreign");
    let (server, _) = guarded(home.path()).await;
    let (silences, clusters) = (server.url("/api/v2/silences"), server.url("/api/daraji/v1/clusters"));
    for (header, value, expected) in [
        ("origin", "http://evil.example.com", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("host", "evil.example.com:7432", 403),
        ("origin", server.url("").as_str(), 200),
        ("user-agent", "amtool", 200),
    ] {
        let request = client().post(&silences).header(header, value).body(body("/api/v2/silences"));
        assert_eq!(request.send().await.unwrap().status(), expected, "POST with {header}: {value}");
        let request = client().get(&clusters).header(header, value);
        let expected = if header == "host" { 403 } else { 200 };
        assert_eq!(request.send().await.unwrap().status(), expected, "GET with {header}: {value}");
    }
    assert_eq!(server.terminate().await.code(), Some(0));
}

/// Spellings of a guarded path that a router or a proxy might fold into it.
#[tokio::test]
async fn no_spelling_of_a_path_goes_around_the_guard() {
    let home = home("spellings");
    let (server, _) = guarded(home.path()).await;
    let address = server.urls[1].trim_start_matches("http://").to_owned();
    for path in [
        "//api/v1/query?query=1",
        "/./api/v1/query?query=1",
        "/x/../api/v1/query?query=1",
        "/%61pi/v1/query?query=1",
        "/api%2fv1/query?query=1",
        "/API/v1/query?query=1",
        "/metrics/",
        "/federate/?match[]=up",
        "http://other/api/v1/query?query=1",
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(!answer.contains("resultType") && !answer.contains("daraji_"), "{path}: {answer}");
    }
    assert_eq!(server.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn tokens_come_as_password_or_cookie_and_can_be_revoked() {
    let home = home("sessions");
    let (server, tokens) = guarded(home.path()).await;
    let url = |path: &str| format!("{}{path}", server.urls[1]);
    let viewer = &tokens[1];
    let request = client().get(url("/api/v1/query?query=1")).basic_auth("grafana", Some(viewer));
    assert_eq!(request.send().await.unwrap().status(), 200);

    let refused = client().post(url("/api/daraji/v1/session")).json(&json!({"token": "wrong"})).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let session = client().post(url("/api/daraji/v1/session")).json(&json!({"token": viewer})).send().await.unwrap();
    assert_eq!(session.status(), 204);
    let cookie = session.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "the cookie's attributes");
    let with_cookie = async || {
        let request = client().get(url("/api/daraji/v1/status")).header("cookie", cookie.split(';').next().unwrap());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (status, text) = with_cookie().await;
    let about: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &about["auth"], &about["role"]), (200, &json!("token"), &json!("viewer")));

    let revoked = client().delete(url("/api/daraji/v1/tokens/viewer")).bearer_auth(&tokens[3]).send().await.unwrap();
    assert_eq!(revoked.status(), 204);
    assert_eq!(with_cookie().await.0, 401);
    assert_eq!(server.terminate().await.code(), Some(0));
}

/// A certificate for 127.0.0.1 that nobody else signed, with its key.
fn certify(certificate: &Path, key: &Path) {
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=daraji.test", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(key)
        .arg("-out")
        .arg(certificate)
        .stderr(Stdio::null())
        .status()
        .expect("openssl makes the test's certificate");
    assert!(status.success());
}

/// Whether a client that trusts only this certificate gets an answer.
async fn trusts(server: &Server, certificate: &Path) -> bool {
    let client = HttpClient::new(Duration::from_secs(10), 1 << 20, Some(certificate)).unwrap();
    match client.get(&server.url("/api/daraji/v1/status")).await {
        Ok(answer) => {
            assert_eq!(answer.status, 200);
            true
        }
        Err(_) => false,
    }
}

async fn wait_until_trusted(server: &Server, certificate: &Path) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let wait = async {
        while !trusts(server, certificate).await {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the changed certificate is not read");
}

#[tokio::test]
async fn certificates_are_read_again_and_plain_http_is_turned_away() {
    let home = home("tls");
    let path = |name: &str| home.path().join(name);
    certify(&path("cert.pem"), &path("key.pem"));
    certify(&path("next-cert.pem"), &path("next-key.pem"));
    fs::copy(path("cert.pem"), path("first-cert.pem")).unwrap();
    let config = "listen: 127.0.0.1:0\ntls: {cert_file: CERT, key_file: KEY}\nstorage: {path: DATA}\n"
        .replace("CERT", path("cert.pem").to_str().unwrap())
        .replace("KEY", path("key.pem").to_str().unwrap())
        .replace("DATA", path("data").to_str().unwrap());
    fs::write(path("daraji.yml"), config).unwrap();
    let arguments = ["--config", path("daraji.yml").to_str().unwrap().to_owned().leak()];
    let mut server = Server::start(home.path(), &arguments).await;
    assert!(server.url("").starts_with("https://"));
    assert!(trusts(&server, &path("first-cert.pem")).await);
    assert!(
        !trusts(&server, &path("next-cert.pem")).await,
        "a client must not take a certificate that it does not know"
    );

    plain_http_is_turned_away(&server).await;

    // Rubbish changes nothing, and is named.
    fs::write(path("cert.pem"), "-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n").unwrap();
    let lines = server.wait_for_log("the changed TLS files cannot be used, the old ones stay").await;
    let text = serde_json::to_string(&lines).unwrap();
    assert!(text.contains(path("cert.pem").to_str().unwrap()), "{text}");
    assert!(trusts(&server, &path("first-cert.pem")).await);

    fs::rename(path("next-key.pem"), path("key.pem")).unwrap();
    fs::copy(path("next-cert.pem"), path("cert.pem")).unwrap();
    wait_until_trusted(&server, &path("next-cert.pem")).await;
    assert!(!trusts(&server, &path("first-cert.pem")).await, "the old certificate is out of use");
    assert_eq!(server.terminate().await.code(), Some(0));

    // What cannot be used at the start is an error that names the file.
    for (file, content) in [("key.pem", Some("no key")), ("cert.pem", Some("no certificate")), ("key.pem", None)] {
        let kept = fs::read(path(file)).unwrap();
        match content {
            Some(content) => fs::write(path(file), content).unwrap(),
            None => fs::remove_file(path(file)).unwrap(),
        }
        let output = run(&["serve", arguments[0], arguments[1]]).await;
        let text = complaints(&output);
        assert_eq!(output.status.code(), Some(1), "{file} {content:?}: {text}");
        assert!(text.lines().last().unwrap().contains(path(file).to_str().unwrap()), "{file} {content:?}: {text}");
        fs::write(path(file), kept).unwrap();
    }
}

/// The connection ends at once and without an answer in plain text, and the next client is served.
async fn plain_http_is_turned_away(server: &Server) {
    let address = server.url("").trim_start_matches("https://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    stream.write_all(b"GET /-/ready HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    // A reset is an end too.
    drop(ended.expect("the connection is not closed"));
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 200"), "{answer:?}");
    assert_eq!(client().get(format!("http://{address}/-/ready")).send().await.map(|r| r.status().as_u16()).ok(), None);
}
