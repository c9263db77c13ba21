use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::prefix::Prefix;
use super::*;

fn prefix() -> Option<Prefix> {
    static COMPILED: LazyLock<Option<Prefix>> = LazyLock::new(|| Prefix::compile("%m [%p] ").ok());
    COMPILED.clone()
}

fn run(format: Format, pieces: &[&[u8]]) -> (Vec<RawRecord>, Assembler) {
    let mut assembler = Assembler::new(format, prefix(), 0);
    let mut records = Vec::new();
    for piece in pieces {
        let taken = assembler.feed(piece, &mut records, usize::MAX);
        assert_eq!(taken, piece.len());
    }
    (records, assembler)
}

fn texts(records: &[RawRecord]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(&record.text).into_owned()).collect()
}

const CSV: &str =
    "2026-11-23 05:47:28.131 UTC,,,42,,6b.7,1,,2026-11-23 05:47:28 UTC,,0,LOG,00000,\"a\nb\",,,,,,,,,\"\"\n";

#[test]
fn csv_records_span_lines_and_torn_ones_do_not_swallow_the_next() {
    let torn = CSV.split('\n').next().unwrap().to_owned() + "\n";
    let text = format!("{CSV}{torn}{CSV}");
    let (records, assembler) = run(Format::Csvlog, &[text.as_bytes()]);
    assert_eq!(texts(&records), [CSV.trim_end(), torn.trim_end(), CSV.trim_end()]);
    assert_eq!(records.iter().map(|record| record.is_partial).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!((assembler.resyncs(), assembler.safe_offset()), (1, text.len() as u64));
}

#[test]
fn crlf_and_nul_bytes_are_dropped_and_counted() {
    let (records, assembler) = run(Format::Haproxy, &[b"\0\0a\0b\r\n", b"\n\0\0\0\nc\n"]);
    assert_eq!(texts(&records), ["ab", "c"]);
    assert_eq!(assembler.nul_bytes(), 6);
}

#[test]
fn what_is_held_begins_at_the_safe_offset() {
    let text = b"2026-11-23 05:46:38,252 INFO: a\n  more\n2026-11-23 05:46:38,252 INFO: b\nTrace";
    let (mut records, mut assembler) = run(Format::Patroni, &[text]);
    assert_eq!(texts(&records), ["2026-11-23 05:46:38,252 INFO: a\n  more"]);
    assert_eq!(assembler.safe_offset(), 39);
    assembler.flush_record(&mut records);
    assert_eq!(texts(&records[1..]), ["2026-11-23 05:46:38,252 INFO: b"]);
    assert_eq!(assembler.safe_offset(), 71);
    assembler.flush_all(&mut records);
    assert_eq!(records.last().map(|record| (record.text.clone(), record.is_partial)), Some((b"Trace".to_vec(), true)));
    assert!(assembler.is_empty());
}

#[test]
fn a_long_line_keeps_its_head_length_and_hash_in_bounded_memory() {
    let chunk = vec![b'x'; 100_000];
    let mut assembler = Assembler::new(Format::Etcd, None, 0);
    let mut records = Vec::new();
    for _ in 0..1000 {
        assembler.feed(&chunk, &mut records, usize::MAX);
        let held = assembler.line.capacity() + assembler.record.as_ref().map_or(0, |record| record.text.capacity());
        assert!(held < 4 * RECORD_BYTES_MAX, "{held}");
    }
    assert_eq!(assembler.safe_offset(), 0);
    assembler.feed(b"\nnext\n", &mut records, usize::MAX);
    let [long, next] = records.as_slice() else { panic!("{}", records.len()) };
    assert_eq!(long.text, vec![b'x'; RECORD_BYTES_MAX]);
    let (bytes, hash) = long.cut.as_ref().unwrap();
    let expected: String = {
        let mut hasher = Sha256::new();
        for _ in 0..1000 {
            hasher.update(&chunk);
        }
        format!("{:x}", hasher.finalize())
    };
    assert_eq!((*bytes, hash), (100_000_000, &expected));
    assert_eq!(next.text, b"next");
}

#[test]
fn the_number_of_records_per_feed_is_bounded() {
    let mut assembler = Assembler::new(Format::Etcd, None, 0);
    let mut records = Vec::new();
    assert_eq!(assembler.feed(b"a\nb\nc\nd\n", &mut records, 2), 4);
    assert_eq!((texts(&records).len(), assembler.position()), (2, 4));
}

proptest! {
    #[test]
    fn where_the_bytes_are_cut_makes_no_difference(
        text in proptest::collection::vec(prop_oneof![
            Just(CSV.to_owned()), Just("\"\n".to_owned()), "[a\",\\n\\t\\r\\x00]{0,12}",
            Just("2026-11-23 05:47:28.156 UTC [42] LOG:  x\n".to_owned()),
            Just("2026-11-23 05:47:28.156 UTC [42] DETAIL:  x\n".to_owned()),
        ], 0..12),
        size in 1_usize..50,
        format in prop_oneof![
            Just(Format::Csvlog), Just(Format::Stderr), Just(Format::Patroni), Just(Format::Etcd), Just(Format::Text),
        ],
    ) {
        let text = text.concat().into_bytes();
        let (mut whole, mut assembler) = run(format, &[&text]);
        let pieces: Vec<&[u8]> = text.chunks(size).collect();
        let (mut parts, mut other) = run(format, &pieces);
        prop_assert_eq!(assembler.safe_offset(), other.safe_offset());
        // Going on from the safe offset gives what was held.
        let safe = usize::try_from(assembler.safe_offset()).unwrap();
        let mut resumed = Assembler::new(format, prefix(), assembler.safe_offset());
        let mut rest = Vec::new();
        resumed.feed(&text[safe..], &mut rest, usize::MAX);
        resumed.flush_all(&mut rest);
        let before = whole.len();
        assembler.flush_all(&mut whole);
        other.flush_all(&mut parts);
        prop_assert_eq!(&whole, &parts);
        prop_assert_eq!(&whole[before..], &rest[..]);
    }
}
