//! PromQL: any text. What parses must print to something that parses and prints the same, and must evaluate within its
//! limits over a handful of series.

#![no_main]

use std::sync::OnceLock;
use std::time::Duration;

use daraji::model::{Labels, Timestamp};
use daraji::query::promql::{Engine, EngineOptions, Limits, MemorySource, RangeSpec, parse};
use daraji::store::metrics::{Point, Series};
use libfuzzer_sys::fuzz_target;

fn source() -> &'static MemorySource {
    static SOURCE: OnceLock<MemorySource> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let values = [0.0, 1.0, f64::NAN, 2.5, f64::INFINITY, -3.0, 4.0, 1e300];
        let mut series = Vec::new();
        for (name, job) in [("a", "x"), ("a", "y"), ("b", "x")] {
            let points =
                (0..20).map(|i| Point { at_ms: i64::from(i) * 15_000, value: values[i as usize % 8] }).collect();
            series.push(Series { labels: Labels::metric(name, &[("job", job)]), points });
        }
        for (bound, scale) in [("0.1", 1), ("1", 3), ("+Inf", 4)] {
            let points = (0..20).map(|i| Point { at_ms: i * 15_000, value: (i * scale) as f64 }).collect();
            series.push(Series { labels: Labels::metric("h_bucket", &[("job", "x"), ("le", bound)]), points });
        }
        MemorySource { series }
    })
}

fuzz_target!(|text: &str| {
    let Ok(expr) = parse(text) else { return };
    let printed = expr.to_string();
    match parse(&printed) {
        Ok(again) => assert_eq!(printed, again.to_string(), "printing is not stable"),
        Err(error) => panic!("{printed:?} was printed and does not parse: {error}"),
    }
    let engine = Engine::new(EngineOptions {
        timeout: Duration::from_secs(2),
        samples_max: 20_000,
        bytes_max: 4 << 20,
        ..EngineOptions::default()
    });
    drop(engine.instant(source(), &expr, Timestamp::from_secs(240), &Limits::default()));
    let (start, end) = (Timestamp::from_secs(60), Timestamp::from_secs(300));
    drop(engine.range(source(), &expr, RangeSpec { start, end, step: Duration::from_secs(30) }, &Limits::default()));
});
