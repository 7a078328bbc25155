//! A pause of the machine stops the device just as a reset does. After a pause the driver continues as if nothing had
//! happened; after a reset its session is over.

use vhost_ism::abi::*;

use crate::common::guest::{encode, pause_device, read_config};
use crate::common::*;
use crate::faults::Faulty;

#[test]
fn a_pause_keeps_the_session() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let of_a = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let attached = b.attach(of_a.token).unwrap();
    let of_b = b.alloc_for_peer(a.gid(), 1 << 16).unwrap();
    let by_a = a.attach(of_b.token).unwrap();
    b.window.write(attached.offset, b"before");
    let (gid, requests) = (a.gid(), a.window.requests());
    for round in 0..5u32 {
        let bases = a.pause();
        // The peer finds the session unchanged, and events for it wait.
        b.query_gid(gid).unwrap();
        b.window.write(attached.offset, b"paused");
        b.ring(attached.offset);
        b.send_message(gid, round, 7).unwrap();
        assert!(a.next_event(BRIEF).is_none());
        a.resume(bases);
        let events = [a.expect_event(), a.expect_event()];
        let message = Event::Message(b.gid(), round, 7);
        assert!(events.contains(&message), "{events:?}");
        let rung = vec![(of_a.offset / CHUNK_SIZE) as u32];
        assert!(events.contains(&Event::Doorbells(rung)), "{events:?}");
        assert_eq!(a.window.read(of_a.offset, 6), b"paused");
        // Traffic continues in both directions.
        a.ring(by_a.offset);
        assert!(matches!(b.expect_event(), Event::Doorbells(_)));
        a.query_gid(gid).unwrap();
    }
    assert_eq!(a.window.requests(), requests, "nothing was mapped again");
    a.detach(of_a.token).unwrap();
    a.detach(of_b.token).unwrap();
    b.expect_silence();
    drop((a, b));
    host.expect_empty();
}

/// A ring still pending at the pause is delivered after it, and the awake word is cleared once the device has stopped
/// polling.
#[test]
fn a_ring_of_before_the_pause_is_not_lost() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let of_b = b.alloc_for_peer(a.gid(), 1 << 16).unwrap();
    let by_a = a.attach(of_b.token).unwrap();
    let bases = a.pause();
    a.window.bell(by_a.offset).ring();
    b.expect_silence();
    a.resume(bases);
    assert!(matches!(b.expect_event(), Event::Doorbells(_)));
    eventually("the device sleeps", || a.window.awake() == 0);
}

#[test]
fn a_reset_is_told_without_a_restart() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let of_a = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    b.attach(of_a.token).unwrap();
    let old = a.gid();
    a.stop();
    assert_eq!(b.expect_event(), Event::PeerGone(old));
    assert_eq!(b.query_gid(old), Err(Status::NoEnt));
}

#[test]
fn a_paused_machine_that_is_reset_ends_its_session() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let of_a = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    b.attach(of_a.token).unwrap();
    let old = a.gid();
    a.pause();
    b.expect_silence();
    a.window.unmap_all();
    assert_eq!(b.expect_event(), Event::PeerGone(old));
    a.start();
    assert_ne!(a.gid(), old);
}

#[test]
fn a_paused_machine_that_ends_ends_its_session() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let of_a = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    b.attach(of_a.token).unwrap();
    let old = a.gid();
    a.pause();
    a.kill();
    assert_eq!(b.expect_event(), Event::PeerGone(old));
}

/// Another back-end of the same machine may hold on to the mapped memory.
#[test]
fn a_reset_shows_in_what_the_driver_does_next() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    // The driver reads the configuration space.
    let of_a = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    b.attach(of_a.token).unwrap();
    let old = a.gid();
    a.pause();
    b.expect_silence();
    assert_ne!(read_config(&mut a.frontend).dmb_gid, old);
    assert_eq!(b.expect_event(), Event::PeerGone(old));
    a.window.unmap_all();
    a.start();
    // The driver starts with rings at their beginning.
    let of_a = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    b.attach(of_a.token).unwrap();
    let old = a.gid();
    a.pause();
    a.start_unread();
    assert_eq!(b.expect_event(), Event::PeerGone(old));
}

