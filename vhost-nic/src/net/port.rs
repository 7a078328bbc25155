//! What sends and receives Ethernet frames.

use std::borrow::Cow;

use super::Payload;
use crate::engine::offload::parse::FrameView;
use crate::roce;
use crate::roce::packet::{MAX_HEAD, Packet, emit_headers};

/// A RoCE packet of which no byte is made yet: what its head says, and a payload by reference.
#[derive(Debug, Clone)]
pub struct RocePacket<'a> {
    /// The head.
    pub head: Packet,
    /// The payload, as long as the head says.
    pub payload: Payload<'a>,
}

impl RocePacket<'_> {
    /// The bytes of the head; its lengths count payload, padding and ICRC.
    pub fn head_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_HEAD);
        emit_headers(&self.head.path, &self.head.headers, self.payload.len(), &mut bytes);
        bytes
    }
}

/// A frame on its way, without preamble and frame check sequence. It is complete: checksums filled in, at most the MTU long.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'a> {
    /// Its bytes, from the destination address on.
    Bytes(&'a [u8]),
    /// A RoCE packet whose bytes, padding and ICRC are made only where it leaves the daemon.
    Packet(&'a RocePacket<'a>),
}

/// Where a frame goes and comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EthernetAddresses {
    /// Destination address.
    pub destination: [u8; 6],
    /// Source address.
    pub source: [u8; 6],
    /// VLAN id; 0 without a tag.
    pub vlan: u16,
}

impl<'a> Frame<'a> {
    /// A frame whose bytes are all there.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Packet(packet) => {
                let head = &packet.head;
                head.payload_offset + head.payload_length.next_multiple_of(4) + roce::ICRC_LENGTH
            }
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it goes and comes from. None if it is too short to say.
    pub fn addresses(&self) -> Option<EthernetAddresses> {
        match self {
            Self::Bytes(bytes) => {
                let &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = bytes.first_chunk()?;
                let vlan = match ([t0, t1], bytes.get(14..16)) {
                    ([0x81, 0x00] | [0x88, 0xa8], Some(&[high, low])) => u16::from_be_bytes([high, low]) & 0xfff,
                    _ => 0,
                };
                Some(EthernetAddresses {
                    destination: [d0, d1, d2, d3, d4, d5],
                    source: [s0, s1, s2, s3, s4, s5],
                    vlan,
                })
            }
            Self::Packet(packet) => {
                let path = &packet.head.path;
                Some(EthernetAddresses {
                    destination: path.destination_mac,
                    source: path.source_mac,
                    vlan: path.vlan.map_or(0, |vlan| vlan.id & 0xfff),
                })
            }
        }
    }

    /// All its bytes, for who cannot follow references. None if the payload is gone.
    pub fn to_bytes(&self) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
            Self::Packet(packet) => {
                let mut tail = Vec::with_capacity(packet.payload.len());
                packet.payload.append_to(&mut tail).ok()?;
                let head = packet.head_bytes();
                let mut bytes = Vec::with_capacity(self.len());
                let head = FrameView::new(&head)?;
                roce::icrc::append(&head, [&tail[..]], &mut bytes).then_some(Cow::Owned(bytes))
            }
        }
    }
}

/// Something a switch can send frames to.
///
/// Its methods are called from the threads of the senders, many at a time, with no lock of the switch held: they may send in turn.
pub trait Port: Send + Sync {
    /// Takes a frame. What cannot be taken is dropped and counted by the port.
    fn receive(&self, frame: Frame<'_>);

    /// Takes frames that follow each other and have the same addresses.
    fn receive_burst(&self, frames: &[Frame<'_>]) {
        for frame in frames {
            self.receive(*frame);
        }
    }

    /// The cable between the port and the switch was plugged in or pulled.
    fn cable_changed(&self, _plugged: bool) {}
}
