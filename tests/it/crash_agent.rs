//! `kill -9` of the agent in a loop, with a push server that loses answers and goes away: every line arrives exactly once
//! and in order.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use daraji::agent::{Inputs, start};
use daraji::platform::clock::Clock;
use daraji::platform::tasks::TaskGroup;

use crate::agent::{PushServer, append, config};

const DIR_VARIABLE: &str = "DARAJI_TEST_AGENT_DIR";
const SERVER_VARIABLE: &str = "DARAJI_TEST_AGENT_SERVER";
const ROUNDS: u64 = 12;

/// Not a test by itself: this is the process that gets killed.
#[tokio::test]
async fn agent_child() {
    let (Ok(dir), Ok(server)) = (std::env::var(DIR_VARIABLE), std::env::var(SERVER_VARIABLE)) else { return };
    daraji::platform::tls::install();
    let group = TaskGroup::new("agent");
    let logs = [("postgresql", "*.csv"), ("patroni", "patroni.log"), ("app", "app.log*")];
    start(config(&server, Path::new(&dir), &logs), Clock::system(), &group, Inputs::default()).await.unwrap();
    std::future::pending::<()>().await;
}

struct Agent(Child);

impl Agent {
    fn spawn(dir: &Path, server: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash_agent::agent_child", "--nocapture"])
            .env(DIR_VARIABLE, dir)
            .env(SERVER_VARIABLE, server)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Writes numbered records of several shapes.
struct Writer {
    dir: PathBuf,
    next: u64,
    rotations: u64,
}

impl Writer {
    /// A record in each file, one of them in two halves, with now and then a rotation.
    async fn write(&mut self, random: u64) {
        let n = self.next;
        self.next += 1;
        let csv = format!(
            "2026-11-23 05:47:28.131 UTC,,,42,,6b.7,1,,2026-11-23 05:47:28 UTC,,0,LOG,00000,\"record {n}\nwith \"\"two\"\" lines\",,,,,,,,,\"\"\n"
        );
        let (first, second) = csv.split_at(csv.floor_char_boundary(usize::try_from(random).unwrap() % csv.len()));
        append(&self.dir.join("a.csv"), first);
        append(
            &self.dir.join("patroni.log"),
            &format!("2026-11-23 05:46:38,252 ERROR: record {n}\nTraceback:\n  line {n}\n"),
        );
        append(&self.dir.join("app.log"), &format!("record {n} of the application\n"));
        if random.is_multiple_of(31) {
            self.rotations += 1;
            fs::rename(self.dir.join("app.log"), self.dir.join(format!("app.log.{}", self.rotations))).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(random % 5)).await;
        append(&self.dir.join("a.csv"), second);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_and_repeats_nothing() {
    daraji::platform::tls::install();
    let dir = tempfile::tempdir().unwrap();
    let group = TaskGroup::new("test");
    let push_server = PushServer::default();
    push_server.0.lock().lose_every = 3;
    let url = push_server.serve(&group).await;
    let mut writer = Writer { dir: dir.path().to_owned(), next: 0, rotations: 0 };
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    for round in 0..ROUNDS {
        push_server.0.lock().is_away = round % 4 == 2;
        push_server.0.lock().late_ms = if round % 4 == 3 { 200 } else { 0 };
        let agent = Agent::spawn(dir.path(), &url);
        for _ in 0..20 + random % 300 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            writer.write(random).await;
        }
        drop(agent);
        // Written while nobody looks.
        writer.write(random).await;
    }
    push_server.0.lock().is_away = false;
    push_server.0.lock().lose_every = 0;
    let agent = Agent::spawn(dir.path(), &url);
    let count = usize::try_from(writer.next).unwrap();
    push_server.wait_for("every record", |received| received.records.len() >= 3 * count).await;
    drop(agent);

    let lines = |source: &str| -> Vec<String> {
        let received = push_server.0.lock();
        let of_source = received.records.iter().filter(|record| record.stream.get("source") == Some(source));
        of_source.map(|record| record.line.clone()).collect()
    };
    let expected = |form: fn(u64) -> String| -> Vec<String> { (0..writer.next).map(form).collect() };
    assert_eq!(lines("postgresql"), expected(|n| format!("LOG:  record {n}\n\twith \"two\" lines")));
    assert_eq!(
        lines("patroni"),
        expected(|n| format!("2026-11-23 05:46:38,252 ERROR: record {n}\nTraceback:\n  line {n}"))
    );
    // Rotated: each file in order, the files among each other in any.
    let mut application = lines("app");
    application.sort_by_key(|line| line.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()));
    assert!(writer.rotations > 2, "the test rotates");
    assert_eq!(application, expected(|n| format!("record {n} of the application")));
    assert!(push_server.0.lock().high.len() == 1, "one generation: {:?}", push_server.0.lock().high);
    group.stop(Duration::from_secs(5)).await;
}
