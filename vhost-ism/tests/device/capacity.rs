//! Requests beyond a limit are refused, and succeed once there is room again.

use vhost_ism::abi::*;
use vhost_ism::fabric::{Limits, Mode};
use vhost_ism::ism_finding::Finding;

use crate::common::*;

/// Allocates until refused; returns the DMBs.
#[track_caller]
fn fill(owner: &mut TestGuest, peer: Gid, size: u64) -> Vec<Dmb> {
    let mut dmbs = Vec::new();
    loop {
        match owner.alloc_for_peer(peer, size) {
            Ok(dmb) => dmbs.push(dmb),
            Err(refused) => {
                assert_eq!(refused, Status::NoSpc);
                return dmbs;
            }
        }
    }
}

// Draft: ENOSPC
#[test]
fn the_dmb_table_is_bounded() {
    let host = Host::new(Limits {
        max_dmbs: 5,
        ..limits()
    });
    let (mut a, mut b, mut c) = (host.boot("a"), host.boot("b"), host.boot("c"));
    let dmbs = fill(&mut a, b.gid(), CHUNK_SIZE);
    assert_eq!(dmbs.len(), 5);
    assert_eq!(a.alloc(CHUNK_SIZE), Err(Status::NoSpc));
    // Attached DMBs count as well.
    let of_c = c.alloc_for_peer(a.gid(), CHUNK_SIZE).unwrap();
    assert_eq!(a.attach(of_c.token), Err(Status::NoSpc));
    a.detach(dmbs[2].token).unwrap();
    a.attach(of_c.token).unwrap();
    assert_eq!(a.alloc_for_peer(b.gid(), CHUNK_SIZE), Err(Status::NoSpc));
    a.detach(of_c.token).unwrap();
    a.alloc_for_peer(b.gid(), CHUNK_SIZE).unwrap();
    // B's table is B's own: A's allocations took none of it.
    for dmb in fill(&mut b, c.gid(), CHUNK_SIZE) {
        b.detach(dmb.token).unwrap();
    }
    assert_eq!(a.seat.as_ref().unwrap().found(Finding::BadRequest), 0);
}

#[test]
fn a_pair_gets_half_of_a_window_and_leaves_the_rest_to_others() {
    let host = Host::default();
    let (mut a, mut b, mut c, mut d) = (host.boot("a"), host.boot("b"), host.boot("c"), host.boot("d"));
    let window = host.fabric.limits().window_size;
    let dmbs = fill(&mut a, b.gid(), 1 << 20);
    let total: u64 = dmbs.iter().map(|dmb| dmb.size).sum();
    // Slabs of 16, 8, 4 and 2 MiB, each with a chunk for its bells.
    assert_eq!(dmbs.len(), 15 + 7 + 3 + 1);
    assert!(total <= window / 2);
    // The limit is the pair's, so it holds for B as for A.
    assert_eq!(b.alloc_for_peer(a.gid(), 1 << 20), Err(Status::NoSpc));
    // Other pairs are not affected.
    for peer in [c.gid(), d.gid()] {
        a.alloc_for_peer(peer, 1 << 20).unwrap();
        b.alloc_for_peer(peer, 1 << 20).unwrap();
    }
    c.alloc_for_peer(d.gid(), 1 << 20).unwrap();
    d.alloc_for_peer(c.gid(), 1 << 20).unwrap();
    // A DMB that the peer has not attached takes none of its window.
    assert_eq!(b.window.maps().len(), 2);
    // A freed place can be used again; all of the slabs can be attached.
    a.detach(dmbs[0].token).unwrap();
    let again = a.alloc_for_peer(b.gid(), 1 << 20).unwrap();
    assert_eq!(a.alloc_for_peer(b.gid(), 1 << 20), Err(Status::NoSpc));
    b.attach(again.token).unwrap();
    for dmb in &dmbs[1..] {
        b.attach(dmb.token).unwrap();
    }
}

