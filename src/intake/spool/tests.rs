use proptest::prelude::*;

use super::*;
use crate::model::{Labels, LogRecord};
use crate::wire::agent::decode_batch;

fn checkpoint(inode: u64, offset: u64) -> FileCheckpoint {
    FileCheckpoint {
        key: FileKey { dev: 1, inode },
        path: format!("/var/log/{inode}.log"),
        offset,
        head_bytes: 10,
        head_hash: 7,
        tail_bytes: 5,
        tail_hash: 9,
        seen_at: Timestamp::from_secs(1000),
    }
}

fn batch(line: &str) -> Batch {
    let record = LogRecord {
        at: Timestamp::from_secs(5),
        stream: Labels::from_pairs([("source", "postgresql")]),
        line: line.to_owned(),
        fields: Vec::new(),
    };
    Batch { logs: vec![record], ..Batch::default() }
}

fn open(disk: &Disk, dir: &Path, max_bytes: u64) -> Spool {
    Spool::open(disk, dir, SpoolOptions { max_bytes }).unwrap().0
}

fn lines(frames: &[EncodedFrame]) -> Vec<(u64, String)> {
    frames.iter().map(|frame| (frame.seq, decode_batch(&frame.body).unwrap().logs.remove(0).line)).collect()
}

#[test]
fn frames_wait_until_acknowledged_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::real();
    let mut spool = open(&disk, dir.path(), 1 << 30);
    let identity = spool.identity().clone();
    spool.append(&batch("a"), &[checkpoint(1, 10)]).unwrap();
    spool.append(&batch("b"), &[checkpoint(1, 20), checkpoint(2, 5)]).unwrap();
    spool.acknowledge(0).unwrap();
    spool.append(&batch("c"), &[]).unwrap();
    drop(spool);

    let mut spool = open(&disk, dir.path(), 1 << 30);
    assert_eq!(spool.identity(), &identity);
    let frames = spool.next_unacknowledged(1 << 20).unwrap();
    assert_eq!(lines(&frames), [(1, "b".to_owned()), (2, "c".to_owned())], "frame 2 recorded that 0 was acknowledged");
    let offsets: Vec<u64> = spool.checkpoints().map(|checkpoint| checkpoint.offset).collect();
    assert_eq!(offsets, [20, 5]);
    spool.acknowledge(2).unwrap();
    assert!(!spool.has_unacknowledged());
}

#[test]
fn checkpoints_outlive_the_segments_they_came_in() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::real();
    let mut spool = open(&disk, dir.path(), 1 << 30);
    spool.append(&batch("first"), &[checkpoint(1, 42)]).unwrap();
    // Text that lz4 cannot shrink.
    let noise: String =
        (0_u32..400_000).map(|i| char::from(33 + (i.wrapping_mul(2_654_435_761) >> 25) as u8 % 90)).collect();
    let mut last = 0;
    for _ in 0..8 {
        last = spool.append(&batch(&noise), &[checkpoint(2, last)]).unwrap();
    }
    spool.acknowledge(last).unwrap();
    assert!(spool.bytes() < 2 << 20, "segments were freed: {}", spool.bytes());
    drop(spool);
    let spool = open(&disk, dir.path(), 1 << 30);
    let offsets: Vec<u64> = spool.checkpoints().map(|checkpoint| checkpoint.offset).collect();
    assert_eq!(offsets, [42, last - 1]);
}

#[test]
fn a_full_spool_refuses_and_takes_again_after_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::real();
    let mut spool = open(&disk, dir.path(), 3 << 20);
    let noise: String =
        (0_u32..200_000).map(|i| char::from(33 + (i.wrapping_mul(2_654_435_761) >> 25) as u8 % 90)).collect();
    let mut last = None;
    let error = loop {
        match spool.append(&batch(&noise), &[checkpoint(1, last.unwrap_or(0))]) {
            Ok(seq) => last = Some(seq),
            Err(error) => break error,
        }
        assert!(spool.bytes() <= 3 << 20);
    };
    assert!(matches!(error, SpoolError::Full { .. }), "{error:?}");
    spool.acknowledge(last.unwrap()).unwrap();
    spool.append(&batch("again"), &[]).unwrap();
}

