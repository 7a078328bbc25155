//! One line of text per packet, for logs and failed tests.

use std::fmt::{self, Display, Formatter};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::headers::Headers;
use super::opcode::{Opcode, Operation, Position, Suffix, Transport};
use super::packet::Packet;
use super::path::{Addresses, Path};
use super::psn::Psn;
use super::syndrome::{Nak, Syndrome};
use crate::frame::display::Bytes;

impl Display for Transport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rc => "RC",
            Self::Uc => "UC",
            Self::Ud => "UD",
            Self::Cnp => "CNP",
            Self::Xrc => "XRC",
        })
    }
}

/// The name of IBTA volume 1, table 38: `RC RDMA WRITE Last with Immediate`.
impl Display for Opcode {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (name, positioned) = match self.operation() {
            Operation::Send => ("SEND", true),
            Operation::Write => ("RDMA WRITE", true),
            Operation::ReadRequest => ("RDMA READ Request", false),
            Operation::ReadResponse => ("RDMA READ response", true),
            Operation::Acknowledge => ("Acknowledge", false),
            Operation::AtomicAcknowledge => ("ATOMIC Acknowledge", false),
            Operation::CompareSwap => ("CmpSwap", false),
            Operation::FetchAdd => ("FetchAdd", false),
            Operation::CongestionNotification => return f.write_str("CNP"),
        };
        write!(f, "{} {name}", self.transport())?;
        if positioned {
            f.write_str(match self.position() {
                Position::First => " First",
                Position::Middle => " Middle",
                Position::Last => " Last",
                Position::Only => " Only",
            })?;
        }
        f.write_str(match self.suffix() {
            Suffix::None => "",
            Suffix::Immediate => " with Immediate",
            Suffix::Invalidate => " with Invalidate",
        })
    }
}

impl Display for Psn {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:#08x}", self.value())
    }
}

impl Display for Syndrome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ack { .. } if *self == Self::ACK => f.write_str("ACK"),
            Self::Ack { credits } => write!(f, "ACK credits {credits}"),
            Self::Rnr(timer) => write!(f, "RNR NAK {:?}", timer.delay()),
            Self::Nak(nak) => f.write_str(match nak {
                Nak::PsnSequence => "NAK PSN sequence error",
                Nak::InvalidRequest => "NAK invalid request",
                Nak::RemoteAccess => "NAK remote access error",
                Nak::RemoteOperational => "NAK remote operational error",
                Nak::InvalidRdRequest => "NAK invalid RD request",
            }),
        }
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.source_mac, self.destination_mac)?;
        if let Some(vlan) = self.vlan {
            write!(f, ", vlan {}", vlan.id)?;
            if vlan.priority != 0 {
                write!(f, " prio {}", vlan.priority)?;
            }
        }
        match self.addresses {
            Addresses::Ipv4 { source, destination } => {
                write!(f, ", {} > {}", Ipv4Addr::from(source), Ipv4Addr::from(destination))
            }
            Addresses::Ipv6 { source, destination } => {
                write!(f, ", {} > {}", Ipv6Addr::from(source), Ipv6Addr::from(destination))
            }
            Addresses::Grh { source, destination } => {
                let [source, destination] = [source, destination].map(Ipv6Addr::from);
                write!(f, ", RoCE v1 {source} > {destination}")
            }
        }
    }
}

