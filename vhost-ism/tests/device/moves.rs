//! Copy mode: data moves by request, and no memory is shared.

use std::collections::BTreeSet;

use vhost_daemon::finding::{Kind, Object};
use vhost_ism::abi::*;
use vhost_ism::fabric::Mode;
use vhost_ism::ism_finding::Finding;

use crate::common::guest::{Piece, SOURCE, encode};
use crate::common::*;
use crate::faults::Faulty;
use crate::replay::equal;

/// Two guests in copy mode; A owns a DMB for B.
struct Scene {
    host: Host,
    a: TestGuest,
    b: TestGuest,
    dmb: Dmb,
}

impl Scene {
    fn new(size: u64) -> Self {
        Self::at(Host::copying(), size)
    }

    fn at(host: Host, size: u64) -> Self {
        let (mut a, b) = (host.boot("a"), host.boot("b"));
        let dmb = a.alloc_for_peer(b.gid(), size).unwrap();
        Self { host, a, b, dmb }
    }

    fn content(&self) -> Vec<u8> {
        self.a.window.read(self.dmb.offset, self.dmb.size)
    }

    fn rung(&self) -> Event {
        Event::Doorbells(vec![(self.dmb.offset / CHUNK_SIZE) as u32])
    }
}

/// Bytes that differ from their neighbours and from zero.
fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * 7 + seed) % 251 + 1) as u8).collect()
}

#[test]
fn the_configuration_space_names_the_mode() {
    let features = |host: Host| host.boot("a").config.features.get();
    assert_eq!(features(Host::copying()), F_PEER | F_BELLS | F_MOVE);
    assert_eq!(features(Host::default()), F_PEER | F_AWAKE | F_BELLS);
}

#[test]
fn every_byte_arrives_and_no_other_changes() {
    let mut scene = Scene::new(40_000);
    let mut expected = vec![0; 40_000];
    let lengths = [0, 1, 7, 8, 32, 63, 64, 65, 72, 4096, 16_384, 17_777];
    for (seed, length) in lengths.into_iter().enumerate() {
        for offset in [0, 1, 8, 32, 4093, 40_000 - length] {
            let bytes = pattern(length, seed + offset);
            assert_eq!(
                scene.b.move_data(scene.dmb.token, offset as u64, &bytes, false),
                Status::Ok
            );
            expected[offset..offset + length].copy_from_slice(&bytes);
            assert!(scene.content() == expected, "{length} bytes at {offset}");
        }
    }
    let counters = scene.b.seat.as_ref().unwrap().counters();
    assert_eq!(counters.moves, 6 * lengths.len() as u64);
    assert_eq!(counters.moved_bytes, 6 * lengths.iter().sum::<usize>() as u64);
    assert_eq!((counters.requests, counters.refusals), (1, 0));
    // Neither was told of anything.
    scene.a.expect_silence();
    scene.b.expect_silence();
}

#[test]
fn the_largest_dmb_is_filled_by_one_move_of_many_pieces() {
    let mut scene = Scene::new(1 << 20);
    let bytes = pattern(1 << 19, 3);
    scene.b.ram.write(SOURCE, &bytes);
    // 62 pieces that end anywhere, some of them empty, and the rest: as many descriptors as the queue has.
    let mut pieces = Vec::new();
    let mut expected = Vec::new();
    for index in 0..61usize {
        let (start, len) = (index * 5003, if index % 9 == 4 { 0 } else { index * 101 });
        pieces.push(Piece {
            addr: SOURCE + start as u64,
            len: len as u32,
        });
        expected.extend_from_slice(&bytes[start..start + len]);
    }
    let rest = (1 << 19) - expected.len();
    pieces.push(Piece {
        addr: SOURCE,
        len: rest as u32,
    });
    expected.extend_from_slice(&bytes[..rest]);
    for half in [0, 1 << 19] {
        assert_eq!(scene.b.move_pieces(scene.dmb.token, half, &pieces, false), Status::Ok);
    }
    let content = scene.content();
    assert!(content[..1 << 19] == expected[..] && content[1 << 19..] == expected[..]);
}

