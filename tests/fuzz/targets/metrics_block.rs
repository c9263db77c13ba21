//! Reading a block of the metric store whose sections, columns and chunks are any bytes behind checksums that hold.

#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use daraji::model::matcher::MatchOp;
use daraji::model::{Matcher, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::store::metrics::{MetricOptions, MetricStore, verify};
use daraji_fuzz::fresh_dir;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Chunk {
    column: u8,
    bytes: Vec<u8>,
    part: Option<(u16, u16, u32, u32)>,
}

#[derive(Arbitrary, Debug)]
struct Input {
    /// Each with how many times it claims.
    columns: Vec<(u16, Vec<u8>)>,
    symbols: Vec<String>,
    series: Vec<(Vec<(u8, u8)>, Vec<Chunk>)>,
    labels: Option<Vec<u8>>,
    table: Option<Vec<u8>>,
    summary: Option<Vec<u8>>,
}

fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Appends bytes; returns their place as a summary tells it.
fn put_section(file: &mut Vec<u8>, bytes: &[u8]) -> Vec<u8> {
    let mut place = Vec::new();
    put_uvarint(&mut place, file.len() as u64);
    put_uvarint(&mut place, bytes.len() as u64);
    place.extend(crc32fast::hash(bytes).to_le_bytes());
    file.extend_from_slice(bytes);
    place
}

fn block(input: &Input) -> Vec<u8> {
    let mut file = b"DRJBLK02".to_vec();
    let mut columns = Vec::new();
    for (count, bytes) in &input.columns {
        for number in [0i64, 7_200_000] {
            columns.extend(number.to_le_bytes());
        }
        columns.extend((file.len() as u64).to_le_bytes());
        for number in [u32::from(*count), length(bytes), crc32fast::hash(bytes)] {
            columns.extend(number.to_le_bytes());
        }
        file.extend_from_slice(bytes);
    }
    let mut entries = Vec::new();
    let (begin, mut end) = (file.len() as u64, file.len() as u64);
    for (labels, chunks) in &input.series {
        put_uvarint(&mut entries, labels.len() as u64);
        for (name, value) in labels {
            put_uvarint(&mut entries, u64::from(*name));
            put_uvarint(&mut entries, u64::from(*value));
        }
        put_uvarint(&mut entries, chunks.len() as u64);
        for chunk in chunks {
            put_uvarint(&mut entries, u64::from(chunk.column));
            put_uvarint(&mut entries, file.len() as u64 - end);
            put_uvarint(&mut entries, (chunk.bytes.len() as u64) << 1 | u64::from(chunk.part.is_some()));
            if let Some((skip, count, min, max)) = chunk.part {
                for number in [u32::from(skip), u32::from(count), min, max] {
                    put_uvarint(&mut entries, u64::from(number));
                }
            }
            entries.extend(crc32fast::hash(&chunk.bytes).to_le_bytes());
            file.extend_from_slice(&chunk.bytes);
            end = file.len() as u64;
        }
    }
    let mut table = u32::try_from(input.series.len()).unwrap_or(0).to_le_bytes().to_vec();
    let restarts = input.series.len().div_ceil(32);
    for _ in 0..restarts {
        // Right for the first group only: the others are entered in the middle of nowhere.
        table.extend((4 + restarts as u64 * 16).to_le_bytes());
        table.extend(begin.to_le_bytes());
    }
    table.extend_from_slice(&entries);
    let mut symbols = Vec::new();
    put_uvarint(&mut symbols, input.symbols.len() as u64);
    for symbol in &input.symbols {
        put_uvarint(&mut symbols, 0);
        put_uvarint(&mut symbols, symbol.len() as u64);
        symbols.extend_from_slice(symbol.as_bytes());
    }
    // Level, times 0 and two hours, samples, series.
    let mut summary = vec![0, 0];
    put_uvarint(&mut summary, 14_400_000);
    summary.extend([10, 2]);
    let no_names = 0u32.to_le_bytes().to_vec();
    for section in [
        &columns,
        &symbols,
        input.table.as_ref().unwrap_or(&table),
        input.labels.as_ref().unwrap_or(&no_names),
    ] {
        let place = put_section(&mut file, section);
        summary.extend(place);
    }
    summary.extend([1, 1, 0]);
    let summary = input.summary.as_ref().unwrap_or(&summary);
    file.extend_from_slice(summary);
    file.extend_from_slice(&length(summary).to_le_bytes());
    file.extend_from_slice(&crc32fast::hash(summary).to_le_bytes());
    file.extend_from_slice(b"DRJBLKEN");
    file
}

fuzz_target!(|input: Input| {
    let dir = fresh_dir();
    std::fs::write(dir.path().join("0000000000000-00000000.block"), block(&input)).expect("a block");
    drop(verify(dir.path(), &Disk::real()).expect("damage never stops a check"));
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
    // Two days later the block is merged.
    drop(store.maintain(clock.now() + Duration::from_hours(48)));
});
