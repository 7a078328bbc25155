//! Parser of the frame headers that the NIC evaluates.
//!
//! It parses up to two VLAN tags, IPv4 or IPv6 with extension headers, and the first transport header. A fragment has
//! no transport: the NIC treats each frame separately, so the first fragment must be treated like the others.

use std::ops::Range;

use super::mac::Mac;

/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET_HEADER: usize = 14;
/// Length of a VLAN tag in bytes.
const VLAN_TAG: usize = 4;
/// Maximum number of IPv6 extension headers that are parsed; a packet with more has no transport.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Values of the ethertype field (IEEE 802 numbers).
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// A customer VLAN tag.
    pub const CVLAN: u16 = 0x8100;
    /// A service VLAN tag.
    pub const SVLAN: u16 = 0x88a8;
    /// RoCE v1.
    pub const ROCE: u16 = 0x8915;
}

/// Values of the IPv4 protocol and IPv6 next header fields (IANA protocol numbers).
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Encapsulating security payload.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// TCP flags, as bits of [`Tcp::flags`].
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u16 = 1;
    /// Push.
    pub const PSH: u16 = 1 << 3;
    /// The acknowledgement number is valid.
    pub const ACK: u16 = 1 << 4;
    /// Congestion window reduced.
    pub const CWR: u16 = 1 << 7;
}

/// A VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanTag {
    /// Tag protocol identifier: [`ethertype::CVLAN`] or [`ethertype::SVLAN`].
    pub tpid: u16,
    /// Tag control information: priority, drop eligibility and VLAN ID.
    pub tci: u16,
}

impl VlanTag {
    /// VLAN ID.
    pub fn id(&self) -> u16 {
        self.tci & 0xfff
    }
}

/// An IPv4 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4 {
    /// Length of the header with its options, in bytes.
    pub header_length: usize,
    /// DSCP and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Whether the packet is a fragment.
    pub fragment: bool,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

/// An IPv6 header and the extension headers after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6 {
    /// Length of the header with the extension headers, in bytes.
    pub header_length: usize,
    /// Traffic class: DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label.
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// Next header behind the last extension header.
    pub protocol: u8,
    /// Whether the packet is a fragment.
    pub fragment: bool,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

/// The network header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Not IP, or an invalid IP header.
    None,
    /// IPv4.
    Ipv4(Ipv4),
    /// IPv6.
    Ipv6(Ipv6),
}

/// A TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Length of the header with its options, in bytes.
    pub header_length: usize,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Nine flags, FIN in bit 0.
    pub flags: u16,
}

/// A UDP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Length field: header and payload in bytes.
    pub length: u16,
}

/// The transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// No transport that the NIC parses, or a fragment.
    None,
    /// TCP.
    Tcp(Tcp),
    /// UDP.
    Udp(Udp),
    /// ESP or AH.
    Ipsec {
        /// Security parameter index.
        spi: u32,
    },
}

/// Treatment of the length fields of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lengths {
    /// The packet ends where they say.
    Claimed,
    /// The packet ends with the frame: the frame is yet to be segmented.
    Ignored,
}

/// An Ethernet frame with its parsed headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameView<'a> {
    bytes: &'a [u8],
    /// VLAN tags, outermost first.
    pub vlan: [Option<VlanTag>; 2],
    /// Ethertype behind the tags.
    pub ethertype: u16,
    /// Offset of the header behind the Ethernet header and the tags.
    pub network_offset: usize,
    /// Network header.
    pub network: Network,
    /// End of the packet according to its network header; padding follows. The end of the frame if there is no network
    /// header, or if the packet is longer than the frame.
    pub network_end: usize,
    /// Whether the network header claims more bytes than the frame has.
    pub truncated: bool,
    /// Offset of the transport header, if there is a network header.
    pub transport_offset: usize,
    /// Transport header.
    pub transport: Transport,
}

