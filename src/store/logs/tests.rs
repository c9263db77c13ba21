use std::ops::ControlFlow;

use super::*;
use crate::model::{Event, EventSeverity};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_764_000_000 + secs)
}

fn record(secs: i64, member: &str, line: &str) -> LogRecord {
    LogRecord {
        at: at(secs),
        stream: Labels::from_pairs([("source", "patroni"), ("member", member)]),
        line: line.to_owned(),
        fields: vec![("pid".to_owned(), "1".to_owned())],
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    disk: Disk,
    clock: Clock,
    options: LogOptions,
}

impl Fixture {
    fn new() -> Self {
        let options = LogOptions { seal_after: Duration::from_mins(1), ..LogOptions::default() };
        Self {
            dir: tempfile::tempdir().unwrap(),
            disk: Disk::with_space(u64::MAX),
            clock: Clock::manual(at(1000)),
            options,
        }
    }

    fn open(&self) -> (LogStore, LogRecovery) {
        LogStore::open(self.dir.path(), self.options, &self.disk, &self.clock).unwrap()
    }
}

fn lines_of(store: &LogStore, change: impl FnOnce(&mut LogQuery)) -> Vec<String> {
    let mut query = LogQuery::new(Vec::new(), Timestamp::MIN, Timestamp::MAX);
    change(&mut query);
    let mut lines = Vec::new();
    let stats = store.search(&query, &mut |_, record| {
        lines.push(record.line.clone());
        ControlFlow::Continue(())
    });
    assert_eq!(stats.unwrap().damaged, 0);
    lines
}

fn all(store: &LogStore) -> Vec<String> {
    lines_of(store, |_| {})
}

/// Bytes of everything.
fn weight(store: &LogStore, measure: Measure) -> u64 {
    let query = LogQuery::new(Vec::new(), Timestamp::MIN, Timestamp::MAX);
    let mut total = 0;
    store.tally(&query, measure, &mut |_, _, bytes| total += bytes).unwrap();
    total
}

#[test]
fn records_weigh_the_same_in_memory_and_sealed() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    store.append(None, &[record(1, "n1", "one"), record(2, "n2", "two")]).unwrap();
    store.append(None, &[record(3, "n1", "three")]).unwrap();
    for when in ["in memory", "sealed"] {
        assert_eq!(weight(&store, Measure::Line), 11, "{when}");
        // 8 for each of three fields, and `pid` and `1` for each of two streams.
        assert_eq!(weight(&store, Measure::Record), 11 + 3 * 8 + 2 * 4, "{when}");
        store.seal().unwrap();
    }
}

fn origin(seq: u64) -> Origin {
    Origin { agent: "n1".to_owned(), generation: 7, seq }
}

#[test]
fn records_are_found_in_memory_after_a_seal_and_after_a_restart() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    store.append(None, &[record(2, "n1", "two a"), record(1, "n2", "one"), record(2, "n1", "two b")]).unwrap();
    store.append(None, &[record(-90_000, "n1", "the day before")]).unwrap();
    let check = |store: &LogStore| {
        assert_eq!(all(store), ["the day before", "one", "two a", "two b"]);
        let backward = lines_of(store, |query| query.direction = Direction::Backward);
        assert_eq!(backward, ["two b", "two a", "one", "the day before"]);
        assert_eq!(lines_of(store, |query| query.needles = vec!["wo ".to_owned(), "o b".to_owned()]), ["two b"]);
        assert_eq!(lines_of(store, |query| query.end = at(2)), ["the day before", "one"], "the end is not included");
        assert_eq!(lines_of(store, |query| query.start = at(2)), ["two a", "two b"]);
        assert_eq!(lines_of(store, |query| query.matchers = vec![Matcher::equal("member", "n2")]), ["one"]);
        assert_eq!(lines_of(store, |query| query.limit = Some(2)), ["the day before", "one"]);
        assert_eq!(store.label_values("member", &[], Timestamp::MIN, Timestamp::MAX), ["n1", "n2"]);
    };
    check(&store);
    store.seal().unwrap();
    assert_eq!(store.memory_bytes(), 0);
    check(&store);
    drop(store);
    let (store, recovery) = fixture.open();
    assert_eq!(recovery, LogRecovery::default(), "everything is sealed, nothing is replayed");
    check(&store);
    store.append(None, &[record(1, "n2", "late")]).unwrap();
    assert_eq!(all(&store), ["the day before", "one", "late", "two a", "two b"]);
    drop(store);
    let (store, recovery) = fixture.open();
    assert_eq!(recovery.replayed_records, 1);
    store.seal().unwrap();
    assert_eq!(all(&store), ["the day before", "one", "late", "two a", "two b"]);
}

