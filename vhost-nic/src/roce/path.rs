//! Addressing of a packet: its headers in front of the BTH.

use super::gid::Gid;
use super::grh::{GRH_LENGTH, Grh};
use super::headers::Bth;
use super::{ICRC_LENGTH, UDP_PORT};
use crate::frame::checksum::Sum;
use crate::frame::mac::Mac;
use crate::frame::view::{ETHERNET_HEADER, ethertype, protocol};
use zerocopy::IntoBytes;

/// Length of an IPv4 header without options, in bytes.
pub(super) const IPV4_HEADER: usize = 20;
/// Length of an IPv6 header in bytes.
pub(super) const IPV6_HEADER: usize = 40;
/// Length of a UDP header in bytes.
pub(super) const UDP_HEADER: usize = 8;
/// Length of a VLAN tag in bytes.
pub(super) const VLAN_TAG: usize = 4;
/// Don't fragment.
const IPV4_DF: u16 = 1 << 14;

/// A VLAN tag (IEEE 802.1Q).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vlan {
    /// VLAN ID, 12 bits.
    pub id: u16,
    /// Priority, 3 bits.
    pub priority: u8,
}

/// Addresses, and the kind of the network header that they are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the fields say it")]
pub enum Addresses {
    /// RoCE v2.
    Ipv4 { source: [u8; 4], destination: [u8; 4] },
    /// RoCE v2.
    Ipv6 { source: [u8; 16], destination: [u8; 16] },
    /// RoCE v1: GIDs of any kind, IPv4-mapped ones included.
    Grh { source: [u8; 16], destination: [u8; 16] },
}

impl Addresses {
    /// Addresses of RoCE v2. Selects IPv4 if the source is an IPv4 address, and then takes the last four bytes of the
    /// destination, whatever it is.
    pub fn new(source: Gid, destination: Gid) -> Self {
        match source.ipv4() {
            Some(source) => {
                let [.., a, b, c, d] = destination.0;
                Self::Ipv4 {
                    source,
                    destination: [a, b, c, d],
                }
            }
            None => Self::Ipv6 {
                source: source.0,
                destination: destination.0,
            },
        }
    }

    /// Whether these are addresses of RoCE v1.
    pub fn is_v1(&self) -> bool {
        matches!(self, Self::Grh { .. })
    }

    /// Source address as a GID.
    pub fn source(&self) -> Gid {
        match *self {
            Self::Ipv4 { source, .. } => Gid::from_ipv4(source),
            Self::Ipv6 { source, .. } | Self::Grh { source, .. } => Gid(source),
        }
    }

    /// Destination address as a GID.
    pub fn destination(&self) -> Gid {
        match *self {
            Self::Ipv4 { destination, .. } => Gid::from_ipv4(destination),
            Self::Ipv6 { destination, .. } | Self::Grh { destination, .. } => Gid(destination),
        }
    }
}

/// Addressing of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// MAC address of the sender.
    pub source_mac: Mac,
    /// MAC address of the peer, the router or the group.
    pub destination_mac: Mac,
    /// VLAN tag, if there is one.
    pub vlan: Option<Vlan>,
    /// Addresses, and with them the version of RoCE.
    pub addresses: Addresses,
    /// UDP source port; RoCE v2 only.
    pub udp_source_port: u16,
    /// RoCE v2: DSCP in bits 7:2, ECN in bits 1:0. RoCE v1: TClass.
    pub traffic_class: u8,
    /// Time to live.
    pub hop_limit: u8,
    /// Flow label, 20 bits; IPv6 and GRH only.
    pub flow_label: u32,
}

impl Path {
    /// Length in bytes of the headers in front of the BTH.
    pub(super) fn length(&self) -> usize {
        let tag = if self.vlan.is_some() { VLAN_TAG } else { 0 };
        let network = match self.addresses {
            Addresses::Ipv4 { .. } => IPV4_HEADER + UDP_HEADER,
            Addresses::Ipv6 { .. } => IPV6_HEADER + UDP_HEADER,
            Addresses::Grh { .. } => GRH_LENGTH,
        };
        ETHERNET_HEADER + tag + network
    }

    /// Appends the headers in front of the BTH, with `length` bytes behind them (BTH to ICRC).
    pub(super) fn emit(&self, length: usize, out: &mut Vec<u8>) {
        // At most MAX_PAYLOAD and headers: no truncation.
        let (length, udp_length) = (length as u16, (UDP_HEADER + length) as u16);
        out.extend_from_slice(&self.destination_mac.0);
        out.extend_from_slice(&self.source_mac.0);
        if let Some(Vlan { id, priority }) = self.vlan {
            out.extend_from_slice(&ethertype::CVLAN.to_be_bytes());
            out.extend_from_slice(&(u16::from(priority & 7) << 13 | id & 0xfff).to_be_bytes());
        }
        match self.addresses {
            Addresses::Ipv4 { source, destination } => {
                out.extend_from_slice(&ethertype::IPV4.to_be_bytes());
                out.extend_from_slice(&self.ipv4_header(udp_length, source, destination));
            }
            Addresses::Ipv6 { source, destination } => {
                out.extend_from_slice(&ethertype::IPV6.to_be_bytes());
                let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0xf_ffff;
                out.extend_from_slice(&first.to_be_bytes());
                out.extend_from_slice(&udp_length.to_be_bytes());
                out.extend_from_slice(&[protocol::UDP, self.hop_limit]);
                out.extend_from_slice(&source);
                out.extend_from_slice(&destination);
            }
            Addresses::Grh { source, destination } => {
                out.extend_from_slice(&ethertype::ROCE.to_be_bytes());
                let gids = [source, destination];
                let grh = Grh::new(self.traffic_class, self.flow_label, length, self.hop_limit, gids);
                return out.extend_from_slice(grh.as_bytes());
            }
        }
        out.extend_from_slice(&self.udp_source_port.to_be_bytes());
        out.extend_from_slice(&UDP_PORT.to_be_bytes());
        out.extend_from_slice(&udp_length.to_be_bytes());
        // No UDP checksum, as annex A17 specifies.
        out.extend_from_slice(&[0; 2]);
    }

    fn ipv4_header(&self, udp_length: u16, source: [u8; 4], destination: [u8; 4]) -> [u8; IPV4_HEADER] {
        let mut header = [0; IPV4_HEADER];
        header[0] = 0x45;
        header[1] = self.traffic_class;
        header[2..4].copy_from_slice(&(IPV4_HEADER as u16 + udp_length).to_be_bytes());
        // The identification of a packet that is never fragmented is unused (RFC 6864).
        header[6..8].copy_from_slice(&IPV4_DF.to_be_bytes());
        header[8] = self.hop_limit;
        header[9] = protocol::UDP;
        header[12..16].copy_from_slice(&source);
        header[16..20].copy_from_slice(&destination);
        let checksum = Sum::of(&header).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }
}

/// Length in bytes of the shortest packet behind its GRH or UDP header: BTH and ICRC.
pub(super) const MIN_LENGTH: usize = size_of::<Bth>() + ICRC_LENGTH;
