use super::{Error, MAX_HEAD, Packet, emit_headers, is_roce};
use crate::frame::checksum::Sum;
use crate::frame::mac::Mac;
use crate::frame::view::FrameView;
use crate::roce::gid::Gid;
use crate::roce::headers::{Aeth, AtomicAckEth, AtomicEth, Bth, Deth, Headers, Ieth, ImmDt, Reth, XrcEth};
use crate::roce::opcode::{Extension, Opcode};
use crate::roce::path::{Addresses, Path, Vlan};
use crate::roce::psn::Psn;
use crate::roce::{MAX_PAYLOAD, grh_area, icrc};
use proptest::prelude::*;
use zerocopy::byteorder::big_endian::{U32, U64};

pub(in crate::roce) fn ipv4_path() -> Path {
    Path {
        source_mac: Mac([0x52, 0x54, 0, 0, 0xc5, 1]),
        destination_mac: Mac([0x52, 0x54, 0, 0, 0xc5, 2]),
        vlan: None,
        addresses: Addresses::Ipv4 {
            source: [10, 1, 2, 3],
            destination: [10, 1, 2, 4],
        },
        udp_source_port: 0xc123,
        traffic_class: 0x6a,
        hop_limit: 64,
        flow_label: 0,
    }
}

pub(in crate::roce) fn ipv6_path() -> Path {
    let address = |last| [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0, 0xc5, last];
    Path {
        addresses: Addresses::Ipv6 {
            source: address(1),
            destination: address(2),
        },
        flow_label: 0x5_4321,
        ..ipv4_path()
    }
}

pub(in crate::roce) fn v1_path() -> Path {
    let ipv6 = ipv6_path();
    Path {
        addresses: Addresses::Grh {
            source: ipv6.addresses.source().0,
            destination: ipv6.addresses.destination().0,
        },
        udp_source_port: 0,
        ..ipv6
    }
}

/// IPv4-mapped GIDs, and a tag.
pub(in crate::roce) fn v1_vlan_path() -> Path {
    let ipv4 = vlan_path();
    Path {
        addresses: Addresses::Grh {
            source: ipv4.addresses.source().0,
            destination: ipv4.addresses.destination().0,
        },
        flow_label: 0x5_4321,
        udp_source_port: 0,
        ..ipv4
    }
}

pub(in crate::roce) fn vlan_path() -> Path {
    Path {
        vlan: Some(Vlan { id: 0x123, priority: 5 }),
        ..ipv4_path()
    }
}

/// Headers of an opcode, none of them empty.
fn headers(opcode: Opcode) -> Headers {
    let mut headers = Headers::new(Bth::new(opcode, 0x12_3456, Psn::new(0xff_fffe)));
    for extension in opcode.extensions() {
        match extension {
            Extension::XrcEth => headers.xrc = Some(XrcEth::new(0x77)),
            Extension::Deth => headers.deth = Some(Deth::new(0x8001_0000, 1)),
            Extension::Reth => headers.reth = Some(Reth::new(0x1122_3344_5566_7788, 0xcafe_f00d, 5)),
            Extension::AtomicEth => {
                headers.atomic = Some(AtomicEth {
                    virtual_address: U64::new(0x1000),
                    rkey: U32::new(3),
                    swap_or_add: U64::new(4),
                    compare: U64::new(5),
                });
            }
            Extension::Aeth => headers.aeth = Some(Aeth::new(0x1f, 0x2a)),
            Extension::AtomicAckEth => {
                headers.atomic_ack = Some(AtomicAckEth {
                    original: U64::new(u64::MAX),
                });
            }
            Extension::ImmDt => {
                headers.immediate = Some(ImmDt {
                    immediate: [1, 2, 3, 4],
                });
            }
            Extension::Ieth => headers.invalidate = Some(Ieth { rkey: U32::new(6) }),
        }
    }
    headers
}

/// The head of a packet.
pub(in crate::roce) fn head(path: &Path, opcode: u8, payload_length: usize) -> Vec<u8> {
    let opcode = Opcode::from_byte(opcode).expect("a known opcode");
    let mut head = vec![];
    emit_headers(path, &headers(opcode), payload_length, &mut head);
    head
}

