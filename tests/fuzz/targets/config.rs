//! Configuration files, and YAML itself: any text. Every problem names a place inside the file.

#![no_main]

use daraji::config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let lines = text.split('\n').count() as u64;
    match config::parse("daraji.yml", text) {
        Ok(config) => drop(config.alerting()),
        Err(problems) => {
            assert!(!problems.is_empty(), "a failure without a problem");
            for problem in problems {
                // A carriage return ends a line for YAML.
                let lines = lines + text.matches('\r').count() as u64;
                assert!((1..=lines + 1).contains(&problem.line), "{problem}");
                assert!(problem.column >= 1, "{problem}");
            }
        }
    }
});
