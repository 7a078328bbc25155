//! One line of text per frame, for logs and failed tests.

use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::view::{FrameView, Network, Tcp, Transport, VlanTag, ethertype, protocol};

/// TCP flags, from bit 0 (RFC 9293, section 3.1; RFC 3168, section 6.1; RFC 3540, section 9).
const TCP_FLAGS: [&str; 9] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS"];

impl Display for VlanTag {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = if self.tpid == ethertype::SVLAN { "svlan" } else { "vlan" };
        write!(f, "{kind} {}", self.id())?;
        match self.tci >> 13 {
            0 => Ok(()),
            priority => write!(f, " prio {priority}"),
        }
    }
}

/// `52:54:00:00:c5:01 > 52:54:00:00:c5:02, 10.0.0.1 > 10.0.0.2, TCP 80 > 4000 ACK, 1 byte, frame of 60 bytes`
impl Display for FrameView<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.source(), self.destination())?;
        for tag in self.vlan.iter().flatten() {
            write!(f, ", {tag}")?;
        }
        let protocol = match self.network {
            Network::None => {
                write!(f, ", ethertype {:#06x}", self.ethertype)?;
                return write!(f, ", frame of {}", Bytes(self.bytes().len()));
            }
            Network::Ipv4(header) => {
                let (source, destination) = (Ipv4Addr::from(header.source), Ipv4Addr::from(header.destination));
                write!(f, ", {source} > {destination}")?;
                header.protocol
            }
            Network::Ipv6(header) => {
                let (source, destination) = (Ipv6Addr::from(header.source), Ipv6Addr::from(header.destination));
                write!(f, ", {source} > {destination}")?;
                header.protocol
            }
        };
        let header_length = match self.transport {
            _ if self.is_fragment() => {
                write!(f, ", fragment of protocol {protocol}")?;
                0
            }
            Transport::Tcp(header) => {
                write!(f, ", TCP {} > {}", header.source_port, header.destination_port)?;
                write_flags(f, header)?;
                header.header_length
            }
            Transport::Udp(header) => {
                write!(f, ", UDP {} > {}", header.source_port, header.destination_port)?;
                8
            }
            Transport::Ipsec { spi } => {
                let name = if protocol == protocol::AH { "AH" } else { "ESP" };
                write!(f, ", {name} SPI {spi:#010x}")?;
                0
            }
            Transport::None => {
                write!(f, ", protocol {protocol}")?;
                0
            }
        };
        let payload = self.transport_range().len().saturating_sub(header_length);
        write!(f, ", {}, frame of {}", Bytes(payload), Bytes(self.bytes().len()))?;
        if self.truncated {
            f.write_str(", truncated")?;
        }
        Ok(())
    }
}

fn write_flags(f: &mut Formatter<'_>, header: Tcp) -> fmt::Result {
    let set = TCP_FLAGS
        .iter()
        .enumerate()
        .filter(|(bit, _)| header.flags >> bit & 1 != 0);
    for (position, (_, name)) in set.enumerate() {
        write!(f, "{}{name}", if position == 0 { ' ' } else { '|' })?;
    }
    Ok(())
}

/// A number of bytes, as text.
pub struct Bytes(pub usize);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 byte"),
            length => write!(f, "{length} bytes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const FROM: [u8; 6] = [0x52, 0x54, 0, 0, 0xc5, 1];
    const TO: [u8; 6] = [0x52, 0x54, 0, 0, 0xc5, 2];

    fn text(bytes: &[u8]) -> String {
        FrameView::new(bytes).unwrap().to_string()
    }

    #[test]
    fn a_tcp_frame_shows_addresses_ports_and_flags() {
        let builder = PacketBuilder::ethernet2(FROM, TO)
            .single_vlan(5.try_into().unwrap())
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(80, 4000, 1, 100)
            .syn()
            .ack(7);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[9]).unwrap();
        assert_eq!(
            text(&bytes),
            "52:54:00:00:c5:01 > 52:54:00:00:c5:02, vlan 5, 10.0.0.1 > 10.0.0.2, TCP 80 > 4000 SYN|ACK, 1 byte, \
             frame of 59 bytes"
        );
        bytes.pop();
        assert!(text(&bytes).ends_with(", 0 bytes, frame of 58 bytes, truncated"));
    }

    #[test]
    fn a_udp_frame_shows_addresses_and_ports() {
        let builder = PacketBuilder::ethernet2(FROM, TO)
            .ipv6([0xfe; 16], [0xff; 16], 64)
            .udp(53, 5353);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[0; 20]).unwrap();
        assert_eq!(
            text(&bytes),
            "52:54:00:00:c5:01 > 52:54:00:00:c5:02, fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe > \
             ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff, UDP 53 > 5353, 20 bytes, frame of 82 bytes"
        );
    }

    #[test]
    fn a_frame_without_a_known_header_shows_what_it_has() {
        let bytes = [&TO[..], &FROM, &[0x81, 0x00, 0x60, 0x07, 0x08, 0x06], &[0; 42]].concat();
        assert_eq!(
            text(&bytes),
            "52:54:00:00:c5:01 > 52:54:00:00:c5:02, vlan 7 prio 3, ethertype 0x0806, frame of 60 bytes"
        );
    }
}
