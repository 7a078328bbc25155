use etherparse::{PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice, UdpHeader};

use super::*;

const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DESTINATION: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 256) as u8).collect()
}

fn ipv4() -> PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(SOURCE, DESTINATION).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
}

fn tcp(length: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = ipv4().tcp(1, 2, 1000, 100).ack(7).psh();
    builder.write(&mut frame, &bytes(length)).unwrap();
    frame
}

fn udp(length: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    ipv4().udp(1, 2).write(&mut frame, &bytes(length)).unwrap();
    frame
}

/// Replaces the checksum at `at` by the sum of the pseudo header, as a sender that leaves the rest to its device.
fn without_checksum(mut frame: Vec<u8>, at: usize, protocol: u8) -> Vec<u8> {
    let mut sum = Sum::of(&frame[26..34]);
    sum.add_u16(u16::from(protocol));
    sum.add_u16((frame.len() - 34) as u16);
    frame[at..at + 2].copy_from_slice(&sum.fold().to_be_bytes());
    frame
}

fn header(flags: u8, gso_type: u8, gso_size: u16, offset: u16) -> VnetHeader {
    VnetHeader {
        flags,
        gso_type,
        hdr_len: 54.into(),
        gso_size: gso_size.into(),
        csum_start: 34.into(),
        csum_offset: offset.into(),
    }
}

fn complete(header: &VnetHeader, frame: &[u8]) -> Result<Vec<Vec<u8>>, VnetError> {
    let mut frames = VecDeque::new();
    header.complete(frame, &mut frames).map(|()| frames.into())
}

/// A UDP datagram whose checksum is 0 without the replacement by 0xffff.
fn udp_with_sum_of_zero() -> Vec<u8> {
    let mut payload = [0, 0];
    for number in 0..=u16::MAX {
        payload = number.to_be_bytes();
        let ip = etherparse::Ipv4Header::new(10, 64, etherparse::IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
        let header = UdpHeader::with_ipv4_checksum(1, 2, &ip, &payload).unwrap();
        if header.checksum == 0xffff {
            break;
        }
    }
    let mut frame = Vec::new();
    ipv4().udp(1, 2).write(&mut frame, &payload).unwrap();
    frame
}

#[test]
fn a_complete_frame_stays_as_it_is() {
    let frame = tcp(100);
    assert_eq!(complete(&VnetHeader::default(), &frame), Ok(vec![frame.clone()]));
    // DATA_VALID.
    assert_eq!(complete(&header(2, GSO_NONE, 0, 0), &frame), Ok(vec![frame]));
    assert_eq!(complete(&VnetHeader::default(), &[]), Ok(vec![vec![]]));
}

#[test]
fn a_checksum_is_filled_in() {
    for length in [0, 1, 2, 999] {
        let (tcp, udp) = (tcp(length), udp(length));
        let partial = without_checksum(tcp.clone(), 50, 6);
        assert_ne!(partial, tcp);
        assert_eq!(complete(&header(NEEDS_CSUM, GSO_NONE, 0, 16), &partial), Ok(vec![tcp]));
        let partial = without_checksum(udp.clone(), 40, 17);
        assert_eq!(complete(&header(NEEDS_CSUM, GSO_NONE, 0, 6), &partial), Ok(vec![udp]));
    }
    let frame = udp_with_sum_of_zero();
    assert_eq!(frame[40..42], [0xff, 0xff]);
    let partial = without_checksum(frame.clone(), 40, 17);
    assert_eq!(complete(&header(NEEDS_CSUM, GSO_NONE, 0, 6), &partial), Ok(vec![frame]));
}

/// CRC32c, bit by bit (RFC 9260, appendix A).
fn crc32c_of(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), bit);
    !bytes.iter().fold(u32::MAX, byte)
}

