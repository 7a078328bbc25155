//! Serializing and parsing the heads of packets.

use thiserror::Error;
use zerocopy::FromBytes;

use super::grh::{GRH_LENGTH, Grh};
use super::headers::{Bth, Headers};
use super::opcode::Opcode;
use super::path::{Addresses, IPV4_HEADER, IPV6_HEADER, MIN_LENGTH, Path, UDP_HEADER, VLAN_TAG, Vlan};
use super::{ICRC_LENGTH, MAX_PAYLOAD, UDP_PORT, pad_length};
use crate::frame::checksum::Sum;
use crate::frame::view::{ETHERNET_HEADER, FrameView, Network, Transport, ethertype};

/// Length of the longest head in bytes: with a VLAN tag and IPv6.
pub const MAX_HEAD: usize = ETHERNET_HEADER + VLAN_TAG + IPV6_HEADER + UDP_HEADER + Headers::MAX_LENGTH;

/// Appends the head of a packet with `payload_length` bytes of payload, at most [`MAX_PAYLOAD`]. Its length fields
/// count payload, padding and ICRC, and its BTH the padding, although only the head is written.
pub fn emit_headers(path: &Path, headers: &Headers, payload_length: usize, out: &mut Vec<u8>) {
    debug_assert!(payload_length <= MAX_PAYLOAD, "payload of {payload_length} bytes");
    debug_assert!(
        Opcode::from_byte(headers.bth.opcode).is_some_and(|opcode| headers.are_of(opcode)),
        "{headers:?}"
    );
    let pad = pad_length(payload_length);
    let headers = Headers {
        bth: headers.bth.with_pad(pad as u8),
        ..*headers
    };
    path.emit(headers.length() + payload_length + pad + ICRC_LENGTH, out);
    headers.emit(out);
}

/// Whether a frame is a RoCE packet, valid or not, and so not for the network stack.
pub fn is_roce(frame: &FrameView<'_>) -> bool {
    frame.ethertype == ethertype::ROCE || is_v2(frame)
}

fn is_v2(frame: &FrameView<'_>) -> bool {
    matches!(frame.transport, Transport::Udp(udp) if udp.destination_port == UDP_PORT)
}

/// Addresses of a RoCE packet, valid or not; `None` if it has none.
pub fn addresses(frame: &FrameView<'_>) -> Option<Addresses> {
    if frame.ethertype == ethertype::ROCE {
        return Grh::of(frame).map(grh_addresses);
    }
    match frame.network {
        Network::Ipv4(header) => Some(Addresses::Ipv4 {
            source: header.source,
            destination: header.destination,
        }),
        Network::Ipv6(header) => Some(Addresses::Ipv6 {
            source: header.source,
            destination: header.destination,
        }),
        Network::None => None,
    }
}

fn grh_addresses(grh: &Grh) -> Addresses {
    Addresses::Grh {
        source: grh.source,
        destination: grh.destination,
    }
}

/// Reason why a frame is not a packet. Such frames are silently dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Error {
    /// Neither [`ethertype::ROCE`] nor UDP to [`UDP_PORT`].
    #[error("the frame is not RoCE")]
    NotRoce,
    /// Not version 6, or without a transport header.
    #[error("no transport header follows the GRH")]
    Grh,
    /// A service tag, or two tags.
    #[error("the VLAN tags are not a single customer tag")]
    Vlan,
    /// IPv4 options or IPv6 extension headers.
    #[error("the IP header has options")]
    Options,
    /// Corrupted in transit.
    #[error("the checksum of the IPv4 header is wrong")]
    HeaderChecksum,
    /// Length field, frame and headers contradict each other.
    #[error("the lengths of the packet are inconsistent")]
    Length,
    /// Not version 0.
    #[error("the transport header version is {0}")]
    Version(u8),
    /// An opcode that is not defined.
    #[error("the opcode {:#04x} is unknown", .0.opcode)]
    Opcode(Bth),
}

/// A parsed packet without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Addressing.
    pub path: Path,
    /// Opcode of the BTH.
    pub opcode: Opcode,
    /// Transport headers.
    pub headers: Headers,
    /// Offset of the payload in the frame: length of the head.
    pub payload_offset: usize,
    /// Bytes of payload, without padding and ICRC.
    pub payload_length: usize,
}

impl Packet {
    /// Creates a packet to send, with `payload_length` bytes of payload, at most [`MAX_PAYLOAD`].
    pub fn new(path: Path, opcode: Opcode, mut headers: Headers, payload_length: usize) -> Self {
        headers.bth = headers.bth.with_pad(pad_length(payload_length) as u8);
        Self {
            payload_offset: path.length() + headers.length(),
            path,
            opcode,
            headers,
            payload_length,
        }
    }

