use std::fs;

use super::tokens::Role;
use super::*;

const NUMBERS: Table<u64> = Table::new("numbers");
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn open(dir: &Path) -> StateStore {
    StateStore::open(dir, NOW).unwrap()
}

#[test]
fn a_transaction_is_done_as_a_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!(store.read().unwrap().scan(&NUMBERS, "", 10).unwrap(), [], "a table that was never written is empty");
    store
        .write(|tx| {
            tx.put(&NUMBERS, "a/1", &1)?;
            tx.put(&NUMBERS, "a/2", &2)?;
            tx.put(&NUMBERS, "b/1", &3)
        })
        .unwrap();
    let view = store.read().unwrap();
    let failed: Result<(), StateError> = store.write(|tx| {
        tx.put(&NUMBERS, "a/1", &100)?;
        assert_eq!(tx.get(&NUMBERS, "a/1")?, Some(100));
        Err(StateError::TokenExists("planned".to_owned()))
    });
    assert!(failed.is_err());
    store.write(|tx| tx.delete(&NUMBERS, "a/2")).unwrap();
    assert_eq!(view.scan(&NUMBERS, "a/", 10).unwrap(), [("a/1".to_owned(), 1), ("a/2".to_owned(), 2)]);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.read().unwrap().scan(&NUMBERS, "", 10).unwrap(), [("a/1".to_owned(), 1), ("b/1".to_owned(), 3)]);
    assert_eq!(store.read().unwrap().scan(&NUMBERS, "", 1).unwrap().len(), 1);
}

#[test]
fn a_second_opener_is_refused_and_the_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.write(|tx| tx.put(&NUMBERS, "a", &1)).unwrap();
    assert!(matches!(StateStore::open(dir.path(), NOW), Err(StateError::Locked { .. })));
    assert_eq!(store.read().unwrap().get(&NUMBERS, "a").unwrap(), Some(1));
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).write(|tx| tx.put(&META, "schema_version", &99)).unwrap();
    let error = StateStore::open(dir.path(), NOW).unwrap_err();
    assert!(error.to_string().contains("schema version 99"), "{error}");
}

#[test]
fn a_damaged_file_is_set_aside_and_never_fatal() {
    for damage in ["text", "cut", "zeros", "flipped"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let store = open(dir.path());
        for i in 0..50_u64 {
            store.write(|tx| tx.put(&NUMBERS, &format!("{i}"), &i)).unwrap();
        }
        drop(store);
        let mut bytes = fs::read(&path).unwrap();
        match damage {
            "text" => bytes = b"not a database".to_vec(),
            "cut" => bytes.truncate(5000),
            "zeros" => bytes.fill(0),
            _ => bytes.iter_mut().skip(4096).step_by(64).for_each(|byte| *byte ^= 0x55),
        }
        fs::write(&path, &bytes).unwrap();
        let store = open(dir.path());
        let aside = store.set_aside().unwrap_or_else(|| panic!("{damage} went unnoticed"));
        assert_eq!(fs::read(aside).unwrap().len(), bytes.len(), "{damage}: the bytes are kept");
        store.write(|tx| tx.put(&NUMBERS, "a", &1)).unwrap();
        assert_eq!(store.read().unwrap().get(&NUMBERS, "a").unwrap(), Some(1));
    }
}

#[test]
fn tokens_are_shown_once_and_die_when_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let secret = store.create_token("alice", Role::Operator, NOW).unwrap();
    assert!(matches!(store.create_token("alice", Role::Admin, NOW), Err(StateError::TokenExists(_))));
    let agent = store.create_token("n1", Role::Agent, NOW).unwrap();
    assert_ne!(secret.expose(), agent.expose());
    assert!(secret.expose().len() > 64);
    let token = store.verify_token(secret.expose()).unwrap().unwrap();
    assert_eq!((token.name.as_str(), token.role), ("alice", Role::Operator));
    assert_eq!(store.verify_token("daraji_0000").unwrap(), None);
    let on_disk = fs::read(dir.path().join("state.redb")).unwrap();
    let secret_bytes = secret.expose().as_bytes();
    assert!(!on_disk.windows(secret_bytes.len()).any(|window| window == secret_bytes), "only the hash is stored");
    assert_eq!(store.list_tokens().unwrap().len(), 2);
    assert!(store.revoke_token("alice").unwrap());
    assert!(!store.revoke_token("alice").unwrap());
    assert_eq!(store.verify_token(secret.expose()).unwrap(), None);
}
