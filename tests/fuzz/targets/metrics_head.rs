//! Opening the metric store over the log of a window and a write-ahead log, both any bytes behind checksums that hold.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use daraji::model::{Labels, Sample, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::store::metrics::{MetricOptions, MetricStore, verify};
use daraji_fuzz::{fresh_dir, write_frames};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Entry {
    Symbol(String),
    Series(Vec<(u8, u8)>),
    Times(Vec<u8>),
    Chunk { slot: u8, before: u16, batch: u8, times: u16, count: u8, first: u32, last: u32, pending: u8, values: Vec<u8> },
    Reopened { batch: u8, slots: u8 },
    Raw(Vec<u8>),
}

fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

fn put_checked(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    out.extend(u32::try_from(body.len()).unwrap_or(0).to_le_bytes());
    out.extend(crc32fast::hash(body).to_le_bytes());
    out.extend_from_slice(body);
}

fn put(entry: &Entry, out: &mut Vec<u8>) {
    match entry {
        Entry::Symbol(text) => {
            out.push(1);
            put_uvarint(out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
        Entry::Series(labels) => {
            out.push(2);
            put_uvarint(out, labels.len() as u64);
            for (name, value) in labels {
                put_uvarint(out, u64::from(*name));
                put_uvarint(out, u64::from(*value));
            }
        }
        Entry::Times(body) => put_checked(out, 3, body),
        Entry::Chunk { slot, before, batch, times, count, first, last, pending, values } => {
            let mut body = Vec::new();
            for number in [u64::from(*slot), u64::from(*before), u64::from(*batch), u64::from(*times)] {
                put_uvarint(&mut body, number);
            }
            for number in [u64::from(*count), u64::from(*first), u64::from(*last), u64::from(*pending)] {
                put_uvarint(&mut body, number);
            }
            body.extend_from_slice(values);
            put_checked(out, 4, &body);
        }
        Entry::Reopened { batch, slots } => {
            out.push(5);
            put_uvarint(out, u64::from(*batch));
            put_uvarint(out, u64::from(*slots));
        }
        Entry::Raw(bytes) => out.extend_from_slice(bytes),
    }
}

fuzz_target!(|input: (Vec<Vec<Entry>>, Vec<u8>)| {
    let (frames, log) = input;
    let dir = fresh_dir();
    let mut file = b"DRJHED01".to_vec();
    for frame in &frames {
        let mut payload = Vec::new();
        frame.iter().for_each(|entry| put(entry, &mut payload));
        file.extend(u32::try_from(payload.len()).unwrap_or(0).to_le_bytes());
        file.extend(crc32fast::hash(&payload).to_le_bytes());
        file.extend_from_slice(&payload);
    }
    std::fs::create_dir(dir.path().join("head")).expect("a directory");
    std::fs::write(dir.path().join("head/00000001-0.head"), file).expect("a log");
    write_frames(&dir.path().join("wal"), &log);
    drop(verify(dir.path(), &Disk::real()).expect("damage never stops a check"));
    let now = Timestamp::from_secs(7100);
    let clock = Clock::manual(now);
    let open = || {
        MetricStore::open(dir.path(), MetricOptions::default(), &Disk::real(), &clock)
            .expect("damage never stops the store from opening")
            .0
    };
    let sample = Sample::new(Labels::metric("fuzz", &[("only", "here")]), now, 1.0);
    let count = |store: &MetricStore| {
        let series = store.select(&[], now.millis(), now.millis()).expect("readable").flatten();
        series.filter(|series| series.labels == sample.labels).count()
    };
    let store = open();
    store.append(std::slice::from_ref(&sample)).expect("room for a sample");
    let before = count(&store);
    drop(store);
    let store = open();
    assert_eq!(before, count(&store), "a sample that was acknowledged is gone");
    clock.advance(Duration::from_hours(6));
    drop(store.maintain(clock.now()));
    assert_eq!(before, count(&store), "a sample is gone with its window");
});
