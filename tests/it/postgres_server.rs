//! Real PostgreSQL servers for tests.
//!
//! Programs come from `DARAJI_TEST_POSTGRES` (layout `<dir>/<major>/bin/postgres`), from what the lab's installer has
//! unpacked, or from the distribution.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use daraji::collect::config::{Address, PostgresConfig};
use daraji::collect::{PostgresReport, postgres_once, write_once};
use daraji::platform::clock::Clock;
use daraji::platform::tasks::TaskGroup;

/// A server's programs, and the user that they run as.
pub(crate) struct Programs {
    bin: PathBuf,
    user: Option<(u32, u32)>,
}

impl Programs {
    pub(crate) fn find(major: u32) -> Self {
        let lab = std::env::var("DARAJI_LAB_HOME").unwrap_or_else(|_| "/opt/daraji-lab".to_owned());
        let from_environment = std::env::var("DARAJI_TEST_POSTGRES").ok().map(PathBuf::from);
        let places = from_environment
            .into_iter()
            .chain(["postgres", "pg"].map(|dir| Path::new(&lab).join(dir)))
            .chain([PathBuf::from("/usr/lib/postgresql")]);
        let bin =
            places.map(|place| place.join(major.to_string()).join("bin")).find(|bin| bin.join("postgres").exists());
        let bin = bin.unwrap_or_else(|| panic!("PostgreSQL {major} is not installed; run tests/lab/install"));
        Self { bin, user: unprivileged_user() }
    }

    /// An empty directory that belongs to the server's user.
    pub(crate) fn own_dir(&self) -> tempfile::TempDir {
        let dir = tempfile::Builder::new().prefix("daraji-collect-pg").tempdir().unwrap();
        self.own(dir.path());
        dir
    }

    /// Gives a file to the server's user.
    pub(crate) fn own(&self, path: &Path) {
        if let Some((uid, gid)) = self.user {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(self.bin.join(program));
        command.args(arguments).env("LC_ALL", "C").current_dir("/");
        if let Some((uid, gid)) = self.user {
            command.gid(gid).uid(uid);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
    }
}

/// Adds to a file.
pub(crate) fn append(path: &Path, text: &str) {
    let before = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, before + text).unwrap();
}

/// PostgreSQL refuses to run as root.
fn unprivileged_user() -> Option<(u32, u32)> {
    if !std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0) {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).unwrap_or((65534, 65534)))
}

/// A running server; it is stopped when dropped.
pub(crate) struct Server<'a> {
    programs: &'a Programs,
    data: PathBuf,
    pub(crate) port: u16,
}

impl<'a> Server<'a> {
    /// Starts in a data directory that is ready but for the port.
    pub(crate) fn start(programs: &'a Programs, data: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { programs, data: data.to_owned(), port };
        let log = data.join("server.log");
        let options = format!("-p {port}");
        let data = data.to_str().unwrap();
        programs.run("pg_ctl", &["start", "-w", "-t", "60", "-D", data, "-o", &options, "-l", log.to_str().unwrap()]);
        server
    }

    pub(crate) fn stop(self, mode: &str) {
        self.programs.run("pg_ctl", &["stop", "-w", "-m", mode, "-D", self.data.to_str().unwrap()]);
        std::mem::forget(self);
    }

    pub(crate) async fn client(&self) -> tokio_postgres::Client {
        let options = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port);
        let (client, connection) = tokio_postgres::connect(&options, tokio_postgres::NoTls).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test's own connection")]
        drop(tokio::spawn(connection));
        client
    }

    /// Commits one transaction of the write probe.
    pub(crate) async fn write(&self, config: &PostgresConfig) -> Result<(), String> {
        let group = TaskGroup::new("test");
        let address = Address { host: "127.0.0.1".to_owned(), port: self.port };
        let written = write_once(config, address, &group, &Clock::system()).await;
        group.stop(Duration::from_secs(5)).await;
        written
    }

    /// Everything that would be collected of it.
    pub(crate) async fn ask(&self, host: &str, config: &PostgresConfig) -> Result<PostgresReport, String> {
        let group = TaskGroup::new("test");
        let report = postgres_once(config, host, self.port, &group, &Clock::system()).await;
        group.stop(Duration::from_secs(5)).await;
        report
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let mut command = Command::new(self.programs.bin.join("pg_ctl"));
        command.args(["stop", "-m", "immediate", "-D"]).arg(&self.data);
        if let Some((uid, gid)) = self.programs.user {
            command.gid(gid).uid(uid);
        }
        drop(command.output());
    }
}