#[test]
fn a_batch_sent_again_is_dropped_also_after_restarts() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    assert_eq!(store.append(Some(&origin(5)), &[record(1, "n1", "a")]).unwrap().stored, 1);
    assert!(store.append(Some(&origin(5)), &[record(1, "n1", "a")]).unwrap().duplicate_batch);
    drop(store);
    let (store, _) = fixture.open();
    assert!(store.append(Some(&origin(4)), &[record(1, "n1", "a")]).unwrap().duplicate_batch);
    store.seal().unwrap();
    drop(store);
    let (store, _) = fixture.open();
    assert_eq!(store.high_water("n1", 7), Some(5), "the mark outlives the frames it stood in");
    assert_eq!(store.high_water("n1", 8), None);
    assert!(store.append(Some(&origin(5)), &[record(1, "n1", "a")]).unwrap().duplicate_batch);
    assert_eq!(store.append(Some(&origin(6)), &[]).unwrap(), Appended::default());
    assert_eq!(store.high_water("n1", 7), Some(6));
    assert_eq!(all(&store), ["a"]);
}

#[test]
fn the_event_id_of_another_source_is_a_field_like_any() {
    let fixture = Fixture::new();
    let mut logon = record(1, "n1", "logon");
    logon.fields.push(("event_id".to_owned(), "4624".to_owned()));
    let (store, _) = fixture.open();
    let appended = store.append(None, &[logon.clone(), logon.clone()]).unwrap();
    assert_eq!((appended.stored, appended.duplicate_events), (2, 0));
    store.append(None, &[logon]).unwrap();
    assert_eq!(all(&store).len(), 3);
}

fn lost_leader() -> Event {
    Event {
        id: "demo-1".to_owned(),
        time: at(990),
        cluster: "demo".to_owned(),
        member: None,
        event: "leader_lost".to_owned(),
        severity: EventSeverity::Critical,
        source: "dcs".to_owned(),
        text: "lost".to_owned(),
        fields: std::collections::BTreeMap::new(),
    }
}

#[tokio::test]
async fn a_storm_asks_for_a_seal_and_leaves_room_for_events() {
    let mut fixture = Fixture::new();
    (fixture.options.seal_bytes, fixture.options.memory_bytes_max, fixture.options.own_bytes) = (1000, 3000, 1000);
    let (store, _) = fixture.open();
    let flood = || store.append(None, &[record(1, "n1", &"x".repeat(500))]);
    flood().unwrap();
    assert!(futures_util::FutureExt::now_or_never(store.seal_wanted()).is_none());
    flood().unwrap();
    store.seal_wanted().await;
    while flood().is_ok() {}
    assert!(matches!(flood(), Err(LogStoreError::Behind { .. })));
    assert_eq!(store.append(None, &[lost_leader().to_log_record()]).unwrap().stored, 1);
    store.seal_due(at(1000)).unwrap();
    assert_eq!(store.memory_bytes(), 0);
    flood().unwrap();
}

#[test]
fn an_event_is_stored_once() {
    let fixture = Fixture::new();
    let event = lost_leader();
    let records = [event.to_log_record(), event.to_log_record()];
    let (store, _) = fixture.open();
    assert_eq!(store.append(None, &records).unwrap().duplicate_events, 1);
    store.seal().unwrap();
    drop(store);
    let (store, _) = fixture.open();
    assert_eq!(store.append(None, &records).unwrap(), Appended { duplicate_events: 2, ..Appended::default() });
    assert_eq!(all(&store), ["lost"]);
}

