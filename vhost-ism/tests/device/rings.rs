//! Malformed descriptors and rings.

use std::time::Duration;

use vhost_ism::abi::*;
use vhost_ism::ism_finding::Finding;

use crate::common::guest::{SCRATCH, encode, status};
use crate::common::memory::{HIGH, LOW, REGION};
use crate::common::ring::{INDIRECT, NEXT, WRITE, descriptor};
use crate::common::*;

/// A good request lies here.
const ASK: u64 = SCRATCH;
/// There is room here.
const ROOM: u64 = SCRATCH + 0x1000;
/// Tables lie here.
const TABLE: u64 = SCRATCH + 0x2000;

/// Creates a guest with a valid request in memory, and its peer.
fn scene() -> (Host, TestGuest, TestGuest) {
    let host = Host::default();
    let (a, b) = (host.boot("a"), host.boot("b"));
    a.ram.write(ASK, &encode(CMD_QUERY_GID, &QueryGid { gid: a.gid() }));
    (host, a, b)
}

const REQUEST: u32 = 18;

fn ask(next: u16) -> Desc {
    Desc {
        addr: ASK,
        len: REQUEST,
        flags: NEXT,
        next,
    }
}

fn room() -> Desc {
    Desc {
        addr: ROOM,
        len: 64,
        flags: WRITE,
        next: 0,
    }
}

fn desc(addr: u64, len: u32, flags: u16, next: u16) -> Desc {
    Desc { addr, len, flags, next }
}

/// Expected outcome of a chain.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Returned without a byte written.
    Nothing,
    /// Returned with this status.
    Gets(Status),
    /// Returned.
    Anything,
}

#[test]
fn chains_that_make_no_sense() {
    use Fate::{Anything, Gets, Nothing};
    const HOLE: u64 = LOW + REGION;
    let outside = [
        0,
        1,
        LOW - 1,
        LOW - 8,
        HOLE - 8,
        HOLE,
        HIGH - 8,
        HIGH + REGION - 8,
        HIGH + REGION,
        1 << 63,
        u64::MAX - 17,
        u64::MAX - 8,
        u64::MAX,
    ];
    let mut table: Vec<(String, Vec<Desc>, Fate)> = vec![
        ("a good one".into(), vec![ask(1), room()], Gets(Status::Ok)),
        ("readable, looping".into(), vec![ask(0)], Nothing),
        ("readable, a loop of two".into(), vec![ask(1), ask(0)], Nothing),
        (
            "writable, looping".into(),
            vec![ask(1), desc(ROOM, 64, WRITE | NEXT, 1)],
            Anything,
        ),
        (
            "a loop through both".into(),
            vec![ask(1), desc(ROOM, 64, WRITE | NEXT, 0)],
            Anything,
        ),
        ("next out of range".into(), vec![ask(64), room()], Nothing),
        ("next far out of range".into(), vec![ask(u16::MAX), room()], Nothing),
        (
            "writable, next out of range".into(),
            vec![ask(1), desc(ROOM, 64, WRITE | NEXT, 4000)],
            Gets(Status::Ok),
        ),
        (
            "no bytes".into(),
            vec![desc(ASK, 0, NEXT, 1), room()],
            Gets(Status::Err),
        ),
        ("no room".into(), vec![ask(1), desc(ROOM, 0, WRITE, 0)], Nothing),
        (
            "no bytes, nowhere".into(),
            vec![desc(u64::MAX, 0, NEXT, 1), room()],
            Anything,
        ),
        (
            "all of memory".into(),
            vec![desc(ASK, u32::MAX, NEXT, 1), room()],
            Anything,
        ),
        (
            "room of all of memory".into(),
            vec![ask(1), desc(ROOM, u32::MAX, WRITE, 0)],
            Anything,
        ),
        (
            "more than 4 GiB".into(),
            vec![
                ask(1),
                desc(ROOM, u32::MAX, WRITE | NEXT, 2),
                desc(ROOM, u32::MAX, WRITE, 0),
            ],
            Anything,
        ),
        (
            "to the last byte of a region".into(),
            vec![ask(1), desc(HOLE - 64, 64, WRITE, 0)],
            Gets(Status::Ok),
        ),
        (
            "flags nobody knows".into(),
            vec![desc(ASK, REQUEST, NEXT | 0xfff0, 1), room()],
            Gets(Status::Ok),
        ),
    ];
    for addr in outside {
        table.push((
            format!("a request at {addr:#x}"),
            vec![desc(addr, REQUEST, NEXT, 1), room()],
            Gets(Status::Err),
        ));
        table.push((
            format!("room at {addr:#x}"),
            vec![ask(1), desc(addr, REQUEST, WRITE, 0)],
            Nothing,
        ));
        table.push((
            format!("half a request at {addr:#x}"),
            vec![ask(1), desc(addr, 64, NEXT, 2), room()],
            Gets(Status::Err),
        ));
        table.push((
            format!("more room at {addr:#x}"),
            vec![ask(1), desc(ROOM, 64, WRITE | NEXT, 2), desc(addr, 64, WRITE, 0)],
            Anything,
        ));
        table.push((
            format!("a table at {addr:#x}"),
            vec![desc(addr, 32, INDIRECT, 0)],
            Nothing,
        ));
    }
    let (host, mut a, mut b) = scene();
    let dmb = b.alloc_for_peer(a.gid(), 1).unwrap();
    let attached = a.attach(dmb.token).unwrap();
    for (what, chain, fate) in &table {
        run(&mut a, what, chain, *fate);
        a.ring(attached.offset);
        assert!(matches!(b.expect_event(), Event::Doorbells(_)), "{what}");
    }
    assert!(a.seat.as_ref().unwrap().found(Finding::BadChain) > 10);
    drop(host);
}