/// QPN, PSN and flags of the BTH, then the extended headers.
impl Display for Headers {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let bth = &self.bth;
        write!(f, "QPN {:#08x}, PSN {}", bth.destination_qpn(), bth.psn())?;
        let flags = [
            (bth.solicited(), "SE"),
            (bth.ack_request(), "AckReq"),
            (bth.fecn(), "FECN"),
            (bth.becn(), "BECN"),
        ];
        for (_, name) in flags.into_iter().filter(|(set, _)| *set) {
            write!(f, ", {name}")?;
        }
        if let Some(xrc) = self.xrc {
            write!(f, ", SRQN {:#08x}", xrc.srqn())?;
        }
        if let Some(deth) = self.deth {
            write!(
                f,
                ", Q_Key {:#010x}, source QPN {:#08x}",
                deth.qkey.get(),
                deth.source_qpn()
            )?;
        }
        if let Some(reth) = self.reth {
            let (address, rkey) = (reth.virtual_address.get(), reth.rkey.get());
            write!(
                f,
                ", RETH {address:#x} R_Key {rkey:#010x} length {}",
                reth.dma_length.get()
            )?;
        }
        if let Some(atomic) = self.atomic {
            let (address, rkey) = (atomic.virtual_address.get(), atomic.rkey.get());
            let (operand, compare) = (atomic.swap_or_add.get(), atomic.compare.get());
            write!(
                f,
                ", AtomicETH {address:#x} R_Key {rkey:#010x} operand {operand:#x} compare {compare:#x}"
            )?;
        }
        if let Some(aeth) = self.aeth {
            match Syndrome::from_byte(aeth.syndrome) {
                Some(syndrome) => write!(f, ", {syndrome}")?,
                None => write!(f, ", AETH syndrome {:#04x}", aeth.syndrome)?,
            }
            write!(f, ", MSN {}", aeth.msn())?;
        }
        if let Some(atomic_ack) = self.atomic_ack {
            write!(f, ", original {:#x}", atomic_ack.original.get())?;
        }
        if let Some(immediate) = self.immediate {
            write!(f, ", immediate {:#010x}", u32::from_be_bytes(immediate.immediate))?;
        }
        if let Some(invalidate) = self.invalidate {
            write!(f, ", invalidate R_Key {:#010x}", invalidate.rkey.get())?;
        }
        Ok(())
    }
}

/// `52:54:00:00:c5:01 > 52:54:00:00:c5:02, 10.0.0.1 > 10.0.0.2, RC SEND Only, QPN 0x000007, PSN 0x000012, 64 bytes`
impl Display for Packet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            path, opcode, headers, ..
        } = self;
        write!(f, "{path}, {opcode}, {headers}, {}", Bytes(self.payload_length))
    }
}

#[cfg(test)]
mod tests {
    use super::super::gid::Gid;
    use super::super::headers::{Aeth, Bth, Deth, Ieth, ImmDt, Reth};
    use super::super::path::Vlan;
    use super::super::rnr::RnrTimer;
    use super::*;
    use crate::frame::mac::Mac;

    fn path(vlan: Option<Vlan>) -> Path {
        Path {
            source_mac: Mac([0x52, 0x54, 0, 0, 0xc5, 1]),
            destination_mac: Mac([0x52, 0x54, 0, 0, 0xc5, 2]),
            vlan,
            addresses: Addresses::new(Gid::from_ipv4([10, 0, 0, 1]), Gid::from_ipv4([10, 0, 0, 2])),
            udp_source_port: 0xc001,
            traffic_class: 0,
            hop_limit: 64,
            flow_label: 0,
        }
    }

    fn opcode(transport: Transport, operation: Operation, position: Position, suffix: Suffix) -> Opcode {
        Opcode::new(transport, operation, position, suffix).unwrap()
    }

    const WAY: &str = "52:54:00:00:c5:01 > 52:54:00:00:c5:02, 10.0.0.1 > 10.0.0.2";

