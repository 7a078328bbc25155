//! Allocating, attaching, detaching.

use std::collections::HashSet;

use vhost_ism::abi::*;

use crate::common::*;

/// Returns bytes that differ from place to place and from seed to seed.
fn pattern(seed: u64, len: u64) -> Vec<u8> {
    (0..len)
        .map(|at| ((at ^ (at >> 8) ^ seed.wrapping_mul(0x9e37)) % 251) as u8 + 1)
        .collect()
}

#[test]
fn both_guests_see_what_either_writes() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let max = host.fabric.limits().max_dmb_size;
    let sizes = [
        1,
        100,
        4096,
        CHUNK_SIZE - 1,
        CHUNK_SIZE,
        CHUNK_SIZE + 1,
        20_000,
        32 << 10,
        65 << 10,
        256 << 10,
        (512 << 10) + 13,
        max - 1,
        max,
    ];
    let mut live = Vec::new();
    for (seed, size) in sizes.into_iter().enumerate() {
        let owned = a.alloc_for_peer(b.gid(), size).unwrap();
        assert!(
            a.window.read(owned.offset, size).iter().all(|byte| *byte == 0),
            "{size}"
        );
        let attached = b.attach(owned.token).unwrap();
        assert_eq!(attached.size, size);
        a.window.write(owned.offset, &pattern(seed as u64, size));
        live.push((owned, attached, seed as u64));
    }
    for (owned, attached, seed) in &live {
        assert_eq!(b.window.read(attached.offset, owned.size), pattern(*seed, owned.size));
        b.window.write(attached.offset, &pattern(seed + 100, owned.size));
    }
    for (owned, _, seed) in &live {
        assert_eq!(a.window.read(owned.offset, owned.size), pattern(seed + 100, owned.size));
    }
}

#[test]
fn each_guest_has_it_at_a_place_of_its_own() {
    let host = Host::default();
    let (mut a, mut b, mut c) = (host.boot("a"), host.boot("b"), host.boot("c"));
    // B's window is in use where A's is still free.
    let with_c = b.alloc_for_peer(c.gid(), 1 << 20).unwrap();
    let owned = a.alloc_for_peer(b.gid(), 1 << 20).unwrap();
    let attached = b.attach(owned.token).unwrap();
    assert_ne!(owned.offset, attached.offset);
    assert!(attached.offset.is_multiple_of(1 << 20));
    a.window.write(owned.offset, b"for B");
    assert_eq!(b.window.read(attached.offset, 5), b"for B");
    assert_eq!(b.window.read(with_c.offset, 5), [0; 5]);
    c.attach(with_c.token).unwrap();
}

#[test]
fn live_dmbs_never_overlap() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let mut places: Vec<(u64, u64)> = Vec::new();
    for round in 0..120u64 {
        let size = 1 + (round * 7919) % (100 << 10);
        let (owner, peer) = if round % 2 == 0 {
            (&mut a, &mut b)
        } else {
            (&mut b, &mut a)
        };
        let owned = owner.alloc_for_peer(peer.gid(), size).unwrap();
        let attached = peer.attach(owned.token).unwrap();
        // One pair alone has its slabs in the same order in both windows.
        assert_eq!(owned.offset, attached.offset);
        places.push((owned.offset, size));
    }
    places.sort_unstable();
    for pair in places.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
    }
}

// Draft: DETACH: last reference
#[test]
fn a_token_dies_with_its_owners_detach() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let owned = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    a.detach(owned.token).unwrap();
    assert_eq!(b.attach(owned.token), Err(Status::NoEnt));
    assert_eq!(a.detach(owned.token), Err(Status::NoEnt));
    assert_eq!(b.detach(owned.token), Err(Status::NoEnt));
    assert_eq!(host.stats().dmbs, 0);
    assert_eq!(host.stats().used_bytes, CHUNK_SIZE, "the slab's bells");
}

#[test]
fn memory_stays_for_the_attacher_until_it_lets_go() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let owned = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let attached = b.attach(owned.token).unwrap();
    a.window.write(owned.offset, &pattern(1, 1 << 16));
    a.detach(owned.token).unwrap();
    assert_eq!(host.stats().dmbs, 1);
    // A's next DMBs lie elsewhere.
    for _ in 0..20 {
        let other = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
        assert_ne!(other.offset, owned.offset);
        a.window.write(other.offset, &[0xff; 1 << 16]);
    }
    assert_eq!(b.window.read(attached.offset, 1 << 16), pattern(1, 1 << 16));
    b.detach(owned.token).unwrap();
    // Lowest address first.
    let again = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    assert_eq!(again.offset, owned.offset);
    assert_eq!(a.window.read(again.offset, 1 << 16), vec![0; 1 << 16]);
}

#[test]
fn the_attacher_may_let_go_first_and_come_back() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let owned = a.alloc_for_peer(b.gid(), 1 << 14).unwrap();
    for round in 0..3 {
        let attached = b.attach(owned.token).unwrap();
        a.window.write(owned.offset, &[round]);
        assert_eq!(b.window.read(attached.offset, 1), [round]);
        assert_eq!(b.attach(owned.token), Err(Status::PermAttach), "it is attached already");
        b.detach(owned.token).unwrap();
        assert_eq!(b.detach(owned.token), Err(Status::NoEnt));
    }
    a.detach(owned.token).unwrap();
    assert_eq!(host.stats().dmbs, 0);
}