#[test]
fn a_head_in_pieces_is_a_head() {
    let mut scene = Scene::new(1 << 14);
    let body = Move {
        token: scene.dmb.token,
        offset: 100.into(),
        flags: MOVE_SIGNAL.into(),
        index: 0.into(),
    };
    let request = [&encode(CMD_MOVE, &body)[..], b"payload"].concat();
    scene.b.ram.write(SOURCE, &request);
    // After a first descriptor with one byte of the head, the data begins in the middle of the last.
    let piece = |start: usize, end: usize| Piece {
        addr: SOURCE + start as u64,
        len: (end - start) as u32,
    };
    let pieces = [piece(1, 2), piece(2, 2), piece(2, 20), piece(20, request.len())];
    assert_eq!(scene.b.move_raw(&request[..1], &pieces), Status::Ok);
    assert_eq!(scene.a.expect_event(), scene.rung());
    assert_eq!(&scene.content()[99..108], b"\0payload\0");
}

#[test]
fn no_byte_leaves_the_dmb() {
    let refused: [(u64, usize); 9] = [
        (0, 20_001),
        (1, 20_000),
        (19_999, 2),
        (20_000, 1),
        (20_001, 0),
        (1 << 20, 8),
        (u64::MAX, 1),
        (u64::MAX - 7, 8),
        (u64::MAX, 0),
    ];
    for (offset, length) in refused {
        // 20,000 bytes in a block of 32 KiB.
        let mut scene = Scene::new(20_000);
        let next = scene.a.alloc_for_peer(scene.b.gid(), 20_000).unwrap();
        let bytes = pattern(length, 1);
        assert_eq!(
            scene.b.move_data(scene.dmb.token, offset, &bytes, true),
            Status::Err,
            "{length} bytes at {offset}"
        );
        let slab = scene.a.window.read(scene.dmb.offset & !(32 << 10), 64 << 10);
        assert!(slab.iter().all(|byte| *byte == 0), "{length} bytes at {offset}");
        assert!(scene.a.window.read(next.offset, 32 << 10).iter().all(|byte| *byte == 0));
        scene.a.expect_silence();
        let head = Move {
            token: scene.dmb.token,
            offset: offset.into(),
            flags: MOVE_SIGNAL.into(),
            index: 0.into(),
        };
        let evidence = [encode(CMD_MOVE, &head), (length as u64).to_le_bytes().to_vec()].concat();
        let found = (Finding::MoveOutside.name(), Object::new("virtqueue", 2), evidence);
        assert_eq!(scene.b.seat.as_ref().unwrap().findings(), [found]);
    }
    let mut scene = Scene::new(20_000);
    assert_eq!(scene.b.move_data(scene.dmb.token, 20_000, &[], false), Status::Ok);
    assert_eq!(scene.b.move_data(scene.dmb.token, 19_999, &[9], false), Status::Ok);
    assert_eq!(scene.content()[19_998..], [0, 9]);
}

#[test]
fn only_the_peer_moves() {
    let mut scene = Scene::new(1 << 14);
    let mut c = scene.host.boot("c");
    let token = scene.dmb.token;
    assert_eq!(c.move_data(token, 0, b"foreign", true), Status::PermWrite);
    assert_eq!(scene.a.move_data(token, 0, b"own", true), Status::PermWrite);
    let almost = Token((token.0.get() ^ 1).into());
    for unknown in [almost, Token(0.into()), Token(u64::MAX.into())] {
        assert_eq!(scene.b.move_data(unknown, 0, b"nobody's", true), Status::NoEnt);
    }
    assert!(scene.content().iter().all(|byte| *byte == 0));
    scene.a.expect_silence();
    assert_eq!(c.seat.as_ref().unwrap().found(Finding::AttachDenied), 1);
    assert_eq!(scene.b.seat.as_ref().unwrap().found(Finding::UnknownToken), 3);
    // None of which concerns the peer.
    assert_eq!(scene.b.move_data(token, 0, b"peer", true), Status::Ok);
    assert_eq!(scene.a.expect_event(), scene.rung());
}

