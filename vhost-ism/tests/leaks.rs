//! Leaks over a long life. A process of its own, so that descriptors can be counted.

#[allow(unused_imports, reason = "other test binaries use them")]
mod common;

use std::collections::BTreeMap;
use std::fs;

use common::*;

/// Counts open descriptors by their targets.
fn descriptors() -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        // The directory's own is gone by now.
        let Ok(target) = fs::read_link(entry.unwrap().path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        let kind = target.split([':', '[', ' ']).next().unwrap_or_default().to_owned();
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// Counts mapped bytes of memfds.
fn mapped() -> u64 {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let number = |text| u64::from_str_radix(text, 16).unwrap();
    maps.lines()
        .filter(|line| line.contains("memfd:"))
        .map(|line| {
            let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
            number(end) - number(start)
        })
        .sum()
}

/// Descriptors by kind, threads, and bytes of memfds.
type Possessions = (BTreeMap<String, usize>, usize, u64);

/// Returns the resources of this process once they no longer change: threads that watch a stopped device, for example,
/// end a little later.
fn possessions() -> Possessions {
    let look = || (descriptors(), threads(), mapped());
    loop {
        let seen = look();
        std::thread::sleep(BRIEF);
        if look() == seen {
            return seen;
        }
    }
}

/// Uses every command in one session.
fn live(a: &mut TestGuest, b: &mut TestGuest) {
    let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let attached = b.attach(dmb.token).unwrap();
    b.ring(attached.offset);
    assert!(matches!(a.expect_event(), Event::Doorbells(_)));
    let solo = a.alloc(1 << 16).unwrap();
    a.grant(solo.token, None, 7).unwrap();
    b.attach(solo.token).unwrap();
    b.send_message(a.gid(), 1, 2).unwrap();
    assert!(matches!(a.expect_event(), Event::Message(..)));
}

/// Returns the possessions when no request has kept a memory table from before.
fn settled(a: &mut TestGuest, b: &mut TestGuest) -> Possessions {
    a.ping();
    b.ping();
    possessions()
}

#[test]
fn sessions_and_connections_leave_nothing_behind() {
    let host = Host::default();
    let (seat_a, mut b) = (host.seat("a"), host.boot("b"));
    let mut a = seat_a.boot();
    let settle = |b: &mut TestGuest| {
        // B's holds end with its own reset.
        b.reset();
        eventually("the fabric holds B alone", || {
            host.stats().sessions <= 2 && host.stats().slabs == 0
        });
    };
    let reset = |a: &mut TestGuest, b: &mut TestGuest| {
        live(a, b);
        a.reset();
        settle(b);
    };

    reset(&mut a, &mut b);
    let before = settled(&mut a, &mut b);
    for _ in 0..200 {
        reset(&mut a, &mut b);
    }
    assert_eq!(settled(&mut a, &mut b), before, "after 200 resets");

    for count in [1, 100] {
        let before = settled(&mut a, &mut b);
        for _ in 0..count {
            live(&mut a, &mut b);
            a.kill();
            a = seat_a.boot();
            settle(&mut b);
        }
        // The first connection after another one may cost something once.
        if count > 1 {
            assert_eq!(settled(&mut a, &mut b), before, "after {count} deaths");
        }
    }
    drop((a, b));
    host.expect_empty();
}
