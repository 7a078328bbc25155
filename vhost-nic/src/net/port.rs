//! What sends and receives Ethernet frames.

use std::borrow::Cow;

use super::{Burst, SuperPacket};
use crate::frame::view::FrameView;
use crate::roce;

/// A frame on its way, without preamble and frame check sequence. It is complete: checksums filled in, at most the MTU long.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'a> {
    /// Its bytes, from the destination address on.
    Bytes(&'a [u8]),
    /// RoCE packets whose bytes, padding and ICRC are made only where they leave the daemon. To a wire each is a frame.
    SuperPacket(&'a SuperPacket<'a>),
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

/// The kinds of destinations an Ethernet frame has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CastType {
    /// One.
    Unicast,
    /// A group.
    Multicast,
    /// All.
    Broadcast,
}

impl CastType {
    /// The kind of a destination address.
    pub fn of(destination: [u8; 6]) -> Self {
        match destination {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => Self::Broadcast,
            [first, ..] if first & 1 != 0 => Self::Multicast,
            _ => Self::Unicast,
        }
    }
}

impl<'a> Frame<'a> {
    /// A frame whose bytes are all there.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }

    /// Its length in bytes, if it is a single frame to a wire: most are, and this is quick.
    pub(super) fn length(&self) -> Option<usize> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len()),
            Self::SuperPacket(super_packet) => super_packet.length(),
        }
    }

    /// The lengths in bytes of the frames it is to a wire, with how many are that long.
    pub fn lengths(&self) -> impl Iterator<Item = (usize, u64)> {
        let lengths = match self {
            Self::Bytes(bytes) => [(bytes.len(), 1), (0, 0), (0, 0)],
            Self::SuperPacket(super_packet) => super_packet.lengths(),
        };
        lengths.into_iter().filter(|(_, count)| *count > 0)
    }

    /// Length in bytes of the longest frame it is to a wire.
    pub fn longest(&self) -> usize {
        self.length()
            .or_else(|| self.lengths().map(|(length, _)| length).max())
            .unwrap_or(0)
    }

    /// Calls `act` with each frame it is to a wire.
    pub fn each(self, mut act: impl FnMut(Frame<'_>)) {
        match self {
            Self::SuperPacket(super_packet) if super_packet.packets() > 1 => {
                super_packet.split().for_each(|single| act(Frame::SuperPacket(&single)))
            }
            single => act(single),
        }
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
            Self::SuperPacket(super_packet) => {
                let path = &super_packet.head.path;
                Some(EthernetAddresses {
                    destination: path.destination_mac,
                    source: path.source_mac,
                    vlan: path.vlan.map_or(0, |vlan| vlan.id & 0xfff),
                })
            }
        }
    }

    /// All bytes of a single frame, for who cannot follow references. None if the payload is gone.
    pub fn to_bytes(&self) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
            Self::SuperPacket(packet) => {
                debug_assert_eq!(packet.packets(), 1, "several frames");
                let mut tail = Vec::with_capacity(packet.payload.len());
                packet.payload.append_to(&mut tail).ok()?;
                let head = packet.head_bytes();
                let mut bytes = Vec::with_capacity(self.longest());
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
    /// Takes a single frame. What cannot be taken is dropped and counted by the port.
    fn receive(&self, frame: Frame<'_>);

    /// Takes frames that travel together, super_packets among them.
    fn receive_burst(&self, burst: &Burst<'_>) {
        burst.each(|frame| self.receive(frame));
    }

    /// The cable between the port and the switch was plugged in or pulled.
    fn cable_changed(&self, _plugged: bool) {}
}
