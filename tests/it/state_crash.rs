//! `kill -9` at any moment loses nothing that was acknowledged, and leaves no half of a transaction.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use daraji::model::Timestamp;
use daraji::store::state::{StateStore, Table};

const NUMBERS: Table<u64> = Table::new("numbers");
const ROUNDS: u64 = 12;

fn open(dir: &Path) -> StateStore {
    StateStore::open(dir, Timestamp(0)).unwrap()
}

/// Run by the test below in a process of its own: writes pairs until it is killed, and says what is committed.
#[test]
#[ignore = "started by acknowledged_writes_survive_kill_9"]
fn child_that_writes() {
    let Some(dir) = std::env::var_os("DARAJI_TEST_DIR") else { return };
    let store = open(Path::new(&dir));
    let first = store.read().unwrap().get(&NUMBERS, "a").unwrap().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    for number in first + 1.. {
        store.write(|tx| tx.put(&NUMBERS, "a", &number).and_then(|()| tx.put(&NUMBERS, "b", &number))).unwrap();
        writeln!(out, "\ncommitted {number}").unwrap();
    }
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "state_crash::child_that_writes"])
            .env("DARAJI_TEST_DIR", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut committed = lines.filter_map(|line| line.strip_prefix("committed ")?.parse::<u64>().ok());
        // A different number of commits in each round, and the kill falls into the middle of the next one.
        let mut acknowledged = (0..round).filter_map(|_| committed.next()).last().unwrap();
        child.kill().unwrap();
        acknowledged = committed.last().unwrap_or(acknowledged);
        child.wait().unwrap();
        let store = open(dir.path());
        assert!(store.set_aside().is_none(), "a kill is no damage");
        let view = store.read().unwrap();
        let (a, b) = (view.get(&NUMBERS, "a").unwrap().unwrap(), view.get(&NUMBERS, "b").unwrap().unwrap());
        assert_eq!(a, b, "a transaction is whole");
        assert!(a == acknowledged || a == acknowledged + 1, "acknowledged {acknowledged}, found {a}");
    }
}