#[track_caller]
fn run(guest: &mut TestGuest, what: &str, chain: &[Desc], fate: Fate) {
    let gid = guest.gid();
    guest.ram.write(ASK, &encode(CMD_QUERY_GID, &QueryGid { gid }));
    guest.ram.write(ROOM, &[0xee; 64]);
    let used = guest.submit_table(chain);
    match fate {
        Fate::Nothing => assert_eq!(used, 0, "{what}"),
        Fate::Gets(expected) => {
            assert_eq!(used, 1, "{what}");
            let room = chain
                .iter()
                .find(|desc| desc.flags & WRITE != 0)
                .map_or(ROOM, |desc| desc.addr);
            assert_eq!(status(guest.ram.read(room, 1)[0]), expected, "{what}");
        }
        Fate::Anything => assert!(used <= 1, "{what}: {used} bytes"),
    }
    guest.ping();
}

#[test]
fn indirect_tables_that_make_no_sense() {
    use Fate::{Anything, Gets, Nothing};
    let good = [descriptor(ASK, REQUEST, NEXT, 1), descriptor(ROOM, 64, WRITE, 0)];
    let nested = [
        descriptor(ASK, REQUEST, NEXT, 1),
        descriptor(TABLE + 0x100, 32, INDIRECT, 0),
    ];
    let looping = [descriptor(ASK, REQUEST, NEXT, 0), descriptor(ROOM, 64, WRITE, 0)];
    let beyond = [descriptor(ASK, REQUEST, NEXT, 2), descriptor(ROOM, 64, WRITE, 0)];
    let itself = [descriptor(TABLE, 32, INDIRECT, 0), descriptor(ROOM, 64, WRITE, 0)];
    /// Name, table, length of the table, further flags, and the expected outcome.
    type Row<'a> = (&'a str, &'a [[u8; 16]], u32, u16, Fate);
    let table: &[Row<'_>] = &[
        ("a good one", &good, 32, 0, Gets(Status::Ok)),
        ("no length", &good, 0, 0, Nothing),
        ("15 bytes", &good, 15, 0, Nothing),
        ("17 bytes", &good, 17, 0, Nothing),
        ("31 bytes", &good, 31, 0, Nothing),
        ("one of two", &good, 16, 0, Nothing),
        ("longer than it is", &good, 16 * 100, 0, Gets(Status::Ok)),
        ("65536 descriptors", &good, 16 * 65536, 0, Nothing),
        ("all of memory", &good, u32::MAX, 0, Nothing),
        ("almost all of memory", &good, u32::MAX - 15, 0, Nothing),
        ("nested", &nested, 32, 0, Nothing),
        ("in itself", &itself, 32, 0, Nothing),
        ("looping", &looping, 32, 0, Nothing),
        ("next beyond the table", &beyond, 32, 0, Nothing),
        ("writable", &good, 32, WRITE, Anything),
        ("with a next one", &good, 32, NEXT, Anything),
    ];
    let (_host, mut a, _b) = scene();
    for (what, descriptors, len, flags, fate) in table {
        a.ram.write(TABLE, &descriptors.concat());
        run(&mut a, what, &[desc(TABLE, *len, INDIRECT | flags, 1), room()], *fate);
    }
}

