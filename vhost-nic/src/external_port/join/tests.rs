use std::collections::VecDeque;

use etherparse::{PacketBuilder, PacketBuilderStep, TcpOptionElement};

use super::*;

const ALL: Offloads = Offloads {
    checksum: true,
    tcp_v4: true,
    tcp_v6: true,
};

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 256) as u8).collect()
}

fn ipv4() -> PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
}

fn ipv6() -> PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv6([1; 16], [2; 16], 64)
}

fn tagged() -> PacketBuilderStep<etherparse::IpHeaders> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    ethernet
        .single_vlan(7.try_into().unwrap())
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
}

/// A segment with options, as Linux sends them.
fn segment(ip: PacketBuilderStep<etherparse::IpHeaders>, sequence: u32, payload: &[u8], push: bool) -> Vec<u8> {
    let builder = ip.tcp(1, 2, sequence, 100).ack(7);
    let builder = if push { builder.psh() } else { builder };
    let options = [
        TcpOptionElement::Noop,
        TcpOptionElement::Noop,
        TcpOptionElement::Timestamp(5, 6),
    ];
    let mut frame = Vec::new();
    builder.options(&options).unwrap().write(&mut frame, payload).unwrap();
    frame
}

/// Sends joined segments apart again.
fn apart(outgoing: &Outgoing) -> Vec<Vec<u8>> {
    let mut frames = VecDeque::new();
    outgoing.header.complete(&outgoing.frame, &mut frames).unwrap();
    frames.into()
}

/// A frame with its checksums filled in again.
fn with_checksums(mut frame: Vec<u8>) -> Vec<u8> {
    fill(&mut frame, Fill { l3: true, l4: true });
    frame
}

#[test]
fn joined_segments_come_apart_as_they_were() {
    for ip in [ipv4, ipv6, tagged] {
        for (lengths, push) in [
            (&[1000, 1000, 1000][..], true),
            (&[1448, 1448, 3], false),
            (&[1, 1], true),
        ] {
            let mut sequence = u32::MAX - 500;
            let mut frames = Vec::new();
            for (index, length) in lengths.iter().enumerate() {
                let last = index + 1 == lengths.len();
                let mut frame = segment(ip(), sequence, &bytes(*length), push && last);
                let network = FrameView::new(&frame).unwrap().network_offset;
                if frame[network] >> 4 == 4 {
                    frame[network + 4..network + 6].copy_from_slice(&(40 + index as u16).to_be_bytes());
                    frame = with_checksums(frame);
                }
                frames.push(frame);
                sequence = sequence.wrapping_add(*length as u32);
            }
            let mut joiner = Joiner::new(frames[0].clone(), ALL);
            for frame in &frames[1..] {
                assert!(joiner.join(frame), "{lengths:?}");
            }
            assert_eq!(
                joiner.takes_more(),
                !push && lengths.windows(2).all(|pair| pair[0] == pair[1])
            );
            let outgoing = joiner.finish();
            assert_eq!(outgoing.frames, lengths.len());
            assert_eq!(apart(&outgoing), frames, "{lengths:?}");
        }
    }
}

#[test]
fn what_does_not_continue_the_stream_stays_alone() {
    let data = bytes(100);
    let first = segment(ipv4(), 1000, &data, false);
    let good = segment(ipv4(), 1100, &data, false);
    let accepts = |next: &[u8]| Joiner::new(first.clone(), ALL).join(next);
    assert!(accepts(&good));
    // Each bit of the headers that must agree: all but lengths, identification, sequence number, checksums, PSH, FIN
    // and the reserved bits that the parser ignores.
    let ignored = [16..20, 24..26, 38..42, 50..52];
    for at in (0..66).filter(|at| !ignored.iter().any(|range| range.contains(at))) {
        for bit in 0..8 {
            if at == 47 && [0, 3].contains(&bit) {
                continue;
            }
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(!accepts(&with_checksums(bad)), "bit {bit} of byte {at}");
        }
    }
    for sequence in [1000, 1099, 1101, 0] {
        assert!(!accepts(&segment(ipv4(), sequence, &data, false)), "{sequence}");
    }
    assert!(
        !accepts(&segment(ipv4(), 1100, &bytes(101), false)),
        "longer than the first"
    );
    assert!(!accepts(&segment(ipv4(), 1100, &[], false)), "without payload");
    assert!(!accepts(&segment(ipv6(), 1100, &data, false)));
    let mut padded = good.clone();
    padded.push(0);
    assert!(!accepts(&padded));
}

