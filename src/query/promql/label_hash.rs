//! The hash of a label set by which `limit_ratio` picks series: the same as in Prometheus' own builds, so that both
//! pick the same series.

use crate::model::Labels;

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

/// Hashes names and values, each after its length.
pub(super) fn label_hash(labels: &Labels) -> u64 {
    let mut bytes = Vec::with_capacity(256);
    for (name, value) in labels.iter() {
        push(&mut bytes, name);
        push(&mut bytes, value);
    }
    xxhash64(&bytes)
}

/// One byte of length up to 254, else 255 and three bytes.
fn push(bytes: &mut Vec<u8>, text: &str) {
    let [low, middle, high, ..] = (text.len() as u64).to_le_bytes();
    if text.len() < 255 {
        bytes.push(low);
    } else {
        bytes.extend([255, low, middle, high]);
    }
    bytes.extend(text.as_bytes());
}

fn round(sum: u64, input: u64) -> u64 {
    sum.wrapping_add(input.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

fn merge(sum: u64, lane: u64) -> u64 {
    (sum ^ round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4)
}

/// XXH64 with seed 0.
fn xxhash64(bytes: &[u8]) -> u64 {
    let mut rest = bytes;
    let mut sum = if bytes.len() >= 32 {
        let mut lanes = [PRIME_1.wrapping_add(PRIME_2), PRIME_2, 0, 0u64.wrapping_sub(PRIME_1)];
        while let Some((stripe, after)) = rest.split_first_chunk::<32>() {
            for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<8>().0) {
                *lane = round(*lane, u64::from_le_bytes(*word));
            }
            rest = after;
        }
        let rotations = lanes.iter().zip([1, 7, 12, 18]);
        let sum = rotations.fold(0u64, |sum, (lane, by)| sum.wrapping_add(lane.rotate_left(by)));
        lanes.into_iter().fold(sum, merge)
    } else {
        PRIME_5
    };
    sum = sum.wrapping_add(bytes.len() as u64);
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        sum ^= round(0, u64::from_le_bytes(*word));
        sum = sum.rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
        rest = after;
    }
    if let Some((word, after)) = rest.split_first_chunk::<4>() {
        sum ^= u64::from(u32::from_le_bytes(*word)).wrapping_mul(PRIME_1);
        sum = sum.rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        rest = after;
    }
    for byte in rest {
        sum ^= u64::from(*byte).wrapping_mul(PRIME_5);
        sum = sum.rotate_left(11).wrapping_mul(PRIME_1);
    }
    sum = (sum ^ (sum >> 33)).wrapping_mul(PRIME_2);
    sum = (sum ^ (sum >> 29)).wrapping_mul(PRIME_3);
    sum ^ (sum >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_reference() {
        for (text, hash) in [
            ("", 0xef46_db37_51d8_e999),
            ("a", 0xd24e_c4f1_a98c_6e5b),
            ("abc", 0x44bc_2cf5_ad77_0999),
            ("Nobody inspects the spammish repetition", 0xfbce_a83c_8a37_8bf1),
        ] {
            assert_eq!(xxhash64(text.as_bytes()), hash, "{text}");
        }
    }
}
