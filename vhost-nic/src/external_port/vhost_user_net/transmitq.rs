//! Frames of the driver: checksums are filled in, and packets segmented, as the header in front of each says.

use std::collections::VecDeque;
use std::io::Read;

use log::debug;
use zerocopy::FromBytes;

use super::features::Features;
use super::ring::{Chain, Ring};
use crate::external_port::length_prefix::MAX_LENGTH;
use crate::external_port::vnet_header::VnetHeader;

/// Takes the next frame of the driver apart into `frames`, those on the wire. Returns whether it was one; `None` if
/// there is none. `buffer` is scratch.
pub fn take(
    ring: &mut Ring<'_>,
    features: Features,
    buffer: &mut Vec<u8>,
    frames: &mut VecDeque<Vec<u8>>,
) -> Option<bool> {
    let chain = ring.next()?;
    let head = chain.head_index();
    let before = frames.len();
    let is_frame = read(ring, chain, features, buffer) && take_apart(features, buffer, frames);
    if !is_frame {
        frames.truncate(before);
    }
    ring.use_together(&[(head, 0)]);
    Some(is_frame)
}

/// Reads header and frame. Returns false if they are longer than any, or not in the driver's memory.
fn read(ring: &Ring<'_>, chain: Chain, features: Features, buffer: &mut Vec<u8>) -> bool {
    buffer.clear();
    let limit = features.header_length() + MAX_LENGTH;
    let read = chain
        .reader(&**ring.memory())
        .ok()
        .and_then(|reader| reader.take(limit as u64 + 1).read_to_end(buffer).ok());
    read.is_some_and(|length| length <= limit)
}

fn take_apart(features: Features, bytes: &[u8], frames: &mut VecDeque<Vec<u8>>) -> bool {
    let Some(frame) = bytes.get(features.header_length()..).filter(|frame| !frame.is_empty()) else {
        return false;
    };
    let Ok((header, _)) = VnetHeader::read_from_prefix(bytes) else {
        return false;
    };
    header
        .complete(frame, frames)
        .inspect_err(|error| debug!("a frame of a driver is malformed: {error}"))
        .is_ok()
}
