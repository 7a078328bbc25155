//! Segments of a TCP stream, joined into one frame for a peer whose driver takes it: the reverse of segmentation.
//!
//! The rules are those of Linux (`tcp_gro_receive`, `net/ipv4/tcp_offload.c`): joined segments can be segmented again
//! into the same bytes, except for the identification of IPv4. A segment with a wrong checksum stays alone, as it is.

use std::ops::Range;

use zerocopy::little_endian::U16;

use super::vnet_header::VnetHeader;
use crate::frame::checksum::{Coverage, Fill, fill, pseudo_header_sum, verify};
use crate::frame::view::{FrameView, Network, Transport, tcp_flags};

/// Bytes of a joined packet, from its network header on: what its length field can say.
const MAX_PACKET: usize = 0xffff;
/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: usize = 16;

/// Work on received frames that a peer takes over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Frames whose checksum has been verified, or is still to be filled in.
    pub checksum: bool,
    /// Joined segments of TCP over IPv4.
    pub tcp_v4: bool,
    /// Joined segments of TCP over IPv6.
    pub tcp_v6: bool,
}

/// A frame on its way to a peer, and the work that is left to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Work that is left to the peer.
    pub header: VnetHeader,
    /// The frame.
    pub frame: Vec<u8>,
    /// Number of frames of the switch in it.
    pub frames: usize,
}

impl Outgoing {
    /// Creates a frame without any work left.
    pub fn complete(frame: Vec<u8>) -> Self {
        Self {
            header: VnetHeader::default(),
            frame,
            frames: 1,
        }
    }
}

/// Positions of the headers of a segment, and its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    network: usize,
    transport: usize,
    payload: Range<usize>,
    sequence: u32,
    is_v4: bool,
}

impl Segment {
    /// Parses a frame that carries a segment of TCP with a payload and nothing that would be lost: no padding, no flags
    /// but ACK, PSH and FIN, and no wrong checksum.
    fn new(frame: &[u8]) -> Option<Self> {
        let view = FrameView::new(frame)?;
        let Transport::Tcp(tcp) = view.transport else {
            return None;
        };
        let payload = view.transport_offset + tcp.header_length..view.network_end;
        let is_plain = tcp.flags & !(tcp_flags::PSH | tcp_flags::FIN) == tcp_flags::ACK;
        if !is_plain || payload.is_empty() || view.network_end != frame.len() || view.truncated {
            return None;
        }
        let is_v4 = match view.network {
            Network::Ipv4(header) if header.header_length == 20 => true,
            Network::Ipv6(header) if header.header_length == 40 => false,
            _ => return None,
        };
        let verified = verify(&view, Coverage::Packet);
        if !verified.l3_ok || !verified.l4_ok {
            return None;
        }
        let at = view.transport_offset + 4;
        let sequence = frame.get(at..at + 4)?.try_into().ok()?;
        Some(Self {
            network: view.network_offset,
            transport: view.transport_offset,
            payload,
            sequence: u32::from_be_bytes(sequence),
            is_v4,
        })
    }

    fn ends_stream(&self, frame: &[u8]) -> bool {
        u16::from(frame[self.transport + 13]) & (tcp_flags::PSH | tcp_flags::FIN) != 0
    }

    /// Whether the headers of `other`, which follows in the stream, say the same.
    fn agrees(&self, frame: &[u8], other: &Self, bytes: &[u8]) -> bool {
        if (self.network, self.transport, self.payload.start, self.is_v4)
            != (other.network, other.transport, other.payload.start, other.is_v4)
        {
            return false;
        }
        let same = |range: Range<usize>| frame[range.clone()] == bytes[range];
        let (network, transport) = (self.network, self.transport);
        let network_agrees = match self.is_v4 {
            // All but the total length, the identification and the checksum.
            true => same(network..network + 2) && same(network + 6..network + 10) && same(network + 12..network + 20),
            // All but the payload length.
            false => same(network..network + 4) && same(network + 6..network + 40),
        };
        network_agrees
            && same(0..network)
            && same(transport..transport + 4)
            && same(transport + 8..transport + 13)
            && same(transport + 14..transport + 16)
            && same(transport + 18..self.payload.start)
    }
}