    #[test]
    fn every_opcode_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<String> = (0..=u8::MAX)
            .filter_map(Opcode::from_byte)
            .map(|opcode| opcode.to_string())
            .collect();
        assert_eq!(names.len(), (0..=u8::MAX).filter_map(Opcode::from_byte).count());
        assert!(names.contains("XRC RDMA WRITE Last with Immediate"), "{names:?}");
        assert!(names.contains("UD SEND Only"), "{names:?}");
        assert!(names.contains("CNP"), "{names:?}");
    }

    #[test]
    fn a_request_shows_its_headers() {
        let opcode = opcode(Transport::Rc, Operation::Write, Position::Only, Suffix::Immediate);
        let mut headers = Headers::new(
            Bth::new(opcode, 7, Psn::new(0xff_fffe))
                .with_ack_request(true)
                .with_solicited(true),
        );
        headers.reth = Some(Reth::new(0x1000, 0x900, 64));
        headers.immediate = Some(ImmDt {
            immediate: [1, 2, 3, 4],
        });
        let tag = Vlan { id: 5, priority: 3 };
        assert_eq!(
            Packet::new(path(Some(tag)), opcode, headers, 64).to_string(),
            "52:54:00:00:c5:01 > 52:54:00:00:c5:02, vlan 5 prio 3, 10.0.0.1 > 10.0.0.2, \
             RC RDMA WRITE Only with Immediate, QPN 0x000007, PSN 0xfffffe, SE, AckReq, \
             RETH 0x1000 R_Key 0x00000900 length 64, immediate 0x01020304, 64 bytes"
        );
    }

    #[test]
    fn a_packet_of_version_1_shows_its_gids() {
        let opcode = opcode(Transport::Rc, Operation::Send, Position::Only, Suffix::None);
        let headers = Headers::new(Bth::new(opcode, 7, Psn::new(1)));
        let path = Path {
            addresses: Addresses::Grh {
                source: Gid::from_ipv4([10, 0, 0, 1]).0,
                destination: [0xfe; 16],
            },
            ..path(None)
        };
        assert_eq!(
            Packet::new(path, opcode, headers, 4).to_string(),
            "52:54:00:00:c5:01 > 52:54:00:00:c5:02, RoCE v1 ::ffff:10.0.0.1 > \
             fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe, RC SEND Only, QPN 0x000007, PSN 0x000001, 4 bytes"
        );
    }

    #[test]
    fn an_acknowledgement_shows_its_syndrome() {
        let opcode = opcode(Transport::Rc, Operation::Acknowledge, Position::Only, Suffix::None);
        for (syndrome, text) in [
            (Syndrome::ACK, "ACK"),
            (Syndrome::Ack { credits: 3 }, "ACK credits 3"),
            (Syndrome::Rnr(RnrTimer::new(1)), "RNR NAK 10µs"),
            (Syndrome::Nak(Nak::PsnSequence), "NAK PSN sequence error"),
        ] {
            let mut headers = Headers::new(Bth::new(opcode, 7, Psn::new(0x12)));
            headers.aeth = Some(Aeth::new(syndrome.byte(), 9));
            assert_eq!(
                Packet::new(path(None), opcode, headers, 0).to_string(),
                format!("{WAY}, RC Acknowledge, QPN 0x000007, PSN 0x000012, {text}, MSN 9, 0 bytes")
            );
        }
    }

    #[test]
    fn a_datagram_and_an_invalidation_show_their_keys() {
        let datagram = opcode(Transport::Ud, Operation::Send, Position::Only, Suffix::None);
        let mut headers = Headers::new(Bth::new(datagram, 1, Psn::new(2)));
        headers.deth = Some(Deth::new(0x8001_0000, 1));
        assert_eq!(
            Packet::new(path(None), datagram, headers, 1).to_string(),
            format!("{WAY}, UD SEND Only, QPN 0x000001, PSN 0x000002, Q_Key 0x80010000, source QPN 0x000001, 1 byte")
        );
        let send = opcode(Transport::Rc, Operation::Send, Position::Last, Suffix::Invalidate);
        let mut headers = Headers::new(Bth::new(send, 1, Psn::new(2)).with_congestion(true, false));
        headers.invalidate = Some(Ieth { rkey: 0x700.into() });
        assert_eq!(
            Packet::new(path(None), send, headers, 8).to_string(),
            format!(
                "{WAY}, RC SEND Last with Invalidate, QPN 0x000001, PSN 0x000002, FECN, \
                 invalidate R_Key 0x00000700, 8 bytes"
            )
        );
    }
}