#[test]
fn data_outside_the_guests_memory() {
    let good = Piece { addr: SOURCE, len: 64 };
    for bad in [0, 0x10, 0x20_0000 - 8, 0x1_0010_0000, u64::MAX - 4] {
        for length in [16, 100] {
            let mut scene = Scene::new(1 << 14);
            let pieces = [good, Piece { addr: bad, len: length }];
            let token = scene.dmb.token;
            assert_eq!(
                scene.b.move_pieces(token, 0, &pieces, true),
                Status::Err,
                "{length} bytes at {bad:#x}"
            );
            scene.a.expect_silence();
            scene.b.ping();
        }
    }
}

#[test]
fn malformed_moves() {
    let heads = |token: Token| {
        let body = |flags: u32, index: u32| Move {
            token,
            offset: 0.into(),
            flags: flags.into(),
            index: index.into(),
        };
        [
            ("no head", Vec::new()),
            ("half a head", encode(CMD_MOVE, &body(0, 0))[..MOVE_HEAD - 1].to_vec()),
            ("a command of the control queue", encode(CMD_QUERY_SLAB, &body(0, 0))),
            ("a flag that is none", encode(CMD_MOVE, &body(2, 0))),
            ("another element", encode(CMD_MOVE, &body(0, 1))),
        ]
    };
    for case in 0..5 {
        let mut scene = Scene::new(1 << 14);
        let (what, head) = &heads(scene.dmb.token)[case];
        assert_eq!(scene.b.move_raw(head, &[]), Status::Err, "{what}");
        assert_eq!(scene.b.seat.as_ref().unwrap().found(Finding::BadRequest), 1, "{what}");
        scene.b.ping();
    }
    // Nor is a move one of the control queue.
    let mut scene = Scene::new(1 << 14);
    let (_, head) = &heads(scene.dmb.token)[4];
    assert_eq!(scene.b.request(head, 1).status(), Some(Status::Err));
}

#[test]
fn a_move_with_too_many_descriptors() {
    const TABLE: u64 = SOURCE + 0x1_0000;
    for (extra, expected) in [(511, Status::Ok), (512, Status::Err)] {
        let mut scene = Scene::new(1 << 14);
        let body = Move {
            token: scene.dmb.token,
            offset: 0.into(),
            flags: 0.into(),
            index: 0.into(),
        };
        let head = encode(CMD_MOVE, &body);
        scene.b.ram.write(SOURCE, &head);
        let status_at = SOURCE + 0x100;
        let mut table = vec![(SOURCE, head.len() as u32, 1u16)];
        table.extend((0..extra).map(|index| (SOURCE + 0x200 + index, 1, 1)));
        table.push((status_at, 1, 2));
        for (index, &(addr, len, flags)) in table.iter().enumerate() {
            let bytes = ring::descriptor(addr, len, flags, index as u16 + 1);
            scene.b.ram.write(TABLE + 16 * index as u64, &bytes);
        }
        let length = 16 * table.len() as u32;
        scene.b.doorbell.describe(0, TABLE, length, ring::INDIRECT, 0);
        scene.b.doorbell.publish(0);
        assert_eq!(scene.b.doorbell.wait_used(PATIENCE), Some((0, 1)));
        assert_eq!(scene.b.ram.read(status_at, 1), [expected as u8], "{extra}");
    }
}

/// Otherwise a driver that posts payload and control message together would announce a payload that never arrived.
#[test]
fn after_a_refused_move_all_are_refused() {
    let mut scene = Scene::new(1 << 14);
    let other = scene.a.alloc_for_peer(scene.b.gid(), 1 << 14).unwrap();
    let token = scene.dmb.token;
    assert_eq!(scene.b.move_data(token, 1 << 14, b"beyond", false), Status::Err);
    for _ in 0..2 {
        assert_eq!(scene.b.move_data(token, 0, b"control message", true), Status::NoEnt);
    }
    // The mistake is the first.
    assert_eq!(scene.b.seat.as_ref().unwrap().findings().len(), 1);
    assert!(scene.content().iter().all(|byte| *byte == 0));
    scene.a.expect_silence();
    // Of this guest, and to this DMB.
    assert_eq!(scene.b.move_data(other.token, 0, b"other", false), Status::Ok);
    assert_eq!(scene.a.window.read(other.offset, 5), b"other");
}

