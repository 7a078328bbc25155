mod model;

use std::collections::HashSet;

use super::*;
use crate::abi::{PERM_ATTACH, PERM_READ, PERM_WRITE};
use crate::event::MAX_DEPARTURES;
use crate::ism_finding::Finding;
use crate::stats::GuestStats;
use vhost_daemon::finding::{Kind, Object, Source};
use vhost_daemon::trace::Tracer;

const ALL: u64 = (PERM_READ | PERM_WRITE | PERM_ATTACH) as u64;
const RW: u32 = PERM_READ | PERM_WRITE;
/// Room for any number of areas.
const ANY: usize = usize::MAX;

/// Returns limits with twelve units of window, so that everything fills up now and then.
fn limits() -> Limits {
    Limits {
        window_size: 24 << 20,
        max_dmb_size: 1 << 20,
        max_area_size: 1 << 20,
        layout: Layout::OneRegion,
        max_dmbs: 8,
        max_maps: 4,
        mode: Mode::Mapped,
    }
}

fn fabric() -> Fabric {
    Fabric::new(0xff00, limits())
}

fn new_sink() -> Arc<EventSink> {
    Arc::new(EventSink::new(Arc::new(GuestStats::new(
        "test".into(),
        Tracer::default(),
    ))))
}

fn join(fabric: &Fabric) -> Gid {
    let gid = fabric.new_gid();
    fabric.join(gid, fabric.new_devid(), new_sink());
    gid
}

/// Unmaps stale slabs, as a guest's thread does before each request.
fn settle(fabric: &Fabric, gid: Gid) {
    for id in fabric.stale_slabs(gid) {
        fabric.vacate(gid, id);
    }
}

#[track_caller]
fn assert_empty(fabric: &Fabric) {
    let stats = fabric.stats();
    assert_eq!((stats.sessions, stats.slabs, stats.dmbs), (0, 0, 0));
    assert_eq!((stats.slab_bytes, stats.used_bytes, stats.lost_blocks), (0, 0, 0));
}

#[test]
fn a_pair_shares_one_slab_in_both_directions() {
    let fabric = fabric();
    let (a, b) = (join(&fabric), join(&fabric));
    let of_a = fabric.alloc_for_peer(a, b, 100).unwrap();
    let of_b = fabric.alloc_for_peer(b, a, 100).unwrap();
    assert_eq!(of_a.mapping.memory.id, of_b.mapping.memory.id);
    let attached = fabric.attach(b, of_a.token, RW, ANY).unwrap();
    assert_eq!(attached.placement.mapping.base(), of_b.mapping.base());
    assert_eq!(attached.owner_chunk, (of_a.offset / CHUNK_SIZE) as u32);
}

#[test]
fn slabs_of_different_pairs_are_different() {
    let fabric = fabric();
    let (a, b, c) = (join(&fabric), join(&fabric), join(&fabric));
    let with_b = fabric.alloc_for_peer(a, b, 100).unwrap();
    let with_c = fabric.alloc_for_peer(a, c, 100).unwrap();
    let alone = fabric.alloc(a, 100, ANY).unwrap();
    let ids = [with_b, with_c, alone].map(|placement| placement.mapping.memory.id);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 3);
}

#[test]
fn gids_have_two_halves() {
    let fabric = fabric();
    let gids: HashSet<Gid> = (0..1000).map(|_| fabric.new_gid()).collect();
    assert_eq!(gids.len(), 1000);
    for gid in gids {
        assert!(gid.0[..8] != [0; 8] && gid.0[8..] != [0; 8]);
    }
}

#[test]
fn a_session_that_is_not_up_gets_nothing() {
    let fabric = fabric();
    let (a, nobody) = (join(&fabric), fabric.new_gid());
    assert_eq!(fabric.alloc(nobody, 1, ANY).unwrap_err(), Refusal::NoSuchPeer);
    assert_eq!(fabric.alloc_for_peer(nobody, a, 1).unwrap_err(), Refusal::NoSuchPeer);
    assert_eq!(fabric.alloc_for_peer(a, nobody, 1).unwrap_err(), Refusal::NoSuchPeer);
    let dmb = fabric.alloc(a, 1, ANY).unwrap();
    fabric.grant(a, dmb.token, None, ALL).unwrap();
    assert_eq!(
        fabric.attach(nobody, dmb.token, RW, ANY).unwrap_err(),
        Refusal::NoSuchPeer
    );
    assert!(fabric.leave(nobody).is_empty());
    assert!(fabric.stale_slabs(nobody).is_empty());
    fabric.leave(a);
    assert_empty(&fabric);
}

#[test]
fn a_stale_slab_that_serves_again_stays() {
    let fabric = fabric();
    let (a, b) = (join(&fabric), join(&fabric));
    let dmb = fabric.alloc(a, 1, ANY).unwrap();
    fabric.grant(a, dmb.token, None, ALL).unwrap();
    let first = fabric.attach(b, dmb.token, RW, ANY).unwrap();
    fabric.detach(b, dmb.token).unwrap();
    assert_eq!(fabric.stale_slabs(b).len(), 1);
    let again = fabric.attach(b, dmb.token, RW, ANY).unwrap();
    assert_eq!(first.placement.offset, again.placement.offset);
    assert!(fabric.stale_slabs(b).is_empty());
}

