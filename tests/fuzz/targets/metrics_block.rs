//! Reading a block of the metric store whose summary and index are any bytes behind checksums that hold.

#![no_main]

use std::time::Duration;

use daraji::model::matcher::MatchOp;
use daraji::model::{Matcher, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::store::metrics::{MetricOptions, MetricStore};
use daraji_fuzz::{fresh_dir, take_part};
use libfuzzer_sys::fuzz_target;

fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

/// A block of these parts: `times` begins the summary, `windows` ends it.
fn block(chunks: &[u8], index: &[u8], summary: Option<&[u8]>) -> Vec<u8> {
    let mut file = b"DRJBLK01".to_vec();
    file.extend_from_slice(chunks);
    let index_offset = file.len() as u64;
    file.extend_from_slice(index);
    let encoded = summary.map_or_else(
        || {
            // Times 0 and one hour, zigzag; then what is counted, and one window.
            let mut out = vec![0];
            put_uvarint(&mut out, 7_200_000);
            for number in [10, 2, index_offset, index.len() as u64, u64::from(crc32fast::hash(index)), 1, 0, 1] {
                put_uvarint(&mut out, number);
            }
            out
        },
        <[u8]>::to_vec,
    );
    file.extend_from_slice(&encoded);
    file.extend_from_slice(&u32::try_from(encoded.len()).unwrap_or(0).to_le_bytes());
    file.extend_from_slice(&crc32fast::hash(&encoded).to_le_bytes());
    file.extend_from_slice(b"DRJBLKEN");
    file
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let Some((index, rest)) = take_part(rest) else { return };
    let file = match kind % 8 {
        0 => rest.to_vec(),
        1 => block(&[], index, Some(rest)),
        _ => block(rest, index, None),
    };
    let dir = fresh_dir();
    std::fs::write(dir.path().join("0000000000000000-00000000.block"), file).expect("a block");
    let clock = Clock::manual(Timestamp::from_secs(7200));
    let (store, _) = MetricStore::open(dir.path(), MetricOptions::default(), &Disk::real(), &clock)
        .expect("damage never stops the store from opening");
    let named = Matcher::new("__name__", MatchOp::Regex, ".+").expect("a regex");
    for matchers in [&[][..], &[named]] {
        for (start, end) in [(i64::MIN, i64::MAX), (0, 1000)] {
            if let Ok(selection) = store.select(matchers, start, end) {
                selection.take(1000).for_each(drop);
            }
            drop(store.label_names(matchers, start, end));
            drop(store.label_values("__name__", matchers, start, end));
        }
    }
    drop(store.maintain(clock.now() + Duration::from_secs(60)));
});