#[test]
fn a_full_disk_refuses_writes_and_keeps_reading() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    store.append(None, &[record(1, "n1", "kept")]).unwrap();
    store.seal().unwrap();
    store.append(None, &[record(2, "n1", "kept too")]).unwrap();
    fixture.disk.set_space(20);
    let error = store.append(None, &[record(3, "n1", "refused")]).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    let error = store.seal().unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    assert_eq!(all(&store), ["kept", "kept too"]);
    for space in (0..40_000).step_by(1000) {
        fixture.disk.set_space(space);
        let sealed = store.seal();
        assert_eq!(all(&store), ["kept", "kept too"], "with {space} bytes left: {sealed:?}");
    }
    fixture.disk.set_space(u64::MAX);
    store.seal().unwrap();
    store.append(None, &[record(3, "n1", "taken")]).unwrap();
    assert_eq!(all(&store), ["kept", "kept too", "taken"]);
    drop(store);
    assert_eq!(all(&fixture.open().0), ["kept", "kept too", "taken"]);
}

#[test]
fn a_failed_sync_ends_acknowledging() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    store.append(None, &[record(1, "n1", "a")]).unwrap();
    fixture.disk.set_sync_fails(true);
    assert!(store.sync().is_err());
    fixture.disk.set_sync_fails(false);
    assert!(matches!(
        store.append(None, &[record(1, "n1", "b")]),
        Err(LogStoreError::Journal(JournalError::Poisoned { .. }))
    ));
    assert_eq!(all(&store), ["a"]);
}

#[test]
fn old_days_go_by_age_and_by_size() {
    let mut fixture = Fixture::new();
    fixture.options.retention = Duration::from_hours(3 * 24);
    let (store, _) = fixture.open();
    let day = 86_400;
    let appended =
        store.append(None, &[record(-4 * day, "n1", "too old"), record(-2 * day, "n1", "old"), record(0, "n1", "new")]);
    assert_eq!(appended.unwrap(), Appended { stored: 2, too_old: 1, ..Appended::default() });
    store.seal_due(at(1060)).unwrap();
    assert_eq!(store.memory_bytes(), 0, "sealed by age");
    assert_eq!(all(&store), ["old", "new"]);
    store.maintain(at(2 * day)).unwrap();
    assert_eq!(all(&store), ["new"]);
    drop(store);
    fixture.options.max_bytes = Some(1);
    let (store, _) = fixture.open();
    store.append(None, &[record(-day, "n1", "yesterday")]).unwrap();
    store.seal().unwrap();
    store.maintain(at(1000)).unwrap();
    assert_eq!(all(&store), ["new"], "the newest day stays");
    assert_eq!(std::fs::read_dir(fixture.dir.path().join("days")).unwrap().count(), 1);
}

fn files_of(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files
}

#[test]
fn damage_is_set_aside_and_the_rest_served() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    store.append(None, &[record(-90_000, "n1", "yesterday"), record(0, "n1", "today")]).unwrap();
    store.seal().unwrap();
    drop(store);
    let days = Disk::real().list(&fixture.dir.path().join("days")).unwrap();
    std::fs::write(days[0].join("meta.json"), "{").unwrap();
    let (store, recovery) = fixture.open();
    assert_eq!(recovery.damaged.len(), 1, "{recovery:?}");
    assert_eq!(all(&store), ["today"]);
    drop(store);

    // One flipped bit in the stored lines: found by the checksums.
    let path = files_of(&days[1], "store").remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (store, _) = fixture.open();
    store.maintain(at(1001)).unwrap();
    assert_eq!(all(&store), Vec::<String>::new());
    store.append(None, &[record(1, "n1", "later")]).unwrap();
    store.seal().unwrap();
    drop(store);
    assert_eq!(all(&fixture.open().0), ["later"]);
}

#[test]
fn a_lost_write_ahead_log_does_not_hide_what_comes_later() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    store.append(None, &[record(1, "n1", "a"), record(1, "n1", "b")]).unwrap();
    store.seal().unwrap();
    drop(store);
    std::fs::remove_dir_all(fixture.dir.path().join("wal")).unwrap();
    let (store, _) = fixture.open();
    store.append(None, &[record(1, "n1", "c")]).unwrap();
    drop(store);
    let (store, _) = fixture.open();
    assert_eq!(all(&store), ["a", "b", "c"]);
    store.seal().unwrap();
    assert_eq!(all(&store), ["a", "b", "c"]);
}