    /// Parses a complete frame with payload, padding and ICRC; Ethernet padding may follow. Does not verify the ICRC.
    pub fn new_checked(frame: &FrameView<'_>) -> Result<Self, Error> {
        let packet = Self::parse(frame)?;
        let end = packet.payload_offset + packet.payload_length + usize::from(packet.headers.bth.pad()) + ICRC_LENGTH;
        if end > frame.network_end {
            return Err(Error::Length);
        }
        Ok(packet)
    }

    fn parse(frame: &FrameView<'_>) -> Result<Self, Error> {
        let route = Route::of(frame)?;
        let path = Path {
            source_mac: frame.source(),
            destination_mac: frame.destination(),
            vlan: vlan(frame)?,
            addresses: route.addresses,
            udp_source_port: route.udp_source_port,
            traffic_class: route.traffic_class,
            hop_limit: route.hop_limit,
            flow_label: route.flow_label,
        };
        if route.length < MIN_LENGTH {
            return Err(Error::Length);
        }
        let bth_offset = route.bth_offset;
        let bytes = frame.bytes().get(bth_offset..).ok_or(Error::Length)?;
        let (bth, rest) = Bth::read_from_prefix(bytes).map_err(|_| Error::Length)?;
        if bth.version() != 0 {
            return Err(Error::Version(bth.version()));
        }
        let opcode = Opcode::from_byte(bth.opcode).ok_or(Error::Opcode(bth))?;
        let (headers, rest) = Headers::parse(bth, opcode, rest).ok_or(Error::Length)?;
        let headers_length = bytes.len() - rest.len();
        let payload_length = route
            .length
            .checked_sub(headers_length + usize::from(bth.pad()) + ICRC_LENGTH)
            .ok_or(Error::Length)?;
        Ok(Self {
            path,
            opcode,
            headers,
            payload_offset: bth_offset + headers_length,
            payload_length,
        })
    }
}

/// Content of the headers between Ethernet header and BTH.
struct Route {
    addresses: Addresses,
    udp_source_port: u16,
    traffic_class: u8,
    hop_limit: u8,
    flow_label: u32,
    bth_offset: usize,
    /// Bytes from BTH to ICRC.
    length: usize,
}

impl Route {
    fn of(frame: &FrameView<'_>) -> Result<Self, Error> {
        match frame.ethertype {
            ethertype::ROCE => Self::of_v1(frame),
            _ => Self::of_v2(frame),
        }
    }

    fn of_v1(frame: &FrameView<'_>) -> Result<Self, Error> {
        let grh = Grh::of(frame).ok_or(Error::Length)?;
        if !grh.is_valid() {
            return Err(Error::Grh);
        }
        Ok(Self {
            addresses: grh_addresses(grh),
            udp_source_port: 0,
            traffic_class: grh.traffic_class(),
            hop_limit: grh.hop_limit,
            flow_label: grh.flow_label(),
            bth_offset: frame.network_offset + GRH_LENGTH,
            length: grh.payload_length(),
        })
    }

    fn of_v2(frame: &FrameView<'_>) -> Result<Self, Error> {
        let Transport::Udp(udp) = frame.transport else {
            return Err(Error::NotRoce);
        };
        if udp.destination_port != UDP_PORT {
            return Err(Error::NotRoce);
        }
        let (addresses, traffic_class, hop_limit, flow_label) = match frame.network {
            Network::Ipv4(ipv4) => {
                let header = frame.bytes().get(frame.network_offset..frame.transport_offset);
                let header = header
                    .filter(|header| header.len() == IPV4_HEADER)
                    .ok_or(Error::Options)?;
                if Sum::of(header).checksum() != 0 {
                    return Err(Error::HeaderChecksum);
                }
                let addresses = Addresses::Ipv4 {
                    source: ipv4.source,
                    destination: ipv4.destination,
                };
                (addresses, ipv4.tos, ipv4.ttl, 0)
            }
            Network::Ipv6(ipv6) => {
                if ipv6.header_length != IPV6_HEADER {
                    return Err(Error::Options);
                }
                let addresses = Addresses::Ipv6 {
                    source: ipv6.source,
                    destination: ipv6.destination,
                };
                (addresses, ipv6.traffic_class, ipv6.hop_limit, ipv6.flow_label)
            }
            Network::None => return Err(Error::NotRoce),
        };
        Ok(Self {
            addresses,
            udp_source_port: udp.source_port,
            traffic_class,
            hop_limit,
            flow_label,
            bth_offset: frame.transport_offset + UDP_HEADER,
            length: usize::from(udp.length).checked_sub(UDP_HEADER).ok_or(Error::Length)?,
        })
    }
}

fn vlan(frame: &FrameView<'_>) -> Result<Option<Vlan>, Error> {
    match frame.vlan {
        [None, None] => Ok(None),
        [Some(tag), None] if tag.tpid == ethertype::CVLAN => Ok(Some(Vlan {
            id: tag.id(),
            priority: (tag.tci >> 13) as u8,
        })),
        _ => Err(Error::Vlan),
    }
}

#[cfg(test)]
pub(super) mod tests;