/// A driver that has made no request yet has already read its GID.
#[test]
fn a_pause_before_the_first_request_keeps_the_identity() {
    let host = Host::default();
    let seat = host.seat("a");
    let mut a = TestGuest::connect(seat.path(), Options::default());
    a.start_silently();
    eventually("a session begins", || host.stats().sessions == 1);
    let bases = a.pause();
    assert_eq!(bases, [0; NUM_QUEUES]);
    a.resume(bases);
    a.query_gid(a.gid()).unwrap();
}

/// A reset by the operator while the machine is paused: rings that follow are of the next driver.
#[test]
fn a_request_of_before_a_reset_in_the_pause_is_not_answered_in_later_rings() {
    let mut faulty = Faulty::at(Host::default());
    let mut a = faulty.boot("a");
    let (mut frontend, window) = (a.frontend.clone(), a.window.clone());
    let (paused, until_paused) = std::sync::mpsc::channel();
    let (restarted, until_restarted) = std::sync::mpsc::channel();
    a.window.before_next_map(move || {
        pause_device(&mut frontend, &window);
        paused.send(()).unwrap();
        until_restarted.recv_timeout(PATIENCE).unwrap();
    });
    a.post_request(&encode(CMD_ALLOC, &Alloc { size: 4096.into() }), 64);
    until_paused.recv_timeout(PATIENCE).unwrap();
    faulty.apply("[[fault]]\nkind = \"vanish\"\nguest = \"a\"\non = \"now\"\ncount = 1");
    assert_eq!(faulty.strikes(), [1]);
    // Another thread does it.
    eventually("the session ends", || faulty.host.stats().sessions == 0);
    // The driver resets the device.
    a.window.unmap_all();
    a.restart_silently();
    restarted.send(()).unwrap();
    assert_eq!(a.take_allocated(4096, BRIEF), None);
    // The map of before was still under way.
    a.window.take_violations();
    a.query_gid(a.gid()).unwrap();
}

/// The answer waits, as events do.
#[test]
fn a_request_under_way_at_the_pause_is_answered_after_it() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    for _ in 0..10 {
        let (mut frontend, window) = (a.frontend.clone(), a.window.clone());
        let (paused, until_paused) = std::sync::mpsc::channel();
        a.window.before_next_map(move || {
            paused.send(pause_device(&mut frontend, &window)).unwrap();
        });
        let request = encode(CMD_ALLOC, &Alloc { size: 4096.into() });
        a.post_request(&request, 64);
        let bases = until_paused.recv_timeout(PATIENCE).unwrap();
        assert_eq!(a.take_allocated(4096, BRIEF), None);
        a.resume(bases);
        let dmb = a.take_allocated(4096, PATIENCE).expect("an answer");
        a.window.write(dmb.offset, b"mine");
        a.detach(dmb.token).unwrap();
        a.window.take_violations();
    }
    b.ping();
    drop((a, b));
    host.expect_empty();
}

/// Pauses at random moments, while the peer rings and sends: every message arrives, in order, and the last ring is
/// delivered.
#[test]
fn pauses_under_traffic() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let of_a = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let attached = b.attach(of_a.token).unwrap();
    let to = a.gid();
    let sending = std::thread::spawn(move || {
        for n in 0..300u32 {
            b.window.write(attached.offset, &n.to_le_bytes());
            b.ring(attached.offset);
            while b.send_message(to, n, 0) == Err(Status::NoSpc) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        b
    });
    let (mut next, mut rung) = (0, 0);
    while next < 300 {
        let bases = a.pause();
        a.resume(bases);
        while let Some(event) = a.next_event(std::time::Duration::from_millis(2)) {
            match event {
                Event::Message(_, code, _) => {
                    assert_eq!(code, next);
                    next += 1;
                }
                Event::Doorbells(_) => rung = u32::from_le_bytes(a.window.read(of_a.offset, 4).try_into().unwrap()),
                other => panic!("{other:?}"),
            }
        }
    }
    let b = sending.join().unwrap();
    while let Some(event) = a.next_event(BRIEF) {
        assert!(matches!(event, Event::Doorbells(_)), "{event:?}");
        rung = u32::from_le_bytes(a.window.read(of_a.offset, 4).try_into().unwrap());
    }
    assert_eq!(rung, 299);
    assert_eq!(a.query_gid(to), Ok(()));
    drop((a, b));
    host.expect_empty();
}
