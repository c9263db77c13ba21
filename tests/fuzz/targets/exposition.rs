//! Answers of exporters, in both text formats.

#![no_main]

use daraji::wire::exposition::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for content_type in ["text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"] {
        if let Ok(exposition) = parse(bytes, content_type) {
            for sample in exposition.samples {
                assert!(!sample.labels.metric_name().is_empty(), "a sample without a name");
            }
        }
    }
});