/// The whole packet.
pub(in crate::roce) fn materialise(head: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![];
    let view = FrameView::new(head).expect("a frame");
    assert!(icrc::append(&view, [payload], &mut packet), "the head of a packet");
    packet
}

fn parse(frame: &[u8]) -> Result<Packet, Error> {
    Packet::new_checked(&FrameView::new(frame).expect("a frame"))
}

fn fix_checksum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let checksum = Sum::of(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

#[test]
fn an_ipv4_head_has_these_bytes() {
    let expected = [
        0x52, 0x54, 0, 0, 0xc5, 2, 0x52, 0x54, 0, 0, 0xc5, 1, 0x08, 0x00, // Ethernet
        0x45, 0x6a, 0, 52, 0, 0, 0x40, 0, 64, 17, 0x22, 0x47, 10, 1, 2, 3, 10, 1, 2, 4, // IPv4
        0xc1, 0x23, 0x12, 0xb7, 0, 32, 0, 0, // UDP
        0x04, 0x70, 0xff, 0xff, 0, 0x12, 0x34, 0x56, 0, 0xff, 0xff, 0xfe, // BTH
    ];
    assert_eq!(head(&ipv4_path(), 0x04, 5), expected);
}

#[test]
fn an_ipv6_head_has_these_bytes() {
    let head = head(&ipv6_path(), 0x11, 0);
    assert_eq!(head[12..22], [0x86, 0xdd, 0x66, 0xa5, 0x43, 0x21, 0, 28, 17, 64]);
    assert_eq!(head[54..62], [0xc1, 0x23, 0x12, 0xb7, 0, 28, 0, 0]);
    assert_eq!(head[74..], [0x1f, 0, 0, 0x2a]);
}

#[test]
fn a_head_of_version_1_has_these_bytes() {
    let head = head(&v1_path(), 0x04, 5);
    let expected = [
        0x89, 0x15, // Ethertype
        0x66, 0xa5, 0x43, 0x21, 0, 24, 0x1b, 64, // GRH
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0, 0xc5, 1, // SGID
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0, 0xc5, 2, // DGID
        0x04, 0x70, 0xff, 0xff, 0, 0x12, 0x34, 0x56, 0, 0xff, 0xff, 0xfe, // BTH
    ];
    assert_eq!(head[12..], expected);
}

#[test]
fn a_route_header_that_leads_nowhere_is_refused() {
    let good = materialise(&head(&v1_path(), 0x04, 4), &[9; 4]);
    assert!(parse(&good).is_ok());
    let spoil = |offset: usize, value: u8| {
        let mut frame = good.clone();
        frame[offset] = value;
        let view = FrameView::new(&frame).expect("a frame");
        assert!(is_roce(&view) == (offset > 13) && !icrc::check(&view), "byte {offset}");
        parse(&frame)
    };
    // IPVer, NxtHdr, ethertype.
    assert_eq!(spoil(14, 0x46), Err(Error::Grh));
    assert_eq!(spoil(20, 17), Err(Error::Grh));
    assert_eq!(spoil(13, 0x16), Err(Error::NotRoce));
    // PayLen: shorter than BTH and ICRC, longer than the frame.
    for length in [0, 15, 24, 0xff] {
        assert_eq!(spoil(19, length), Err(Error::Length), "{length}");
    }
    for length in 0..good.len() {
        let Some(view) = FrameView::new(&good[..length]) else {
            continue;
        };
        assert!(Packet::new_checked(&view).is_err() && !icrc::check(&view), "{length}");
    }
    let mut padded = good.clone();
    padded.resize(120, 0xee);
    assert_eq!(parse(&padded), parse(&good));
}

#[test]
fn a_tag_stands_behind_the_addresses() {
    assert_eq!(
        head(&vlan_path(), 0x04, 0)[12..20],
        [0x81, 0, 0xa1, 0x23, 0x08, 0, 0x45, 0x6a]
    );
}

#[test]
fn the_kind_of_the_own_address_decides_the_kind_of_packet() {
    let ipv4 = Addresses::new(Gid::from_ipv4([1, 2, 3, 4]), Gid([7; 16]));
    assert_eq!(
        ipv4,
        Addresses::Ipv4 {
            source: [1, 2, 3, 4],
            destination: [7; 4]
        }
    );
    let ipv6 = Addresses::new(Gid([6; 16]), Gid::from_ipv4([1, 2, 3, 4]));
    assert_eq!(ipv6.source(), Gid([6; 16]));
    assert_eq!(ipv6.destination(), Gid::from_ipv4([1, 2, 3, 4]));
    assert!(matches!(ipv6, Addresses::Ipv6 { .. }));
}

#[test]
fn ethernet_padding_is_not_payload() {
    let mut frame = materialise(&head(&ipv4_path(), 0x04, 1), &[9]);
    frame.resize(80, 0xee);
    let packet = parse(&frame).expect("a packet");
    assert_eq!((packet.payload_offset, packet.payload_length), (54, 1));
    assert_eq!(frame[packet.payload_offset], 9);
}

#[test]
fn a_frame_that_lacks_its_last_byte_is_refused() {
    let frame = materialise(&head(&ipv4_path(), 0x04, 8), &[9; 8]);
    assert!(parse(&frame).is_ok());
    assert_eq!(parse(&frame[..frame.len() - 1]), Err(Error::Length));
}

#[test]
fn a_head_is_no_packet() {
    let head = head(&ipv4_path(), 0x04, 8);
    assert_eq!(parse(&head), Err(Error::Length));
}

#[test]
fn lengths_that_contradict_each_other_are_refused() {
    // UDP lengths: shorter than its header, than BTH and ICRC, than RETH and ICRC.
    for length in [0, 7, 23, 24, 39] {
        let mut frame = materialise(&head(&ipv4_path(), 0x0a, 8), &[9; 8]);
        frame[38..40].copy_from_slice(&u16::to_be_bytes(length));
        assert_eq!(parse(&frame), Err(Error::Length), "{length}");
    }
    // Padding without payload.
    let mut frame = materialise(&head(&ipv4_path(), 0x04, 0), &[]);
    frame[43] |= 0x10;
    assert_eq!(parse(&frame), Err(Error::Length));
    // A UDP length that reaches into Ethernet padding.
    let mut frame = materialise(&head(&ipv4_path(), 0x04, 8), &[9; 8]);
    frame.resize(100, 0);
    frame[39] += 4;
    assert_eq!(parse(&frame), Err(Error::Length));
}

#[test]
fn what_no_roce_port_takes_is_refused() {
    let good = materialise(&head(&ipv4_path(), 0x04, 4), &[9; 4]);
    let spoil = |offset: usize, value: u8| {
        let mut frame = good.clone();
        frame[offset] = value;
        parse(&frame)
    };
    assert_eq!(spoil(37, 0xb8), Err(Error::NotRoce));
    assert_eq!(spoil(22, 63), Err(Error::HeaderChecksum));
    assert_eq!(spoil(43, 0x41), Err(Error::Version(1)));
    assert!(matches!(spoil(42, 0x15), Err(Error::Opcode(bth)) if bth.opcode == 0x15));
    let mut fragment = good.clone();
    fragment[20] = 0x20;
    fix_checksum(&mut fragment);
    assert_eq!(parse(&fragment), Err(Error::NotRoce));
    let mut service_tag = materialise(&head(&vlan_path(), 0x04, 4), &[9; 4]);
    service_tag[12..14].copy_from_slice(&[0x88, 0xa8]);
    assert_eq!(parse(&service_tag), Err(Error::Vlan));
}

#[test]
fn ip_options_are_refused() {
    let mut ipv4 = materialise(&head(&ipv4_path(), 0x04, 4), &[9; 4]);
    ipv4.splice(34..34, [1; 4]);
    ipv4[14] = 0x46;
    ipv4[17] += 4;
    assert_eq!(parse(&ipv4), Err(Error::Options));
    assert!(!icrc::check(&FrameView::new(&ipv4).expect("a frame")));
    // Destination options in front of UDP, filled with padding.
    let mut ipv6 = materialise(&head(&ipv6_path(), 0x04, 4), &[9; 4]);
    ipv6.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
    ipv6[19] += 8;
    ipv6[20] = 60;
    assert_eq!(parse(&ipv6), Err(Error::Options));
    assert!(!icrc::check(&FrameView::new(&ipv6).expect("a frame")));
}

#[test]
fn a_damaged_packet_is_still_not_for_the_network_stack() {
    let mut frame = materialise(&head(&ipv4_path(), 0x04, 4), &[9; 4]);
    frame[43] |= 1;
    assert!(is_roce(&FrameView::new(&frame).expect("a frame")));
    frame[37] = 0;
    assert!(!is_roce(&FrameView::new(&frame).expect("a frame")));
}

fn addresses() -> impl Strategy<Value = Addresses> {
    prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(source, destination)| Addresses::Ipv4 { source, destination }),
        any::<([u8; 16], [u8; 16])>().prop_map(|(source, destination)| Addresses::Ipv6 { source, destination }),
        any::<([u8; 16], [u8; 16])>().prop_map(|(source, destination)| Addresses::Grh { source, destination }),
    ]
}