#[test]
fn a_full_disk_refuses_the_frame_and_its_checkpoints_together() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::with_space(2000);
    let mut spool = open(&disk, dir.path(), 1 << 30);
    let mut appended = 0;
    while spool.append(&batch("0123456789"), &[checkpoint(1, appended + 1)]).is_ok() {
        appended += 1;
    }
    assert!(appended > 0);
    drop(spool);
    disk.set_space(1 << 20);
    let mut spool = open(&disk, dir.path(), 1 << 30);
    assert_eq!(spool.checkpoints().map(|checkpoint| checkpoint.offset).collect::<Vec<_>>(), [appended]);
    assert_eq!(spool.next_unacknowledged(1 << 20).unwrap().len() as u64, appended);
    assert_eq!(spool.append(&batch("x"), &[]).unwrap(), appended);
}

#[test]
fn two_writers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::real();
    let first = open(&disk, dir.path(), 1 << 30);
    let error = Spool::open(&disk, dir.path(), SpoolOptions::default()).unwrap_err();
    assert!(matches!(error, SpoolError::InUse { .. }), "{error:?}");
    drop(first);
    open(&disk, dir.path(), 1 << 30);
}

#[test]
fn a_lost_or_damaged_journal_begins_a_new_generation() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::real();
    let mut spool = open(&disk, dir.path(), 1 << 30);
    let identity = spool.identity().clone();
    spool.append(&batch("a"), &[]).unwrap();
    drop(spool);
    for path in disk.list(dir.path()).unwrap() {
        if path.extension().is_some_and(|extension| extension == "wal") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let renewed = open(&disk, dir.path(), 1 << 30).identity().clone();
    assert_eq!(renewed.agent, identity.agent);
    assert_ne!(renewed.generation, identity.generation);
}

proptest! {
    #[test]
    fn payloads_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(codec::decode_head(&bytes));
        drop(codec::decode_head(&[&[1, 1], bytes.as_slice()].concat()));
    }

    #[test]
    fn payloads_come_back(offsets in proptest::collection::vec(any::<u64>(), 0..5), acknowledged in any::<u64>()) {
        let checkpoints: Vec<_> = offsets.into_iter().map(|offset| checkpoint(offset % 7, offset)).collect();
        let head = codec::Head { is_full: true, acknowledged, checkpoints };
        let payload = codec::encode(&head, b"body");
        let back = codec::decode_head(&payload).unwrap();
        prop_assert_eq!(back.checkpoints, head.checkpoints);
        prop_assert_eq!((back.is_full, back.acknowledged, back.body), (true, acknowledged, &b"body"[..]));
    }
}

#[test]
fn a_frame_that_claims_later_ones_were_acknowledged_loses_none_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::real();
    let (mut journal, _) = Journal::open(&disk, dir.path(), JournalOptions::default(), |_, _| {}).unwrap();
    let head = codec::Head { acknowledged: u64::MAX, ..codec::Head::default() };
    journal.append(&codec::encode(&head, &encode_batch(&batch("a")))).unwrap();
    drop(journal);
    open(&disk, dir.path(), 1 << 30).append(&batch("b"), &[]).unwrap();
    let frames = open(&disk, dir.path(), 1 << 30).next_unacknowledged(1 << 20).unwrap();
    assert_eq!(lines(&frames), [(0, "a".to_owned()), (1, "b".to_owned())]);
}

#[test]
fn a_copied_spool_begins_a_generation_of_its_own() {
    let (original, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = Disk::real();
    let mut spool = open(&disk, original.path(), 1 << 30);
    spool.append(&batch("a"), &[]).unwrap();
    // A spool of a version that did not know hosts: the first one that says so keeps it.
    let identity = spool.identity().clone();
    spool.claim("m1 demo/n1").unwrap();
    assert_eq!((spool.identity().generation, identity.host), (identity.generation, None));
    drop(spool);
    for path in disk.list(original.path()).unwrap() {
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let mut same = open(&disk, original.path(), 1 << 30);
    same.claim("m1 demo/n1").unwrap();
    assert_eq!(same.identity().generation, identity.generation);
    let mut copied = open(&disk, copy.path(), 1 << 30);
    copied.claim("m1 demo/n2").unwrap();
    assert_ne!(copied.identity().generation, identity.generation);
    assert_eq!(copied.next_unacknowledged(1 << 20).unwrap().len(), 1, "what waits there is not lost");
    let generation = copied.identity().generation;
    drop(copied);
    let mut copied = open(&disk, copy.path(), 1 << 30);
    copied.claim("m1 demo/n2").unwrap();
    assert_eq!(copied.identity().generation, generation);
}
