use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::super::checksum::{Coverage, verify};
use super::*;

const ALL: Fill = Fill { l3: true, l4: true };

fn split(frame: &[u8], mss: u16) -> Vec<Vec<u8>> {
    let segments = Segments::new(frame, mss, ALL).unwrap();
    let (mut buffer, mut all) = (Vec::new(), Vec::new());
    segments.emit(&mut buffer, |segment| all.push(segment.to_vec()));
    assert_eq!(all.len(), segments.count());
    all
}

fn build(v6: bool, vlan: bool, tcp: bool, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]);
    let id = 9.try_into().unwrap();
    let builder = match (vlan, v6) {
        (false, false) => builder.ipv4([192, 168, 0, 1], [10, 0, 0, 2], 64),
        (false, true) => builder.ipv6([0xfe; 16], [5; 16], 64),
        (true, false) => builder.single_vlan(id).ipv4([192, 168, 0, 1], [10, 0, 0, 2], 64),
        (true, true) => builder.single_vlan(id).ipv6([0xfe; 16], [5; 16], 64),
    };
    let mut frame = Vec::new();
    match tcp {
        true => {
            let builder = builder.tcp(80, 1024, sequence, 1000).ack(9).psh().fin().cwr().ece();
            builder
                .options_raw(&[1; 12])
                .unwrap()
                .write(&mut frame, payload)
                .unwrap();
        }
        false => builder.udp(53, 1024).write(&mut frame, payload).unwrap(),
    }
    frame
}

#[test]
fn flags_that_belong_to_one_segment_are_in_that_segment_only() {
    let segments = split(&build(false, false, true, 0, &[7; 250]), 100);
    let flags: Vec<_> = segments
        .iter()
        .map(
            |segment| match SlicedPacket::from_ethernet(segment).unwrap().transport {
                Some(TransportSlice::Tcp(tcp)) => (tcp.cwr(), tcp.ece(), tcp.ack(), tcp.psh(), tcp.fin()),
                other => panic!("{other:?}"),
            },
        )
        .collect();
    assert_eq!(
        flags,
        [
            (true, true, true, false, false),
            (false, true, true, false, false),
            (false, true, true, true, true)
        ]
    );
}

#[test]
fn ids_count_up_and_wrap() {
    let mut frame = build(false, false, true, 0, &[7; 300]);
    frame[18..20].copy_from_slice(&[0xff, 0xff]);
    let ids: Vec<_> = split(&frame, 100)
        .iter()
        .map(|segment| [segment[18], segment[19]])
        .collect();
    assert_eq!(ids, [[0xff, 0xff], [0, 0], [0, 1]]);
}

#[test]
fn lengths_of_the_frame_do_not_matter() {
    // A payload of more than 64 KiB: the stack leaves a length of 0.
    let mut frame = build(false, false, true, 0, &[]);
    frame.resize(frame.len() + 200_000, 0x42);
    frame[16..18].fill(0);
    let segments = split(&frame, 8948);
    assert_eq!(segments.len(), 200_000usize.div_ceil(8948));
    assert!(
        segments
            .iter()
            .all(|segment| SlicedPacket::from_ethernet(segment).is_ok())
    );
}

#[test]
fn a_frame_without_payload_stays_one() {
    assert_eq!(split(&build(true, false, true, 5, &[]), 1000).len(), 1);
}

#[test]
fn what_cannot_be_split_is_refused() {
    let refused = |frame: &[u8], mss| Segments::new(frame, mss, ALL).unwrap_err();
    assert_eq!(refused(&[0; 60], 100), TsoError::NoTransport);
    assert_eq!(refused(&[0; 6], 100), TsoError::NoTransport);
    let frame = build(false, false, true, 0, &[0; 10]);
    assert_eq!(refused(&frame, 0), TsoError::NoPayload);
    let mut fragment = frame.clone();
    fragment[20] = 0x20;
    assert_eq!(refused(&fragment, 100), TsoError::NoTransport);
    let mut long = frame;
    long.resize(100_000, 0);
    assert_eq!(
        refused(&long, 65_500),
        TsoError::TooLong {
            length: 20 + 32 + 65_500
        }
    );
}

proptest! {
    #[test]
    fn the_payload_arrives_whole_in_right_frames(
        v6: bool,
        vlan: bool,
        tcp: bool,
        sequence: u32,
        mss in 1..2000u16,
        payload in prop::collection::vec(any::<u8>(), 1..5000),
    ) {
        let frame = build(v6, vlan, tcp, sequence, &payload);
        let header = frame.len() - payload.len();
        let (mut arrived, mut expected) = (Vec::new(), sequence);
        let segments = split(&frame, mss);
        for (index, segment) in segments.iter().enumerate() {
            let view = FrameView::new(segment).unwrap();
            prop_assert_eq!(view.network_end, segment.len());
            let verified = verify(&view, Coverage::Packet);
            prop_assert!(verified.l3_ok && verified.l4_ok);
            // Addresses, tag and all else that segmentation does not touch.
            prop_assert_eq!(&segment[..view.network_offset], &frame[..view.network_offset]);
            let packet = SlicedPacket::from_ethernet(segment).unwrap();
            let data = match packet.transport.unwrap() {
                TransportSlice::Tcp(slice) => {
                    prop_assert_eq!(slice.sequence_number(), expected);
                    prop_assert_eq!(slice.options(), &[1; 12]);
                    slice.payload().to_vec()
                }
                TransportSlice::Udp(slice) => slice.payload().to_vec(),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(segment.len(), header + data.len());
            prop_assert!(index + 1 == segments.len() || data.len() == usize::from(mss));
            expected = expected.wrapping_add(data.len() as u32);
            arrived.extend(data);
        }
        prop_assert_eq!(arrived, payload);
    }
}
