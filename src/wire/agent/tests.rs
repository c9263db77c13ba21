use proptest::prelude::*;

use super::*;

fn labels() -> impl Strategy<Value = Labels> {
    proptest::collection::btree_map("[a-z_]{1,8}", "\\PC{1,12}", 0..4).prop_map(Labels::from_pairs)
}

fn record() -> impl Strategy<Value = LogRecord> {
    let fields = proptest::collection::vec(("[a-z_]{1,8}", "\\PC{0,20}"), 0..4);
    (any::<i64>(), labels(), "\\PC{0,60}", fields).prop_map(|(at, stream, line, fields)| LogRecord {
        at: Timestamp(at),
        stream,
        line,
        fields,
    })
}

fn batch() -> impl Strategy<Value = Batch> {
    let sample = (labels(), any::<i64>(), any::<u64>())
        .prop_map(|(labels, at, bits)| Sample::new(labels, Timestamp(at), f64::from_bits(bits)));
    (proptest::collection::vec(sample, 0..8), proptest::collection::vec(record(), 0..8))
        .prop_map(|(samples, logs)| Batch { samples, logs, ..Batch::default() })
}

proptest! {
    #[test]
    fn batches_come_back(batch in batch()) {
        let back = decode_batch(&encode_batch(&batch)).unwrap();
        prop_assert_eq!(back.samples, batch.samples);
        prop_assert_eq!(back.logs, batch.logs);
    }

    #[test]
    fn damaged_batches_are_refused_or_read_but_never_panic(
        batch in batch(), at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut body = encode_batch(&batch);
        let at = at.index(body.len());
        body[at] = to;
        drop(decode_batch(&body));
        body.truncate(cut.index(body.len()));
        prop_assert!(decode_batch(&body).is_err());
    }

    #[test]
    fn pushes_come_back_and_garbage_does_not(
        agent in "\\PC{0,10}", seqs in proptest::collection::btree_set(any::<u64>(), 0..5),
        body in proptest::collection::vec(any::<u8>(), 0..20), at in any::<prop::sample::Index>(), to in any::<u8>(),
    ) {
        let frames = seqs.into_iter().map(|seq| EncodedFrame { seq, body: body.clone() }).collect();
        let push = Push { agent, frames, member: "n1".into(), ..Push::default() };
        let mut bytes = encode_push(&push);
        prop_assert_eq!(decode_push(&bytes).unwrap(), push);
        let at = at.index(bytes.len());
        bytes[at] = to;
        drop(decode_push(&bytes));
        prop_assert!(decode_push(&bytes[..at]).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        drop(decode_push(&bytes));
        drop(decode_batch(&[&[VERSION], bytes.as_slice()].concat()));
    }
}

#[test]
fn a_claimed_size_is_not_believed() {
    let body = [&[VERSION][..], &u32::MAX.to_le_bytes(), b"x"].concat();
    assert!(matches!(decode_batch(&body), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn another_version_is_named() {
    let mut bytes = encode_push(&Push::default());
    bytes[4] = 9;
    let error = decode_push(&bytes).unwrap_err().to_string();
    assert!(error.contains('9') && error.contains("update"), "{error}");
}
