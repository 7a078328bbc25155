//! VMMs that refuse, break off, or do several things at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost_ism::abi::*;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::common::guest::{encode, stop_device};
use crate::common::window::Policy;
use crate::common::*;

#[test]
fn a_refused_map_refuses_the_request_and_leaks_nothing() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    a.window.set_policy(Policy::RefuseMap);
    for _ in 0..50 {
        assert_eq!(a.alloc_for_peer(b.gid(), 1 << 16), Err(Status::Err));
        assert_eq!(a.alloc(1 << 16), Err(Status::Err));
    }
    assert_eq!(host.stats().dmbs, 0);
    assert!(host.stats().used_bytes <= CHUNK_SIZE, "a slab's bells");
    let of_b = b.alloc_for_peer(a.gid(), 1 << 16).unwrap();
    for _ in 0..50 {
        assert_eq!(a.attach(of_b.token), Err(Status::Err));
    }
    assert!(a.window.maps().is_empty());
    a.window.set_policy(Policy::Comply);
    a.attach(of_b.token).unwrap();
    a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    a.alloc(1 << 16).unwrap();
    assert_eq!(a.window.maps().len(), 2);
    // None of which the guest can help.
    let seat = a.seat.clone().unwrap();
    assert_eq!((seat.findings(), seat.counters().refusals), (Vec::new(), 150));
    drop((a, b));
    host.expect_empty();
}

#[test]
fn a_refused_unmap_keeps_the_place_and_the_device_goes_on() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let dmb = a.alloc(1 << 16).unwrap();
    a.window.set_policy(Policy::RefuseUnmap);
    // Whatever the answer, the token is invalid, and the place is not reused while it is mapped.
    let _ = a.detach(dmb.token);
    assert_eq!(host.stats().dmbs, 0);
    assert_eq!(a.window.maps().len(), 1);
    a.window.set_policy(Policy::Comply);
    let other = a.alloc(1 << 16).unwrap();
    a.window.write(other.offset, b"x");
    a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    b.ping();
    drop((a, b));
    host.expect_empty();
}

#[test]
fn a_refused_unmap_is_asked_for_again() {
    let host = Host::default();
    let mut a = host.boot("a");
    let dmb = a.alloc(1 << 16).unwrap();
    a.window.set_policy(Policy::RefuseUnmap);
    let _ = a.detach(dmb.token);
    a.window.set_policy(Policy::Comply);
    a.ping();
    assert!(a.window.maps().is_empty());
}

#[test]
fn a_broken_channel_fails_what_needs_it() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    a.close_channel();
    assert_eq!(a.alloc(1 << 16), Err(Status::Err));
    assert_eq!(
        (host.stats().dmbs, a.seat.as_ref().unwrap().findings()),
        (1, Vec::new())
    );
    // Requests that need no map succeed.
    a.ping();
    let attached = b.attach(dmb.token).unwrap();
    b.ring(attached.offset);
    assert!(matches!(a.expect_event(), Event::Doorbells(_)));
    a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let seat = a.seat.clone().unwrap();
    a.kill();
    let mut a = seat.boot();
    a.alloc(1 << 16).unwrap();
}

/// Without one of these features no map is safe: every request is refused, and nothing is mapped.
#[test]
fn a_vmm_that_cannot_map() {
    for without in [
        VhostUserProtocolFeatures::REPLY_ACK,
        VhostUserProtocolFeatures::SHMEM,
        VhostUserProtocolFeatures::SHARED_OBJECT,
    ] {
        let host = Host::default();
        let mut b = host.boot("b");
        let mut a = host.boot_with(
            "a",
            Options {
                without,
                ..Options::default()
            },
        );
        let gid = a.gid();
        for _ in 0..3 {
            assert_eq!(a.query_gid(gid), Err(Status::Err), "{without:?}");
        }
        assert!(!a.window.has_doorbell(), "{without:?}");
        assert_eq!(b.query_gid(gid), Err(Status::NoEnt), "{without:?}");
        assert_eq!(host.stats().dmbs, 0);
        b.ping();
    }
}

#[test]
fn a_vmm_without_a_channel() {
    let host = Host::default();
    let mut b = host.boot("b");
    let mut a = host.boot_with(
        "a",
        Options {
            without: VhostUserProtocolFeatures::BACKEND_REQ,
            ..Options::default()
        },
    );
    let answer = a.request(&encode(CMD_QUERY_GID, &QueryGid { gid: b.gid() }), 8);
    assert_eq!(answer.status(), Some(Status::Err));
    b.ping();
}

/// QEMU sends its memory table before it answers a map.
#[test]
fn a_memory_table_during_a_map() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    for _ in 0..20 {
        let (frontend, ram) = (a.frontend.clone(), a.ram.clone());
        a.window
            .before_next_map(move || frontend.set_mem_table(&ram.regions()).map(drop).unwrap());
        let dmb = a.alloc(1 << 16).unwrap();
        let attached = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
        b.attach(attached.token).unwrap();
        a.detach(dmb.token).unwrap();
    }
}

