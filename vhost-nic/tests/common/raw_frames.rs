//! Fuzz driver: bytes become a frame, with the header of virtio-net before it. What is parsed lies within the frame,
//! what is filled in verifies, segments together are the frame, and a packet survives its way through the switch.

use std::collections::VecDeque;
use std::mem;

use mlx5_test_driver::fuzz::Tally;
use mlx5_test_driver::fuzz::choices::Choices;
use mlx5_test_driver::fuzz::frames::frame;
use mlx5_test_driver::netdev::{ADDRESSES, ADDRESSES_AND_PORTS};
use vhost_nic::external_port::{VnetHeader, admit};
use vhost_nic::frame::checksum::{Coverage, Fill, fill, verify};
use vhost_nic::frame::rss::{HashFunction, KEY_LENGTH, L3Protocol, L4Protocol, RssHash, Toeplitz};
use vhost_nic::frame::segmentation::Segments;
use vhost_nic::frame::view::{FrameView, Network, Transport};
use vhost_nic::net::Frame;
use vhost_nic::roce::icrc;
use vhost_nic::roce::packet::Packet;

const MACS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [0xff; 6]];
/// Frames of a run.
const MAX_FRAMES: u64 = 50;
/// Longest frame on the wire that a header of virtio-net may make: its headers, and a segment.
const LONGEST: usize = 2000 + u16::MAX as usize;

/// Parsed ranges are within the frame, in order.
fn check_ranges(view: &FrameView<'_>) {
    let (length, transport) = (view.bytes().len(), view.transport_range());
    assert!(
        view.network_offset <= transport.start && transport.end <= length,
        "{view:?}"
    );
    assert!(transport.start <= transport.end, "{view:?}");
    if let Transport::Tcp(tcp) = view.transport {
        assert!(transport.len() >= tcp.header_length, "{view:?}");
    }
    assert!(view.to_string().contains(" > "));
}

/// Checksums that are filled in verify, whatever is parsed.
fn check_checksums(bytes: &[u8]) {
    let mut filled = bytes.to_vec();
    fill(&mut filled, Fill { l3: true, l4: true });
    let view = FrameView::new(&filled).unwrap();
    for coverage in [Coverage::Packet, Coverage::Full] {
        let verified = verify(&view, coverage);
        let ip = !matches!(view.network, Network::None);
        assert_eq!(verified.l3_ok, ip && !view.truncated, "{view:?}");
        let right_length = match view.transport {
            Transport::Tcp(_) => true,
            Transport::Udp(udp) => usize::from(udp.length) == view.transport_range().len(),
            Transport::None | Transport::Ipsec { .. } => false,
        };
        assert_eq!(verified.l4_ok, right_length && !view.truncated, "{view:?}");
    }
    let none = Fill::default();
    let mut same = bytes.to_vec();
    fill(&mut same, none);
    assert!(same == bytes, "a checksum that nobody asked for");
}

/// The segments carry the payload, all of it, in order, and verify.
fn check_segments(bytes: &[u8], mss: u16) {
    let Ok(segments) = Segments::new(bytes, mss, Fill { l3: true, l4: true }) else {
        return;
    };
    let (header, mut payload, mut count) = (segments.header_length(), Vec::new(), 0);
    segments.emit(&mut Vec::new(), |segment| {
        assert!(segment.len() - header <= usize::from(mss));
        payload.extend_from_slice(&segment[header..]);
        count += 1;
        let view = FrameView::new(segment).unwrap();
        check_ranges(&view);
        let verified = verify(&view, Coverage::Full);
        assert!(verified.l3_ok && verified.l4_ok, "{view:?}");
    });
    assert_eq!(count, segments.count());
    assert!(payload == bytes[header..], "segments of another payload");
}

/// The same flow in the other direction.
fn reverse<'a>(view: &FrameView<'a>) -> FrameView<'a> {
    let mut reverse = *view;
    match &mut reverse.network {
        Network::None => {}
        Network::Ipv4(header) => mem::swap(&mut header.source, &mut header.destination),
        Network::Ipv6(header) => mem::swap(&mut header.source, &mut header.destination),
    }
    match &mut reverse.transport {
        Transport::None | Transport::Ipsec { .. } => {}
        Transport::Tcp(header) => mem::swap(&mut header.source_port, &mut header.destination_port),
        Transport::Udp(header) => mem::swap(&mut header.source_port, &mut header.destination_port),
    }
    reverse
}

