//! CQE compression: bursts of frames, and the sessions that they become (`core/en_rx.c`).

mod ends;
mod senders;

use std::sync::Arc;

use mlx5_prm::command::Status;
use mlx5_prm::cq::{Cqc, CreateCqIn, CreateCqOut, DestroyCqIn, DestroyCqOut};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::{Cqe, EventType};
use mlx5_test_driver::buffer::Buffer;
use mlx5_test_driver::cqe_session::{Compressed, MiniFormat};
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::{Netdev, Options};
use vhost_nic::net::{Burst, Frame, Port, Switch, SwitchPort};
use zerocopy::IntoBytes;

use crate::frames::Packet;
use crate::inspect::Inspect;
use crate::lan::{guest, shut};
use crate::management_registers::compress;

const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// `cqe_compression_max_num`.
const MAX_SESSION: usize = 64;
const FORMATS: [MiniFormat; 2] = [MiniFormat::Hash, MiniFormat::Checksum];

/// A sender of bursts that receives nothing.
pub struct Wire {
    port: SwitchPort,
    _receiver: Arc<Deaf>,
}

struct Deaf;

impl Port for Deaf {
    fn receive(&self, _: Frame<'_>) {}
}

impl Wire {
    pub fn at(switch: &Arc<Switch>) -> Self {
        let receiver = Arc::new(Deaf);
        let port = switch.attach("wire", Arc::downgrade(&receiver) as _);
        Self {
            port,
            _receiver: receiver,
        }
    }

