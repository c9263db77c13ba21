//! Opening a journal whose last segments are any bytes: what was read must be there again when it is opened once more,
//! and a frame appended afterwards must come back too.

#![no_main]

use daraji::platform::disk::Disk;
use daraji::platform::journal::{Journal, JournalOptions};
use daraji_fuzz::{fresh_dir, take_part};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, second)) = take_part(bytes) else { return };
    let dir = fresh_dir();
    std::fs::write(dir.path().join("0000000000000000.wal"), first).expect("a segment");
    if !second.is_empty() {
        std::fs::write(dir.path().join("0000000000000007.wal"), second).expect("a segment");
    }
    let options = JournalOptions { segment_bytes: 256, frame_bytes_max: 4096 };
    let open = |frames: &mut Vec<(u64, Vec<u8>)>| {
        Journal::open(&Disk::real(), dir.path(), options, |seq, payload| frames.push((seq, payload.to_vec())))
            .expect("damage never stops the journal from opening")
            .0
    };
    let mut before = Vec::new();
    let mut journal = open(&mut before);
    let seq = journal.append(b"one more").expect("room for a frame");
    drop(journal);
    before.push((seq, b"one more".to_vec()));
    let mut after = Vec::new();
    let journal = open(&mut after);
    assert_eq!(before, after);
    let newest = journal.read_from(seq, usize::MAX).expect("readable");
    assert!(newest.contains(&(seq, b"one more".to_vec())), "the new frame is missing");
});