/// A symmetric hash is the same in both directions.
fn check_hash(view: &FrameView<'_>, choices: &mut Choices<'_>) -> Option<()> {
    let mut key = [0; KEY_LENGTH];
    key[..4].copy_from_slice(&choices.word()?.to_be_bytes());
    let l3 = choices.one(&[L3Protocol::Ipv4, L3Protocol::Ipv6])?;
    let l4 = choices.one(&[L4Protocol::Tcp, L4Protocol::Udp])?;
    let function = match choices.byte()? {
        0..=127 => HashFunction::Toeplitz(Toeplitz::new(&key)),
        _ => HashFunction::InvertedXor8,
    };
    let hash = RssHash {
        function,
        symmetric: true,
        l3,
        l4,
        fields: choices.one(&[ADDRESSES, ADDRESSES_AND_PORTS])?,
    };
    assert_eq!(hash.hash(view), hash.hash(&reverse(view)), "{hash:?} of {view:?}");
    let any = RssHash {
        symmetric: false,
        fields: choices.word()?,
        ..hash
    };
    assert!(any.hash(view).entry(128) < 128);
    Some(())
}

/// A packet is the same after its way through the switch.
fn check_packet(bytes: &[u8]) {
    let view = FrameView::new(bytes).unwrap();
    assert!(!Frame::new(bytes).to_string().is_empty());
    let Ok(head) = Packet::new_checked(&view) else {
        return;
    };
    let end = head.payload_offset + head.payload_length;
    assert!(end <= bytes.len());
    // With the ICRC of its peer.
    let mut sent = Vec::new();
    let head_view = FrameView::new_unsegmented(&bytes[..head.payload_offset]).unwrap();
    if !icrc::append(&head_view, [&bytes[head.payload_offset..end]], &mut sent) {
        return;
    }
    let Some(arrived) = admit(&sent) else { return };
    let again = arrived.frame().to_bytes().expect("its payload is here").into_owned();
    let arrived = admit(&again).expect("its ICRC is right");
    assert!(arrived.frame().to_bytes().unwrap() == again, "another packet");
}

/// A header of virtio-net makes frames that no receiver has to fear.
fn check_vnet(bytes: &[u8], choices: &mut Choices<'_>) -> Option<()> {
    let header = VnetHeader {
        flags: choices.byte()?,
        gso_type: choices.one(&[0, 1, 4, 5, 0x81, 3, 0xff])?,
        hdr_len: u16::from(choices.byte()?).into(),
        gso_size: (choices.index(1 << 16)? as u16).into(),
        csum_start: u16::from(choices.byte()?).into(),
        csum_offset: u16::from(choices.byte()?).into(),
    };
    let mut frames = VecDeque::new();
    if header.complete(bytes, &mut frames).is_err() {
        assert!(frames.is_empty(), "frames of a header that is refused");
        return Some(());
    }
    assert!(!frames.is_empty());
    assert!(frames.iter().all(|frame| frame.len() <= LONGEST));
    Some(())
}

fn check(choices: &mut Choices<'_>, tally: &mut Tally) -> Option<()> {
    let bytes = frame(choices, &MACS)?;
    tally.made += 1;
    check_vnet(&bytes, choices)?;
    let Some(view) = FrameView::new(&bytes) else {
        tally.refused += 1;
        assert!(bytes.len() < 14);
        return Some(());
    };
    tally.succeeded += u64::from(view.transport != Transport::None);
    check_ranges(&view);
    check_checksums(&bytes);
    check_segments(&bytes, choices.one(&[1, 8, 100, 536, 1460, u16::MAX])?);
    check_hash(&view, choices)?;
    check_packet(&bytes);
    Some(())
}

/// Runs an input.
pub fn run(input: &[u8]) -> Tally {
    let mut choices = Choices::new(input);
    let mut tally = Tally::default();
    while tally.made < MAX_FRAMES && check(&mut choices, &mut tally).is_some() {}
    tally
}