#[test]
fn a_wrong_checksum_is_not_hidden() {
    let data = bytes(100);
    let good = |sequence| segment(ipv4(), sequence, &data, false);
    for at in [24, 50, 70, 165] {
        let mut bad = good(1100);
        bad[at] ^= 1;
        assert!(!Joiner::new(good(1000), ALL).join(&bad), "byte {at}");
        let mut joiner = Joiner::new(bad.clone(), ALL);
        assert!(!joiner.join(&good(1200)), "byte {at}");
        assert_eq!(joiner.finish(), Outgoing::complete(bad), "byte {at}");
    }
    let verified = Joiner::new(good(1000), ALL).finish();
    assert_eq!(
        (verified.header, verified.frame),
        (VnetHeader::data_valid(), good(1000))
    );
}

#[test]
fn nothing_is_joined_behind_the_end_of_a_burst() {
    let data = bytes(100);
    let mut joiner = Joiner::new(segment(ipv4(), 0, &data, false), ALL);
    assert!(joiner.join(&segment(ipv4(), 100, &data, true)));
    assert!(!joiner.join(&segment(ipv4(), 200, &data, false)), "behind PSH");
    let mut joiner = Joiner::new(segment(ipv4(), 0, &data, false), ALL);
    assert!(joiner.join(&segment(ipv4(), 100, &data[..99], false)));
    assert!(!joiner.join(&segment(ipv4(), 199, &data, false)), "behind a short one");
    assert!(!Joiner::new(segment(ipv4(), 0, &data, true), ALL).takes_more());
}

#[test]
fn a_joined_packet_has_a_length_that_its_header_can_say() {
    for (ip, header) in [(ipv4 as fn() -> _, 20), (ipv6, 40)] {
        let data = bytes(1000);
        let mut joiner = Joiner::new(segment(ip(), 0, &data, false), ALL);
        let joined = (1..)
            .take_while(|index| joiner.join(&segment(ip(), index * 1000, &data, false)))
            .count();
        let room = 0xffff - header - 32;
        assert_eq!(joined + 1, room / 1000);
        assert_eq!(apart(&joiner.finish()).len(), joined + 1);
    }
}

#[test]
fn a_peer_gets_what_it_takes() {
    let data = bytes(100);
    let none = Offloads::default();
    let joins = |ip: fn() -> PacketBuilderStep<etherparse::IpHeaders>, offloads| {
        let mut joiner = Joiner::new(segment(ip(), 0, &data, false), offloads);
        joiner.join(&segment(ip(), 100, &data, false))
    };
    for (offloads, v4, v6) in [
        (none, false, false),
        (Offloads { checksum: true, ..none }, false, false),
        (
            Offloads {
                checksum: true,
                tcp_v4: true,
                ..none
            },
            true,
            false,
        ),
        (
            Offloads {
                checksum: true,
                tcp_v6: true,
                ..none
            },
            false,
            true,
        ),
        (Offloads { checksum: false, ..ALL }, false, false),
    ] {
        assert_eq!((joins(ipv4, offloads), joins(ipv6, offloads)), (v4, v6), "{offloads:?}");
        let alone = Joiner::new(segment(ipv4(), 0, &data, false), offloads).finish();
        let header = if offloads.checksum {
            VnetHeader::data_valid()
        } else {
            VnetHeader::default()
        };
        assert_eq!(alone.header, header, "{offloads:?}");
    }
    // Neither TCP nor UDP.
    let mut echo = Vec::new();
    ipv4().icmpv4_echo_request(1, 2).write(&mut echo, &data).unwrap();
    assert_eq!(Joiner::new(echo.clone(), ALL).finish(), Outgoing::complete(echo));
}