/// The largest tables there can be, each descriptor as large as it can be.
#[test]
fn a_chain_as_long_as_can_be() {
    let (_host, mut a, _b) = scene();
    let count = 32_000u32;
    let at = LOW + 0x6_0000;
    for index in 0..count {
        let next = if index + 1 < count { NEXT } else { 0 };
        let bytes = if index == 0 {
            descriptor(ASK, REQUEST, NEXT, 1)
        } else {
            descriptor(ROOM, 1, WRITE | next, index as u16 + 1)
        };
        a.ram.write(at + 16 * u64::from(index), &bytes);
    }
    run(
        &mut a,
        "32000 descriptors",
        &[desc(at, 16 * count, INDIRECT, 0)],
        Fate::Gets(Status::Ok),
    );
}

#[test]
fn heads_out_of_range() {
    let (_host, mut a, _b) = scene();
    for head in [64, 65, 255, 256, 0x7fff, u16::MAX] {
        a.control.publish(head);
        // It cannot be returned, and the next request is answered.
        a.ping();
    }
    for head in [64, u16::MAX] {
        a.events.publish(head);
    }
    a.ping();
}

/// An index that jumps: the queue is not served until the device is reset; nothing else is affected.
#[test]
fn a_control_ring_that_jumps() {
    for by in [65, 1000, 0x7fff, 0x8000, u16::MAX - 1] {
        let (host, mut a, mut b) = scene();
        let mut c = host.boot("c");
        let of_b = b.alloc_for_peer(a.gid(), 1).unwrap();
        let attached = a.attach(of_b.token).unwrap();
        let seat = a.seat.clone().unwrap();
        a.control.jump(by);
        a.control.notify();
        eventually("it is noticed", || seat.found(Finding::BadRing) > 0);
        std::thread::sleep(Duration::from_millis(30));
        let found = seat.found(Finding::BadRing);
        assert!(found < 10, "the device keeps serving the queue: {found} errors");
        assert_eq!(a.control.take_used(), None);
        // Its doorbells work, others work, and so does its next session.
        a.ring(attached.offset);
        assert!(matches!(b.expect_event(), Event::Doorbells(_)));
        b.ping();
        c.ping();
        let old = a.gid();
        a.reset();
        assert_eq!(b.expect_event(), Event::PeerGone(old));
        a.alloc_for_peer(b.gid(), 1).unwrap();
    }
}

#[test]
fn a_vmm_that_dies_with_a_control_ring_that_jumped() {
    let (host, mut a, _b) = scene();
    let seat = a.seat.clone().unwrap();
    a.control.jump(1000);
    a.control.notify();
    eventually("it is noticed", || seat.found(Finding::BadRing) > 0);
    a.kill();
    let mut a = seat.boot();
    a.ping();
    drop(host);
}

