//! Lines of any bytes around an incident: masking keeps what is no variable, and comparing does not depend on the order
//! of the lines.

#![no_main]

use daraji::incident::patterns::{Comparer, Comparison, Stream, mask};
use daraji::model::Timestamp;
use daraji_fuzz::take_part;
use libfuzzer_sys::fuzz_target;

const START_SECS: i64 = 1_000;
const SPAN_SECS: i64 = 2_000;
const MASK: &str = "<_>";

fn compare<'a>(lines: impl Iterator<Item = &'a (i64, Stream, String)>) -> Comparison {
    let mut comparer = Comparer::new("demo", Timestamp::from_secs(START_SECS));
    for (secs, stream, text) in lines {
        assert!(comparer.add(Timestamp::from_secs(*secs), stream, text).is_continue(), "there is room");
    }
    comparer.finish(Timestamp::from_secs(0), Timestamp::from_secs(SPAN_SECS))
}

fuzz_target!(|bytes: &[u8]| {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while let Some((part, left)) = take_part(rest) {
        rest = left;
        let (Some((head, text)), member) = (part.split_first_chunk::<3>(), String::new()) else { continue };
        let secs = i64::from(u16::from_le_bytes([head[0], head[1]])) % SPAN_SECS;
        let text = String::from_utf8_lossy(text).into_owned();
        let masked = mask(&text);
        for piece in masked.split(MASK) {
            assert!(text.contains(piece), "{piece:?} of {masked:?} is not in {text:?}");
        }
        lines.push((secs, Stream { source: char::from(b'a' + head[2] % 3).to_string(), member }, text));
    }
    let found = compare(lines.iter());
    assert_eq!(found, compare(lines.iter().rev()));
    assert_eq!(found.lines, lines.len());
    assert!(found.new.iter().all(|one| one.lines_before == 0 && one.lines_during > 0));
});
