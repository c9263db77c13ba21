//! The first bytes of a file that may be any log, or none: whatever they are, a kind comes out, and the same one again.

#![no_main]

use daraji::postmortem::gather::detect::{Kind, detect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (first, second) = (detect(bytes), detect(bytes));
    assert!(first.votes <= first.lines);
    assert_eq!(format!("{:?}", first.kind), format!("{:?}", second.kind));
    if let Kind::Log { source, .. } = &first.kind {
        assert!(!source.is_empty() && first.votes > 0);
    }
});