#[test]
fn an_event_ring_that_jumps() {
    let (host, mut a, mut b) = scene();
    let mut c = host.boot("c");
    let of_b = b.alloc_for_peer(a.gid(), 1 << 16).unwrap();
    let of_c = c.alloc_for_peer(a.gid(), 1 << 16).unwrap();
    let (to_b, to_c) = (a.attach(of_b.token).unwrap(), a.attach(of_c.token).unwrap());
    b.events.jump(1000);
    for _ in 0..20 {
        a.ring(to_b.offset);
        a.ring(to_c.offset);
        assert!(matches!(c.expect_event(), Event::Doorbells(_)));
        a.ping();
    }
    let _ = a.send_message(b.gid(), 1, 1);
    a.ping();
    let seat = b.seat.clone().unwrap();
    let found = seat.found(Finding::BadRing);
    assert!((1..200).contains(&found), "{found} times");
    b.ping();
    let old = b.gid();
    b.reset();
    assert_eq!(a.expect_event(), Event::PeerGone(old));
    let of_b = b.alloc_for_peer(a.gid(), 1 << 16).unwrap();
    let to_b = a.attach(of_b.token).unwrap();
    a.ring(to_b.offset);
    assert!(matches!(b.expect_event(), Event::Doorbells(_)));
}

/// Event buffers of every invalid kind, then a valid one.
#[test]
fn event_buffers_that_make_no_sense() {
    let (host, mut a, _b) = scene();
    let mut c = host.boot_with(
        "c",
        Options {
            event_buffers: 0,
            ..Options::default()
        },
    );
    let bad = [
        desc(HIGH, 256, 0, 0),
        desc(0, 256, WRITE, 0),
        desc(u64::MAX - 100, 256, WRITE, 0),
        desc(HIGH, u32::MAX, WRITE, 0),
        desc(HIGH, 0, WRITE, 0),
        desc(HIGH, 8, WRITE | NEXT, 70),
        desc(HIGH, 15, INDIRECT, 0),
        desc(0, 16, INDIRECT, 0),
    ];
    for (index, desc) in bad.iter().enumerate() {
        let slot = 32 + index as u16;
        c.events.describe(slot, desc.addr, desc.len, desc.flags, desc.next);
        c.events.publish(slot);
    }
    c.events.publish(300);
    a.send_message(c.gid(), 7, 8).unwrap();
    for index in 0..bad.len() {
        let (slot, used) = c.events.wait_used(PATIENCE).unwrap();
        assert_eq!((slot, used), (32 + index as u32, 0));
    }
    c.post_event(64);
    assert_eq!(c.last_event(PATIENCE), Some(Event::Message(a.gid(), 7, 8)));
    // In parts.
    for index in 0..40u16 {
        let next = if index < 39 { NEXT } else { 0 };
        c.events
            .describe(index, HIGH + 2 * u64::from(index), 1, WRITE | next, index + 1);
    }
    c.events.publish(0);
    a.send_message(c.gid(), 9, 10).unwrap();
    assert_eq!(c.events.wait_used(PATIENCE), Some((0, 40)));
    let bytes: Vec<u8> = (0..40).flat_map(|at| c.ram.read(HIGH + 2 * at, 1)).collect();
    assert_eq!(guest::parse_event(&bytes), Event::Message(a.gid(), 9, 10));
    c.ping();
}

/// Buffers posted to the queue that carries none.
#[test]
fn buffers_on_the_doorbell_queue() {
    let (_host, mut a, mut b) = scene();
    a.doorbell.describe(0, HIGH, 64, WRITE, 0);
    a.doorbell.publish(0);
    a.doorbell.jump(5000);
    let of_b = b.alloc_for_peer(a.gid(), 1).unwrap();
    let attached = a.attach(of_b.token).unwrap();
    a.ring(attached.offset);
    assert!(matches!(b.expect_event(), Event::Doorbells(_)));
    a.ping();
}

/// Kicks for nothing, on every queue.
#[test]
fn idle_kicks() {
    let (_host, mut a, mut b) = scene();
    for _ in 0..2000 {
        a.control.notify();
        a.events.notify();
        a.doorbell.notify();
    }
    a.ping();
    b.ping();
    a.expect_silence();
}
