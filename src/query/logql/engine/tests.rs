use super::*;
use crate::platform::clock::Clock;
use crate::platform::disk::Disk;
use crate::store::logs::LogOptions;

const BASE_SECS: i64 = 1_700_000_000;

fn record(second: i64, member: &str, severity: &str, line: &str) -> LogRecord {
    let stream = Labels::from_pairs([("cluster", "demo"), ("member", member), ("severity", severity)]);
    let fields = vec![("pid".to_owned(), format!("{}", 100 + second % 3))];
    LogRecord { at: Timestamp::from_secs(BASE_SECS + second), stream, line: line.to_owned(), fields }
}

fn store(dir: &std::path::Path) -> LogStore {
    let clock = Clock::manual(Timestamp::from_secs(BASE_SECS + 100));
    let (store, _) = LogStore::open(dir, LogOptions::default(), &Disk::real(), &clock).unwrap();
    let lines: Vec<LogRecord> = (0..60)
        .map(|second| {
            let (member, severity) = if second % 2 == 0 { ("n1", "info") } else { ("n2", "error") };
            record(second, member, severity, &format!("took={second}ms path=/x{} ok", second % 4))
        })
        .collect();
    store.append(None, &lines).unwrap();
    store
}

fn numbers(store: &LogStore, text: &str, grid: Grid) -> Result<Value, QueryError> {
    let Expr::Metric(expr) = parse(text)? else { panic!("{text} gives lines") };
    Engine::default().numbers(store, &expr, grid, &CancellationToken::new()).map(|(value, _)| value)
}

/// The result at 60 s after the base, as `labels value` lines.
fn check(store: &LogStore, text: &str, expected: &[&str]) {
    let grid = Grid::instant(Timestamp::from_secs(BASE_SECS + 60));
    let found: Vec<String> = match numbers(store, text, grid).unwrap_or_else(|error| panic!("{text}: {error}")) {
        Value::Scalar(values) => values.iter().map(|value| format!("{value}")).collect(),
        Value::Vector(series) => {
            series.iter().map(|series| format!("{} {}", series.labels, series.values[0].unwrap())).collect()
        }
    };
    assert_eq!(found, expected, "{text}");
}

#[test]
fn metric_queries() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    for (text, expected) in [
        ("vector(1)+vector(1)", &["{} 2"][..]),
        ("2 * 3 ^ 2", &["18"]),
        (r#"sum(count_over_time({cluster="demo"}[1m]))"#, &["{} 59"]),
        (r#"sum(count_over_time({cluster="demo"}[2m]))"#, &["{} 60"]),
        (
            r#"sum by (severity) (count_over_time({cluster="demo"}[2m]))"#,
            &[r#"{severity="error"} 30"#, r#"{severity="info"} 30"#],
        ),
        (r#"sum by (member) (rate({cluster="demo"} |= "x1" [2m]))"#, &[r#"{member="n2"} 0.125"#]),
        (
            r#"sum by (pid) (count_over_time({member="n1"}[2m]))"#,
            &[r#"{pid="100"} 10"#, r#"{pid="101"} 10"#, r#"{pid="102"} 10"#],
        ),
        (r#"topk(1, sum by (path) (count_over_time({member="n1"} | logfmt [1m])))"#, &[r#"{path="/x2"} 15"#]),
        (
            r#"max_over_time({member="n1"} | logfmt | unwrap duration(took) [2m]) by (member)"#,
            &[r#"{member="n1"} 0.058"#],
        ),
        (
            r#"quantile_over_time(1, {member="n1"} | logfmt | unwrap duration(took) [2m]) by (member)"#,
            &[r#"{member="n1"} 0.058"#],
        ),
        (r#"absent_over_time({cluster="gone"}[1m])"#, &[r#"{cluster="gone"} 1"#]),
        (r#"sum(count_over_time({cluster="demo"}[2m])) > 100"#, &[]),
        (r#"sum(count_over_time({cluster="demo"}[2m])) > bool 100"#, &["{} 0"]),
        (
            r#"sum by (member) (count_over_time({severity="error"}[2m])) / on () group_left sum(count_over_time({cluster="demo"}[2m]))"#,
            &[r#"{member="n2"} 0.5"#],
        ),
        (
            r#"label_replace(sum by (member) (count_over_time({member="n1"}[2m])), "node", "$1", "member", "n(.*)")"#,
            &[r#"{member="n1", node="1"} 30"#],
        ),
        (r#"sum(count_over_time({cluster="demo"}[30s] offset 30s))"#, &["{} 30"]),
        (r#"sum by (detected_level) (count_over_time({severity="error"}[2m]))"#, &[r#"{detected_level="error"} 30"#]),
    ] {
        check(&store, text, expected);
    }
}

#[test]
fn a_range_has_a_value_for_each_step() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (start, end) = (Timestamp::from_secs(BASE_SECS), Timestamp::from_secs(BASE_SECS + 90));
    let grid = Grid::range(start, end, Duration::from_secs(30), &EngineOptions::default()).unwrap();
    let value = numbers(&store, r#"sum(count_over_time({cluster="demo"}[30s]))"#, grid).unwrap();
    let values = vec![Some(1.0), Some(30.0), Some(29.0), None];
    assert_eq!(value, Value::Vector(vec![Series { labels: Labels::default(), values }]));
    assert!(Grid::range(start, end, Duration::ZERO, &EngineOptions::default()).is_err());
    assert!(Grid::range(start, end, Duration::from_nanos(1), &EngineOptions::default()).is_err());
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let grid = Grid::instant(Timestamp::from_secs(BASE_SECS + 60));
    let error = numbers(&store, r#"sum(sum_over_time({member="n1"} | logfmt | unwrap path [2m]))"#, grid).unwrap_err();
    assert!(error.to_string().starts_with("pipeline error: 'SampleExtractionErr'"), "{error}");
    let engine = Engine::new(EngineOptions { points_max: 10, ..EngineOptions::default() });
    let Expr::Metric(expr) = parse(r#"sum(count_over_time({cluster="demo"}[2m]))"#).unwrap() else { panic!() };
    let error = engine.numbers(&store, &expr, grid, &CancellationToken::new()).unwrap_err();
    assert!(matches!(error, QueryError::Limit(_)), "{error}");
}

#[test]
fn lines_come_in_the_asked_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let Expr::Log(expr) = parse(r#"{cluster="demo"} | logfmt | path="/x3" | drop ok"#).unwrap() else { panic!() };
    let mut query = LinesQuery {
        start: Timestamp::from_secs(BASE_SECS),
        end: Timestamp::from_secs(BASE_SECS + 60),
        direction: Direction::Backward,
        limit: 2,
    };
    let lines =
        |query: &LinesQuery| Engine::default().lines(&store, &expr, query, &CancellationToken::new()).unwrap().0;
    let backward = lines(&query);
    let seconds =
        |lines: &[Line]| lines.iter().map(|line| line.at.nanos() / 1_000_000_000 - BASE_SECS).collect::<Vec<_>>();
    assert_eq!(seconds(&backward), [59, 55]);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(backward[0].parsed, [pair("path", "/x3"), pair("took", "59ms")]);
    assert_eq!(backward[0].metadata.get("pid"), Some("102"));
    assert_eq!(backward[0].stream.get("member"), Some("n2"));
    query.direction = Direction::Forward;
    query.limit = 100;
    assert_eq!(seconds(&lines(&query)).len(), 15);
}