#[test]
fn a_stale_slab_keeps_its_place_until_it_is_vacated() {
    let fabric = fabric();
    let a = join(&fabric);
    let first = fabric.alloc(a, 1, ANY).unwrap();
    fabric.detach(a, first.token).unwrap();
    assert_eq!(fabric.stale_slabs(a), fabric.stale_slabs(a));
    let second = fabric.alloc(a, 1, ANY).unwrap();
    assert_ne!(second.offset, first.offset);
    settle(&fabric, a);
    assert!(fabric.stale_slabs(a).is_empty());
    let third = fabric.alloc(a, 1, ANY).unwrap();
    assert_eq!(third.offset, first.offset);
}

/// Every region size the command line takes, with the largest DMB it takes.
#[test]
fn the_largest_dmb_fits() {
    for shift in 23..=29 {
        let region = 1u64 << shift;
        let limits = Limits {
            window_size: region - (2 << 20),
            max_dmb_size: region / 8,
            max_area_size: region / 8,
            ..limits()
        };
        let fabric = Fabric::new(0xff00, limits);
        let (a, b) = (join(&fabric), join(&fabric));
        let dmb = fabric.alloc_for_peer(a, b, region / 8).unwrap();
        fabric.attach(b, dmb.token, RW, ANY).unwrap();
        fabric.alloc(b, region / 8, ANY).unwrap();
    }
}

/// A detach during a move: the token dies at once, the memory is reused when the move is done.
#[test]
fn a_move_in_progress_holds_the_memory() {
    let copying = Limits {
        mode: Mode::Copy,
        ..limits()
    };
    let fabric = Fabric::new(0xff00, copying);
    let [a, b] = [(); 2].map(|()| {
        let gid = fabric.new_gid();
        let stats = GuestStats::new("guest".into(), Tracer::default());
        fabric.join(gid, fabric.new_devid(), Arc::new(EventSink::new(Arc::new(stats))));
        gid
    });
    let dmb = fabric.alloc_for_peer(a, b, 1 << 14).unwrap();
    let moving = fabric.begin_move(b, dmb.token, 16, 8).unwrap();
    assert_eq!((moving.offset, moving.length), (dmb.offset + 16, 8));
    fabric.detach(a, dmb.token).unwrap();
    assert_eq!(fabric.begin_move(b, dmb.token, 0, 8).unwrap_err(), Refusal::NoSuchDmb);
    let next = fabric.alloc_for_peer(a, b, 1 << 14).unwrap();
    assert_ne!(next.offset, dmb.offset, "the move still writes there");
    assert_eq!(fabric.stats().dmbs, 2);
    assert!(moving.view.write_words(moving.offset, &[0xff; 8]));
    assert!(fabric.end_move(dmb.token).is_none(), "there is no owner to notify");
    assert_eq!(fabric.stats().dmbs, 1);
    let again = fabric.alloc_for_peer(a, b, 1 << 14).unwrap();
    assert_eq!(again.offset, dmb.offset);
    let reused = moving.view.range(again.offset, 1 << 14).unwrap();
    let mut bytes = vec![1_u8; 1 << 14];
    reused.copy_to(&mut bytes[..]);
    assert!(bytes.iter().all(|byte| *byte == 0), "and it is zeroed");

    // The owner's end is no different.
    let moving = fabric.begin_move(b, again.token, 0, 8).unwrap();
    assert_eq!(fabric.leave(a).len(), 1, "the peer is notified");
    assert_eq!((fabric.stats().dmbs, fabric.stats().slabs), (1, 1));
    assert!(moving.view.write_words(moving.offset, &[0xff; 8]));
    assert!(fabric.end_move(again.token).is_none());
    assert_eq!((fabric.stats().dmbs, fabric.stats().slabs), (0, 0));
    assert!(fabric.leave(b).is_empty());
}

/// A guest that takes no events is told of every end all the same.
#[test]
fn a_session_shares_memory_with_no_more_than_it_can_be_told_of() {
    let fabric = fabric();
    let join = || {
        let (gid, sink) = (fabric.new_gid(), new_sink());
        fabric.join(gid, fabric.new_devid(), sink.clone());
        (gid, sink)
    };
    let stats = Arc::new(GuestStats::new("victim".into(), Tracer::default()));
    let (victim, sink) = (fabric.new_gid(), Arc::new(EventSink::new(stats.clone())));
    fabric.join(victim, fabric.new_devid(), sink.clone());
    let (friend, _) = join();
    fabric.alloc_for_peer(friend, victim, 1).unwrap();
    for _ in 0..MAX_DEPARTURES - 1 {
        let (attacker, _) = join();
        fabric.alloc_for_peer(attacker, victim, 1).unwrap();
        let notified = fabric.leave(attacker);
        assert_eq!(notified.len(), 1);
        notified[0].peer_gone(attacker);
    }
    assert_eq!(sink.departures(), MAX_DEPARTURES - 1);
    let (late, _) = join();
    let before = fabric.stats();
    assert_eq!(fabric.alloc_for_peer(late, victim, 1).unwrap_err(), Refusal::Full);
    let found = stats.findings().recent();
    assert_eq!((found.len(), found[0].kind.name), (1, Finding::EventOverflow.name()));
    assert_eq!(
        (found[0].object, &found[0].evidence[..]),
        (Object::new("virtqueue", 1), &late.0[..])
    );
    assert_eq!(fabric.alloc_for_peer(victim, late, 1).unwrap_err(), Refusal::Full);
    assert_eq!(fabric.stats().dmbs, before.dmbs);
    // The friend has its place, and needs no second one.
    fabric.alloc_for_peer(victim, friend, 1).unwrap();
    fabric.alloc_for_peer(late, friend, 1).unwrap();
    for peer in fabric.leave(friend) {
        peer.peer_gone(friend);
    }
    assert_eq!(sink.departures(), MAX_DEPARTURES);
}