prop_compose! {
    fn paths()(
        macs: ([u8; 6], [u8; 6]),
        vlan in proptest::option::of((0..0x1000u16, 0..8u8)),
        addresses in addresses(),
        udp_source_port: u16,
        traffic_class: u8,
        hop_limit: u8,
        flow_label in 0..0x10_0000u32,
    ) -> Path {
        Path {
            source_mac: Mac(macs.0),
            destination_mac: Mac(macs.1),
            vlan: vlan.map(|(id, priority)| Vlan { id, priority }),
            addresses,
            udp_source_port: if addresses.is_v1() { 0 } else { udp_source_port },
            traffic_class,
            hop_limit,
            flow_label: if matches!(addresses, Addresses::Ipv4 { .. }) { 0 } else { flow_label },
        }
    }
}

fn opcodes() -> impl Strategy<Value = Opcode> {
    any::<u8>().prop_filter_map("an unknown opcode", Opcode::from_byte)
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        path in paths(),
        opcode in opcodes(),
        qpn in 0..0x100_0000u32,
        psn: u32,
        bits: (bool, bool, bool, bool),
        payload in proptest::collection::vec(any::<u8>(), 0..=MAX_PAYLOAD),
    ) {
        let mut headers = headers(opcode);
        headers.bth = Bth::new(opcode, qpn, Psn::new(psn))
            .with_solicited(bits.0)
            .with_ack_request(bits.1)
            .with_congestion(bits.2, bits.3);
        let mut head = vec![];
        emit_headers(&path, &headers, payload.len(), &mut head);
        prop_assert!(head.len() <= MAX_HEAD);
        let expected = Packet::new(path, opcode, headers, payload.len());
        prop_assert_eq!(expected.payload_offset, head.len());
        prop_assert_eq!(expected.headers.bth.pad(), (4 - payload.len() % 4) as u8 % 4);
        let frame = materialise(&head, &payload);
        prop_assert_eq!(parse(&frame), Ok(expected));
        prop_assert_eq!(&frame[head.len()..][..payload.len()], &payload[..]);
        prop_assert_eq!(frame.len(), head.len() + payload.len().next_multiple_of(4) + 4);
        // The frame ends where its IP header says.
        let end = FrameView::new(&frame).map(|view| (view.network_end, view.truncated));
        prop_assert_eq!(end, Some((frame.len(), false)));
    }

    #[test]
    fn no_bytes_are_too_bad(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(view) = FrameView::new(&bytes) {
            let _ = Packet::new_checked(&view);
            let _ = icrc::check(&view);
            let _ = icrc::append(&view, [&bytes[..]], &mut vec![]);
            let _ = grh_area::area(&view);
        }
    }

    #[test]
    fn no_damage_to_a_packet_is_too_bad(
        path in paths(),
        opcode in opcodes(),
        damage in proptest::collection::vec((0..120usize, any::<u8>()), 0..4),
        cut in 0..=120usize,
    ) {
        let mut head = vec![];
        emit_headers(&path, &headers(opcode), 16, &mut head);
        let mut frame = materialise(&head, &[0x5a; 16]);
        for (offset, value) in damage {
            if let Some(byte) = frame.get_mut(offset) {
                *byte = value;
            }
        }
        frame.truncate(cut);
        if let Some(view) = FrameView::new(&frame) {
            if let Ok(packet) = Packet::new_checked(&view) {
                prop_assert!(frame.get(packet.payload_offset..packet.payload_offset + packet.payload_length).is_some());
            }
            let _ = icrc::check(&view);
            let _ = grh_area::area(&view);
        }
    }
}
