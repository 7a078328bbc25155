//! A guest cannot reach memory that two others share.

use std::collections::BTreeSet;

use vhost_ism::abi::*;

use crate::common::*;

/// A pattern that no memory holds by chance.
const SECRET: &[u8; 32] = b"between A and B, and nobody else";

fn inodes(guest: &TestGuest) -> BTreeSet<u64> {
    guest.window.inodes().into_iter().collect()
}

fn holds_secret(guest: &TestGuest) -> bool {
    guest.window.maps().iter().any(|(offset, map)| {
        let bytes = guest.window.read(*offset, map.len);
        bytes.windows(SECRET.len()).any(|window| window == SECRET)
    })
}

#[test]
fn a_third_guest_cannot_attach() {
    let host = Host::default();
    let (mut a, mut b, mut c) = (host.boot("a"), host.boot("b"), host.boot("c"));
    let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    for _ in 0..2 {
        assert_eq!(c.attach(dmb.token), Err(Status::PermAttach));
        assert_eq!(c.attach_as(dmb.token, 0), Err(Status::PermAttach));
        assert_eq!(c.detach(dmb.token), Err(Status::NoEnt));
        assert_eq!(
            c.grant(dmb.token, None, PERM_ATTACH.into()),
            Err(Status::NoEnt),
            "C owns nothing"
        );
        // Nor does the owner's grant help.
        let all = (PERM_READ | PERM_WRITE | PERM_ATTACH).into();
        assert_eq!(a.grant(dmb.token, None, all), Err(Status::Err));
        assert_eq!(a.grant(dmb.token, Some(c.devid()), all), Err(Status::Err));
        // Not after B attached either.
        let _ = b.attach(dmb.token);
    }
    assert!(c.window.maps().is_empty());
    assert_eq!(inodes(&c).len(), 1, "C was handed its doorbell area and nothing else");
}

#[test]
fn no_memory_is_common_to_three() {
    let host = Host::default();
    let mut guests = [host.boot("a"), host.boot("b"), host.boot("c"), host.boot("d")];
    // Each pair shares three DMBs in each direction, more than one slab for some; holders write the secret of their
    // pair.
    let mut tokens = Vec::new();
    for round in 0..3 {
        for owner in 0..4 {
            for peer in 0..4 {
                if owner == peer {
                    continue;
                }
                let size = if owner + peer == 1 { 1 << 20 } else { 10_000 << round };
                let gid = guests[peer].gid();
                let dmb = guests[owner].alloc_for_peer(gid, size).unwrap();
                let attached = guests[peer].attach(dmb.token).unwrap();
                if owner + peer == 1 {
                    guests[owner].window.write(dmb.offset, SECRET);
                    guests[peer].window.write(attached.offset + size - 32, SECRET);
                }
                tokens.push((owner, peer, dmb.token));
            }
        }
        // Some are freed, so that memory is reused.
        for (owner, peer, token) in tokens.split_off(tokens.len() / 2) {
            guests[owner].detach(token).unwrap();
            guests[peer].detach(token).unwrap();
        }
    }
    let sets: Vec<BTreeSet<u64>> = guests.iter().map(inodes).collect();
    for inode in sets.iter().flatten() {
        let holders = sets.iter().filter(|set| set.contains(inode)).count();
        assert!(holders <= 2, "{holders} guests were handed the same memory");
    }
    assert!(holds_secret(&guests[0]) && holds_secret(&guests[1]));
    assert!(!holds_secret(&guests[2]) && !holds_secret(&guests[3]));
}

#[test]
fn an_allocation_is_not_handed_to_the_peer_before_it_attaches() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    b.ping();
    assert!(b.window.maps().is_empty());
    b.attach(dmb.token).unwrap();
    assert_eq!(b.window.maps().len(), 1);
}

#[test]
fn a_guests_next_session_gets_no_memory_of_the_last_one() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let dmb = a.alloc_for_peer(b.gid(), 1 << 20).unwrap();
    let attached = b.attach(dmb.token).unwrap();
    a.window.write(dmb.offset, SECRET);
    let before = inodes(&a);
    a.reset();
    let dmb = a.alloc_for_peer(b.gid(), 1 << 20).unwrap();
    b.attach(dmb.token).unwrap();
    assert!(!holds_secret(&a));
    assert!(holds_secret(&b), "{attached:?} stays");
    let slabs = a.window.maps();
    assert!(slabs.values().all(|map| !before.contains(&map.inode)));
}

#[test]
fn doorbell_areas_are_private() {
    let host = Host::default();
    let (mut a, b) = (host.boot("a"), host.boot("b"));
    assert!(inodes(&a).is_disjoint(&inodes(&b)));
    let before = inodes(&a);
    a.reset();
    assert_eq!(inodes(&a).len(), before.len() + 1, "a new session has a new one");
}
