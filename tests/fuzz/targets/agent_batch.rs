//! Frame bodies of agents: any bytes after the version byte, compressed (so that mutations reach the decoder) or as they
//! are. What decodes must encode to something that decodes to the same.

#![no_main]

use daraji::wire::agent::{decode_batch, encode_batch};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let body = if kind % 4 == 0 { bytes.to_vec() } else { stored(bytes) };
    if let Ok(batch) = decode_batch(&body) {
        let again = decode_batch(&encode_batch(&batch)).expect("our own encoding decodes");
        // As text, since NaN is not equal to itself.
        assert_eq!(format!("{batch:?}"), format!("{again:?}"));
    }
});

/// A body whose lz4 block holds the bytes as literals.
fn stored(plain: &[u8]) -> Vec<u8> {
    let mut body = vec![1];
    body.extend_from_slice(&u32::try_from(plain.len()).unwrap_or(u32::MAX).to_le_bytes());
    let extra = plain.len().checked_sub(15);
    body.push(u8::try_from(plain.len().min(15)).unwrap_or(15) << 4);
    if let Some(mut extra) = extra {
        while extra >= 255 {
            body.push(255);
            extra -= 255;
        }
        body.push(u8::try_from(extra).unwrap_or(0));
    }
    body.extend_from_slice(plain);
    body
}
