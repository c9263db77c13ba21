use proptest::prelude::*;

use super::*;

fn open(disk: &Disk, dir: &Path, segment_bytes: u64) -> (Journal, Recovery, Vec<(u64, Vec<u8>)>) {
    let mut frames = Vec::new();
    let options = JournalOptions { segment_bytes, frame_bytes_max: 1 << 20 };
    let (journal, recovery) =
        Journal::open(disk, dir, options, |seq, payload| frames.push((seq, payload.to_vec()))).unwrap();
    (journal, recovery, frames)
}

fn numbered(payloads: &[Vec<u8>]) -> Vec<(u64, Vec<u8>)> {
    (0..).zip(payloads.iter().cloned()).collect()
}

proptest! {
    #[test]
    fn a_cut_anywhere_leaves_a_prefix_and_the_journal_goes_on(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::real();
        let (mut journal, ..) = open(&disk, dir.path(), 100);
        for payload in &payloads {
            journal.append(payload).unwrap();
        }
        drop(journal);
        let last = disk.list(dir.path()).unwrap().pop().unwrap();
        let length = disk.read(&last).unwrap().len();
        disk.open_append(&last).unwrap().set_len(cut.index(length) as u64).unwrap();

        let (mut journal, _, frames) = open(&disk, dir.path(), 100);
        prop_assert_eq!(&frames[..], &numbered(&payloads)[..frames.len()]);
        let seq = journal.append(b"next").unwrap();
        prop_assert_eq!(seq, frames.len() as u64);
        drop(journal);
        let (_, recovery, frames) = open(&disk, dir.path(), 100);
        prop_assert_eq!(frames.last().unwrap(), &(seq, b"next".to_vec()));
        prop_assert_eq!(recovery.damaged, Vec::<PathBuf>::new());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        scan(&bytes, 1000, |_| {});
        let with_magic = [MAGIC.as_slice(), &bytes].concat();
        scan(&with_magic, 1000, |_| {});
    }
}

#[test]
fn damage_in_the_middle_is_set_aside_and_later_segments_still_count() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::real();
    let (mut journal, ..) = open(&disk, dir.path(), 30);
    for payload in [b"aaaa", b"bbbb", b"cccc", b"dddd"] {
        journal.append(payload).unwrap();
    }
    drop(journal);
    let segments = disk.list(dir.path()).unwrap();
    assert_eq!(segments.len(), 2, "two frames each");
    let mut bytes = disk.read(&segments[0]).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&segments[0], &bytes).unwrap();

    let (_, recovery, frames) = open(&disk, dir.path(), 30);
    assert_eq!(frames.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [0, 2, 3]);
    assert_eq!(recovery.damaged, [segments[0].with_extension("wal.damaged")]);
    let (_, again, _) = open(&disk, dir.path(), 30);
    assert_eq!(again.damaged, Vec::<PathBuf>::new(), "damage is reported once");
}

#[test]
fn a_full_disk_refuses_and_recovers_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::with_space(40);
    let (mut journal, ..) = open(&disk, dir.path(), 1000);
    assert_eq!(journal.append(b"0123456789").unwrap(), 0);
    let error = journal.append(b"0123456789").unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    disk.set_space(1000);
    assert_eq!(journal.append(b"after").unwrap(), 1);
    drop(journal);
    let (_, recovery, frames) = open(&disk, dir.path(), 1000);
    assert_eq!(frames, [(0, b"0123456789".to_vec()), (1, b"after".to_vec())]);
    assert_eq!(recovery.torn_bytes, 0);
}

#[test]
fn a_failed_sync_poisons() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::with_space(1000);
    let (mut journal, ..) = open(&disk, dir.path(), 1000);
    journal.append(b"a").unwrap();
    disk.set_sync_fails(true);
    assert!(matches!(journal.sync(), Err(JournalError::Sync { .. })));
    disk.set_sync_fails(false);
    assert!(matches!(journal.append(b"b"), Err(JournalError::Poisoned { .. })));
}

#[test]
fn reading_on_and_dropping_what_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::real();
    let (mut journal, ..) = open(&disk, dir.path(), 30);
    for payload in [b"aaaa", b"bbbb", b"cccc", b"dddd", b"eeee"] {
        journal.append(payload).unwrap();
    }
    let seqs = |frames: Vec<(u64, Vec<u8>)>| frames.into_iter().map(|(seq, _)| seq).collect::<Vec<_>>();
    assert_eq!(seqs(journal.read_from(0, 1 << 20).unwrap()), [0, 1, 2, 3, 4]);
    assert_eq!(seqs(journal.read_from(1, 8).unwrap()), [1, 2]);
    assert_eq!(seqs(journal.read_from(3, 0).unwrap()), [3], "at least one");
    journal.drop_before(3).unwrap();
    assert_eq!(seqs(journal.read_from(0, 1 << 20).unwrap()), [2, 3, 4], "whole segments only");
    journal.rotate().unwrap();
    journal.drop_before(5).unwrap();
    drop(journal);
    let (journal, _, frames) = open(&disk, dir.path(), 30);
    assert_eq!(frames, []);
    assert_eq!(journal.next_seq(), 5, "numbers go on after everything was dropped");
}
