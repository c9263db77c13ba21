//! Opening an agent's spool whose journal frames are any bytes behind checksums that hold.

#![no_main]

use daraji::intake::spool::{Spool, SpoolOptions};
use daraji::model::{Batch, Labels, LogRecord, Timestamp};
use daraji::platform::disk::Disk;
use daraji_fuzz::{fresh_dir, write_frames};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = fresh_dir();
    write_frames(dir.path(), bytes);
    let open = || {
        Spool::open(&Disk::real(), dir.path(), SpoolOptions::default())
            .expect("damage never stops the spool from opening")
            .0
    };
    let stream = Labels::from_pairs([("source", "fuzz")]);
    let record = LogRecord { at: Timestamp::from_secs(1), stream, line: "x".to_owned(), fields: Vec::new() };
    let mut spool = open();
    let seq = spool.append(&Batch { logs: vec![record], ..Batch::default() }, &[]).expect("room for a frame");
    drop(spool);
    let mut spool = open();
    while let Ok(frames) = spool.next_unacknowledged(1 << 20) {
        let Some(last) = frames.last() else { panic!("frame {seq} is gone") };
        let last = last.seq;
        if last >= seq {
            break;
        }
        spool.acknowledge(last).expect("room for an acknowledgement");
    }
});
