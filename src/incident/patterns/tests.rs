//! Scripted and random lines.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::model::event::OWN_SOURCE;
use crate::model::incident::Incident;
use crate::model::{Labels, LogRecord};
use crate::platform::clock::Clock;
use crate::platform::disk::Disk;
use crate::query::logql::{Engine, EngineOptions, Expr, parse};
use crate::store::logs::{LogOptions, LogStore};

const START: Timestamp = Timestamp::from_secs(3600);
const END: Timestamp = Timestamp::from_secs(3960);

type Line = (i64, &'static str, &'static str, &'static str);

fn compare(lines: impl IntoIterator<Item = Line>) -> Comparison {
    let mut comparer = Comparer::new("demo", START);
    for (secs, source, member, text) in lines {
        let stream = Stream { source: source.to_owned(), member: member.to_owned() };
        let _full = comparer.add(Timestamp::from_secs(secs), &stream, text);
    }
    comparer.finish(Timestamp::from_secs(0), END)
}

fn names(list: &[Pattern]) -> Vec<String> {
    list.iter().map(|one| format!("{} {}: {}", one.stream.source, one.stream.member, one.pattern)).collect()
}

#[test]
fn variables_are_masked() {
    for (text, expected) in [
        ("took 12.5 ms", "took <_> ms"),
        ("redo starts at A/3000148: x", "redo starts at <_>: x"),
        ("id f47ac10b-58cc-4372-a567-0e02b2c3d479.", "id <_>."),
        ("relation \"t 1\" of 'x'", "relation <_> of <_>"),
        ("can't reach pg1", "can't reach pg1"),
        ("an open \"quote", "an open \"quote"),
        ("é'1' 'ü'", "é'<_>' <_>"),
        ("", ""),
    ] {
        assert_eq!(mask(text), expected, "{text}");
    }
}

#[test]
fn new_vanished_and_changed_are_told_apart_for_each_stream() {
    let mut lines: Vec<Line> = (0..360).map(|n| (n * 10, "patroni", "n1", "no action. I am the leader")).collect();
    lines.extend((0..396).map(|n| (n * 10, "etcd", "n1", "healthy")));
    lines.extend((0..396).map(|n| (n * 10, "patroni", "n2", "no action. I am a secondary")));
    lines.extend((0..6).map(|n| (n * n * 90, "etcd", "n1", "slow fdatasync")));
    lines.extend((0..20).map(|n| (3600 + n, "etcd", "n1", "slow fdatasync")));
    lines.push((3605, "patroni", "n1", "no action. I am the leader"));
    lines.push((3601, "patroni", "n1", "demoted self"));
    // What one member says all the time may be new from another.
    lines.push((3602, "patroni", "n2", "no action. I am the leader"));
    lines.push((3602, "proxy", "", "server down"));
    let found = compare(lines);
    assert_eq!(names(&found.new), ["patroni n1: demoted self", "patroni n2: no action. I am the leader"]);
    assert_eq!(names(&found.vanished), ["patroni n1: no action. I am the leader"]);
    assert_eq!(names(&found.changed), ["etcd n1: slow fdatasync"]);
    assert_eq!(found.without_baseline, [Stream { source: "proxy".to_owned(), member: String::new() }]);
    assert_eq!((found.lines, found.left_out, found.partial), (1182, 0, None));
    let ended = &found.vanished[0];
    assert_eq!((ended.first_seen, ended.last_seen), (Timestamp::from_secs(0), Timestamp::from_secs(3605)));
    assert_eq!(ended.silent, Some(Silence { from: Timestamp::from_secs(3605), to: None }));
}

#[test]
fn a_heartbeat_that_fell_silent_is_found_also_when_it_came_back() {
    let beats = |range: std::ops::Range<i64>| range.map(|n| (n * 10, "patroni", "n1", "beat"));
    let silence =
        |from, to: Option<i64>| Some(Silence { from: Timestamp::from_secs(from), to: to.map(Timestamp::from_secs) });
    for (what, lines, expected) in [
        ("to the end", beats(0..366).collect::<Vec<_>>(), silence(3650, None)),
        ("from before", beats(0..350).collect(), silence(3490, None)),
        ("for a while", beats(0..366).chain(beats(371..397)).collect(), silence(3650, Some(3710))),
        ("a late beat", beats(0..366).chain(beats(368..397)).collect(), None),
        ("never", beats(0..397).collect(), None),
        ("irregular before", beats(0..360).filter(|(at, ..)| !(100..150).contains(at)).collect(), None),
    ] {
        let found = compare(lines);
        assert_eq!(found.vanished.first().and_then(|one| one.silent), expected, "{what}");
    }
}

#[test]
fn its_json_has_the_names_of_the_contract() {
    let json = serde_json::to_value(compare([(1, "a", "n1", "x"), (3601, "a", "n1", "took 5 ms `x`")])).unwrap();
    let new = &json["new"][0];
    assert_eq!(
        (&new["source"], &new["member"], &new["pattern"]),
        (&"a".into(), &"n1".into(), &"took <_> ms `x`".into())
    );
    assert_eq!(new["query"], r#"{cluster="demo",member="n1",source="a"} |= "took " |= " ms `x`""#);
    assert_eq!(json["window"]["before"], "1970-01-01T00:00:00.000Z");
}

#[test]
fn too_much_is_left_out_and_said() {
    let mut comparer = Comparer::new("demo", START);
    let stream = Stream::default();
    for n in 0..LINES_MAX {
        assert!(comparer.add(Timestamp::from_secs(1), &stream, if n == 0 { "y" } else { "x" }).is_continue());
    }
    assert!(comparer.add(Timestamp::from_secs(1), &stream, "x").is_break());
    assert!(comparer.add(START, &stream, "z").is_continue(), "the other side has room of its own");
    let words = |n: usize| format!("{}{}", "x".repeat(n % 200), "y".repeat(n / 200));
    for n in 0..=PATTERNS_MAX {
        assert!(comparer.add(START, &stream, &words(n + 1000)).is_continue());
    }
    let found = comparer.finish(Timestamp::from_secs(0), END);
    assert_eq!(found.new.len(), SHOWN_MAX);
    assert_eq!(found.left_out, PATTERNS_MAX - 2 - SHOWN_MAX);
    assert_eq!(found.partial.unwrap(), "there are more than 20000 patterns: not all count");
}

fn incident(opened_at: Timestamp, settled_at: Timestamp) -> Incident {
    serde_json::from_value(serde_json::json!({
        "id": "demo-1", "cluster": "demo", "title": "t", "subject": "s", "severity": "critical", "state": "settled",
        "opened_at": opened_at, "settled_at": settled_at,
    }))
    .unwrap()
}

fn record(at: Timestamp, cluster: &str, source: &str, line: String) -> LogRecord {
    let stream = Labels::from_pairs([("cluster", cluster), ("source", source), ("member", "n1"), ("severity", "info")]);
    LogRecord { at, stream, line, fields: Vec::new() }
}

#[test]
fn the_store_is_read_around_the_incident() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Timestamp::from_secs(1_764_000_000);
    let clock = Clock::manual(opened);
    let logs = Arc::new(LogStore::open(dir.path(), LogOptions::default(), &Disk::real(), &clock).unwrap().0);
    let mut records: Vec<LogRecord> = (0_u64..800)
        .map(|n| record(opened - Duration::from_secs(4000 - n * 5), "demo", "patroni", format!("beat {n}")))
        .collect();
    records.push(record(opened - Duration::from_secs(59), "demo", "patroni", "a sign 17".to_owned()));
    records.push(record(opened + Duration::from_secs(99), "demo", "patroni", "the end".to_owned()));
    records.push(record(opened + Duration::from_secs(101), "demo", "patroni", "too late".to_owned()));
    records.push(record(opened, "demo", OWN_SOURCE, "an event".to_owned()));
    records.push(record(opened, "other", "patroni", "another cluster".to_owned()));
    logs.append(None, &records).unwrap();
    let one = incident(opened, opened + Duration::from_secs(100));
    let patience = Duration::from_mins(1);
    let found = around(&logs, &one, opened, (patience, &CancellationToken::new())).unwrap();
    assert_eq!(names(&found.new), ["patroni n1: a sign <_>", "patroni n1: the end"]);
    assert_eq!(names(&found.vanished), ["patroni n1: beat <_>"]);
    assert_eq!((found.vanished[0].lines_before, found.vanished[0].lines_during), (720, 12));
    assert_eq!((found.window.start, found.partial), (opened - Duration::from_mins(1), None));

    // No time at all: nothing is claimed.
    let found = around(&logs, &one, opened, (Duration::ZERO, &CancellationToken::new())).unwrap();
    assert_eq!((found.lines, found.new.len(), found.without_baseline.len()), (0, 0, 0));
    let partial = found.partial.unwrap();
    assert!(partial.contains("the incident is read until") && partial.contains("read back to"), "{partial}");
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(around(&logs, &one, opened, (patience, &stop)).unwrap().partial.is_some());
}

proptest! {
    #[test]
    fn masking_is_total_bounded_and_keeps_what_is_no_variable(text in "\\PC{0,80}|[a-f0-9'\" \n<_>./:-]{0,600}") {
        let masked = mask(&text);
        prop_assert!(masked.chars().count() <= LINE_CHARS_MAX * MASK.len());
        for piece in masked.split(MASK) {
            prop_assert!(text.contains(piece), "{piece:?} of {masked:?} is not in {text:?}");
        }
        let source: String = text.chars().take(9).collect();
        let line = record(START, "demo", &source, text);
        let asked = query("demo", &Stream { source, member: "n1".to_owned() }, &masked);
        let Ok(Expr::Log(expr)) = parse(&asked) else { return Err(TestCaseError::fail(asked)) };
        prop_assert!(Engine::new(EngineOptions::default()).line(&expr, &line).is_some(), "{asked} does not find {line:?}");
    }

    #[test]
    fn numbers_make_no_difference(a in any::<u32>(), b in any::<f32>(), c in any::<u64>()) {
        let line = |a: u32, b: f32, c: u64| mask(&format!("took {a} ms, {} of '{b}' at {c:X}/0", b.abs()));
        if b.is_finite() {
            prop_assert_eq!(line(a, b, c | 0x10), line(1, 2.0, 0x33));
        }
    }

    #[test]
    fn comparing_is_total_and_does_not_depend_on_order(
        lines in proptest::collection::vec((any::<i64>(), "[ab]", "[xy]{0,1}", "[a-c1 ]{0,4}"), 0..60),
        window in (any::<i64>(), any::<i64>(), any::<i64>()),
        turn in 0_usize..60,
    ) {
        let compared = |lines: &[(i64, String, String, String)]| {
            let mut comparer = Comparer::new("demo", Timestamp::from_nanos(window.1));
            for (nanos, source, member, text) in lines {
                let stream = Stream { source: source.clone(), member: member.clone() };
                let _full = comparer.add(Timestamp::from_nanos(*nanos), &stream, text);
            }
            comparer.finish(Timestamp::from_nanos(window.0), Timestamp::from_nanos(window.2))
        };
        let found = compared(&lines);
        let mut turned = lines.clone();
        turned.rotate_left(turn.min(lines.len()));
        prop_assert_eq!(&found, &compared(&turned));
        prop_assert!(found.new.iter().all(|one| one.lines_before == 0 && one.lines_during > 0));
        let told = found.new.iter().chain(&found.vanished).chain(&found.changed);
        let counted: usize = told.map(|one| one.lines_before + one.lines_during).sum();
        prop_assert!(counted <= lines.len() && found.lines == lines.len());
    }
}
