use etherparse::{EtherType, IpNumber, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;

/// Compares everything that etherparse parses of the frame as well.
fn assert_same(bytes: &[u8]) {
    let view = FrameView::new(bytes).unwrap();
    let other = SlicedPacket::from_ethernet(bytes).unwrap();
    let ids: Vec<u16> = view.vlan.iter().flatten().map(|tag| tag.id()).collect();
    let other_ids: Vec<u16> = other.vlan_ids().iter().map(|id| id.value()).collect();
    assert_eq!(ids, other_ids);
    match other.net {
        Some(NetSlice::Ipv4(slice)) => {
            let header = slice.header();
            let Network::Ipv4(ipv4) = view.network else {
                panic!("no IPv4 in {bytes:02x?}")
            };
            assert_eq!(ipv4.source, header.source());
            assert_eq!(ipv4.destination, header.destination());
            assert_eq!(ipv4.protocol, header.protocol().0);
            assert_eq!(ipv4.ttl, header.ttl());
            assert_eq!(ipv4.tos, header.dcp().value() << 2 | header.ecn().value());
            assert_eq!(ipv4.fragment, slice.is_payload_fragmented());
            assert_eq!(&bytes[view.transport_range()], slice.payload().payload);
        }
        Some(NetSlice::Ipv6(slice)) => {
            let header = slice.header();
            let Network::Ipv6(ipv6) = view.network else {
                panic!("no IPv6 in {bytes:02x?}")
            };
            assert_eq!(ipv6.source, header.source());
            assert_eq!(ipv6.destination, header.destination());
            assert_eq!(ipv6.hop_limit, header.hop_limit());
            assert_eq!(ipv6.traffic_class, header.traffic_class());
            assert_eq!(ipv6.flow_label, header.flow_label().value());
            assert_eq!(ipv6.protocol, slice.payload().ip_number.0);
            assert_eq!(ipv6.fragment, slice.is_payload_fragmented());
            assert_eq!(&bytes[view.transport_range()], slice.payload().payload);
        }
        _ => assert_eq!(view.network, Network::None),
    }
    match other.transport {
        Some(TransportSlice::Tcp(slice)) => {
            let flags = [
                slice.fin(),
                slice.syn(),
                slice.rst(),
                slice.psh(),
                slice.ack(),
                slice.urg(),
                slice.ece(),
                slice.cwr(),
                slice.ns(),
            ];
            let flags = flags.iter().rev().fold(0, |flags, &flag| flags << 1 | u16::from(flag));
            let expected = Tcp {
                header_length: slice.header_slice().len(),
                source_port: slice.source_port(),
                destination_port: slice.destination_port(),
                flags,
            };
            assert_eq!(view.transport, Transport::Tcp(expected));
        }
        Some(TransportSlice::Udp(slice)) => {
            let expected = Udp {
                source_port: slice.source_port(),
                destination_port: slice.destination_port(),
                length: slice.length(),
            };
            assert_eq!(view.transport, Transport::Udp(expected));
        }
        _ => assert_eq!(view.transport, Transport::None),
    }
}

#[test]
fn a_frame_shorter_than_its_header_is_none() {
    assert_eq!(FrameView::new(&[0; 13]), None);
    let view = FrameView::new(&[0; 14]).unwrap();
    assert_eq!((view.network_offset, view.network_end), (14, 14));
}

#[test]
fn padding_is_not_part_of_the_packet() {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(1, 2);
    builder.write(&mut frame, b"abc").unwrap();
    frame.resize(60, 0xee);
    let view = FrameView::new(&frame).unwrap();
    assert_eq!(view.transport_range(), 34..45);
    assert!(!view.truncated);
    let view = FrameView::new(&frame[..44]).unwrap();
    assert_eq!(view.transport_range(), 34..44);
    assert!(view.truncated);
}

#[test]
fn a_fragment_has_no_transport_but_a_lone_fragment_header_does_no_harm() {
    for (offset_and_more, fragment) in [(0u16, false), (1, true), (8 << 3, true), (0xfff9, true)] {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv6([3; 16], [4; 16], 64)
            .udp(1, 2);
        builder.write(&mut frame, b"payload").unwrap();
        frame[20] = protocol::FRAGMENT;
        let [high, low] = offset_and_more.to_be_bytes();
        frame.splice(54..54, [protocol::UDP, 0, high, low, 0, 0, 0, 1]);
        frame[19] += 8;
        let view = FrameView::new(&frame).unwrap();
        assert_eq!(view.is_fragment(), fragment);
        assert_eq!(matches!(view.transport, Transport::Udp(_)), !fragment);
        assert_same(&frame);
    }
}

#[test]
fn endless_extension_headers_end_the_search() {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv6([3; 16], [4; 16], 64);
    builder
        .write(
            &mut frame,
            IpNumber(60),
            &[protocol::DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0].repeat(100),
        )
        .unwrap();
    let view = FrameView::new(&frame).unwrap();
    assert_eq!(view.transport, Transport::None);
    assert_eq!(view.transport_offset, 54 + 8 * 8);
}

#[test]
fn ipsec_has_an_spi() {
    for (number, offset) in [(protocol::ESP, 0), (protocol::AH, 4)] {
        let mut payload = [0; 16];
        payload[offset..offset + 4].copy_from_slice(&0x1234_5678u32.to_be_bytes());
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([1; 4], [2; 4], 64);
        builder.write(&mut frame, IpNumber(number), &payload).unwrap();
        assert_eq!(
            FrameView::new(&frame).unwrap().transport,
            Transport::Ipsec { spi: 0x1234_5678 }
        );
    }
}

prop_compose! {
    /// Frames of the kinds that the NIC parses.
    fn frames()(
        vlans in 0..=2usize,
        vlan_id in 0..0xfffu16,
        v6: bool,
        tcp: bool,
        source: [u8; 16],
        ports: (u16, u16),
        sequence: u32,
        flags: [bool; 3],
        options in 0..=2usize,
        payload in prop::collection::vec(any::<u8>(), 0..200),
        padding in 0..10usize,
    ) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let id = |id: u16| id.try_into().unwrap();
        let v4: [u8; 4] = *source.first_chunk().unwrap();
        let ip = match (vlans, v6) {
            (0, false) => builder.ipv4(v4, [10, 0, 0, 2], 64),
            (0, true) => builder.ipv6(source, [5; 16], 64),
            (1, false) => builder.single_vlan(id(vlan_id)).ipv4(v4, [10, 0, 0, 2], 64),
            (1, true) => builder.single_vlan(id(vlan_id)).ipv6(source, [5; 16], 64),
            (_, false) => builder.double_vlan(id(vlan_id), id(7)).ipv4(v4, [10, 0, 0, 2], 64),
            (_, true) => builder.double_vlan(id(vlan_id), id(7)).ipv6(source, [5; 16], 64),
        };
        let mut frame = Vec::new();
        if tcp {
            let mut tcp = ip.tcp(ports.0, ports.1, sequence, 1000);
            if flags[0] { tcp = tcp.ack(77); }
            if flags[1] { tcp = tcp.psh(); }
            if flags[2] { tcp = tcp.cwr(); }
            tcp.options_raw(&[1, 1, 1, 1, 1, 1, 1, 1][..4 * options]).unwrap().write(&mut frame, &payload).unwrap();
        } else {
            ip.udp(ports.0, ports.1).write(&mut frame, &payload).unwrap();
        }
        frame.resize(frame.len() + padding, 0);
        frame
    }
}

