//! The real program, run as an operator runs it: started, asked over HTTP, terminated or killed.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::alerting::until;
use crate::prometheus_api::client;

/// How long a command may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(20);

/// A directory for one test.
pub(crate) fn home(name: &str) -> tempfile::TempDir {
    tempfile::Builder::new().prefix(&format!("daraji-{name}-")).tempdir().unwrap()
}

/// The program with these arguments and nothing of the caller's environment that it reads.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daraji"));
    for variable in ["DARAJI_CONFIG", "DARAJI_DATA", "DARAJI_LOG", "DARAJI_SERVER", "DARAJI_TOKEN"] {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the program until it ends, for commands and for servers that must refuse to start.
pub(crate) async fn run(arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::from(command(arguments));
    let output = command.kill_on_drop(true).output();
    tokio::time::timeout(COMMAND_PATIENCE, output)
        .await
        .unwrap_or_else(|_| panic!("{arguments:?} does not end"))
        .unwrap()
}

/// What a finished program wrote to stderr.
pub(crate) fn complaints(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server that runs; killed when dropped.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    /// Where this run's lines begin in the log.
    log_start: u64,
    /// One per address of `listen`, in its order.
    pub(crate) urls: Vec<String>,
}

impl Server {
    /// Starts `daraji serve` with these arguments and waits until it is ready. Its log is `home`/server.log.
    pub(crate) async fn start(home: &Path, arguments: &[&str]) -> Self {
        let mut server = Self::spawn(home, arguments);
        server.wait_until_ready().await;
        server
    }

    /// Starts with a data directory and one loopback address of its own choice.
    pub(crate) async fn start_on(home: &Path, data: &Path) -> Self {
        Self::start(home, &["--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]).await
    }

    /// Starts without waiting for anything.
    pub(crate) fn spawn(home: &Path, arguments: &[&str]) -> Self {
        let path = home.join("server.log");
        let log = File::options().create(true).append(true).open(&path).unwrap();
        let log_start = log.metadata().unwrap().len();
        let arguments: Vec<&str> = std::iter::once("serve").chain(arguments.iter().copied()).collect();
        let child = command(&arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Self { child, log: path, log_start, urls: Vec::new() }
    }

    async fn wait_until_ready(&mut self) {
        // Ready is said last, when every address is bound: a request in between would find some of them missing.
        let lines = self.wait_for_log("ready").await;
        let listening = lines.iter().filter(|line| line["message"] == "listening");
        self.urls = listening.map(|line| line["url"].as_str().unwrap().to_owned()).collect();
        daraji::platform::tls::install();
        let insecure = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build().unwrap();
        for url in &self.urls {
            let ready = insecure.get(format!("{url}/-/ready")).send().await.unwrap();
            assert_eq!(ready.status(), 200, "{url}");
        }
    }

    /// Waits until this run has logged a message; returns all of its lines.
    pub(crate) async fn wait_for_log(&mut self, message: &str) -> Vec<Value> {
        let (child, log, start) = (&mut self.child, &self.log, self.log_start);
        until(&format!("the server to log {message:?}"), || {
            let lines = lines_from(log, start);
            if lines.iter().any(|line| line["message"] == message) {
                return Some(lines);
            }
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended, {status}: {lines:#?}");
            }
            None
        })
        .await
    }

    /// The lines of this run, as far as they are complete.
    pub(crate) fn lines(&self) -> Vec<Value> {
        lines_from(&self.log, self.log_start)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.urls.first().unwrap())
    }

    /// The JSON of a path, which must answer 200.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = client().get(self.url(path)).send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Status and JSON of the answer to a POST of JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = client().post(self.url(path)).json(body).send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// SIGTERM, and the exit status that follows.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        let child = &mut self.child;
        until("the server to end after SIGTERM", || child.try_wait().unwrap()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error says that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lines_from(log: &Path, start: u64) -> Vec<Value> {
    let mut file = File::open(log).unwrap();
    file.seek(SeekFrom::Start(start)).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| Value::String(line.to_owned()));
    complete.lines().map(line).collect()
}

/// Numbers that make every run fall elsewhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(salt: u64) -> Self {
        Self((u64::from(std::process::id()) << 20) ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
