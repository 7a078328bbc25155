//! Mistakes of guests, and the findings about them.

use vhost_daemon::finding::{Kind, Object};
use vhost_ism::abi::*;
use vhost_ism::ism_finding::Finding;
use zerocopy::IntoBytes;

use crate::common::guest::SCRATCH;
use crate::common::*;
use crate::replay::equal;

fn about(kind: Finding, object: &'static str, number: u64, evidence: &[u8]) -> Found {
    (kind.name(), Object::new(object, number), evidence.to_vec())
}

/// First chunk of a DMB in the window of a guest.
fn chunk(dmb: &Dmb) -> u32 {
    (dmb.offset / CHUNK_SIZE) as u32
}

fn detach(token: Token) -> Vec<u8> {
    [&[CMD_DETACH.0, CMD_DETACH.1][..], token.as_bytes()].concat()
}

fn attach(token: Token, rw_perm: u32) -> Vec<u8> {
    let header = [CMD_ATTACH.0, CMD_ATTACH.1];
    [&header[..], token.as_bytes(), &rw_perm.to_le_bytes()].concat()
}

#[test]
fn what_a_session_holds_at_its_end_is_left() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let (seat_a, seat_b) = (a.seat.clone().unwrap(), b.seat.clone().unwrap());
    let first = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let second = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let attached = b.attach(first.token).unwrap();
    // Used and given back.
    b.attach(second.token).unwrap();
    b.detach(second.token).unwrap();
    assert_eq!((seat_a.findings(), seat_b.findings()), (Vec::new(), Vec::new()));
    b.stop();
    eventually("the session of b is over", || host.stats().sessions == 1);
    let evidence = chunk(&attached).to_le_bytes();
    let number = u64::from(chunk(&attached));
    assert_eq!(
        seat_b.findings(),
        [about(Finding::AttachmentLeft, "dmb", number, &evidence)]
    );
    a.stop();
    eventually("the session of a is over", || host.stats().sessions == 0);
    let mut chunks = [chunk(&first), chunk(&second)];
    chunks.sort_unstable();
    let evidence = chunks.map(u32::to_le_bytes).concat();
    let number = u64::from(chunks[0]);
    assert_eq!(seat_a.findings(), [about(Finding::DmbLeft, "dmb", number, &evidence)]);
}

#[test]
fn sessions_that_give_everything_back_have_no_findings() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let seats = [&a, &b].map(|guest| guest.seat.clone().unwrap());
    let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    b.attach(dmb.token).unwrap();
    b.detach(dmb.token).unwrap();
    a.detach(dmb.token).unwrap();
    a.stop();
    b.stop();
    host.expect_empty();
    for seat in seats {
        assert_eq!(seat.findings(), []);
    }
}

#[test]
fn a_dmb_freed_under_its_peer_is_suspicious() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let seat = a.seat.clone().unwrap();
    let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    b.attach(dmb.token).unwrap();
    a.detach(dmb.token).unwrap();
    let expected = about(Finding::DmbFreedAttached, "dmb", chunk(&dmb).into(), &detach(dmb.token));
    assert_eq!(seat.findings(), [expected]);
    b.detach(dmb.token).unwrap();
}

#[test]
fn requests_with_other_tokens_are_found_with_their_bytes() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let seat = b.seat.clone().unwrap();
    let dmb = a.alloc(1 << 16).unwrap();
    assert_eq!(b.attach_as(dmb.token, PERM_READ), Err(Status::PermAttach));
    assert_eq!(b.detach(dmb.token), Err(Status::NoEnt));
    a.detach(dmb.token).unwrap();
    assert_eq!(b.attach_as(dmb.token, 3), Err(Status::NoEnt));
    // Not about a token.
    assert_eq!(b.query_gid(Gid([7; 16])), Err(Status::NoEnt));
    let expected = [
        about(Finding::AttachDenied, "virtqueue", 0, &attach(dmb.token, PERM_READ)),
        about(Finding::UnknownToken, "virtqueue", 0, &detach(dmb.token)),
        about(Finding::UnknownToken, "virtqueue", 0, &attach(dmb.token, 3)),
    ];
    assert_eq!(seat.findings(), expected);
    assert_eq!(seat.guest.stats().total_errors(), 0);
}

#[test]
fn a_doorbell_beside_all_dmbs_is_found_with_its_chunk() {
    let host = Host::default();
    let a = host.boot("a");
    let seat = a.seat.clone().unwrap();
    a.ring(20 << 20);
    eventually("a finding", || !seat.findings().is_empty());
    let number = (20 << 20) / CHUNK_SIZE;
    assert_eq!(seat.findings(), [about(Finding::StrayDoorbell, "chunk", number, &[1])]);
}

