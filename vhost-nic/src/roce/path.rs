//! Addressing of a packet: its Ethernet, IP and UDP headers.

use super::gid::Gid;
use super::headers::Bth;
use super::{ICRC_LENGTH, UDP_PORT};
use crate::frame::checksum::Sum;
use crate::frame::mac::Mac;
use crate::frame::view::{ETHERNET_HEADER, ethertype, protocol};

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

/// IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Addresses {
    Ipv4 { source: [u8; 4], destination: [u8; 4] },
    Ipv6 { source: [u8; 16], destination: [u8; 16] },
}

impl Addresses {
    /// Selects IPv4 if the source is an IPv4 address, and then takes the last four bytes of the destination, whatever
    /// it is.
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

    /// Source address as a GID.
    pub fn source(&self) -> Gid {
        match *self {
            Self::Ipv4 { source, .. } => Gid::from_ipv4(source),
            Self::Ipv6 { source, .. } => Gid(source),
        }
    }

    /// Destination address as a GID.
    pub fn destination(&self) -> Gid {
        match *self {
            Self::Ipv4 { destination, .. } => Gid::from_ipv4(destination),
            Self::Ipv6 { destination, .. } => Gid(destination),
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
    /// IP addresses.
    pub addresses: Addresses,
    /// UDP source port.
    pub udp_source_port: u16,
    /// DSCP in bits 7:2, ECN in bits 1:0.
    pub traffic_class: u8,
    /// Time to live.
    pub hop_limit: u8,
    /// Flow label, 20 bits; IPv6 only.
    pub flow_label: u32,
}

impl Path {
    /// Length of Ethernet, IP and UDP headers in bytes.
    pub(super) fn length(&self) -> usize {
        let tag = if self.vlan.is_some() { VLAN_TAG } else { 0 };
        let ip = match self.addresses {
            Addresses::Ipv4 { .. } => IPV4_HEADER,
            Addresses::Ipv6 { .. } => IPV6_HEADER,
        };
        ETHERNET_HEADER + tag + ip + UDP_HEADER
    }

    /// Appends Ethernet, IP and UDP headers for `udp_payload` bytes behind them (BTH to ICRC).
    pub(super) fn emit(&self, udp_payload: usize, out: &mut Vec<u8>) {
        // At most MAX_PAYLOAD and headers: no truncation.
        let udp_length = (UDP_HEADER + udp_payload) as u16;
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

/// Length of the shortest UDP payload in bytes: BTH and ICRC.
pub(super) const MIN_UDP_PAYLOAD: usize = size_of::<Bth>() + ICRC_LENGTH;