#[test]
fn a_full_window_is_full_for_its_guest_alone() {
    let host = Host::new(Limits {
        window_size: 14 << 20,
        ..limits()
    });
    let names = ["a", "b", "c", "d", "e"];
    let mut guests: Vec<TestGuest> = names.iter().map(|name| host.boot(name)).collect();
    // Later peers get smaller shares; the last finds no room.
    let (a, others) = guests.split_first_mut().unwrap();
    let mut sizes = Vec::new();
    for peer in others.iter() {
        sizes.push(fill(a, peer.gid(), 1 << 20).len());
    }
    assert_eq!(sizes, [3 + 1, 3 + 1, 1, 0]);
    let mapped: u64 = a.window.maps().values().map(|map| map.len).sum();
    assert_eq!(mapped, 14 << 20, "all of the window is used");
    assert_eq!(a.alloc(1), Err(Status::NoSpc));
    // Attaching takes a place as well.
    let [b, c, d, _] = others else { unreachable!() };
    let unseen = d.alloc_for_peer(a.gid(), 1 << 20);
    if let Ok(dmb) = unseen {
        assert_eq!(a.attach(dmb.token), Err(Status::NoSpc));
    }
    let dmb = b.alloc_for_peer(c.gid(), 1 << 20).unwrap();
    c.attach(dmb.token).unwrap();
    // A's DMBs count until A detaches them, whatever the peer does.
    let old = b.gid();
    b.reset();
    assert_eq!(a.expect_event(), Event::PeerGone(old));
    assert_eq!(a.alloc(1), Err(Status::NoSpc));
}

#[test]
fn room_comes_back_when_a_peer_goes() {
    let host = Host::new(Limits {
        window_size: 6 << 20,
        ..limits()
    });
    let (mut a, mut b, c) = (host.boot("a"), host.boot("b"), host.boot("c"));
    for round in 0..5 {
        let with_b = fill(&mut a, b.gid(), 1 << 20);
        let solo: Vec<Dmb> = std::iter::from_fn(|| a.alloc(1 << 20).ok()).collect();
        assert_eq!((with_b.len(), solo.len()), (1, 2), "round {round}");
        assert_eq!(a.alloc_for_peer(c.gid(), 1), Err(Status::NoSpc));
        for dmb in with_b {
            b.attach(dmb.token).unwrap();
            a.detach(dmb.token).unwrap();
        }
        // The slab is still the pair's.
        assert_eq!(a.alloc_for_peer(c.gid(), 1), Err(Status::NoSpc));
        b.reset();
        let dmb = a.alloc_for_peer(c.gid(), 1).unwrap();
        a.detach(dmb.token).unwrap();
        for dmb in solo {
            a.detach(dmb.token).unwrap();
        }
        assert_eq!(a.window.maps().len(), 1, "the slab of A and C");
        a.reset();
    }
}

#[test]
fn regions_of_the_vmm_are_bounded() {
    let host = Host::new(Limits {
        max_maps: 3,
        mode: Mode::Mapped,
        ..limits()
    });
    let (mut a, mut b, mut c) = (host.boot("a"), host.boot("b"), host.boot("c"));
    let solo: Vec<Dmb> = (0..3).map(|_| a.alloc(CHUNK_SIZE).unwrap()).collect();
    assert_eq!(a.alloc(CHUNK_SIZE), Err(Status::NoSpc));
    assert_eq!(a.alloc_for_peer(b.gid(), CHUNK_SIZE), Err(Status::NoSpc));
    assert_eq!(host.stats().slabs, 3, "a refusal leaves no slab behind");
    let of_b = b.alloc_for_peer(a.gid(), CHUNK_SIZE).unwrap();
    assert_eq!(a.attach(of_b.token), Err(Status::NoSpc));
    assert_eq!(a.window.maps().len(), 3);
    b.alloc_for_peer(c.gid(), CHUNK_SIZE).unwrap();
    c.alloc_for_peer(b.gid(), CHUNK_SIZE).unwrap();
    a.detach(solo[1].token).unwrap();
    a.attach(of_b.token).unwrap();
    assert_eq!(a.alloc(CHUNK_SIZE), Err(Status::NoSpc));
    // An existing slab holds further DMBs.
    a.alloc_for_peer(b.gid(), CHUNK_SIZE).unwrap();
}
