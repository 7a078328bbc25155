//! Frames as they must be on the wire, built by a library independent of the device.

use etherparse::{EtherType, PacketBuilder, SlicedPacket, TransportSlice};

/// A pattern in which neighbouring bytes differ.
pub fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 256 * 31) as u8).collect()
}

/// A frame of `length` bytes of a protocol that is not parsed.
pub fn plain(source: [u8; 6], destination: [u8; 6], length: usize) -> Vec<u8> {
    let mut frame = [&destination[..], &source, &[0x88, 0xb5]].concat();
    frame.extend(payload(length - frame.len()));
    frame
}

/// Properties of an IP frame.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// Source MAC address.
    pub source: [u8; 6],
    /// Destination MAC address.
    pub destination: [u8; 6],
    /// VLAN ID, if tagged.
    pub vlan: Option<u16>,
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
    /// TCP instead of UDP.
    pub tcp: bool,
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Bytes of payload.
    pub length: usize,
}

impl Packet {
    /// Builds the frame, with valid checksums.
    pub fn build(&self) -> Vec<u8> {
        let payload = payload(self.length);
        let link = PacketBuilder::ethernet2(self.source, self.destination);
        let mut frame = Vec::new();
        macro_rules! transport {
            ($network:expr) => {{
                let network = $network;
                let (from, to) = self.ports;
                if self.tcp {
                    network
                        .tcp(from, to, 0x0123_4567, 0x2000)
                        .ack(0x89ab)
                        .psh()
                        .write(&mut frame, &payload)
                        .unwrap();
                } else {
                    network.udp(from, to).write(&mut frame, &payload).unwrap();
                }
            }};
        }
        macro_rules! network {
            ($link:expr) => {{
                let link = $link;
                if self.ipv6 {
                    let address =
                        |last| std::array::from_fn(|index| if index == 15 { last } else { 0xfd ^ index as u8 });
                    transport!(link.ipv6(address(self.source[5]), address(self.destination[5]), 64));
                } else {
                    transport!(link.ipv4([10, 0, 0, self.source[5]], [10, 0, 0, self.destination[5]], 64));
                }
            }};
        }
        match self.vlan {
            Some(vlan) => network!(link.single_vlan(vlan.try_into().unwrap())),
            None => network!(link),
        }
        frame
    }
}

/// Bytes of headers of a frame.
pub fn header_length(frame: &[u8]) -> usize {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let payload = match packet.transport.unwrap() {
        TransportSlice::Tcp(tcp) => tcp.payload().len(),
        TransportSlice::Udp(udp) => udp.payload().len(),
        _ => panic!("neither TCP nor UDP"),
    };
    frame.len() - payload
}

/// Offset of a frame's IP header.
pub fn network_offset(frame: &[u8]) -> usize {
    if frame[12..14] == EtherType::VLAN_TAGGED_FRAME.0.to_be_bytes() {
        18
    } else {
        14
    }
}

/// Offset of a frame's TCP or UDP checksum.
pub fn checksum_offset(frame: &[u8], tcp: bool) -> usize {
    let network = network_offset(frame);
    let header = if frame[network] >> 4 == 6 {
        40
    } else {
        usize::from(frame[network] & 0xf) * 4
    };
    network + header + if tcp { 16 } else { 6 }
}

/// The one's complement sum of bytes, not inverted (RFC 1071), in its simplest form.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
