//! RoCE packets of which no byte is made before they leave the daemon.

use super::Payload;
use crate::roce::ICRC_LENGTH;
use crate::roce::packet::{MAX_HEAD, Packet, emit_headers};

/// Packets of one message that follow each other; often it is one.
///
/// It is to its packets what a frame that is to be segmented is to the segments of TCP: one packet as long as all of them. So it costs the
/// same however many they are, as long as nobody wants to see them.
#[derive(Debug, Clone)]
pub struct SuperPacket<'a> {
    /// The head of a packet that had room for all the payload. What it says of the end of the message, and its wish for an acknowledgement, is
    /// the last packet's.
    pub head: Packet,
    /// The payload, as long as the head says.
    pub payload: Payload<'a>,
    /// Bytes of payload in each packet but the last.
    pub mtu: usize,
}

impl<'a> SuperPacket<'a> {
    /// A packet by itself.
    pub fn single(head: Packet, payload: Payload<'a>) -> Self {
        Self {
            mtu: head.payload_length,
            head,
            payload,
        }
    }

    /// How many packets there are.
    pub fn packets(&self) -> u32 {
        match self.head.payload_length {
            length if length <= self.mtu => 1,
            // A message has less than 2^32 bytes.
            length => length.div_ceil(self.mtu.max(1)) as u32,
        }
    }

    /// The packets, each by itself.
    pub fn split(&self) -> impl Iterator<Item = SuperPacket<'a>> + '_ {
        (0..self.packets()).map(|index| {
            let head = self.head_of(index);
            let payload = self.payload.part(index as usize * self.mtu, head.payload_length);
            Self::single(head, payload)
        })
    }

    /// The length of the packet as a frame, if it is one.
    pub fn length(&self) -> Option<usize> {
        (self.head.payload_length <= self.mtu).then(|| frame_length(&self.head))
    }

    /// The lengths of the packets as frames, with how many are that long.
    pub fn lengths(&self) -> [(usize, u64); 3] {
        match self.packets() {
            1 => [(frame_length(&self.head), 1), (0, 0), (0, 0)],
            packets => {
                let last = packets - 1;
                // Those between the first and the last are all alike.
                [(0, 1), (1, u64::from(last) - 1), (last, 1)].map(|(index, count)| {
                    let head = self.head_of(index);
                    (frame_length(&head), count)
                })
            }
        }
    }

    /// The bytes of the head of a single packet; its lengths count payload, padding and ICRC.
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
