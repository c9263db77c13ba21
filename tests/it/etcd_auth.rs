//! A real etcd that asks for user and password, and for certificates.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use daraji::collect::config::ClusterConfig;
use daraji::collect::targets::TargetStatus;
use daraji::collect::{CollectConfig, CollectHandle, Sink};
use daraji::model::observation::Claim;
use daraji::model::{Batch, Observation, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::http_client::HttpClient;
use daraji::platform::tasks::TaskGroup;
use daraji::platform::yaml::from_yaml;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use crate::alerting::{PATIENCE, until};
use crate::programs::program;
use crate::server::home;

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An etcd of one member with the users `root` and `monitor`, whose passwords are their names; killed when dropped.
struct Etcd {
    child: Child,
    home: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
    tls: bool,
    http: HttpClient,
}

impl Etcd {
    async fn start(home: &Path, tls: bool) -> Self {
        daraji::platform::tls::install();
        if tls {
            certify(home);
        }
        let (ca, cert, key) = (home.join("ca.pem"), home.join("cert.pem"), home.join("key.pem"));
        let timeout = Duration::from_secs(5);
        let http = if tls {
            HttpClient::with_identity(timeout, 1 << 20, Some(&ca), Some((&cert, &key))).unwrap()
        } else {
            HttpClient::new(timeout, 1 << 20, None).unwrap()
        };
        let (client, peer) = (free_address(), free_address());
        let child = spawn(home, client, peer, tls);
        let etcd = Self { child, home: home.to_owned(), client, peer, tls, http };
        etcd.wait().await;
        etcd.set_up().await;
        etcd
    }

    /// A token of before means nothing to the new process. Returns when the old one was dead.
    async fn restart(&mut self) -> Timestamp {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let dead_at = Clock::system().now();
        self.child = spawn(&self.home, self.client, self.peer, self.tls);
        self.wait().await;
        dead_at
    }

    fn url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.client)
    }

    async fn wait(&self) {
        let url = format!("{}/health", self.url());
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        let wait = async {
            while !self.http.get(&url).await.is_ok_and(|answer| answer.status == 200) {
                ticks.tick().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("etcd is healthy");
    }

    async fn post(&self, path: &str, body: Value, token: &str) -> Value {
        let url = format!("{}{path}", self.url());
        let request = self.http.request(reqwest::Method::POST, &url).header("authorization", token).json(&body);
        let answer = self.http.send(request, &url).await.unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn root(&self) -> String {
        let answer = self.post("/v3/auth/authenticate", json!({"name": "root", "password": "root"}), "").await;
        answer["token"].as_str().unwrap().to_owned()
    }

    async fn put(&self, key: &str, value: &str, lease: &str, token: &str) {
        let (key, value) = (BASE64.encode(key), BASE64.encode(value));
        self.post("/v3/kv/put", json!({"key": key, "value": value, "lease": lease}), token).await;
    }

    async fn set_up(&self) {
        let lease = self.post("/v3/lease/grant", json!({"TTL": "600"}), "").await["ID"].as_str().unwrap().to_owned();
        self.put("/service/main/leader", "n1", &lease, "").await;
        self.put("/service/main/config", "{}", "0", "").await;
        for user in ["root", "monitor", "stranger"] {
            self.post("/v3/auth/user/add", json!({"name": user, "password": user}), "").await;
            self.post("/v3/auth/role/add", json!({"name": user}), "").await;
            self.post("/v3/auth/user/grant", json!({"user": user, "role": user}), "").await;
        }
        let (key, end) = (BASE64.encode("/service/"), BASE64.encode("/service0"));
        let permission = json!({"permType": "READ", "key": key, "range_end": end});
        self.post("/v3/auth/role/grant", json!({"name": "monitor", "perm": permission}), "").await;
        self.post("/v3/auth/enable", json!({}), "").await;
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(home: &Path, client: SocketAddr, peer: SocketAddr, tls: bool) -> Child {
    let scheme = if tls { "https" } else { "http" };
    let (client, peer) = (format!("{scheme}://{client}"), format!("http://{peer}"));
    let mut command = Command::new(program("bin/etcd", "etcd"));
    command
        .arg("--data-dir")
        .arg(home.join("etcd"))
        .args(["--name", "e1", "--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("e1={peer}")]);
    if tls {
        command.arg("--client-cert-auth");
        for (flag, file) in [("--trusted-ca-file", "ca.pem"), ("--cert-file", "cert.pem"), ("--key-file", "key.pem")] {
            command.arg(flag).arg(home.join(file));
        }
    }
    let log = fs::File::options().create(true).append(true).open(home.join("etcd.log")).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// An authority, and a certificate of it for both sides.
fn certify(home: &Path) {
    let openssl = |arguments: &[&str]| {
        let status = Command::new("openssl").args(arguments).current_dir(home).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "openssl {arguments:?}");
    };
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let authority = ["req", "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem"];
    openssl(&[&authority[..], &curve].concat());
    let request = ["req", "-subj", "/O=test", "-keyout", "key.pem", "-out", "request.pem"];
    openssl(&[&request[..], &curve].concat());
    fs::write(home.join("extensions"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "request.pem",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca-key.pem",
        "-CAcreateserial",
        "-extfile",
        "extensions",
        "-out",
        "cert.pem",
    ]);
}

/// Collectors of the cluster `main`, whose etcd is configured with these further keys.
fn collect(etcd: &Etcd, keys: &str, group: &TaskGroup) -> (CollectHandle, Receiver<Batch>) {
    let tls = if etcd.tls { ", ca_file: HOME/ca.pem, cert_file: HOME/cert.pem, key_file: HOME/key.pem" } else { "" };
    let keys = format!("{keys}{tls}").replace("HOME", etcd.home.to_str().unwrap());
    let text = format!("{{name: main, dcs: {{etcd: ['{}']{keys}}}}}", etcd.url());
    let cluster: ClusterConfig = from_yaml("f.yml", &text).unwrap();
    let (sink, receiver) = Sink::channel(16);
    let config = CollectConfig { clusters: vec![cluster], ..CollectConfig::default() };
    (daraji::collect::start(config, group, sink, Clock::system()), receiver)
}

/// Takes batches until all these claims came after `since`.
async fn observe(receiver: &mut Receiver<Batch>, since: Timestamp, wanted: &[fn(&Claim) -> bool]) {
    let mut missing = wanted.to_vec();
    let search = async {
        while !missing.is_empty() {
            let batch = receiver.recv().await.unwrap();
            let is_new = |observation: &&Observation| observation.sent > since;
            let claims: Vec<Claim> = batch.observations.iter().filter(is_new).map(|seen| seen.claim.clone()).collect();
            missing.retain(|fits| !claims.iter().any(fits));
        }
    };
    let done = tokio::time::timeout(PATIENCE, search).await;
    assert!(done.is_ok(), "{} of {} claims are missing", missing.len(), wanted.len());
}

fn is_snapshot(claim: &Claim) -> bool {
    matches!(claim, Claim::DcsSnapshot(snapshot) if snapshot.keys.len() >= 2)
}

fn is_lease(claim: &Claim) -> bool {
    matches!(claim, Claim::Lease(lease) if lease.granted_ttl_seconds == 600)
}

fn is_healthy(claim: &Claim) -> bool {
    matches!(claim, Claim::DcsHealth(health) if health.healthy && health.name.as_deref() == Some("e1"))
}

fn is_change(claim: &Claim) -> bool {
    matches!(claim, Claim::DcsChange(change) if change.puts.iter().any(|key| key.key == "status"))
}

/// The `dcs` target, once it was asked and `up` is this.
async fn dcs_target(handle: &CollectHandle, receiver: &mut Receiver<Batch>, up: bool) -> TargetStatus {
    until(&format!("the dcs target to be up={up}: {:#?}", handle.targets.snapshot()), || {
        while receiver.try_recv().is_ok() {}
        handle.targets.snapshot().into_iter().find(|target| target.source == "dcs" && target.up == Some(up))
    })
    .await
}

async fn a_login_is_kept(tls: bool) {
    let home = home("etcd-login");
    let mut etcd = Etcd::start(home.path(), tls).await;
    fs::write(home.path().join("password"), "monitor\n").unwrap();
    let group = TaskGroup::new("test");
    let (_handle, mut receiver) = collect(&etcd, ", username: monitor, password_file: HOME/password", &group);
    observe(&mut receiver, Timestamp::default(), &[is_snapshot, is_lease, is_healthy]).await;
    etcd.put("/service/main/status", "1", "0", &etcd.root().await).await;
    observe(&mut receiver, Timestamp::default(), &[is_change]).await;

    let dead_at = etcd.restart().await;
    observe(&mut receiver, dead_at, &[is_snapshot, is_lease, is_healthy]).await;
    etcd.put("/service/main/status", "2", "0", &etcd.root().await).await;
    observe(&mut receiver, Timestamp::default(), &[is_change]).await;
    group.stop(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_login_is_kept_over_a_restart_of_etcd() {
    a_login_is_kept(false).await;
}

#[tokio::test]
async fn a_login_is_kept_over_tls_with_client_certificates() {
    a_login_is_kept(true).await;
}

#[tokio::test]
async fn a_wrong_login_says_what_to_do_and_a_mended_one_is_taken() {
    let home = home("etcd-wrong");
    let etcd = Etcd::start(home.path(), false).await;
    fs::write(home.path().join("password"), "wrong").unwrap();
    fs::write(home.path().join("stranger"), "stranger").unwrap();
    for (keys, error, hint) in [
        ("", "user name is empty", "add username: and password_file: beside etcd:"),
        (", username: stranger, password_file: HOME/stranger", "permission denied", "etcdctl role grant-permission"),
        (", username: monitor, password_file: HOME/none", "read the secret in", "must be readable by the user"),
    ] {
        let group = TaskGroup::new("test");
        let (handle, mut receiver) = collect(&etcd, keys, &group);
        let target = dcs_target(&handle, &mut receiver, false).await;
        assert!(target.error.as_ref().unwrap().contains(error), "{keys}: {target:?}");
        assert!(target.error_hint.as_ref().unwrap().contains(hint), "{keys}: {target:?}");
        group.stop(Duration::from_secs(10)).await;
    }
    let group = TaskGroup::new("test");
    let (handle, mut receiver) = collect(&etcd, ", username: monitor, password_file: HOME/password", &group);
    let target = dcs_target(&handle, &mut receiver, false).await;
    let (error, hint) = (target.error.unwrap(), target.error_hint.unwrap());
    assert!(error.contains("authentication failed") && !error.contains("wrong"), "{error}");
    assert!(hint.contains("password_file"), "{hint}");

    fs::write(home.path().join("password"), "monitor").unwrap();
    dcs_target(&handle, &mut receiver, true).await;
    // Each attempt costs the etcd a password hash: clients that ask at once share one, and wait after a refusal.
    let log = fs::read_to_string(home.path().join("etcd.log")).unwrap();
    let refused =
        log.lines().filter(|line| line.contains("failed to authenticate") || line.contains("invalid user ID")).count();
    assert!(refused <= 6, "{refused} refused log-ins\n{log}");
    group.stop(Duration::from_secs(10)).await;
}
