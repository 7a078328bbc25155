//! Leaks over a long life. A process of its own, so that descriptors can be counted.

#[allow(unused_imports, reason = "other test binaries use them")]
mod common;

use common::*;
use vhost_daemon::testing::Possessions;

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
    Possessions::own()
}

/// A guest lives with its peer until each of `resets` and `deaths`.
fn lives(resets: usize, deaths: usize) {
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
    for _ in 0..resets {
        reset(&mut a, &mut b);
    }
    assert_eq!(settled(&mut a, &mut b), before, "after {resets} resets");

    for count in [1, deaths] {
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

#[test]
fn sessions_and_connections_leave_nothing_behind() {
    lives(200, 100);
}

#[test]
#[ignore = "long"]
fn thousands_of_sessions_and_connections_leave_nothing_behind() {
    lives(5000, 1000);
}
