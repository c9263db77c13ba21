//! Opening the log store over a write-ahead log whose frames are any bytes behind checksums that hold.

#![no_main]

use std::ops::ControlFlow;

use daraji::model::{Labels, LogRecord, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::store::logs::{LogOptions, LogQuery, LogStore};
use daraji_fuzz::{fresh_dir, write_frames};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = fresh_dir();
    write_frames(&dir.path().join("wal"), bytes);
    let now = Timestamp::from_secs(1_790_000_000);
    let clock = Clock::manual(now);
    let open = || {
        LogStore::open(dir.path(), LogOptions::default(), &Disk::real(), &clock)
            .expect("damage never stops the store from opening")
            .0
    };
    let count = |store: &LogStore| {
        let mut found = 0;
        let query = LogQuery::new(Vec::new(), Timestamp::MIN, Timestamp::MAX);
        store
            .search(&query, &mut |_, record| {
                found += u64::from(record.line == "a line of the fuzzer");
                ControlFlow::Continue(())
            })
            .expect("searchable");
        found
    };
    let store = open();
    let stream = Labels::from_pairs([("source", "fuzz")]);
    let record = LogRecord { at: now, stream, line: "a line of the fuzzer".to_owned(), fields: Vec::new() };
    store.append(None, &[record]).expect("room for a record");
    let before = count(&store);
    assert!(before > 0, "a record that was acknowledged is not found");
    drop(store);
    assert_eq!(before, count(&open()), "a record that was acknowledged is gone");
});
