//! DMBs that are lists of areas of the window.

use vhost_ism::abi::*;
use vhost_ism::fabric::Limits;

use super::replay::equal;
use crate::common::window::Policy;
use crate::common::*;

const ALL: u64 = (PERM_READ | PERM_WRITE | PERM_ATTACH) as u64;
/// Three areas of 2 MiB, the last of them in part.
const SIZE: u64 = (5 << 20) + 777;
const AREAS: u64 = 3;

fn split() -> Limits {
    Limits {
        max_dmb_size: 8 << 20,
        max_area_size: 2 << 20,
        ..limits()
    }
}

fn pattern(size: u64, seed: u8) -> Vec<u8> {
    (0..size)
        .map(|at| (at ^ at >> 8 ^ at >> 16).wrapping_mul(167) as u8 ^ seed)
        .collect()
}

/// Checks that areas lie apart in the window, and hold a DMB of this size.
#[track_caller]
fn check(guest: &TestGuest, areas: &[Area], size: u64) {
    let mut ranges: Vec<(u64, u64)> = areas.iter().map(|area| (area.offset.get(), area.size.get())).collect();
    assert_eq!(ranges.iter().map(|(_, len)| len).sum::<u64>(), size);
    ranges.sort_unstable();
    assert!(
        ranges.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0),
        "{ranges:?}"
    );
    for (offset, len) in ranges {
        assert!(offset.is_multiple_of(CHUNK_SIZE) && offset + len <= guest.config.window_size.get());
        assert!(guest.window.is_mapped(offset, len));
    }
}

/// Checks that two guests see the same bytes in their areas of a DMB.
#[track_caller]
fn exchange(a: (&TestGuest, &[Area]), b: (&TestGuest, &[Area]), size: u64) {
    for (seed, ((writer, to), (reader, from))) in [(a, b), (b, a)].into_iter().enumerate() {
        let bytes = pattern(size, seed as u8);
        writer.write_areas(to, &bytes);
        assert!(reader.read_areas(from) == bytes);
        assert!(writer.read_areas(to) == bytes);
    }
}

// Draft: ALLOC: areas; ATTACH; E2BIG
#[test]
fn a_driver_asks_again_with_room_for_the_areas_it_is_told_of() {
    let host = Host::new(split());
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    for room in 0..AREAS as usize {
        assert_eq!(a.alloc_areas(SIZE, room), Err(AREAS), "room for {room}");
    }
    let stats = host.stats();
    assert_eq!(
        (stats.dmbs, stats.slabs, stats.slab_bytes),
        (0, 0, 0),
        "nothing was done"
    );
    assert!(a.window.maps().is_empty());
    let (token, of_a) = a.alloc_areas(SIZE, AREAS as usize).unwrap();
    check(&a, &of_a, SIZE);
    assert!(a.read_areas(&of_a).iter().all(|byte| *byte == 0));

    a.grant(token, None, ALL).unwrap();
    a.subscribe(EV_ATTACH | EV_DETACH).unwrap();
    // The window of B is another.
    let small = b.alloc(1).unwrap();
    for room in 0..AREAS as usize {
        assert_eq!(b.attach_areas(token, room), Err(AREAS), "room for {room}");
    }
    assert_eq!(b.window.maps().len(), 1, "nothing was done");
    a.expect_silence();
    let of_b = b.attach_areas(token, 64).unwrap();
    check(&b, &of_b, SIZE);
    assert_ne!(of_a, of_b);
    exchange((&a, &of_a), (&b, &of_b), SIZE);
    let first = |areas: &[Area]| areas[0].offset.get();
    assert_eq!(a.expect_event(), Event::Attach(first(&of_a), b.devid(), 1));

    // Its doorbell is that of the first area.
    b.ring(first(&of_b));
    assert_eq!(
        a.expect_event(),
        Event::Doorbells(vec![(first(&of_a) / CHUNK_SIZE) as u32])
    );
    b.ring(of_b[1].offset.get());
    a.expect_silence();

    b.detach(token).unwrap();
    a.detach(token).unwrap();
    b.detach(small.token).unwrap();
    assert!(a.window.maps().is_empty() && b.window.maps().is_empty());
    assert_eq!(host.stats().slabs, 0);
}

/// An attach that is refused for its room leaves alone what the guest still has mapped of an earlier one.
#[test]
fn too_little_room_after_a_detach_that_the_vmm_has_not_carried_out() {
    let host = Host::new(split());
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let (token, of_a) = a.alloc_areas(SIZE, 3).unwrap();
    a.grant(token, None, ALL).unwrap();
    b.attach_areas(token, 3).unwrap();
    b.window.set_policy(Policy::RefuseUnmap);
    b.detach(token).unwrap();
    assert_eq!(b.attach_areas(token, 1), Err(AREAS));
    assert_eq!(b.window.maps().len(), 4);
    let of_b = b.attach_areas(token, 3).unwrap();
    check(&b, &of_b, SIZE);
    exchange((&a, &of_a), (&b, &of_b), SIZE);
    b.window.set_policy(Policy::Comply);
    b.detach(token).unwrap();
    assert!(b.window.maps().is_empty());
}