    /// Sends frames as one burst. They are received when this returns.
    pub fn send(&self, frames: &[Vec<u8>]) {
        let frames: Vec<Frame<'_>> = frames.iter().map(|bytes| Frame::new(bytes)).collect();
        self.port.send_burst(&Burst::new(&frames));
    }
}

pub fn options(format: MiniFormat) -> Options {
    Options {
        compression: Some(format),
        log_rq: 8,
        log_cq: 8,
        ..Options::default()
    }
}

/// A guest whose receive completions are compressed, and a sender.
fn receiver(options: &Options) -> (Netdev, Wire) {
    let switch = Switch::new();
    (guest(&switch, 1, options), Wire::at(&switch))
}

/// A UDP frame to a guest.
fn datagram(to: &Netdev) -> Packet {
    Packet {
        source: SOURCE,
        destination: to.hca.machine.mac,
        vlan: None,
        ipv6: false,
        tcp: false,
        ports: (1000, 2000),
        length: 100,
    }
}

/// Frames of one flow, each of another length and content.
pub fn flow(to: &Netdev, count: usize) -> Vec<Vec<u8>> {
    let frame = |number| {
        Packet {
            length: 20 + number,
            ..datagram(to)
        }
        .build()
    };
    (0..count).map(frame).collect()
}

/// Lengths of the sessions of a burst that can be compressed, but for those of too few completions.
fn sessions(count: usize, shortest: usize) -> Vec<usize> {
    let full = std::iter::repeat_n(MAX_SESSION, count / MAX_SESSION);
    full.chain([count % MAX_SESSION])
        .filter(|&length| length >= shortest)
        .collect()
}

/// A completion without its place in queues, its time, and what a compressed one lacks.
fn comparable(cqe: &Cqe, lost: Option<MiniFormat>) -> Vec<u8> {
    let mut cqe = *cqe;
    cqe.wqe_counter.set(0);
    cqe.timestamp.set(0);
    cqe.op_own &= !Cqe::OWNER;
    match lost {
        Some(MiniFormat::Hash) => cqe.check_sum.set(0),
        Some(MiniFormat::Checksum) => {
            cqe.rss_hash_result.set(0);
            cqe.rss_hash_type = 0;
        }
        None => {}
    }
    cqe.as_bytes().to_vec()
}

fn cqe_writes(guest: &Netdev) -> (u64, u64) {
    let snapshot = guest.hca.machine.nic().snapshot();
    let number = guest.channels[0].receive_cq.number.to_string();
    let writes = &snapshot.hca["cqs"][number]["state"]["cqe_writes"];
    (writes["count"].as_u64().unwrap(), writes["bytes"].as_u64().unwrap())
}

fn compressed(guest: &Netdev) -> Compressed {
    guest.channels[0].receive_cq.compressed()
}

/// Compares completions of the device with the sessions that the driver saw.
#[track_caller]
fn counts_agree(guest: &Netdev) {
    let counted = guest.hca.machine.nic().snapshot().completions;
    let seen = compressed(guest);
    assert_eq!(
        (counted.compressed_sessions, counted.compressed),
        (seen.sessions, seen.completions)
    );
}

#[test]
fn a_burst_becomes_sessions_without_loss() {
    for format in FORMATS {
        for large_cqes in [false, true] {
            let (mut b, wire) = receiver(&Options {
                large_cqes,
                ..options(format)
            });
            for count in [1, 2, 3, 7, 8, 9, 16, 17, 63, 64, 65, 66, 67, 130] {
                let frames = flow(&b, count);
                // Alone, a frame has a completion of its own.
                let before = compressed(&b);
                let plain: Vec<Cqe> = frames
                    .iter()
                    .map(|frame| {
                        wire.send(std::slice::from_ref(frame));
                        b.receive().cqe
                    })
                    .collect();
                assert_eq!(compressed(&b), before);
                let writes = cqe_writes(&b);
                wire.send(&frames);
                let sessions = sessions(count, 3);
                let in_sessions = sessions.iter().sum::<usize>();
                for (number, (frame, plain)) in frames.iter().zip(&plain).enumerate() {
                    let received = b.poll().expect("a completion").1;
                    assert_eq!(received.frame, *frame, "{number} of {count}");
                    assert_eq!(received.cqe.op_own & !Cqe::OWNER, plain.op_own & !Cqe::OWNER);
                    assert_ne!(received.cqe.timestamp.get(), 0);
                    let lost = (number < in_sessions && number % MAX_SESSION != 0).then_some(format);
                    assert_eq!(
                        comparable(&received.cqe, lost),
                        comparable(plain, lost),
                        "{number} of {count}"
                    );
                }
                assert!(b.poll().is_none(), "one completion too many");
                let now = compressed(&b);
                assert_eq!(now.sessions - before.sessions, sessions.len() as u64, "{count}");
                assert_eq!(now.completions - before.completions, in_sessions as u64);
                counts_agree(&b);
                let written = sessions.iter().map(|length| 1 + length.div_ceil(8)).sum::<usize>();
                let written = (written + count - in_sessions) as u64;
                assert_eq!(cqe_writes(&b), (writes.0 + written, writes.1 + 64 * written));
            }
            shut(b);
        }
    }
}

#[test]
fn a_queue_without_compression_gets_plain_completions() {
    let (mut b, wire) = receiver(&Options {
        compression: None,
        ..options(MiniFormat::Hash)
    });
    let frames = flow(&b, 20);
    wire.send(&frames);
    for frame in &frames {
        assert_eq!(b.receive().frame, *frame);
    }
    assert_eq!(cqe_writes(&b), (20, 20 * 64));
    shut(b);
}

#[test]
fn sessions_go_around_the_end_of_the_queue() {
    for format in FORMATS {
        for large_cqes in [false, true] {
            let (mut b, wire) = receiver(&Options {
                large_cqes,
                log_cq: 4,
                ..options(format)
            });
            let frames = flow(&b, 16);
            for round in 0..300 {
                // Up to a full queue, in one burst or two.
                let count = 1 + round * 7 % 16;
                let (first, second) = frames[..count].split_at(round % count + usize::from(round % 3 == 0));
                wire.send(first);
                if !second.is_empty() {
                    wire.send(second);
                }
                for (number, frame) in frames[..count].iter().enumerate() {
                    assert_eq!(b.poll().expect("a completion").1.frame, *frame, "{number} in {round}");
                }
                assert!(b.poll().is_none(), "one completion too many in {round}");
            }
            assert!(compressed(&b).sessions > 200);
            counts_agree(&b);
            shut(b);
        }
    }
}

#[test]
fn a_session_is_not_longer_than_the_queue_even_if_overruns_are_ignored() {
    let (mut b, wire) = receiver(&Options {
        log_cq: 2,
        overrun_ignored: true,
        ..options(MiniFormat::Hash)
    });
    let frames = flow(&b, 8);
    wire.send(&frames);
    // The second session overwrote the first: the driver has lost four completions, and knows it.
    let cq = &mut b.channels[0].receive_cq;
    cq.skip(4);
    for frame in &frames[4..] {
        let cqe = cq.poll().expect("a completion");
        assert_eq!(cqe.byte_count.get() as usize, frame.len());
    }
    assert_eq!(
        compressed(&b),
        Compressed {
            sessions: 1,
            completions: 4
        }
    );
    shut(b);
}

/// Waits for the events of an overrun or another end of a CQ, and of the end of a queue that completes there.
#[track_caller]
fn ends(guest: &Netdev, syndrome: u8) {
    let channel = &guest.channels[0];
    let event = guest.hca.wait_event(EventType::CqError);
    assert_eq!(event.data[..4], channel.receive_cq.number.to_be_bytes());
    assert_eq!(event.data[11], syndrome);
    let event = guest.hca.wait_event(EventType::WqCatastrophicError);
    assert_eq!(event.data[24..], channel.rq.number.to_be_bytes());
}

#[test]
fn an_overrun_leaves_what_had_room() {
    let (mut b, wire) = receiver(&Options {
        log_cq: 3,
        ..options(MiniFormat::Checksum)
    });
    let frames = flow(&b, 10);
    wire.send(&frames[..5]);
    wire.send(&frames[5..]);
    ends(&b, 1);
    for frame in &frames[..8] {
        assert_eq!(b.poll().expect("a completion").1.frame, *frame);
    }
    assert!(b.poll().is_none(), "a CQ in error takes no completions");
    assert_eq!(
        compressed(&b),
        Compressed {
            sessions: 2,
            completions: 8
        }
    );
    shut(b);
}

#[test]
fn frames_with_other_titles_are_not_joined() {
    for format in FORMATS {
        let (mut b, wire) = receiver(&options(format));
        let udp = |port| {
            Packet {
                ports: (port, 2000),
                ..datagram(&b)
            }
            .build()
        };
        let tcp = Packet {
            tcp: true,
            ..datagram(&b)
        }
        .build();
        let mut wrong = udp(1000);
        *wrong.last_mut().unwrap() ^= 0x10;
        let cases: [(Vec<Vec<u8>>, &[usize]); 5] = [
            // Flows that differ in the hash alone.
            ((0..9).map(|number| udp(1000 + number % 3)).collect(), &[9]),
            // Every frame with a title of its own.
            (
                (0..8).map(|n| if n % 2 == 0 { udp(1) } else { tcp.clone() }).collect(),
                &[],
            ),
            (
                [vec![udp(1); 4], vec![tcp.clone(); 3], vec![udp(1); 2], vec![tcp; 5]].concat(),
                &[4, 3, 5],
            ),
            // A wrong checksum is in the title.
            ([vec![udp(1); 4], vec![wrong], vec![udp(1); 3]].concat(), &[4, 3]),
            (vec![udp(1); 65], &[64]),
        ];
        for (frames, sessions) in cases {
            let before = compressed(&b);
            wire.send(&frames);
            for frame in &frames {
                let received = b.poll().expect("a completion").1;
                assert_eq!(received.frame, *frame);
            }
            assert!(b.poll().is_none());
            let now = compressed(&b);
            assert_eq!(now.sessions - before.sessions, sessions.len() as u64);
            let completions = sessions.iter().sum::<usize>() as u64;
            assert_eq!(now.completions - before.completions, completions);
        }
        shut(b);
    }
}

#[test]
fn each_completion_queue_has_its_own_session() {
    let (mut b, wire) = receiver(&Options {
        channels: 4,
        ..options(MiniFormat::Hash)
    });
    let frames: Vec<Vec<u8>> = (0..64)
        .map(|number| {
            Packet {
                ports: (number, 2000),
                ..datagram(&b)
            }
            .build()
        })
        .collect();
    wire.send(&frames);
    let mut received = Vec::new();
    let mut sessions = 0;
    for channel in &mut b.channels {
        let mut count = 0;
        while let Some(found) = channel.poll() {
            received.push(found.frame);
            count += 1;
        }
        assert!(count >= 3, "{count} frames of a channel");
        assert_eq!(channel.receive_cq.compressed().completions, count);
        sessions += channel.receive_cq.compressed().sessions;
    }
    assert_eq!(sessions, 4);
    received.sort();
    let mut sent = frames;
    sent.sort();
    assert!(received == sent, "every frame is received once");
    shut(b);
}

#[test]
fn a_session_is_as_many_completions_as_it_has_for_events() {
    let (mut b, wire) = receiver(&options(MiniFormat::Hash));
    let hca = Arc::clone(&b.hca);
    let frames = flow(&b, 10);
    let drain = |b: &mut Netdev| {
        for frame in &frames {
            assert_eq!(b.poll().expect("a completion").1.frame, *frame);
        }
    };
    // One event for a session, and the next one only when armed anew.
    for _ in 0..5 {
        b.channels[0].receive_cq.arm(&hca, false);
        wire.send(&frames);
        assert!(
            b.channels[0].events.poll().is_some(),
            "the event is there before the sender continues"
        );
        wire.send(&frames);
        assert!(b.channels[0].events.poll().is_none(), "one event too many");
        b.channels[0].receive_cq.event();
        drain(&mut b);
        // The second session is unread.
        b.channels[0].receive_cq.arm(&hca, false);
        assert!(b.channels[0].events.poll().is_some());
        b.channels[0].receive_cq.event();
        drain(&mut b);
    }
    // No completion is solicited.
    b.channels[0].receive_cq.arm(&hca, true);
    wire.send(&frames);
    assert!(b.channels[0].events.poll().is_none());
    drain(&mut b);
    // The event comes with the 20th completion, not with the 20th write.
    b.channels[0].receive_cq.moderate_by(&hca, 4000, 20).unwrap();
    b.channels[0].receive_cq.arm(&hca, false);
    wire.send(&frames);
    wire.send(&frames);
    assert!(b.channels[0].events.poll().is_some(), "20 completions");
    b.channels[0].receive_cq.event();
    drain(&mut b);
    drain(&mut b);
    drop(hca);
    shut(b);
}

#[test]
fn aggressive_compression_joins_two_completions() {
    let switch = Switch::new();
    let b = guest(&switch, 1, &options(MiniFormat::Hash));
    let wire = Wire::at(&switch);
    compress(&b.hca, |offloads| offloads.set_cqe_compression(1)).unwrap();
    let machine = Arc::clone(&b.hca.machine);
    shut(b);
    machine.device().reset();
    machine.enable();
    let mut b = Netdev::open(&Arc::new(Hca::boot(&machine)), &options(MiniFormat::Hash));
    for count in [1, 2, 66] {
        let before = compressed(&b).sessions;
        let frames = flow(&b, count);
        wire.send(&frames);
        for frame in &frames {
            assert_eq!(b.poll().expect("a completion").1.frame, *frame);
        }
        assert!(b.poll().is_none());
        assert_eq!(compressed(&b).sessions - before, sessions(count, 2).len() as u64);
    }
    assert_eq!(compressed(&b).completions, 2 + 66);
    shut(b);
}

#[test]
fn formats_and_layouts_without_a_capability_are_refused() {
    let (b, _) = receiver(&options(MiniFormat::Hash));
    let hca = &b.hca;
    let buffer = Buffer::new(&hca.machine.memory, 4096);
    let record = hca.machine.memory.allocate(8);
    let create = |change: &dyn Fn(&mut Cqc)| {
        let mut input = CreateCqIn::default();
        let context = input.cq_context_mut();
        context.set_log_cq_size(6);
        context.set_uar_page(hca.uar);
        context.set_c_eqn_or_apu_element(b.channels[0].events.number.into());
        context.set_dbr_addr(record.address());
        change(context);
        let list = buffer.page_list();
        let call = hca.commands.call_with(Opcode::CREATE_CQ, 0, &input, &list, 0);
        call.map(|(output, _): (CreateCqOut, _)| {
            let mut input = DestroyCqIn::default();
            input.set_cqn(output.cqn());
            let _: DestroyCqOut = hca.commands.call(Opcode::DESTROY_CQ, &input).unwrap();
        })
    };
    for (enabled, format, layout, supported) in [
        (true, 0, 0, true),
        (true, 1, 0, true),
        (true, 2, 0, false),
        (true, 3, 0, false),
        (true, 0, 1, false),
        (false, 3, 1, true),
    ] {
        let result = create(&|context| {
            context.set_cqe_comp_en(enabled);
            context.set_mini_cqe_res_format(format);
            context.set_cqe_compression_layout(layout);
        });
        match supported {
            true => result.unwrap(),
            false => assert!(result.unwrap_err().is(Status::BadParameter), "{format}, {layout}"),
        }
    }
    drop((buffer, record));
    shut(b);
}

#[test]
fn a_session_is_charged_to_the_guest() {
    let (b, _) = receiver(&options(MiniFormat::Hash));
    let (plain, _) = receiver(&Options {
        compression: None,
        ..options(MiniFormat::Hash)
    });
    let used = |guest: &Netdev| guest.hca.machine.nic().snapshot().host_memory.used_bytes;
    assert!(used(&b) > used(&plain) + 512, "64 mini CQEs");
    shut(b);
    shut(plain);
}
