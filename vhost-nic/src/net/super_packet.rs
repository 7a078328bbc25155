//! Super-packets: several RoCE packets of one message carried as one, serialized only where they leave the daemon.

use std::cell::Cell;

use super::payload::Payload;
use super::work::{FrameNumber, Sender};
use crate::roce::ICRC_LENGTH;
use crate::roce::packet::{MAX_HEAD, Packet, emit_headers};

/// A super-packet, as in TSO: consecutive packets of one message, carried as one packet of their total length. Often
/// there is just one.
///
/// The cost is independent of the number of packets, unless they must be split: for a capture, or a port that is not a
/// NIC.
#[derive(Debug, Clone)]
pub struct SuperPacket<'a> {
    /// Head of a packet with room for the whole payload. Its position in the message, suffix and acknowledgement
    /// request combine those of the first packet and the last.
    pub head: Packet,
    /// Payload, of the length in the head.
    pub payload: Payload<'a>,
    /// Payload of each packet but the last, in bytes.
    pub mtu: usize,
    /// Queue and WQE that sent it, if it comes from one of this daemon.
    pub sender: Option<Sender>,
    /// Number of the first packet.
    pub number: Cell<FrameNumber>,
}

impl<'a> SuperPacket<'a> {
    /// Creates a super-packet of one packet.
    pub fn single(head: Packet, payload: Payload<'a>) -> Self {
        Self {
            mtu: head.payload_length,
            head,
            payload,
            sender: None,
            number: Cell::default(),
        }
    }

    /// Number of packets.
    pub fn packets(&self) -> u32 {
        match self.head.payload_length {
            length if length <= self.mtu => 1,
            // A message has less than 2^32 bytes.
            length => length.div_ceil(self.mtu.max(1)) as u32,
        }
    }

    /// Splits into super-packets of one packet each.
    pub fn split(&self) -> impl Iterator<Item = SuperPacket<'a>> + '_ {
        (0..self.packets()).map(|index| {
            let head = self.head_of(index);
            let payload = self.payload.part(index as usize * self.mtu, head.payload_length);
            Self {
                sender: self.sender,
                number: Cell::new(self.number.get().plus(index)),
                ..Self::single(head, payload)
            }
        })
    }

    /// Number of the last packet.
    pub fn last_number(&self) -> FrameNumber {
        self.number.get().plus(self.packets() - 1)
    }

    /// Length in bytes of the frame, if this is one packet.
    pub fn length(&self) -> Option<usize> {
        (self.head.payload_length <= self.mtu).then(|| frame_length(&self.head))
    }

    /// Lengths in bytes of the frames: of the first, the middle ones and the last, each with their number.
    pub fn lengths(&self) -> [(usize, u64); 3] {
        match self.packets() {
            1 => [(frame_length(&self.head), 1), (0, 0), (0, 0)],
            packets => {
                let last = packets - 1;
                // The middle packets are all of one length.
                [(0, 1), (1, u64::from(last) - 1), (last, 1)].map(|(index, count)| {
                    let head = self.head_of(index);
                    (frame_length(&head), count)
                })
            }
        }
    }

    /// Serializes the head of a single packet; the lengths in it count payload, padding and ICRC.
    pub fn head_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_HEAD);
        emit_headers(&self.head.path, &self.head.headers, self.payload.len(), &mut bytes);
        bytes
    }

    fn head_of(&self, index: u32) -> Packet {
        let (first, last) = (index == 0, index + 1 == self.packets());
        let opcode = self.head.opcode.part(first, last);
        let mut headers = self.head.headers.of(opcode);
        let bth = headers.bth;
        headers.bth = bth
            .with_opcode(opcode)
            .with_psn(bth.psn() + index)
            .with_solicited(bth.solicited() && last)
            .with_ack_request(bth.ack_request() && last);
        let begin = index as usize * self.mtu;
        let length = (self.head.payload_length - begin).min(self.mtu);
        Packet::new(self.head.path, opcode, headers, length)
    }
}

fn frame_length(head: &Packet) -> usize {
    head.payload_offset + head.payload_length.next_multiple_of(4) + ICRC_LENGTH
}

#[cfg(test)]
mod tests;