#[test]
fn live_readers_get_batches_in_order_and_learn_that_they_lag() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    let mut live = store.subscribe();
    store.append(None, &[record(1, "n1", "a")]).unwrap();
    let batch = live.try_recv().unwrap();
    let (first, _) = batch.iter().next().unwrap();
    for _ in 0..=LIVE_BATCHES {
        store.append(None, &[record(1, "n1", "b")]).unwrap();
    }
    assert!(matches!(live.try_recv(), Err(broadcast::error::TryRecvError::Lagged(1))));
    assert!(live.try_recv().unwrap().iter().next().unwrap().0 > first);
}

#[test]
fn a_search_ends_when_cancelled_or_too_dear() {
    let fixture = Fixture::new();
    let (store, _) = fixture.open();
    store.append(None, &[record(1, "n1", "a"), record(1, "n1", "b")]).unwrap();
    let mut query = LogQuery::new(Vec::new(), Timestamp::MIN, Timestamp::MAX);
    query.budget.bytes_max = 5;
    let mut visit = |_: u64, _: &LogRecord| ControlFlow::Continue(());
    assert!(matches!(store.search(&query, &mut visit), Err(LogStoreError::BudgetExceeded { .. })));
    query.budget.stop.cancel();
    assert!(matches!(store.search(&query, &mut visit), Err(LogStoreError::Cancelled)));
}

mod oracle {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Append(Vec<(i64, u8, String)>),
        Seal,
        Reopen,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let line = "(lock|leader|LOCK|n1|no action|[ /.:_a-cß]){0,5}";
        let record = ((-100_000i64..1000), 0u8..3, line);
        let append = prop::collection::vec(record, 1..6).prop_map(Step::Append);
        prop::collection::vec(prop_oneof![4 => append, 1 => Just(Step::Seal), 1 => Just(Step::Reopen)], 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]
        #[test]
        fn a_search_equals_brute_force(
            steps in steps(),
            range in (-100_000i64..1000, -100_000i64..1000),
            needle in "(lock|ock|no action|[ ]n1|leader|[ /ß]){0,2}",
            member in 0u8..4,
            backward: bool,
            limit in prop::option::of(0usize..8),
        ) {
            let fixture = Fixture::new();
            let (mut store, _) = fixture.open();
            let mut model: Vec<LogRecord> = Vec::new();
            for step in steps {
                match step {
                    Step::Append(records) => {
                        let records: Vec<_> = records.iter().map(|(s, m, line)| record(*s, &format!("n{m}"), line)).collect();
                        store.append(None, &records).unwrap();
                        model.extend(records);
                    }
                    Step::Seal => store.seal().unwrap(),
                    Step::Reopen => {
                        drop(store);
                        store = fixture.open().0;
                    }
                }
            }
            let mut query = LogQuery::new(Vec::new(), at(range.0), at(range.1));
            if member < 3 {
                query.matchers.push(Matcher::equal("member", format!("n{member}")));
            }
            query.needles = vec![needle];
            query.limit = limit;
            // Stable: equal times keep the order of arrival.
            model.sort_by_key(|record| record.at);
            if backward {
                query.direction = Direction::Backward;
                model.reverse();
            }
            let matches = |record: &&LogRecord| {
                record.at >= query.start
                    && record.at < query.end
                    && query.matchers.iter().all(|matcher| matcher.matches(&record.stream))
                    && record.line.contains(&query.needles[0])
            };
            let expected: Vec<LogRecord> =
                model.iter().filter(matches).take(limit.unwrap_or(usize::MAX)).cloned().collect();
            let mut found = Vec::new();
            store.search(&query, &mut |_, record| {
                found.push(record.clone());
                ControlFlow::Continue(())
            }).unwrap();
            prop_assert_eq!(found, expected);

            let mut tallied = Vec::new();
            store.tally(&query, Measure::Line, &mut |at, labels, bytes| tallied.push((at, labels.clone(), bytes))).unwrap();
            query.needles.clear();
            query.limit = None;
            let mut searched = Vec::new();
            store.search(&query, &mut |_, record| {
                searched.push((record.at, record.stream.clone(), record.line.len() as u64));
                ControlFlow::Continue(())
            }).unwrap();
            tallied.sort();
            searched.sort();
            prop_assert_eq!(tallied, searched);
        }
    }
}
