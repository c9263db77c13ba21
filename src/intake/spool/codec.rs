//! The payload of a spool frame: checkpoints in the open, then the compressed batch.
//!
//! `version u8 | flags u8 | acknowledged u64 | count u32 | checkpoints | frame body`, little endian.

use super::{FileCheckpoint, FileKey};
use crate::model::Timestamp;

const VERSION: u8 = 1;
const FLAG_FULL: u8 = 1;

/// What stands before the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// These are all checkpoints, not only those that changed.
    pub(super) is_full: bool,
    /// Frames below were durable on the server when this one was written.
    pub(super) acknowledged: u64,
    pub(super) checkpoints: Vec<FileCheckpoint>,
}

/// A payload taken apart.
#[derive(Debug)]
pub(super) struct Decoded<'a> {
    pub(super) is_full: bool,
    pub(super) acknowledged: u64,
    pub(super) checkpoints: Vec<FileCheckpoint>,
    pub(super) body: &'a [u8],
}

/// The payload is not one of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadPayload;

pub(super) fn encode(head: &Head, body: &[u8]) -> Vec<u8> {
    let mut out = vec![VERSION, if head.is_full { FLAG_FULL } else { 0 }];
    out.extend_from_slice(&head.acknowledged.to_le_bytes());
    let count = u32::try_from(head.checkpoints.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    for checkpoint in head.checkpoints.iter().take(count as usize) {
        for number in [
            checkpoint.key.dev,
            checkpoint.key.inode,
            checkpoint.offset,
            checkpoint.head_hash,
            checkpoint.tail_hash,
            checkpoint.seen_at.nanos().cast_unsigned(),
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let path_bytes = u32::try_from(checkpoint.path.len()).unwrap_or(0);
        for number in [checkpoint.head_bytes, checkpoint.tail_bytes, path_bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(checkpoint.path.as_bytes().get(..path_bytes as usize).unwrap_or_default());
    }
    out.extend_from_slice(body);
    out
}

pub(super) fn decode_head(payload: &[u8]) -> Result<Decoded<'_>, BadPayload> {
    let mut rest = payload;
    let [version, flags] = take::<2>(&mut rest)?;
    if version != VERSION {
        return Err(BadPayload);
    }
    let acknowledged = number(&mut rest)?;
    let count = u32::from_le_bytes(take(&mut rest)?);
    let mut checkpoints = Vec::with_capacity((count as usize).min(1024));
    for _ in 0..count {
        let [dev, inode, offset, head_hash, tail_hash, seen_at] = numbers(&mut rest)?;
        let head_bytes = u32::from_le_bytes(take(&mut rest)?);
        let tail_bytes = u32::from_le_bytes(take(&mut rest)?);
        let path_bytes = u32::from_le_bytes(take(&mut rest)?) as usize;
        let (path, after) = rest.split_at_checked(path_bytes).ok_or(BadPayload)?;
        rest = after;
        let path = std::str::from_utf8(path).map_err(|_| BadPayload)?.to_owned();
        let seen_at = Timestamp::from_nanos(seen_at.cast_signed());
        let key = FileKey { dev, inode };
        checkpoints.push(FileCheckpoint { key, path, offset, head_bytes, head_hash, tail_bytes, tail_hash, seen_at });
    }
    Ok(Decoded { is_full: flags & FLAG_FULL != 0, acknowledged, checkpoints, body: rest })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BadPayload> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or(BadPayload)?;
    *rest = after;
    Ok(*taken)
}

fn number(rest: &mut &[u8]) -> Result<u64, BadPayload> {
    Ok(u64::from_le_bytes(take(rest)?))
}

fn numbers<const N: usize>(rest: &mut &[u8]) -> Result<[u64; N], BadPayload> {
    let mut found = [0; N];
    for slot in &mut found {
        *slot = number(rest)?;
    }
    Ok(found)
}
