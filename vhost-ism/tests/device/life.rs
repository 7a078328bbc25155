//! Begin and end of sessions.

use std::time::Instant;

use vhost_ism::abi::*;

use crate::common::*;

// Draft: Configuration: devid; DETACH: last reference
#[test]
fn a_reset_is_told_and_takes_nothing_from_the_peer_before_it_lets_go() {
    ends_well(|mut a| {
        let before = (a.gid(), a.devid());
        a.reset();
        assert_ne!(a.gid(), before.0);
        assert_ne!(a.devid(), before.1);
        a
    });
}

#[test]
fn a_death_is_told_and_takes_nothing_from_the_peer_before_it_lets_go() {
    ends_well(|a| {
        let seat = a.seat.clone().unwrap();
        let before = (a.gid(), a.devid());
        a.kill();
        let a = seat.boot();
        assert_ne!(a.gid(), before.0);
        assert_ne!(a.devid(), before.1);
        a
    });
}

fn ends_well(end: impl FnOnce(TestGuest) -> TestGuest) {
    let host = Host::default();
    let (mut a, mut b, mut c) = (host.boot("a"), host.boot("b"), host.boot("c"));
    let old = a.gid();
    let of_a = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let unattached = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let of_b = b.alloc_for_peer(a.gid(), 1 << 16).unwrap();
    let attached = b.attach(of_a.token).unwrap();
    a.attach(of_b.token).unwrap();
    a.window.write(of_a.offset, b"last words");

    let mut a = end(a);
    assert_eq!(b.expect_event(), Event::PeerGone(old));
    b.expect_silence();
    c.expect_silence();

    // Objects that have ended.
    assert!(a.window.maps().is_empty());
    for token in [of_a.token, of_b.token, unattached.token] {
        assert_eq!(a.detach(token), Err(Status::NoEnt));
    }
    assert_eq!(b.attach(unattached.token), Err(Status::NoEnt));
    assert_eq!(b.query_gid(old), Err(Status::NoEnt));
    assert_eq!(b.alloc_for_peer(old, 1 << 16), Err(Status::NoEnt));
    assert_eq!(b.send_message(old, 1, 2), Err(Status::NoEnt));
    assert_eq!(
        a.attach(of_b.token),
        Err(Status::PermAttach),
        "it was for the dead session"
    );

    // Objects that remain.
    assert_eq!(b.query_gid(a.gid()), Ok(()));
    assert_eq!(b.window.read(attached.offset, 10), b"last words");
    b.ring(attached.offset);
    let fresh = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let other = b.attach(fresh.token).unwrap();
    assert_ne!(other.offset, attached.offset);
    b.window.write(other.offset, b"again");
    assert_eq!(a.window.read(fresh.offset, 5), b"again");
    a.expect_silence();

    // The old slab leaves the window within the DETACH of its last DMB.
    assert_eq!(b.window.maps().len(), 2);
    b.detach(of_a.token).unwrap();
    assert_eq!(b.window.maps().len(), 2);
    b.detach(of_b.token).unwrap();
    assert_eq!(b.window.maps().len(), 1);
    assert!(!b.window.is_mapped(attached.offset, 1));
    assert_eq!(host.stats().slabs, 1);

    drop((a, b, c));
    host.expect_empty();
}

#[test]
fn an_unused_slab_of_a_dead_peer_leaves_with_the_next_command() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let dmb = b.alloc_for_peer(a.gid(), 1 << 16).unwrap();
    b.detach(dmb.token).unwrap();
    assert_eq!(b.window.maps().len(), 1, "it waits for the pair's next DMB");
    let old = a.gid();
    a.reset();
    assert_eq!(b.expect_event(), Event::PeerGone(old));
    assert_eq!(b.window.maps().len(), 1, "unmapping takes a request of B's");
    b.ping();
    assert!(b.window.maps().is_empty());
    assert_eq!(host.stats().slabs, 0);
}

#[test]
fn strangers_hear_nothing() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    a.query_gid(b.gid()).unwrap();
    a.reset();
    b.expect_silence();
}

#[test]
fn those_who_shared_granted_memory_hear_of_either_end() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let all = u64::from(PERM_READ | PERM_WRITE | PERM_ATTACH);
    for owner_leaves in [true, false] {
        let dmb = a.alloc(1 << 16).unwrap();
        a.grant(dmb.token, None, all).unwrap();
        b.attach(dmb.token).unwrap();
        let (leaver, stayer) = if owner_leaves {
            (&mut a, &mut b)
        } else {
            (&mut b, &mut a)
        };
        let old = leaver.gid();
        leaver.reset();
        assert_eq!(
            stayer.expect_event(),
            Event::PeerGone(old),
            "owner leaves: {owner_leaves}"
        );
        stayer.detach(dmb.token).unwrap();
        assert!(stayer.window.maps().is_empty());
    }
    assert_eq!(host.stats().slabs, 0);
}

#[test]
fn both_leave_at_once() {
    let host = Host::default();
    let seats = (host.seat("a"), host.seat("b"));
    for _ in 0..20 {
        let (mut a, mut b) = (seats.0.boot(), seats.1.boot());
        let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
        b.attach(dmb.token).unwrap();
        let one = std::thread::spawn(move || a.kill());
        let two = std::thread::spawn(move || b.reset());
        one.join().unwrap();
        two.join().unwrap();
        host.expect_empty();
    }
}

/// Many resets while the peer rings and allocates: nothing hangs or is left, no event is misdelivered.
#[test]
fn resets_under_traffic() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let start = Instant::now();
    for _ in 0..100 {
        let old = a.gid();
        let of_a = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
        let attached = b.attach(of_a.token).unwrap();
        let ringing = std::thread::spawn({
            let window = b.window.clone();
            let kick = b.doorbell.kick.try_clone().unwrap();
            move || {
                for _ in 0..200 {
                    if window.bell(attached.offset).ring() {
                        kick.write(1).unwrap();
                    }
                }
            }
        });
        a.reset();
        ringing.join().unwrap();
        assert_eq!(b.expect_event(), Event::PeerGone(old));
        b.detach(of_a.token).unwrap();
        assert!(b.window.maps().is_empty());
        // A ring of the old session's DMB never reaches the new session.
        assert_eq!(a.next_event(std::time::Duration::ZERO), None);
    }
    println!("{:?} per reset", start.elapsed() / 100);
    drop((a, b));
    host.expect_empty();
}