#[test]
fn a_signal_is_an_event_of_the_owner_after_the_data() {
    let mut scene = Scene::new(1 << 14);
    for round in 0..20u64 {
        let bytes = pattern(32, round as usize);
        assert_eq!(scene.b.move_data(scene.dmb.token, 0, &bytes, true), Status::Ok);
        assert_eq!(scene.a.expect_event(), scene.rung());
        assert_eq!(scene.content()[..32], bytes[..]);
    }
    assert_eq!(scene.b.move_data(scene.dmb.token, 0, &[], true), Status::Ok);
    assert_eq!(scene.a.expect_event(), scene.rung());
    scene.b.expect_silence();
}

#[test]
fn an_owner_that_polls_its_bells_gets_no_event() {
    let mut scene = Scene::new(1 << 14);
    let (base, len, side) = scene.a.query_slab(scene.dmb.token).unwrap();
    assert_eq!((len, side), (16 << 20, 0));
    let slab_chunk = (scene.dmb.offset - base) / CHUNK_SIZE;
    assert!(slab_chunk > 0, "the first chunk holds the bells");
    let bell = base + SLAB_BELLS + slab_chunk;
    let awake = |awake: u32| [awake.to_le_bytes(), 1u32.to_le_bytes()].concat();
    scene.a.window.write(base, &awake(1));
    assert_eq!(scene.b.move_data(scene.dmb.token, 0, b"x", true), Status::Ok);
    scene.a.expect_silence();
    assert_eq!(scene.a.window.read(bell, 1), [1]);
    // A bell that is set covers later moves, until the owner has cleared it.
    scene.a.window.write(base, &awake(0));
    assert_eq!(scene.b.move_data(scene.dmb.token, 0, b"y", true), Status::Ok);
    scene.a.expect_silence();
    scene.a.window.write(bell, &[0]);
    assert_eq!(scene.b.move_data(scene.dmb.token, 0, b"z", true), Status::Ok);
    assert_eq!(scene.a.expect_event(), scene.rung());
    assert_eq!(scene.a.window.read(bell, 1), [1]);
    // No other guest may ask for the slab.
    assert_eq!(scene.b.query_slab(scene.dmb.token), Err(Status::NoEnt));
}

#[test]
fn a_token_dies_with_the_owners_hold() {
    let mut scene = Scene::new(1 << 16);
    assert_eq!(scene.b.move_data(scene.dmb.token, 0, b"secret", false), Status::Ok);
    scene.a.detach(scene.dmb.token).unwrap();
    assert_eq!(scene.b.move_data(scene.dmb.token, 0, b"late", true), Status::NoEnt);
    scene.a.expect_silence();
    // The block is zeroed, and serves the next peer of the owner.
    let mut c = scene.host.boot("c");
    let again = scene.a.alloc_for_peer(c.gid(), 1 << 16).unwrap();
    assert_eq!(again.offset, scene.dmb.offset);
    assert_ne!(again.token, scene.dmb.token);
    assert!(scene.a.window.read(again.offset, 1 << 16).iter().all(|byte| *byte == 0));
    assert_eq!(scene.b.move_data(scene.dmb.token, 0, b"later", true), Status::NoEnt);
    assert_eq!(c.move_data(again.token, 0, b"new", true), Status::Ok);
    assert_eq!(scene.a.window.read(again.offset, 4), b"new\0");
}

#[test]
fn no_memory_is_handed_to_two_guests() {
    let host = Host::copying();
    let mut guests = [host.boot("a"), host.boot("b"), host.boot("c")];
    for owner in 0..3 {
        for peer in 0..3 {
            if owner == peer {
                continue;
            }
            let gid = guests[peer].gid();
            let dmb = guests[owner].alloc_for_peer(gid, 1 << 20).unwrap();
            assert_eq!(guests[peer].attach(dmb.token), Err(Status::PermAttach));
            assert_eq!(guests[peer].move_data(dmb.token, 0, b"moved", true), Status::Ok);
        }
        let open = guests[owner].alloc(1 << 20).unwrap();
        let all = u64::from(PERM_READ | PERM_WRITE | PERM_ATTACH);
        guests[owner].grant(open.token, None, all).unwrap();
        for peer in (0..3).filter(|peer| *peer != owner) {
            assert_eq!(guests[peer].attach(open.token), Err(Status::PermAttach));
        }
    }
    let sets: Vec<BTreeSet<u64>> = guests
        .iter()
        .map(|guest| guest.window.inodes().into_iter().collect())
        .collect();
    for (index, set) in sets.iter().enumerate() {
        // The doorbell area and one slab.
        assert_eq!(set.len(), 2);
        assert!(sets[index + 1..].iter().all(|other| set.is_disjoint(other)));
    }
    drop(guests);
    host.expect_empty();
}

