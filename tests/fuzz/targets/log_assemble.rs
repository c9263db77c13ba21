//! Bytes of a log file, cut anywhere: the records must not depend on where the reads ended.

#![no_main]

use std::sync::OnceLock;

use daraji::collect::logs::assemble::{Assembler, RawRecord};
use daraji::collect::logs::format::Format;
use daraji::collect::logs::prefix::Prefix;
use libfuzzer_sys::fuzz_target;

const FORMATS: [Format; 8] = [
    Format::Csvlog,
    Format::Jsonlog,
    Format::Stderr,
    Format::Patroni,
    Format::Etcd,
    Format::Haproxy,
    Format::Pgbouncer,
    Format::Text,
];

fn records(format: Format, prefix: &Prefix, bytes: &[u8], part: usize) -> Vec<RawRecord> {
    let mut assembler = Assembler::new(format, Some(prefix.clone()), 0);
    let mut records = Vec::new();
    for part in bytes.chunks(part) {
        let taken = assembler.feed(part, &mut records, usize::MAX);
        assert_eq!(taken, part.len(), "bytes were left although there was room");
    }
    assert_eq!(assembler.position(), bytes.len() as u64);
    assert!(assembler.safe_offset() <= assembler.position());
    assembler.flush_all(&mut records);
    assert!(assembler.is_empty());
    records
}

fn prefix() -> &'static Prefix {
    static PREFIX: OnceLock<Prefix> = OnceLock::new();
    PREFIX.get_or_init(|| Prefix::compile("%m [%p] %q%u@%d ").expect("a common prefix"))
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (format, part, bytes) = input;
    let format = FORMATS[usize::from(format) % FORMATS.len()];
    let whole = records(format, prefix(), bytes, usize::MAX);
    assert_eq!(whole, records(format, prefix(), bytes, usize::from(part) + 1));
});
