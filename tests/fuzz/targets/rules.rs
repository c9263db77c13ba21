//! Rule files: any text. Every problem names a place.

#![no_main]

use daraji::query::promql;
use daraji::rules::file::{INTERVAL_DEFAULT, load};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let check = |expr: &str| promql::parse(expr).map(drop).map_err(|error| error.to_string());
    if let Err(problems) = load("rules.yml", text, INTERVAL_DEFAULT, &check) {
        assert!(!problems.is_empty(), "a failure without a problem");
        assert!(problems.iter().all(|problem| problem.line >= 1), "{problems:?}");
    }
});
