use etherparse::{PacketBuilder, SlicedPacket};
use proptest::prelude::*;

use super::*;

const ALL: Fill = Fill { l3: true, l4: true };

/// RFC 1071 section 4.1, one word at a time.
fn slow_sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A frame with correct checksums, computed by etherparse.
fn frame(v6: bool, tcp: bool, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]);
    let builder = match v6 {
        false => builder.ipv4([192, 168, 0, 1], [10, 0, 0, 2], 64),
        true => builder.ipv6([0xfe; 16], [5; 16], 64),
    };
    let mut frame = Vec::new();
    match tcp {
        true => builder
            .tcp(80, 1024, 7, 1000)
            .ack(9)
            .write(&mut frame, payload)
            .unwrap(),
        false => builder.udp(53, 1024).write(&mut frame, payload).unwrap(),
    }
    frame
}

fn checked(frame: &[u8]) -> (bool, bool) {
    let verified = verify(&FrameView::new(frame).unwrap(), Coverage::Packet);
    (verified.l3_ok, verified.l4_ok)
}

#[test]
fn the_example_of_rfc_1071_sums_up_as_printed() {
    let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
    assert_eq!(sum.fold(), 0xddf2);
    assert_eq!(sum.checksum(), !0xddf2);
}

#[test]
fn flags_of_the_ethernet_segment_name_the_checksums() {
    assert_eq!(Fill::from_cs_flags(0xc0), ALL);
    assert_eq!(Fill::from_cs_flags(0x40), Fill { l3: true, l4: false });
    assert_eq!(Fill::from_cs_flags(0x30), Fill::default());
}

#[test]
fn a_udp_checksum_of_0_becomes_all_ones() {
    let mut frame = frame(false, false, &[0, 0]);
    let checksum = u16::from_be_bytes([frame[40], frame[41]]);
    // The payload that makes the sum all ones, and the checksum 0.
    frame[42..44].copy_from_slice(&checksum.to_be_bytes());
    fill(&mut frame, ALL);
    assert_eq!(frame[40..42], [0xff, 0xff]);
    assert_eq!(checked(&frame), (true, true));
}

#[test]
fn a_udp_checksum_may_be_missing_in_ipv4_only() {
    for (v6, ok) in [(false, true), (true, false)] {
        let mut frame = frame(v6, false, b"payload");
        let at = if v6 { 60 } else { 40 };
        frame[at..at + 2].fill(0);
        assert_eq!(checked(&frame), (true, ok));
    }
}

#[test]
fn a_fragment_has_no_checksum_to_fill_in_or_verify() {
    let mut frame = frame(false, true, b"payload");
    frame[20] = 0x20;
    let before = frame.clone();
    fill(&mut frame, Fill { l3: false, l4: true });
    assert_eq!(frame, before);
    fill(&mut frame, ALL);
    assert_eq!(checked(&frame), (true, false));
}

#[test]
fn a_truncated_packet_is_not_right() {
    let mut frame = frame(false, true, b"payload");
    frame.pop();
    assert_eq!(checked(&frame), (false, false));
}

#[test]
fn a_frame_that_is_not_ip_has_no_checksums_but_a_sum() {
    let mut frame = vec![0x5a; 60];
    let before = frame.clone();
    fill(&mut frame, ALL);
    assert_eq!(frame, before);
    let verified = verify(&FrameView::new(&frame).unwrap(), Coverage::Packet);
    assert_eq!(
        verified,
        Verified {
            check_sum: slow_sum(&frame[14..]),
            l3_ok: false,
            l4_ok: false
        }
    );
}

#[test]
fn the_sum_covers_tags_and_padding_only_if_it_has_to() {
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).single_vlan(5.try_into().unwrap());
    builder
        .ipv4([1, 2, 3, 4], [5, 6, 7, 8], 64)
        .udp(1, 2)
        .write(&mut bytes, b"odd")
        .unwrap();
    let end = bytes.len();
    bytes.extend([0xaa; 20]);
    let view = FrameView::new(&bytes).unwrap();
    assert_eq!(verify(&view, Coverage::Packet).check_sum, slow_sum(&bytes[18..end]));
    assert_eq!(verify(&view, Coverage::Full).check_sum, slow_sum(&bytes[14..]));
}

proptest! {
    #[test]
    fn pieces_sum_up_to_the_whole(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(0..300usize, 0..6),
    ) {
        prop_assert_eq!(Sum::of(&bytes).fold(), slow_sum(&bytes));
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort();
        let (mut added, mut joined) = (Sum::new(), Sum::new());
        for part in cuts.windows(2) {
            let part = &bytes[part[0]..part[1]];
            added.add(part);
            joined.join(Sum::of(part));
        }
        prop_assert_eq!(added.fold(), slow_sum(&bytes));
        prop_assert_eq!(joined.fold(), slow_sum(&bytes));
    }

    #[test]
    fn what_is_filled_in_is_what_etherparse_computes(
        v6: bool,
        tcp: bool,
        padding in 0..9usize,
        stale: [u8; 2],
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut right = frame(v6, tcp, &payload);
        right.resize(right.len() + padding, 0x11);
        let mut filled = right.clone();
        let transport = if v6 { 54 } else { 34 };
        let at = transport + if tcp { 16 } else { 6 };
        filled[at..at + 2].copy_from_slice(&stale);
        if !v6 {
            filled[24..26].copy_from_slice(&stale);
        }
        fill(&mut filled, ALL);
        prop_assert_eq!(&filled, &right);
        prop_assert_eq!(checked(&filled), (true, true));
        prop_assert!(SlicedPacket::from_ethernet(&filled).is_ok());
    }

    #[test]
    fn one_wrong_bit_is_found(
        v6: bool,
        tcp: bool,
        payload in prop::collection::vec(any::<u8>(), 1..100),
        bit in 0..8u32,
        at in 0..1000usize,
    ) {
        let mut frame = frame(v6, tcp, &payload);
        // Addresses and payload: a wrong bit elsewhere makes it another kind of frame.
        let transport = if v6 { 54 } else { 34 };
        let payload_at = transport + if tcp { 20 } else { 8 };
        let places: Vec<usize> = (transport - 8..transport).chain(payload_at..frame.len()).collect();
        let at = places[at % places.len()];
        frame[at] ^= 1 << bit;
        let (l3_ok, l4_ok) = checked(&frame);
        prop_assert!(!l4_ok);
        prop_assert_eq!(l3_ok, v6 || at >= transport);
    }
}