#[test]
fn a_bad_request_is_found_with_its_bytes_or_its_descriptor() {
    let host = Host::default();
    let mut a = host.boot("a");
    let seat = a.seat.clone().unwrap();
    assert_eq!(a.request(&[9, 8, 7], 8).status(), Some(Status::Err));
    let room = Desc {
        addr: SCRATCH,
        len: 8,
        flags: ring::WRITE,
        next: 0,
    };
    let ask = |addr, len| Desc {
        addr,
        len,
        flags: ring::NEXT,
        next: 1,
    };
    // None, one outside of memory, and one that is too long.
    let unreadable = [ask(SCRATCH + 64, 0), ask(0xdead_0000_0000, 16), ask(SCRATCH + 64, 65)];
    let mut expected = vec![about(Finding::BadRequest, "virtqueue", 0, &[9, 8, 7])];
    for desc in unreadable {
        assert_eq!(a.submit_table(&[desc, room]), 1);
        expected.push(about(Finding::BadRequest, "virtqueue", 0, &bytes(desc)));
    }
    assert_eq!(a.submit_table(&[room]), 1);
    expected.push(about(Finding::BadRequest, "virtqueue", 0, &bytes(room)));
    assert_eq!(seat.findings(), expected);
}

fn bytes(desc: Desc) -> [u8; 16] {
    ring::descriptor(desc.addr, desc.len, desc.flags, desc.next)
}

#[test]
fn a_bad_chain_is_found_with_the_request_or_its_descriptor() {
    let host = Host::default();
    let mut a = host.boot("a");
    let seat = a.seat.clone().unwrap();
    assert_eq!(a.submit(&[Part::Ask(&[1, 2, 3])]).used, 0);
    let desc = Desc {
        addr: 0xdead_0000_0000,
        len: 16,
        flags: 0,
        next: 0,
    };
    assert_eq!(a.submit_table(&[desc]), 0);
    let nested = Desc {
        flags: ring::INDIRECT,
        ..desc
    };
    assert_eq!(a.submit_table(&[nested]), 0);
    // A table that cannot be read has no first descriptor: the index of the chain.
    let expected =
        [&[1, 2, 3][..], &bytes(desc), &[0, 0]].map(|evidence| about(Finding::BadChain, "virtqueue", 0, evidence));
    assert_eq!(seat.findings(), expected);
}

#[test]
fn a_bad_ring_is_found_with_its_index() {
    let host = Host::default();
    let mut a = host.boot("a");
    let seat = a.seat.clone().unwrap();
    let served = seat.counters().requests as u16;
    a.control.jump(1000);
    a.control.notify();
    eventually("a finding", || !seat.findings().is_empty());
    let expected = about(Finding::BadRing, "virtqueue", 0, &served.to_le_bytes());
    assert_eq!(seat.findings()[0], expected);
}

#[test]
fn a_short_event_buffer_is_found_with_its_descriptor() {
    let host = Host::recorded(&["a", "b"]);
    let mut a = host.boot("a");
    let mut b = host.boot_with(
        "b",
        Options {
            event_buffers: 0,
            ..Options::default()
        },
    );
    let seat = b.seat.clone().unwrap();
    b.post_event(8);
    b.post_event(64);
    a.send_message(b.gid(), 1, 2).unwrap();
    assert_eq!(b.last_event(PATIENCE), Some(Event::Nothing));
    assert_eq!(b.last_event(PATIENCE), Some(Event::Message(a.gid(), 1, 2)));
    let descriptor = ring::descriptor(b.event_buffer(0), 8, ring::WRITE, 0);
    let expected = about(Finding::ShortEventBuffer, "virtqueue", 1, &descriptor);
    assert_eq!(seat.findings(), [expected]);
    // And a request and a chain that cannot be read, all of it replayed with the same bytes.
    assert_eq!(a.submit(&[Part::Room(8)]).used, 1);
    drop((a, b));
    host.expect_empty();
    let report = equal(&host.finish_record());
    let kinds: Vec<_> = report.findings.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, ["short_event_buffer", "bad_request"]);
}

#[test]
fn the_bytes_of_every_kind_are_tested() {
    let sources = [
        include_str!("findings.rs"),
        include_str!("moves.rs"),
        include_str!("../../src/fabric/tests.rs"),
    ];
    let provoked = |kind: &&Finding| {
        let variant = format!("Finding::{kind:?}");
        sources.iter().any(|source| source.contains(&variant))
    };
    let missing: Vec<&Finding> = Finding::ALL.iter().filter(|kind| !provoked(kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