#[test]
fn a_granted_dmb_takes_moves_of_several_guests() {
    let host = Host::copying();
    let (mut a, mut b, mut c) = (host.boot("a"), host.boot("b"), host.boot("c"));
    let dmb = a.alloc(1 << 14).unwrap();
    a.grant(dmb.token, Some(b.devid()), PERM_WRITE.into()).unwrap();
    assert_eq!(c.move_data(dmb.token, 8, b"c", true), Status::PermWrite);
    assert_eq!(b.move_data(dmb.token, 0, b"b", true), Status::Ok);
    let mut d = host.boot("d");
    a.grant(dmb.token, None, PERM_WRITE.into()).unwrap();
    assert_eq!(d.move_data(dmb.token, 4, b"d", true), Status::Ok);
    assert_eq!(a.window.read(dmb.offset, 12), b"b\0\0\0d\0\0\0\0\0\0\0");
    // Both know the owner now, and are told of its end.
    let gone = a.gid();
    a.reset();
    assert_eq!(b.expect_event(), Event::PeerGone(gone));
    assert_eq!(d.expect_event(), Event::PeerGone(gone));
    c.expect_silence();
}

#[test]
fn each_of_two_learns_of_the_others_end() {
    let mut scene = Scene::new(1 << 14);
    let gone = scene.a.gid();
    scene.a.reset();
    assert_eq!(scene.b.expect_event(), Event::PeerGone(gone));
    assert_eq!(scene.b.move_data(scene.dmb.token, 0, b"x", true), Status::NoEnt);
    scene.dmb = scene.a.alloc_for_peer(scene.b.gid(), 1 << 14).unwrap();
    // Before any move, and also after the DMB is free.
    scene.a.detach(scene.dmb.token).unwrap();
    let gone = scene.b.gid();
    scene.b.reset();
    assert_eq!(scene.a.expect_event(), Event::PeerGone(gone));
    // Who is gone is not told twice.
    scene.a.reset();
    scene.b.expect_silence();
    drop((scene.a, scene.b));
    scene.host.expect_empty();
}

#[test]
fn moves_that_were_posted_while_the_device_was_stopped() {
    let mut scene = Scene::new(1 << 14);
    assert_eq!(scene.b.move_data(scene.dmb.token, 0, b"before", true), Status::Ok);
    assert_eq!(scene.a.expect_event(), scene.rung());
    let bases = scene.b.pause();
    let body = Move {
        token: scene.dmb.token,
        offset: 0.into(),
        flags: MOVE_SIGNAL.into(),
        index: 0.into(),
    };
    scene.b.ram.write(SOURCE, b"paused");
    let piece = Piece { addr: SOURCE, len: 6 };
    scene.b.post_move(&encode(CMD_MOVE, &body), &[piece]);
    scene.a.expect_silence();
    assert_eq!(&scene.content()[..6], b"before");
    scene.b.resume(bases);
    assert_eq!(scene.b.take_moved(), Status::Ok);
    assert_eq!(scene.a.expect_event(), scene.rung());
    assert_eq!(&scene.content()[..6], b"paused");
    // The owner's pause delays the event, not the data.
    let bases = scene.a.pause();
    assert_eq!(scene.b.move_data(scene.dmb.token, 0, b"asleep", true), Status::Ok);
    scene.a.resume(bases);
    assert_eq!(scene.a.expect_event(), scene.rung());
    assert_eq!(&scene.content()[..6], b"asleep");
}

