//! Transmit offloads, and RSS.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use mlx5_prm::queue_entry::Cqe;
use mlx5_prm::wqe::EthernetSegment;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::Request;
use mlx5_test_driver::tis_tir_rqt::modify_rqt;
use mlx5_test_driver::wait::await_some;

use crate::frames::{Packet, checksum_offset, header_length, network_offset, payload};
use crate::lan::Lan;
use crate::receive::packet;

const ALL: u8 = EthernetSegment::L3_CSUM | EthernetSegment::L4_CSUM;

/// Every kind of packet that an offload supports.
fn kinds(from: &Netdev, to: &Netdev) -> Vec<Packet> {
    let mut kinds = Vec::new();
    for (ipv6, tcp) in [(false, true), (false, false), (true, true), (true, false)] {
        for vlan in [None, Some(42)] {
            kinds.push(Packet {
                ipv6,
                tcp,
                vlan,
                ..packet(from, to)
            });
        }
    }
    kinds
}

#[test]
fn checksums_are_filled_in() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    for kind in kinds(a, b) {
        for length in [0, 1, 17, 100, 1001] {
            let right = Packet { length, ..kind }.build();
            let mut sent = right.clone();
            let at = checksum_offset(&sent, kind.tcp);
            // The kernel leaves the sum of the pseudo-header there, which the device must ignore.
            sent[at..at + 2].copy_from_slice(&[0xde, 0xad]);
            if !kind.ipv6 {
                let at = network_offset(&sent) + 10;
                sent[at..at + 2].fill(0);
            }
            a.send_with(
                &sent,
                Request {
                    checksums: ALL,
                    ..Request::default()
                },
            );
            let received = b.receive();
            assert_eq!(received.frame[..right.len()], right, "{kind:?}");
            assert_eq!(received.cqe.hds_ip_ext, Cqe::L3_OK | Cqe::L4_OK);
        }
    }
    lan.end();
}

#[test]
fn checksums_are_left_alone_if_not_asked_for() {
    let mut lan = Lan::new(2, &Options::default());
    let (a, b) = lan.pair();
    let mut frame = packet(a, b).build();
    let at = checksum_offset(&frame, true);
    frame[at..at + 2].copy_from_slice(&[0xde, 0xad]);
    a.send_with(
        &frame,
        Request {
            checksums: EthernetSegment::L3_CSUM,
            ..Request::default()
        },
    );
    assert_eq!(b.receive().frame, frame);
    lan.end();
}

/// Checks a segment's headers. Returns its sequence number, if it has one, flags and payload.
fn dissect(frame: &[u8], tcp: bool) -> (u32, bool, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let transport = packet.transport.as_ref().unwrap();
    let net = packet.net.as_ref().unwrap();
    let offset = checksum_offset(frame, tcp);
    let given = u16::from_be_bytes([frame[offset], frame[offset + 1]]);
    let (sequence, push, payload, expected) = match (transport, net) {
        (TransportSlice::Tcp(slice), NetSlice::Ipv4(ip)) => {
            let expected = slice
                .calc_checksum_ipv4(ip.header().source(), ip.header().destination())
                .unwrap();
            (slice.sequence_number(), slice.psh(), slice.payload().to_vec(), expected)
        }
        (TransportSlice::Tcp(slice), NetSlice::Ipv6(ip)) => {
            let expected = slice
                .calc_checksum_ipv6(ip.header().source(), ip.header().destination())
                .unwrap();
            (slice.sequence_number(), slice.psh(), slice.payload().to_vec(), expected)
        }
        (TransportSlice::Udp(slice), NetSlice::Ipv4(ip)) => {
            let header = slice.to_header();
            let expected =
                header.calc_checksum_ipv4_raw(ip.header().source(), ip.header().destination(), slice.payload());
            (0, false, slice.payload().to_vec(), expected.unwrap())
        }
        (TransportSlice::Udp(slice), NetSlice::Ipv6(ip)) => {
            let header = slice.to_header();
            let expected =
                header.calc_checksum_ipv6_raw(ip.header().source(), ip.header().destination(), slice.payload());
            (0, false, slice.payload().to_vec(), expected.unwrap())
        }
        _ => panic!("neither TCP nor UDP"),
    };
    assert_eq!(given, expected, "the checksum is right");
    if let NetSlice::Ipv4(ip) = net {
        let header = ip.header();
        assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
    }
    (sequence, push, payload)
}