/// A window without a contiguous range takes the DMB in as few areas as it has room for.
// Draft: ALLOC: areas; ENOSPC
#[test]
fn what_does_not_fit_whole_is_split() {
    let host = Host::new(Limits {
        max_area_size: 8 << 20,
        ..split()
    });
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let (token, areas) = a.alloc_areas(8 << 20, 1).unwrap();
    check(&a, &areas, 8 << 20);
    a.detach(token).unwrap();
    let mut units: Vec<Dmb> = std::iter::from_fn(|| a.alloc(1).ok()).collect();
    assert_eq!(units.len() as u64, a.config.window_size.get() >> 21);
    units.sort_by_key(|unit| unit.offset);
    for unit in units.iter().step_by(2).take(6) {
        a.detach(unit.token).unwrap();
    }
    for room in 0..4 {
        let areas = a.alloc_areas(8 << 20, room).unwrap_err();
        assert_eq!(areas, 4);
    }
    let (token, of_a) = a.alloc_areas(8 << 20, 4).unwrap();
    check(&a, &of_a, 8 << 20);
    a.grant(token, None, ALL).unwrap();
    let of_b = b.attach_areas(token, 1).unwrap();
    exchange((&a, &of_a), (&b, &of_b), 8 << 20);
    // Two units are left.
    let request = guest::encode(CMD_ALLOC, &Alloc { size: (8 << 20).into() });
    assert_eq!(a.request(&request, 256).written(), [Status::NoSpc as u8]);
    a.alloc_areas(4 << 20, 2).unwrap();
    assert_eq!(a.alloc(1), Err(Status::NoSpc));
    a.detach(token).unwrap();
    a.alloc(1).unwrap();
}

#[test]
fn every_area_is_a_map_of_the_window() {
    let host = Host::new(Limits { max_maps: 4, ..split() });
    let mut a = host.boot("a");
    let (token, areas) = a.alloc_areas(8 << 20, 4).unwrap();
    check(&a, &areas, 8 << 20);
    assert_eq!(a.alloc(1), Err(Status::NoSpc));
    a.detach(token).unwrap();
    let dmbs = [(); 4].map(|()| a.alloc(1).unwrap());
    a.detach(dmbs[0].token).unwrap();
    let request = guest::encode(CMD_ALLOC, &Alloc { size: (4 << 20).into() });
    assert_eq!(a.request(&request, 256).written(), [Status::NoSpc as u8], "two areas");
    a.alloc(2 << 20).unwrap();
}

#[test]
fn a_map_that_is_refused_half_way_leaves_nothing() {
    let host = Host::new(split());
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let (token, of_a) = a.alloc_areas(SIZE, 3).unwrap();
    a.grant(token, None, ALL).unwrap();
    let request = guest::encode(CMD_ALLOC, &Alloc { size: SIZE.into() });
    let rw_perm = 3.into();
    for request in [request, guest::encode(CMD_ATTACH, &Attach { token, rw_perm })] {
        b.window.set_policy(Policy::RefuseParts);
        assert_eq!(b.request(&request, 256).written(), [Status::Err as u8]);
        assert_eq!(b.window.maps().len(), 1);
        b.window.set_policy(Policy::Comply);
        b.ping();
        assert!(b.window.maps().is_empty(), "the next request unmaps it");
        assert_eq!(host.stats().dmbs, 1);
    }
    let of_b = b.attach_areas(token, 3).unwrap();
    exchange((&a, &of_a), (&b, &of_b), SIZE);
}

#[test]
fn areas_are_replayed() {
    let host = Host::recorded_with(&["a", "b"], split());
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    a.alloc_areas(SIZE, 2).unwrap_err();
    let (token, of_a) = a.alloc_areas(SIZE, 3).unwrap();
    a.grant(token, None, ALL).unwrap();
    a.subscribe(EV_ATTACH | EV_DETACH | EV_UPDATE).unwrap();
    let of_b = b.attach_areas(token, 3).unwrap();
    exchange((&a, &of_a), (&b, &of_b), SIZE);
    a.expect_event();
    b.ring(of_b[0].offset.get());
    a.expect_event();
    b.detach(token).unwrap();
    a.expect_event();
    drop((a, b));
    host.expect_empty();
    let report = equal(&host.finish_record());
    assert_eq!(report.counts.events, 4, "and the end of B or A");
}