#[test]
fn a_move_that_a_fault_refuses_breaks_the_rest() {
    let mut faulty = Faulty::at(Host::copying());
    let (mut a, mut b) = (faulty.boot("a"), faulty.boot("b"));
    let [first, second] = [(); 2].map(|()| a.alloc_for_peer(b.gid(), 1 << 14).unwrap());
    faulty.apply(
        "[[fault]]\nkind = \"request_refused\"\nguest = \"b\"\nrequest = \"move\"\nstatus = \"no_mem\"\ncount = 1",
    );
    assert_eq!(b.move_data(first.token, 64, b"payload", false), Status::NoMem);
    assert_eq!(b.move_data(first.token, 0, b"control", true), Status::NoEnt);
    assert_eq!(b.move_data(second.token, 0, b"other", true), Status::Ok);
    assert_eq!(
        a.expect_event(),
        Event::Doorbells(vec![(second.offset / CHUNK_SIZE) as u32])
    );
    assert!(a.window.read(first.offset, 1 << 14).iter().all(|byte| *byte == 0));
    assert_eq!(faulty.strikes(), [1]);
}

#[test]
fn the_bells_that_an_owner_polls_are_lost_late_and_spurious() {
    let mut faulty = Faulty::at(Host::copying());
    let (mut a, mut b) = (faulty.boot("a"), faulty.boot("b"));
    let dmb = a.alloc_for_peer(b.gid(), 1 << 14).unwrap();
    let (base, ..) = a.query_slab(dmb.token).unwrap();
    let bell = base + SLAB_BELLS + (dmb.offset - base) / CHUNK_SIZE;
    a.window.write(base, &[1, 0, 0, 0, 1, 0, 0, 0]);
    let rung = |a: &TestGuest| a.window.read(bell, 1) == [1];
    let rule = |kind: &str| format!("[[fault]]\nkind = \"{kind}\"\nguest = \"a\"\ncount = 1\n");

    faulty.apply(&rule("bell_lost"));
    assert_eq!(b.move_data(dmb.token, 0, b"lost", true), Status::Ok);
    assert!(!rung(&a) && faulty.strikes() == [1]);
    assert_eq!(b.move_data(dmb.token, 0, b"found", true), Status::Ok);
    assert!(rung(&a));
    a.window.write(bell, &[0]);

    faulty.apply(&(rule("bell_late") + "delay = \"200ms\""));
    assert_eq!(b.move_data(dmb.token, 0, b"late", true), Status::Ok);
    assert!(!rung(&a) && faulty.strikes() == [1]);
    eventually("the late bell", || rung(&a));
    a.window.write(bell, &[0]);

    faulty.apply(&(rule("bell_spurious") + "delay = \"200ms\""));
    assert_eq!(b.move_data(dmb.token, 0, b"spurious", true), Status::Ok);
    assert!(rung(&a));
    a.window.write(bell, &[0]);
    eventually("the spurious bell", || rung(&a));
    // None of them as an event.
    a.expect_silence();
    assert_eq!(a.seat.as_ref().unwrap().counters().rings, 0);
}

#[test]
fn moves_are_replayed_byte_for_byte() {
    let copying = vhost_ism::fabric::Limits {
        mode: Mode::Copy,
        ..limits()
    };
    let host = Host::recorded_with(&["a", "b"], copying);
    let mut scene = Scene::at(host, 1 << 16);
    let token = scene.dmb.token;
    for round in 0..3 {
        let bytes = pattern(4000, round);
        assert_eq!(scene.b.move_data(token, 32, &bytes, false), Status::Ok);
        assert_eq!(scene.b.move_data(token, 0, &bytes[..32], true), Status::Ok);
        assert_eq!(scene.a.expect_event(), scene.rung());
    }
    let nowhere = [Piece { addr: 0, len: 8 }];
    assert_eq!(scene.b.move_pieces(token, 0, &nowhere, true), Status::Err);
    assert_eq!(scene.b.move_data(token, 0, b"x", true), Status::NoEnt);
    let host = scene.host;
    drop((scene.a, scene.b));
    host.expect_empty();
    let report = equal(&host.finish_record());
    // A query at each of two starts, ALLOC_FOR_PEER, and eight moves.
    assert_eq!((report.counts.requests, report.counts.answers), (11, 11));
    assert_eq!(report.counts.events, 4);
    let kinds: Vec<_> = report.findings.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, ["bad_request", "dmb_left"]);
}