#[test]
fn a_packet_of_sctp_gets_its_crc32c() {
    assert_eq!(crc32c_of(b"123456789"), 0xe306_9283);
    let sctp = etherparse::IpNumber::SCTP;
    let ethernet = || PacketBuilder::ethernet2(SOURCE, DESTINATION);
    let packets = [
        (ethernet().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64), 34),
        (ethernet().ipv6([1; 16], [2; 16], 64), 54),
        (
            ethernet()
                .single_vlan(7.try_into().unwrap())
                .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
            38,
        ),
    ];
    for (builder, start) in packets {
        let mut frame = Vec::new();
        builder.write(&mut frame, sctp, &bytes(41)).unwrap();
        let end = frame.len();
        // Padding of Ethernet is no part of it.
        frame.extend([0xff; 5]);
        let mut header = header(NEEDS_CSUM, GSO_NONE, 0, 8);
        header.csum_start = (start as u16).into();
        let mut expected = frame.clone();
        expected[start + 8..start + 12].fill(0);
        let checksum = crc32c_of(&expected[start..end]);
        expected[start + 8..start + 12].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(complete(&header, &frame), Ok(vec![expected]));
        // Without the flag it passes as it is.
        assert_eq!(complete(&VnetHeader::default(), &frame), Ok(vec![frame]));
    }
    // The same place in a packet of another protocol, and a packet without room for the checksum.
    assert!(complete(&header(NEEDS_CSUM, GSO_NONE, 0, 8), &udp(40)).is_ok());
    let mut short = Vec::new();
    ipv4().write(&mut short, sctp, &bytes(11)).unwrap();
    assert!(complete(&header(NEEDS_CSUM, GSO_NONE, 0, 8), &short).is_ok());
}

#[test]
fn a_large_frame_becomes_segments() {
    let data = bytes(4001);
    let ecn = header(NEEDS_CSUM, GSO_TCPV4 | GSO_ECN, 1000, 16);
    let segments = complete(&ecn, &without_checksum(tcp(4001), 50, 6)).unwrap();
    assert_eq!(segments.len(), 5);
    let mut got = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let packet = SlicedPacket::from_ethernet(segment).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
            panic!("no TCP in segment {index}");
        };
        let ip = packet.net.unwrap();
        let ip = ip.ipv4_ref().unwrap().header();
        assert_eq!(ip.to_header().calc_header_checksum(), ip.header_checksum());
        assert_eq!(tcp.sequence_number(), 1000 + got.len() as u32);
        assert_eq!(
            tcp.calc_checksum_ipv4(ip.source(), ip.destination()),
            Ok(tcp.checksum())
        );
        assert_eq!(tcp.psh(), index == 4);
        got.extend_from_slice(tcp.payload());
    }
    assert!(got == data);
    let datagrams = complete(
        &header(NEEDS_CSUM, GSO_UDP_L4, 300, 6),
        &without_checksum(udp(700), 40, 17),
    )
    .unwrap();
    assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [342, 342, 142]);
}

#[test]
fn a_header_that_makes_no_sense_is_refused() {
    let frame = tcp(100);
    let refused = |header: VnetHeader, frame: &[u8]| complete(&header, frame).unwrap_err();
    let end = frame.len() as u16;
    for (start, offset) in [(end, 0), (end - 2, 1), (0xffff, 0xffff), (34, end)] {
        let mut header = header(NEEDS_CSUM, GSO_NONE, 0, offset);
        header.csum_start = start.into();
        let length = frame.len();
        assert_eq!(refused(header, &frame), VnetError::Checksum { start, offset, length });
    }
    // UFO is not negotiated, 2 is none.
    for kind in [2, 3, 0x7f] {
        assert_eq!(refused(header(0, kind, 100, 16), &frame), VnetError::GsoType(kind));
    }
    assert_eq!(
        refused(header(0, GSO_TCPV6, 50, 16), &frame),
        VnetError::Protocol(GSO_TCPV6)
    );
    assert_eq!(
        refused(header(0, GSO_UDP_L4, 50, 6), &frame),
        VnetError::Protocol(GSO_UDP_L4)
    );
    assert_eq!(
        refused(header(0, GSO_TCPV4, 50, 16), &frame[..33]),
        VnetError::Protocol(GSO_TCPV4)
    );
    assert_eq!(
        refused(header(0, GSO_TCPV4, 50, 16), &[]),
        VnetError::Protocol(GSO_TCPV4)
    );
    assert_eq!(
        refused(header(0, GSO_TCPV4, 0, 16), &frame),
        VnetError::Segmentation(TsoError::NoPayload)
    );
    assert_eq!(
        refused(header(0, GSO_TCPV4, 1, 16), &tcp(8193)),
        VnetError::Segments(8193)
    );
    assert_eq!(
        complete(&header(0, GSO_TCPV4, 1, 16), &tcp(8192)).map(|frames| frames.len()),
        Ok(8192)
    );
}