proptest! {
    #[test]
    fn known_frames_are_seen_as_etherparse_sees_them(frame in frames()) {
        assert_same(&frame);
    }

    #[test]
    fn any_bytes_do_no_harm(
        mut frame in frames(),
        damage in prop::collection::vec((0..100usize, any::<u8>()), 0..8),
        cut in 0..400usize,
    ) {
        for (at, byte) in damage {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        frame.truncate(cut);
        for view in [FrameView::new(&frame), FrameView::new_unsegmented(&frame)].into_iter().flatten() {
            prop_assert!(view.network_offset <= view.transport_offset);
            prop_assert!(view.transport_offset <= view.network_end);
            prop_assert!(view.network_end <= frame.len());
            if let Transport::Tcp(tcp) = view.transport {
                prop_assert!(tcp.header_length <= view.transport_range().len());
            }
        }
    }

    #[test]
    fn noise_does_no_harm(
        mut noise in prop::collection::vec(any::<u8>(), 0..200),
        ethertype in prop::sample::select(vec![EtherType::IPV4.0, EtherType::IPV6.0, 0x8100, 0x88a8]),
    ) {
        if let Some(place) = noise.get_mut(12..14) {
            place.copy_from_slice(&ethertype.to_be_bytes());
        }
        let _ = FrameView::new(&noise);
        let _ = FrameView::new_unsegmented(&noise);
    }
}