/// A reset of the machine while the device waits for a map: nothing hangs or is left, the next session works.
#[test]
fn a_reset_during_a_map() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    for _ in 0..20 {
        let (mut frontend, window) = (a.frontend.clone(), a.window.clone());
        a.window.before_next_map(move || {
            stop_device(&mut frontend, &window);
        });
        a.post_request(&encode(CMD_ALLOC, &Alloc { size: 4096.into() }), 64);
        eventually("the device is stopped", || !a.window.has_doorbell());
        a.window.set_asking(false);
        a.restart();
        a.alloc_for_peer(b.gid(), 4096).unwrap();
        let old = a.gid();
        a.reset();
        assert_eq!(b.expect_event(), Event::PeerGone(old));
    }
    drop((a, b));
    host.expect_empty();
}

/// As above, but the device runs again before the map is answered, with earlier kicks still pending.
#[test]
fn a_restart_during_a_map() {
    let host = Host::default();
    let mut a = host.boot("a");
    for _ in 0..20 {
        // Kicks without pause, so that those of both queues are always found together.
        let end = Arc::new(AtomicBool::new(false));
        let kicks = [&a.control.kick, &a.events.kick].map(|kick| kick.try_clone().unwrap());
        let kicking = std::thread::spawn({
            let end = end.clone();
            move || {
                while !end.load(Ordering::Relaxed) {
                    kicks.iter().for_each(|kick| kick.write(1).unwrap());
                }
            }
        });
        let (stopped, until_stopped) = mpsc::channel();
        let (restarted, until_restarted) = mpsc::channel();
        let (mut frontend, window) = (a.frontend.clone(), a.window.clone());
        a.window.before_next_map(move || {
            stop_device(&mut frontend, &window);
            stopped.send(()).unwrap();
            until_restarted.recv_timeout(PATIENCE).unwrap();
        });
        a.post_request(&encode(CMD_ALLOC, &Alloc { size: 4096.into() }), 64);
        until_stopped.recv_timeout(PATIENCE).unwrap();
        a.restart_silently();
        restarted.send(()).unwrap();
        a.ping();
        end.store(true, Ordering::Relaxed);
        kicking.join().unwrap();
    }
}

/// The VMM dies while the device waits for a map.
#[test]
fn a_death_during_a_map() {
    let host = Host::default();
    let seat = host.seat("a");
    for _ in 0..10 {
        let mut a = seat.boot();
        let connection = a.connection();
        a.window
            .before_next_map(move || connection.shutdown(std::net::Shutdown::Both).unwrap());
        let request = encode(CMD_ALLOC, &Alloc { size: 4096.into() });
        a.post_request(&request, 64);
        host.expect_empty();
        a.window.take_violations();
        drop(a);
    }
    seat.boot().ping();
}

/// QEMU exchanges the call eventfd of a running queue when the guest masks its interrupt.
#[test]
fn the_interrupt_moves() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    let dmb = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let attached = b.attach(dmb.token).unwrap();
    for _ in 0..20 {
        let masked = EventFd::new(EFD_NONBLOCK).unwrap();
        a.frontend.set_vring_call(EVENT_QUEUE.into(), &masked).unwrap();
        a.events.arm();
        b.ring(attached.offset);
        eventually("the masked interrupt comes", || masked.read().is_ok());
        a.frontend.set_vring_call(EVENT_QUEUE.into(), &a.events.call).unwrap();
        a.events.call.write(1).unwrap();
        assert!(matches!(a.expect_event(), Event::Doorbells(_)));
        b.ring(attached.offset);
        assert!(matches!(a.expect_event(), Event::Doorbells(_)));
    }
}

#[test]
fn a_second_vmm_waits_for_its_turn() {
    let host = Host::default();
    let seat = host.seat("a");
    let mut first = seat.boot();
    let path = seat.path().to_owned();
    let second = std::thread::spawn(move || {
        let mut second = TestGuest::connect(&path, Options::default());
        second.start();
        second.ping();
        second.gid()
    });
    first.ping();
    assert!(!second.is_finished());
    let gid = first.gid();
    first.kill();
    assert_ne!(second.join().unwrap(), gid);
    host.expect_empty();
}

#[test]
fn garbage_on_the_socket() {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    let host = Host::default();
    let seat = host.seat("a");
    let mut b = host.boot("b");
    for garbage in [
        &b""[..],
        &[0; 3],
        &[0; 12],
        &[0xff; 12],
        &[0xff; 5000],
        &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut socket = UnixStream::connect(seat.path()).unwrap();
        let _ = socket.write_all(garbage);
        drop(socket);
        seat.boot().ping();
        b.ping();
    }
}