/// A frame to which those that follow in its stream are joined.
#[derive(Debug)]
pub struct Joiner {
    frame: Vec<u8>,
    frames: usize,
    offloads: Offloads,
    /// The first segment; `None` if nothing can be joined to it.
    first: Option<Segment>,
    /// Nothing more can be joined.
    ended: bool,
}

impl Joiner {
    /// Begins with a frame, for a peer with these offloads.
    pub fn new(frame: Vec<u8>, offloads: Offloads) -> Self {
        let first = Some(offloads)
            .filter(|offloads| offloads.checksum && (offloads.tcp_v4 || offloads.tcp_v6))
            .and_then(|_| Segment::new(&frame))
            .filter(|segment| {
                if segment.is_v4 {
                    offloads.tcp_v4
                } else {
                    offloads.tcp_v6
                }
            });
        Self {
            ended: first.as_ref().is_none_or(|first| first.ends_stream(&frame)),
            frame,
            frames: 1,
            offloads,
            first,
        }
    }

    /// Whether a frame can be joined at all.
    pub fn takes_more(&self) -> bool {
        !self.ended
    }

    /// Joins a frame. Returns false if it is none that continues the segments so far.
    pub fn join(&mut self, next: &[u8]) -> bool {
        let Some(first) = self.first.as_ref().filter(|_| !self.ended) else {
            return false;
        };
        let Some(segment) = Segment::new(next) else {
            return false;
        };
        let joined = self.frame.len() - first.payload.start;
        let follows = segment.sequence == first.sequence.wrapping_add(joined as u32)
            && segment.payload.len() <= first.payload.len()
            && self.frame.len() + segment.payload.len() - first.network <= MAX_PACKET
            && first.agrees(&self.frame, &segment, next);
        if !follows {
            return false;
        }
        self.ended = segment.payload.len() < first.payload.len() || segment.ends_stream(next);
        self.frame[first.transport + 13] |= next[segment.transport + 13];
        self.frame.extend_from_slice(&next[segment.payload]);
        self.frames += 1;
        true
    }

    /// Returns the frame, and the work that is left to its receiver.
    pub fn finish(self) -> Outgoing {
        let Self { mut frame, frames, .. } = self;
        let first = match self.first {
            Some(first) if frames > 1 => first,
            verified => {
                let verified = verified.is_some() || self.offloads.checksum && has_valid_checksum(&frame);
                return Outgoing {
                    header: if verified {
                        VnetHeader::data_valid()
                    } else {
                        VnetHeader::default()
                    },
                    frame,
                    frames,
                };
            }
        };
        let length = frame.len() - first.network;
        let (at, value) = match first.is_v4 {
            true => (2, length as u16),
            false => (4, (length - 40) as u16),
        };
        frame[first.network + at..][..2].copy_from_slice(&value.to_be_bytes());
        fill(&mut frame, Fill { l3: true, l4: false });
        let checksum = FrameView::new(&frame).map_or(0, |view| pseudo_header_sum(&view));
        frame[first.transport + TCP_CHECKSUM..][..2].copy_from_slice(&checksum.to_be_bytes());
        let header = VnetHeader {
            hdr_len: U16::new(first.payload.start as u16),
            gso_size: U16::new(first.payload.len() as u16),
            csum_start: U16::new(first.transport as u16),
            csum_offset: U16::new(TCP_CHECKSUM as u16),
            ..VnetHeader::segments_of_tcp(first.is_v4)
        };
        Outgoing { header, frame, frames }
    }
}

/// Whether TCP or UDP has a checksum, which is correct.
fn has_valid_checksum(frame: &[u8]) -> bool {
    FrameView::new(frame).is_some_and(|view| {
        let verified = verify(&view, Coverage::Packet);
        verified.l3_ok && verified.l4_ok
    })
}

#[cfg(test)]
mod tests;