#[test]
fn a_large_packet_is_cut_into_segments() {
    let mut lan = Lan::new(
        2,
        &Options {
            log_rq: 7,
            ..Options::default()
        },
    );
    let (a, b) = lan.pair();
    for kind in kinds(a, b) {
        for (length, mss) in [
            (1, 1000),
            (1000, 1000),
            (1001, 1000),
            (4321, 1440),
            (40_000, 1400),
            (60_000, 1000),
        ] {
            let whole = Packet { length, ..kind }.build();
            let headers = header_length(&whole);
            // Half of the headers inline and the rest in memory, which no driver does.
            let (inline, rest) = whole.split_at(headers / 2);
            a.send_with(
                rest,
                Request {
                    inline,
                    checksums: ALL,
                    mss,
                    ..Request::default()
                },
            );
            let count = length.div_ceil(mss.into());
            let mut payload = Vec::new();
            let first_id = u16::from_be_bytes([whole[network_offset(&whole) + 4], whole[network_offset(&whole) + 5]]);
            for number in 0..count {
                let received = b.receive();
                let (sequence, push, part) = dissect(&received.frame, kind.tcp);
                assert_eq!(received.cqe.hds_ip_ext, Cqe::L3_OK | Cqe::L4_OK);
                assert_eq!(
                    received.frame[..network_offset(&whole)],
                    whole[..network_offset(&whole)]
                );
                if kind.tcp {
                    assert_eq!(sequence, 0x0123_4567 + payload.len() as u32);
                    assert_eq!(push, number + 1 == count, "only the last one pushes");
                }
                if !kind.ipv6 {
                    let at = network_offset(&whole) + 4;
                    let id = u16::from_be_bytes([received.frame[at], received.frame[at + 1]]);
                    assert_eq!(id, first_id.wrapping_add(number as u16));
                }
                assert_eq!(part.len(), usize::from(mss).min(length - payload.len()));
                payload.extend(part);
            }
            assert_eq!(payload, whole[headers..], "{kind:?}, {length} bytes by {mss}");
            assert!(b.poll().is_none(), "one segment too many");
        }
    }
    lan.end();
}

/// BIG TCP: up to `GSO_MAX_SIZE`, with length fields of 0 (Documentation/networking/netdevices.rst, `gso_max_size`).
#[test]
fn a_packet_longer_than_its_length_field_is_cut_into_segments() {
    let mut lan = Lan::new(
        2,
        &Options {
            log_rq: 9,
            log_cq: 10,
            ..Options::default()
        },
    );
    let (a, b) = lan.pair();
    for ipv6 in [false, true] {
        let mut whole = Packet {
            ipv6,
            length: 0,
            ..packet(a, b)
        }
        .build();
        let headers = whole.len();
        let length_field = network_offset(&whole) + if ipv6 { 4 } else { 2 };
        whole[length_field..length_field + 2].fill(0);
        whole.extend(payload(8 * 65_535 - headers));
        a.send_with(
            &whole,
            Request {
                checksums: ALL,
                mss: 1400,
                ..Request::default()
            },
        );
        let mut found = Vec::new();
        while found.len() < whole.len() - headers {
            let (sequence, _, part) = dissect(&b.receive().frame, true);
            assert_eq!(sequence, 0x0123_4567 + found.len() as u32);
            found.extend(part);
        }
        assert!(found == whole[headers..], "IPv6: {ipv6}");
        assert!(b.poll().is_none(), "one segment too many");
    }
    lan.end();
}

/// The Toeplitz hash by its definition, bit by bit.
fn toeplitz(key: &[u8; 40], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (7 - at % 8) & 1 != 0;
    let window = |at: usize| (0..32).fold(0, |window, next| window << 1 | u32::from(bit(key, at + next)));
    (0..input.len() * 8)
        .filter(|&at| bit(input, at))
        .fold(0, |hash, at| hash ^ window(at))
}

#[test]
fn flows_spread_over_the_channels_by_their_hash() {
    let mut lan = Lan::new(
        2,
        &Options {
            channels: 4,
            ..Options::default()
        },
    );
    let (a, b) = lan.pair();
    let mut seen = [0; 4];
    for kind in kinds(a, b) {
        for port in 1000..1040 {
            let frame = Packet {
                ports: (port, 5001),
                ..kind
            }
            .build();
            a.send(&frame);
            let (channel, received) = await_some("a frame", || b.poll());
            assert_eq!(received.frame, frame);
            let network = network_offset(&frame);
            let (addresses, ports) = if kind.ipv6 { (8..40, 40..44) } else { (12..20, 20..24) };
            let at = |range: std::ops::Range<usize>| &frame[network + range.start..network + range.end];
            let hash = toeplitz(b.hash_key(), &[at(addresses), at(ports)].concat());
            assert_eq!(received.cqe.rss_hash_result.get(), hash, "{kind:?}");
            assert_ne!(received.cqe.rss_hash_type, 0);
            assert_eq!(channel, hash as usize % 4, "{kind:?}");
            seen[channel] += 1;
        }
    }
    assert!(seen.iter().all(|&count| count > 40), "{seen:?}");
    lan.end();
}

#[test]
fn the_table_behind_the_hash_can_change() {
    let mut lan = Lan::new(
        2,
        &Options {
            channels: 2,
            ..Options::default()
        },
    );
    let (a, b) = lan.pair();
    let only = b.channels[1].rq.number;
    modify_rqt(&b.hca, b.rqtn, &[only]).unwrap();
    for port in 1000..1020 {
        a.send(
            &Packet {
                ports: (port, 1),
                ..packet(a, b)
            }
            .build(),
        );
        let (channel, _) = await_some("a frame", || b.poll());
        assert_eq!(channel, 1);
    }
    lan.end();
}