impl<'a> FrameView<'a> {
    /// Parses a frame, from the destination address on. `None` if it is shorter than an Ethernet header.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        Self::parse(bytes, Lengths::Claimed)
    }

    /// Parses a frame whose length fields are not filled in yet: the frame of a send that requests segmentation.
    pub fn new_unsegmented(bytes: &'a [u8]) -> Option<Self> {
        Self::parse(bytes, Lengths::Ignored)
    }

    /// Bytes of the frame.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Destination address.
    pub fn destination(&self) -> Mac {
        array(self.bytes, 0).map_or(Mac::ZERO, Mac)
    }

    /// Source address.
    pub fn source(&self) -> Mac {
        array(self.bytes, 6).map_or(Mac::ZERO, Mac)
    }

    /// Range of transport header and payload, without padding.
    pub fn transport_range(&self) -> Range<usize> {
        self.transport_offset..self.network_end
    }

    /// Whether the packet is a fragment.
    pub fn is_fragment(&self) -> bool {
        match self.network {
            Network::None => false,
            Network::Ipv4(header) => header.fragment,
            Network::Ipv6(header) => header.fragment,
        }
    }

    fn parse(bytes: &'a [u8], lengths: Lengths) -> Option<Self> {
        let mut ethertype = be16(bytes, 12)?;
        let mut offset = ETHERNET_HEADER;
        let mut vlan = [None; 2];
        for tag in &mut vlan {
            if !matches!(ethertype, ethertype::CVLAN | ethertype::SVLAN) {
                break;
            }
            let (Some(tci), Some(inner)) = (be16(bytes, offset), be16(bytes, offset + 2)) else {
                break;
            };
            *tag = Some(VlanTag { tpid: ethertype, tci });
            ethertype = inner;
            offset += VLAN_TAG;
        }
        let mut view = Self {
            bytes,
            vlan,
            ethertype,
            network_offset: offset,
            network: Network::None,
            network_end: bytes.len(),
            truncated: false,
            transport_offset: offset,
            transport: Transport::None,
        };
        let protocol = match ethertype {
            ethertype::IPV4 => view.parse_ipv4(lengths),
            ethertype::IPV6 => view.parse_ipv6(lengths),
            _ => None,
        };
        if let Some(protocol) = protocol {
            view.transport = view.parse_transport(protocol).unwrap_or(Transport::None);
        }
        Some(view)
    }

    /// Returns the protocol of the payload, unless the packet is a fragment.
    fn parse_ipv4(&mut self, lengths: Lengths) -> Option<u8> {
        let header = self.bytes.get(self.network_offset..)?;
        let &first = header.first()?;
        let header_length = usize::from(first & 0xf) * 4;
        if first >> 4 != 4 || header_length < 20 || header.len() < header_length {
            return None;
        }
        let total_length = usize::from(be16(header, 2)?);
        if lengths == Lengths::Claimed {
            if total_length < header_length {
                return None;
            }
            self.end_at(total_length);
        }
        let ipv4 = Ipv4 {
            header_length,
            tos: header[1],
            ttl: header[8],
            protocol: header[9],
            // More fragments, or an offset that is not 0.
            fragment: be16(header, 6)? & 0x3fff != 0,
            source: array(header, 12)?,
            destination: array(header, 16)?,
        };
        self.network = Network::Ipv4(ipv4);
        self.transport_offset = self.network_offset + header_length;
        (!ipv4.fragment).then_some(ipv4.protocol)
    }

    /// Returns the protocol behind the extension headers, unless the packet is a fragment.
    fn parse_ipv6(&mut self, lengths: Lengths) -> Option<u8> {
        let header = self.bytes.get(self.network_offset..)?;
        let first: u32 = u32::from_be_bytes(array(header, 0)?);
        if first >> 28 != 6 || header.len() < 40 {
            return None;
        }
        let payload_length = usize::from(be16(header, 4)?);
        if lengths == Lengths::Claimed {
            self.end_at(40 + payload_length);
        }
        let packet = self.bytes.get(self.network_offset..self.network_end)?;
        let mut ipv6 = Ipv6 {
            header_length: 40,
            traffic_class: (first >> 20) as u8,
            flow_label: first & 0xf_ffff,
            hop_limit: header[7],
            protocol: header[6],
            fragment: false,
            source: array(header, 8)?,
            destination: array(header, 24)?,
        };
        let complete = walk_extension_headers(packet, &mut ipv6);
        self.network = Network::Ipv6(ipv6);
        self.transport_offset = self.network_offset + ipv6.header_length;
        (complete && !ipv6.fragment).then_some(ipv6.protocol)
    }

    fn end_at(&mut self, length: usize) {
        let end = self.network_offset + length;
        self.truncated = end > self.bytes.len();
        self.network_end = end.min(self.bytes.len());
    }

    fn parse_transport(&self, protocol: u8) -> Option<Transport> {
        let header = self.bytes.get(self.transport_range())?;
        Some(match protocol {
            protocol::TCP => {
                let offset_and_flags = be16(header, 12)?;
                let header_length = usize::from(offset_and_flags >> 12) * 4;
                if header_length < 20 || header.len() < header_length {
                    return None;
                }
                Transport::Tcp(Tcp {
                    header_length,
                    source_port: be16(header, 0)?,
                    destination_port: be16(header, 2)?,
                    flags: offset_and_flags & 0x1ff,
                })
            }
            protocol::UDP if header.len() >= 8 => Transport::Udp(Udp {
                source_port: be16(header, 0)?,
                destination_port: be16(header, 2)?,
                length: be16(header, 4)?,
            }),
            protocol::ESP => Transport::Ipsec {
                spi: u32::from_be_bytes(array(header, 0)?),
            },
            protocol::AH => Transport::Ipsec {
                spi: u32::from_be_bytes(array(header, 4)?),
            },
            _ => return None,
        })
    }
}

/// Skips the extension headers. Returns whether it reached the end of them.
fn walk_extension_headers(packet: &[u8], ipv6: &mut Ipv6) -> bool {
    for _ in 0..MAX_EXTENSION_HEADERS {
        let fragment = ipv6.protocol == protocol::FRAGMENT;
        if !fragment
            && !matches!(
                ipv6.protocol,
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS
            )
        {
            return true;
        }
        let Some(header) = packet
            .get(ipv6.header_length..)
            .and_then(|rest| rest.first_chunk::<8>())
        else {
            return false;
        };
        let length = if fragment { 8 } else { (usize::from(header[1]) + 1) * 8 };
        if packet.len() - ipv6.header_length < length {
            return false;
        }
        ipv6.protocol = header[0];
        ipv6.header_length += length;
        if fragment {
            // An offset or more fragments; a fragment header without either is a whole packet (RFC 6946).
            ipv6.fragment = u16::from_be_bytes([header[2], header[3]]) & 0xfff9 != 0;
            if ipv6.fragment {
                return true;
            }
        }
    }
    false
}

fn be16(bytes: &[u8], offset: usize) -> Option<u16> {
    array(bytes, offset).map(u16::from_be_bytes)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests;
