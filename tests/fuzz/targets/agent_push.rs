//! Pushes of agents: any bytes. What decodes must encode to something that decodes to the same.

#![no_main]

use daraji::wire::agent::{decode_batch, decode_push, encode_push};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(push) = decode_push(bytes) {
        let again = decode_push(&encode_push(&push)).expect("our own encoding decodes");
        assert_eq!(format!("{push:?}"), format!("{again:?}"));
        for frame in &push.frames {
            drop(decode_batch(&frame.body));
        }
    }
});
