//! Frames on their way through the switch.

use std::borrow::Cow;
use std::fmt;

use super::super_packet::SuperPacket;
use crate::frame::display::Bytes;
use crate::frame::mac::Mac;
use crate::frame::view::{FrameView, ethertype};
use crate::roce;
use crate::roce::packet::Packet;

/// A complete frame, without preamble and frame check sequence: checksums are filled in, and it is at most the MTU
/// long.
#[derive(Debug, Clone, Copy)]
pub enum Frame<'a> {
    /// Bytes from the destination address on.
    Bytes(&'a [u8]),
    /// RoCE packets, each a frame on the wire. Headers, padding and ICRC are serialized only where the packets leave
    /// the daemon.
    SuperPacket(&'a SuperPacket<'a>),
}

/// Addresses and VLAN of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EthernetAddresses {
    /// Destination address.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// VLAN ID; 0 without a tag.
    pub vlan: u16,
}

impl<'a> Frame<'a> {
    /// Creates a frame from its bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }

    /// Length in bytes, if this is a single frame on the wire. Most are: the fast path.
    pub(super) fn length(&self) -> Option<usize> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len()),
            Self::SuperPacket(super_packet) => super_packet.length(),
        }
    }

    /// Lengths in bytes of the frames on the wire, in order, each with the number of consecutive frames of that length.
    pub fn lengths(&self) -> impl Iterator<Item = (usize, u64)> {
        let lengths = match self {
            Self::Bytes(bytes) => [(bytes.len(), 1), (0, 0), (0, 0)],
            Self::SuperPacket(super_packet) => super_packet.lengths(),
        };
        lengths.into_iter().filter(|(_, count)| *count > 0)
    }

    /// Length in bytes of the longest frame on the wire.
    pub fn longest(&self) -> usize {
        self.length()
            .or_else(|| self.lengths().map(|(length, _)| length).max())
            .unwrap_or(0)
    }

    /// Calls `act` with each frame on the wire.
    pub fn each(self, mut act: impl FnMut(Frame<'_>)) {
        match self {
            Self::SuperPacket(super_packet) if super_packet.packets() > 1 => {
                super_packet.split().for_each(|single| act(Frame::SuperPacket(&single)))
            }
            single => act(single),
        }
    }

    /// Addresses and VLAN; `None` if the frame is shorter than an Ethernet header.
    pub fn addresses(&self) -> Option<EthernetAddresses> {
        match self {
            Self::Bytes(bytes) => {
                let &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = bytes.first_chunk()?;
                let vlan = match (u16::from_be_bytes([t0, t1]), bytes.get(14..16)) {
                    (ethertype::CVLAN | ethertype::SVLAN, Some(&[high, low])) => {
                        u16::from_be_bytes([high, low]) & 0xfff
                    }
                    _ => 0,
                };
                Some(EthernetAddresses {
                    destination: Mac([d0, d1, d2, d3, d4, d5]),
                    source: Mac([s0, s1, s2, s3, s4, s5]),
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

    /// Serializes a single frame. `None` if its payload is no longer in guest memory.
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

/// One line of text: a RoCE packet by its transport headers, any other frame by its headers up to TCP and UDP.
impl fmt::Display for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SuperPacket(packet) => match packet.packets() {
                1 => packet.head.fmt(f),
                packets => write!(f, "{}, in {packets} packets", packet.head),
            },
            Self::Bytes(bytes) => match FrameView::new(bytes) {
                None => write!(f, "runt of {}", Bytes(bytes.len())),
                Some(view) => match Packet::new_checked(&view) {
                    Ok(packet) => packet.fmt(f),
                    Err(_) => view.fmt(f),
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::payload::Payload;
    use crate::roce::gid::Gid;
    use crate::roce::headers::{Bth, Headers};
    use crate::roce::opcode::{Opcode, Operation, Position, Suffix, Transport};
    use crate::roce::path::{Addresses, Path};
    use crate::roce::psn::Psn;

    fn send(length: usize) -> SuperPacket<'static> {
        let path = Path {
            source_mac: Mac([2, 0, 0, 0, 0, 1]),
            destination_mac: Mac([2, 0, 0, 0, 0, 2]),
            vlan: None,
            addresses: Addresses::new(Gid::from_ipv4([10, 0, 0, 1]), Gid::from_ipv4([10, 0, 0, 2])),
            udp_source_port: 0xc001,
            traffic_class: 0,
            hop_limit: 64,
            flow_label: 0,
        };
        let opcode = Opcode::new(Transport::Rc, Operation::Send, Position::Only, Suffix::None).unwrap();
        let headers = Headers::new(Bth::new(opcode, 7, Psn::new(8)));
        let mut payload = Payload::new();
        payload.push_zeros(length);
        SuperPacket::single(Packet::new(path, opcode, headers, length), payload)
    }

    #[test]
    fn a_packet_looks_the_same_by_reference_and_in_bytes() {
        let packet = send(5);
        let text = "02:00:00:00:00:01 > 02:00:00:00:00:02, 10.0.0.1 > 10.0.0.2, RC SEND Only, QPN 0x000007, \
                    PSN 0x000008, 5 bytes";
        let frame = Frame::SuperPacket(&packet);
        assert_eq!(frame.to_string(), text);
        let bytes = frame.to_bytes().unwrap();
        assert_eq!(Frame::new(&bytes).to_string(), text);
        let several = SuperPacket { mtu: 2, ..packet };
        assert_eq!(
            Frame::SuperPacket(&several).to_string(),
            format!("{text}, in 3 packets")
        );
    }

    #[test]
    fn frames_that_are_not_packets_show_what_they_have() {
        assert_eq!(Frame::new(&[0; 13]).to_string(), "runt of 13 bytes");
        let mut bytes = send(0).head_bytes();
        // The ICRC is missing: no complete packet.
        assert!(Frame::new(&bytes).to_string().contains("UDP 49153 > 4791"));
        bytes.truncate(20);
        assert!(Frame::new(&bytes).to_string().contains("ethertype 0x0800"));
    }
}