#[test]
fn reused_memory_reads_zero() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    for (round, size) in [16 << 10, 20_000, 64 << 10, 1 << 20, (1 << 20) - 5]
        .into_iter()
        .enumerate()
    {
        let owned = a.alloc_for_peer(b.gid(), size).unwrap();
        let attached = b.attach(owned.token).unwrap();
        // The whole block, as a careless guest would.
        let block = vec![0xa5; size.next_power_of_two() as usize];
        b.window.write(attached.offset, &block);
        // In either order.
        if round % 2 == 0 {
            a.detach(owned.token).unwrap();
            b.detach(owned.token).unwrap();
        } else {
            b.detach(owned.token).unwrap();
            a.detach(owned.token).unwrap();
        }
        let again = b.alloc_for_peer(a.gid(), size).unwrap();
        assert_eq!(again.offset, attached.offset, "the same block is taken again");
        let bytes = b.window.read(again.offset, block.len() as u64);
        assert!(bytes.iter().all(|byte| *byte == 0), "a block of {size} bytes");
        b.detach(again.token).unwrap();
    }
}

#[test]
fn ten_thousand_tokens_are_unique() {
    let host = Host::default();
    let (mut a, b) = (host.boot("a"), host.boot("b"));
    let mut tokens = HashSet::new();
    for _ in 0..10_000 / 100 {
        let live: Vec<Dmb> = (0..100)
            .map(|_| a.alloc_for_peer(b.gid(), CHUNK_SIZE).unwrap())
            .collect();
        for dmb in live {
            assert!(tokens.insert(dmb.token), "{} was given twice", dmb.token);
            a.detach(dmb.token).unwrap();
        }
    }
    assert_eq!(tokens.len(), 10_000);
    // Not a counter: tokens are spread over all of their 64 bits.
    let high: HashSet<u8> = tokens.iter().map(|token| (token.0.get() >> 56) as u8).collect();
    assert_eq!(high.len(), 256);
    assert_eq!(host.stats().dmbs, 0);
    assert_eq!(host.stats().slabs, 1, "one slab serves them all");
}

#[test]
fn a_pair_that_has_its_slabs_needs_no_map() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let first = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    b.attach(first.token).unwrap();
    let requests = (a.window.requests(), b.window.requests());
    for _ in 0..20 {
        let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
        b.attach(dmb.token).unwrap();
        b.detach(dmb.token).unwrap();
        a.detach(dmb.token).unwrap();
    }
    assert_eq!((a.window.requests(), b.window.requests()), requests);
}

#[test]
fn the_bells_of_a_slab_are_at_its_start_and_nothing_else_is() {
    let host = Host::default();
    let (mut a, mut b, mut c) = (host.boot("a"), host.boot("b"), host.boot("c"));
    b.alloc_for_peer(c.gid(), 1 << 20).unwrap();
    let mut slabs = HashSet::new();
    loop {
        let dmb = match a.alloc_for_peer(b.gid(), 1 << 20) {
            Ok(dmb) => dmb,
            Err(refused) => {
                assert_eq!(refused, Status::NoSpc);
                break;
            }
        };
        // A guest that has not attached does not see the slab.
        assert_eq!(b.query_slab(dmb.token), Err(Status::NoEnt));
        let attached = b.attach(dmb.token).unwrap();
        let (base_a, len_a, side_a) = a.query_slab(dmb.token).unwrap();
        let (base_b, len_b, side_b) = b.query_slab(dmb.token).unwrap();
        assert_eq!(c.query_slab(dmb.token), Err(Status::NoEnt));
        assert_eq!(len_a, len_b);
        assert_eq!(dmb.offset - base_a, attached.offset - base_b);
        assert_eq!(side_a, u32::from(a.gid() > b.gid()));
        assert_eq!(side_a + side_b, 1);
        assert!(dmb.offset - base_a >= CHUNK_SIZE && dmb.offset + dmb.size <= base_a + len_a);
        assert_eq!(a.window.maps()[&base_a].len, len_a);
        if slabs.insert(base_a) {
            assert_eq!(a.window.read(base_a, CHUNK_SIZE), vec![0; CHUNK_SIZE as usize]);
            assert_eq!(b.window.read(base_b, CHUNK_SIZE), vec![0; CHUNK_SIZE as usize]);
            // One byte for each chunk fits.
            assert!(4096 + len_a / CHUNK_SIZE <= CHUNK_SIZE);
            a.window.write(base_a + 4096, b"rung");
        }
        assert_eq!(b.window.read(base_b + 4096, 4), b"rung");
        a.window.write(dmb.offset, &[0x77; 1 << 20]);
    }
    assert!(slabs.len() > 1);
    // Detaching every DMB leaves the bells unchanged.
    let dmb = a.alloc_for_peer(b.gid(), 1).unwrap();
    let (base, _, side) = a.query_slab(dmb.token).unwrap();
    b.attach(dmb.token).unwrap();
    a.detach(dmb.token).unwrap();
    assert_eq!(
        a.query_slab(dmb.token),
        Err(Status::NoEnt),
        "the owner holds it no more"
    );
    assert_eq!(b.query_slab(dmb.token).unwrap().2, 1 - side, "the attacher does");
    b.detach(dmb.token).unwrap();
    assert_eq!(a.window.read(base + 4096, 4), b"rung");
}
