//! LogQL: any text. What parses must print to something that parses and prints the same, and must evaluate within its
//! limits over a hundred lines.

#![no_main]

use std::sync::OnceLock;
use std::time::Duration;

use daraji::model::{Labels, LogRecord, Timestamp};
use daraji::platform::clock::Clock;
use daraji::platform::disk::Disk;
use daraji::query::logql::{Engine, EngineOptions, Expr, Grid, LinesQuery, QueryError, parse};
use daraji::store::logs::{Direction, LogOptions, LogStore};
use daraji_fuzz::fresh_dir;
use libfuzzer_sys::fuzz_target;
use tokio_util::sync::CancellationToken;

const BASE_SECS: i64 = 1_700_000_000;
const LINES: i64 = 100;
const LIMIT: usize = 50;

fn line(n: i64) -> String {
    match n % 6 {
        0 => format!("level=info ts={n} took={n}ms size={n}KB user=u{} ip=10.0.0.{n} empty= q=\"a \\\"b\\\"\"", n % 3),
        1 => format!("{{\"level\": \"warn\", \"n\": {n}, \"req\": {{\"size\": {n}.5, \"to\": null}}, \"tags\": [1, \"b\"]}}"),
        2 => format!("2026-11-23 05:53:45.963 UTC [{n}] LOG:  duration: {n}.25 ms  statement: select 'é✓'\nDETAIL:  x"),
        3 => format!("\u{1b}[31mERROR\u{1b}[0m 10.0.0.1:{n} - \"GET /p?q={n} HTTP/1.1\" 200"),
        4 => format!("{{\"_entry\": \"packed {n}\", \"pod\": \"p{n}\"}}"),
        _ => "{\"cut\": [".to_owned(),
    }
}

fn store() -> &'static (LogStore, tempfile::TempDir) {
    static STORE: OnceLock<(LogStore, tempfile::TempDir)> = OnceLock::new();
    STORE.get_or_init(|| {
        let dir = fresh_dir();
        let clock = Clock::manual(Timestamp::from_secs(BASE_SECS + LINES));
        let (store, _) =
            LogStore::open(dir.path(), LogOptions::default(), &Disk::real(), &clock).expect("an empty store");
        let records: Vec<LogRecord> = (0..LINES)
            .map(|n| LogRecord {
                at: Timestamp::from_secs(BASE_SECS + n),
                stream: Labels::from_pairs([
                    ("a", if n % 2 == 0 { "x" } else { "y" }),
                    ("severity", if n % 3 == 0 { "info" } else { "error" }),
                ]),
                line: line(n),
                fields: vec![("pid".to_owned(), (n % 7).to_string())],
            })
            .collect();
        // One half from sealed parts, the other from memory.
        let (old, new) = records.split_at(records.len() / 2);
        store.append(None, old).expect("room");
        store.seal().expect("room");
        store.append(None, new).expect("room");
        (store, dir)
    })
}

fn evaluate(expr: &Expr) -> Result<(), QueryError> {
    let engine = Engine::new(EngineOptions {
        timeout: Duration::from_secs(2),
        bytes_max: 4 << 20,
        points_max: 20_000,
        ..EngineOptions::default()
    });
    let ((store, _), stop) = (store(), CancellationToken::new());
    let (start, end) = (Timestamp::from_secs(BASE_SECS), Timestamp::from_secs(BASE_SECS + LINES));
    match expr {
        Expr::Log(expr) => {
            for direction in [Direction::Forward, Direction::Backward] {
                let (lines, _) = engine.lines(store, expr, &LinesQuery { start, end, direction, limit: LIMIT }, &stop)?;
                assert!(lines.len() <= LIMIT);
                let times: Vec<Timestamp> = lines.iter().map(|line| line.at).collect();
                let is_ordered = if direction == Direction::Forward {
                    times.is_sorted()
                } else {
                    times.iter().rev().is_sorted()
                };
                assert!(is_ordered, "{times:?}");
            }
        }
        Expr::Metric(expr) => {
            engine.numbers(store, expr, Grid::instant(end), &stop)?;
            let grid = Grid::range(start, end, Duration::from_secs(10), engine.options())?;
            engine.numbers(store, expr, grid, &stop)?;
        }
    }
    Ok(())
}

fuzz_target!(|text: &str| {
    let expr = match parse(text) {
        Ok(expr) => expr,
        Err(error) => {
            assert!(error.place.line >= 1 && error.place.column >= 1, "{error}");
            return;
        }
    };
    let printed = expr.to_string();
    match parse(&printed) {
        Ok(again) => assert_eq!(printed, again.to_string(), "printing is not stable"),
        Err(error) => panic!("{printed:?} was printed and does not parse: {error}"),
    }
    drop(evaluate(&expr));
});
