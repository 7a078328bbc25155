//! Frames to the driver, in the buffers that it has made available.

use std::io::Write;

use smallvec::SmallVec;
use virtio_queue::{Error, Writer};
use zerocopy::IntoBytes;

use super::features::Features;
use super::ring::Ring;
use crate::external_port::join::Outgoing;

/// Outcome of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// The driver has the frame.
    Received,
    /// The driver has too few buffers for now.
    NoBuffer,
    /// The frame is longer than all buffers that the driver can have for one.
    TooLong,
}

/// Writes a frame and its header into the next buffers.
pub fn give(ring: &mut Ring<'_>, features: Features, outgoing: &Outgoing) -> Given {
    let header_length = features.header_length();
    let length = header_length + outgoing.frame.len();
    let memory = ring.memory().clone();
    let begin = ring.position();
    let mut buffers: SmallVec<[(u16, Writer<'_>); 4]> = SmallVec::new();
    let mut room = 0;
    while room < length {
        let most = if features.merges_buffers() { ring.size() } else { 1 };
        if buffers.len() == usize::from(most) {
            ring.put_back(begin);
            return Given::TooLong;
        }
        let Some(chain) = ring.next() else {
            ring.put_back(begin);
            return Given::NoBuffer;
        };
        let head = chain.head_index();
        match chain.writer(&*memory) {
            Ok(writer) if writer.available_bytes() > 0 => {
                room += writer.available_bytes();
                buffers.push((head, writer));
            }
            _ => {
                // Not in the driver's memory, or without room: no device could go on.
                ring.stop_for(&Error::InvalidChain);
                return Given::NoBuffer;
            }
        }
    }
    let mut header = [0; 12];
    let head = outgoing.header.as_bytes();
    header[..head.len()].copy_from_slice(head);
    // `num_buffers`, which a driver with that field always gets (virtio 1.2, section 5.1.6.4).
    header[head.len()..].copy_from_slice(&(buffers.len() as u16).to_le_bytes());
    let mut parts = [&header[..header_length], &outgoing.frame];
    let mut used: SmallVec<[(u16, u32); 4]> = SmallVec::new();
    for (head, mut writer) in buffers {
        for part in &mut parts {
            let (now, later) = part.split_at(part.len().min(writer.available_bytes()));
            if writer.write_all(now).is_err() {
                ring.stop_for(&Error::InvalidChain);
                return Given::NoBuffer;
            }
            *part = later;
        }
        used.push((head, writer.bytes_written() as u32));
    }
    ring.use_together(&used);
    Given::Received
}
