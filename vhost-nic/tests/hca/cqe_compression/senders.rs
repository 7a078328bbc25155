//! Bursts by their senders: segments of a packet, ports beside the NICs, several at a time.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use mlx5_prm::queue_entry::Cqe;
use mlx5_prm::wqe::EthernetSegment;
use mlx5_test_driver::cqe_session::{Compressed, MiniFormat};
use mlx5_test_driver::netdev::Options;
use mlx5_test_driver::sq::Request;
use vhost_nic::external_port::{ExternalPort, StreamMedium};
use vhost_nic::net::Switch;

use super::{FORMATS, Wire, compressed, counts_agree, datagram, flow, options, receiver};
use crate::frames::{Packet, header_length, payload};
use crate::lan::{Lan, guest, shut};
use crate::life::Ending;
use crate::receive::packet;

#[test]
fn segments_of_one_packet_are_compressed() {
    let mut lan = Lan::new(
        2,
        &Options {
            parts: vec![2048, 8192],
            ..options(MiniFormat::Checksum)
        },
    );
    let (a, b) = lan.pair();
    for (length, mss, sessions) in [
        (60_000, 1000, 1),
        (60_000, 1448, 1),
        (2000, 1000, 0),
        (200_000, 8000, 3),
    ] {
        let mut whole = Packet {
            length: 0,
            ..packet(a, b)
        }
        .build();
        b.set_mtu(9000).unwrap();
        a.set_mtu(9000).unwrap();
        whole.extend(payload(length));
        let before = compressed(b).sessions;
        let request = Request {
            checksums: EthernetSegment::L3_CSUM | EthernetSegment::L4_CSUM,
            mss,
            ..Request::default()
        };
        a.send_with(&whole, request);
        let mut data = Vec::new();
        for _ in 0..length.div_ceil(mss.into()) {
            let received = b.receive();
            assert_eq!(received.cqe.hds_ip_ext, Cqe::L3_OK | Cqe::L4_OK);
            let headers = header_length(&received.frame);
            assert!(received.frame.len() - headers <= usize::from(mss));
            data.extend_from_slice(&received.frame[headers..]);
        }
        assert!(data == payload(length), "{length} bytes by {mss}");
        assert!(b.poll().is_none(), "one segment too many");
        assert_eq!(compressed(b).sessions - before, sessions, "{length} bytes by {mss}");
    }
    lan.end();
}

#[test]
fn bursts_of_several_senders_do_not_mix_up_a_queue() {
    const BURSTS: usize = 500;
    const SENDERS: u16 = 3;
    let switch = Switch::new();
    let mut b = guest(&switch, 1, &options(MiniFormat::Hash));
    let bursts: Vec<Vec<Vec<u8>>> = (0..SENDERS)
        .map(|sender| {
            let frame = |length| {
                let kind = datagram(&b);
                Packet {
                    source: [2, 0, 0, 0, 1, sender as u8],
                    ports: (1000 + sender, 2000),
                    length,
                    ..kind
                }
            };
            (0..12).map(|number| frame(20 + number).build()).collect()
        })
        .collect();
    let total = BURSTS * 12 * usize::from(SENDERS);
    let (consumed, sent, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for frames in &bursts {
            let (switch, consumed, sent, over) = (&switch, &consumed, &sent, &over);
            scope.spawn(move || {
                let wire = Wire::at(switch);
                for _ in 0..BURSTS {
                    let mine = sent.fetch_add(12, Ordering::AcqRel) + 12;
                    while mine > consumed.load(Ordering::Acquire) + 200 {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        thread::yield_now();
                    }
                    wire.send(frames);
                }
            });
        }
        let _ending = Ending(&over);
        let mut next = [0; SENDERS as usize];
        for _ in 0..total {
            let frame = b.receive().frame;
            let sender = usize::from(frame[11]);
            assert_eq!(
                frame,
                bursts[sender][next[sender] % 12],
                "frames of a sender are in order"
            );
            next[sender] += 1;
            consumed.fetch_add(1, Ordering::Release);
        }
    });
    assert!(b.poll().is_none());
    counts_agree(&b);
    assert!(compressed(&b).sessions > 0);
    shut(b);
}

#[test]
fn a_consumer_never_sees_a_part_of_a_session() {
    const BURSTS: usize = 3000;
    for format in FORMATS {
        let (mut b, wire) = receiver(&Options {
            log_cq: 6,
            ..options(format)
        });
        let frames = flow(&b, 48);
        let (consumed, frames, over) = (AtomicU64::new(0), &frames, AtomicBool::new(false));
        let lengths = || (0..BURSTS).map(|burst| 1 + burst * 29 % 48);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut sent = 0;
                for length in lengths() {
                    // All that is not consumed has room.
                    while sent + length as u64 - consumed.load(Ordering::Acquire) > 64 {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        thread::yield_now();
                    }
                    wire.send(&frames[..length]);
                    sent += length as u64;
                }
            });
            let _ending = Ending(&over);
            for length in lengths() {
                for frame in &frames[..length] {
                    assert_eq!(b.receive().frame, *frame);
                    consumed.fetch_add(1, Ordering::Release);
                }
            }
        });
        assert!(b.poll().is_none());
        counts_agree(&b);
        assert!(compressed(&b).sessions > BURSTS as u64 / 2);
        shut(b);
    }
}

#[test]
fn frames_that_a_port_has_read_are_compressed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("port");
    let switch = Switch::new();
    let mut b = guest(&switch, 1, &options(MiniFormat::Hash));
    let medium = StreamMedium::new("port", UnixListener::bind(&path).unwrap()).unwrap();
    let port = ExternalPort::start(&switch, "port", Box::new(medium), 1 << 20).unwrap();
    let mut frames = flow(&b, 12);
    // The last five are of another station: they leave the port as a burst of their own.
    frames[7..].iter_mut().for_each(|frame| frame[11] += 1);
    let stream: Vec<u8> = frames
        .iter()
        .flat_map(|frame| [&(frame.len() as u32).to_be_bytes()[..], frame].concat())
        .collect();
    // The port reads what one write has left, at once.
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(&stream).unwrap();
    for frame in &frames {
        assert_eq!(b.receive().frame, *frame);
    }
    let expected = Compressed {
        sessions: 2,
        completions: 12,
    };
    assert_eq!(compressed(&b), expected);
    drop(port);
    shut(b);
}
