//! Remote write requests: any protobuf behind a snappy block that holds, or any bytes.

#![no_main]

use daraji::wire::remote_write::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let body = if kind % 4 == 0 { bytes.to_vec() } else { stored(bytes) };
    if let Ok(request) = decode(&body) {
        let again = decode(&encode(&request.samples).expect("small enough")).expect("our own encoding decodes");
        assert_eq!(format!("{:?}", request.samples), format!("{:?}", again.samples));
    }
});

/// A snappy block that holds the bytes as literals.
fn stored(plain: &[u8]) -> Vec<u8> {
    let mut block = Vec::new();
    let mut length = plain.len();
    while length >= 0x80 {
        block.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
        length >>= 7;
    }
    block.push(u8::try_from(length).unwrap_or(0));
    for part in plain.chunks(60) {
        block.push(u8::try_from(part.len() - 1).unwrap_or(0) << 2);
        block.extend_from_slice(part);
    }
    block
}
