//! The event queue: messages, and drivers that are slow or careless with their buffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vhost_daemon::trace::Tracer;
use vhost_ism::abi::*;
use vhost_ism::event::{EventRing, EventSink, Sent};
use vhost_ism::ism_finding::Finding;
use vhost_ism::stats::GuestStats;

use crate::common::*;

fn without_buffers() -> Options {
    Options {
        event_buffers: 0,
        ..Options::default()
    }
}

#[test]
fn a_message_comes_with_its_sender() {
    let host = Host::default();
    let (mut a, mut b) = (host.boot("a"), host.boot("b"));
    a.send_message(b.gid(), 0xdead_beef, u64::MAX - 1).unwrap();
    assert_eq!(b.expect_event(), Event::Message(a.gid(), 0xdead_beef, u64::MAX - 1));
    b.send_message(a.gid(), 0, 0).unwrap();
    assert_eq!(a.expect_event(), Event::Message(b.gid(), 0, 0));
    for code in 0..100 {
        a.send_message(b.gid(), code, 1).unwrap();
    }
    for code in 0..100 {
        assert_eq!(b.expect_event(), Event::Message(a.gid(), code, 1));
    }
}

#[test]
fn messages_to_oneself_and_to_nobody() {
    let host = Host::default();
    let mut a = host.boot("a");
    let own = a.gid();
    assert_eq!(a.send_message(own, 1, 1), Err(Status::Err));
    assert_eq!(a.send_message(Gid([7; 16]), 1, 1), Err(Status::NoEnt));
    assert_eq!(a.send_message(Gid([0; 16]), 1, 1), Err(Status::NoEnt));
    a.expect_silence();
}

#[test]
fn sixty_four_messages_of_each_sender_wait() {
    let host = Host::default();
    let mut b = host.boot_with("b", without_buffers());
    let (mut a, mut c) = (host.boot("a"), host.boot("c"));
    for code in 0..128 {
        let sender = if code % 2 == 0 { &mut a } else { &mut c };
        sender.send_message(b.gid(), code, 0).unwrap();
    }
    assert_eq!(a.send_message(b.gid(), 64, 0), Err(Status::NoSpc));
    assert_eq!(c.send_message(b.gid(), 64, 0), Err(Status::NoSpc));
    // C itself is not full.
    a.send_message(c.gid(), 1, 1).unwrap();
    assert_eq!(c.expect_event(), Event::Message(a.gid(), 1, 1));
    for code in 0..128 {
        b.post_event(64);
        let sender = if code % 2 == 0 { a.gid() } else { c.gid() };
        assert_eq!(b.last_event(PATIENCE), Some(Event::Message(sender, code, 0)));
    }
    a.send_message(b.gid(), 65, 0).unwrap();
    b.post_event(64);
    assert_eq!(b.last_event(PATIENCE), Some(Event::Message(a.gid(), 65, 0)));
}

#[test]
fn departures_go_before_messages_before_rings() {
    let host = Host::default();
    let mut b = host.boot_with("b", without_buffers());
    let (mut a, mut c) = (host.boot("a"), host.boot("c"));
    let dmb = b.alloc_for_peer(a.gid(), 1).unwrap();
    let attached = a.attach(dmb.token).unwrap();
    b.alloc_for_peer(c.gid(), 1).unwrap();
    a.ring(attached.offset);
    let counters = b.seat.clone().unwrap();
    eventually("the ring is passed on", || counters.counters().rings == 1);
    a.send_message(b.gid(), 5, 6).unwrap();
    let old = c.gid();
    c.reset();
    for _ in 0..3 {
        b.post_event(64);
    }
    assert_eq!(b.last_event(PATIENCE), Some(Event::PeerGone(old)));
    assert_eq!(b.last_event(PATIENCE), Some(Event::Message(a.gid(), 5, 6)));
    let chunk = (dmb.offset / CHUNK_SIZE) as u32;
    assert_eq!(b.last_event(PATIENCE), Some(Event::Doorbells(vec![chunk])));
}

/// Too small for the event, but nothing is lost.
#[test]
fn short_buffers_come_back_empty() {
    for size in [1, 8, 15, 16, 19, 23] {
        let host = Host::default();
        let mut b = host.boot_with("b", without_buffers());
        let mut a = host.boot("a");
        let dmb = b.alloc_for_peer(a.gid(), 1).unwrap();
        let attached = a.attach(dmb.token).unwrap();
        for _ in 0..5 {
            b.post_event(size);
        }
        b.post_event(64);
        b.post_event(64);
        let sender = a.gid();
        a.ring(attached.offset);
        a.send_message(b.gid(), 1, 2).unwrap();
        let seat = b.seat.clone().unwrap();
        let mut events = Vec::new();
        let is_ring = |event: &Event| matches!(event, Event::Doorbells(_));
        while !events.contains(&Event::Message(sender, 1, 2)) || !events.iter().any(is_ring) {
            events.push(b.last_event(PATIENCE).unwrap());
        }
        // A ring fits 20 bytes, a message never does.
        assert!(seat.found(Finding::ShortEventBuffer) >= 4, "{size}: {events:?}");
        a.ping();
        b.ping();
    }
}

#[test]
fn a_ring_fits_a_buffer_of_twenty_bytes() {
    let host = Host::default();
    let mut b = host.boot_with("b", without_buffers());
    let mut a = host.boot("a");
    let dmb = b.alloc_for_peer(a.gid(), 1).unwrap();
    let attached = a.attach(dmb.token).unwrap();
    b.post_event(20);
    a.ring(attached.offset);
    let chunk = (dmb.offset / CHUNK_SIZE) as u32;
    assert_eq!(b.last_event(PATIENCE), Some(Event::Doorbells(vec![chunk])));
}

/// A guest that takes no events: only messages to it fail, and no queue grows without bound.
#[test]
fn a_guest_that_takes_no_events_disturbs_nobody() {
    let host = Host::default();
    let mut b = host.boot_with("b", without_buffers());
    let (mut a, mut c) = (host.boot("a"), host.boot("c"));
    let of_b = b.alloc_for_peer(a.gid(), 1 << 16).unwrap();
    let of_c = c.alloc_for_peer(a.gid(), 1 << 16).unwrap();
    let (to_b, to_c) = (a.attach(of_b.token).unwrap(), a.attach(of_c.token).unwrap());
    for _ in 0..1000 {
        a.ring(to_b.offset);
        a.ring(to_c.offset);
        assert!(matches!(c.expect_event(), Event::Doorbells(_)));
    }
    // Departures are bounded as well.
    for _ in 0..20 {
        let dmb = c.alloc_for_peer(b.gid(), 1).unwrap();
        c.detach(dmb.token).unwrap();
        c.reset();
    }
    b.ping();
    let mut gone = 0;
    for _ in 0..21 {
        b.post_event(64);
        match b.last_event(PATIENCE).unwrap() {
            Event::PeerGone(_) => gone += 1,
            Event::Doorbells(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(gone, 20);
}

/// A hostile guest posts short buffers as fast as they are returned. Its peer's doorbells must get through to others.
#[test]
fn an_endless_supply_of_short_buffers_holds_up_nobody_else() {
    let host = Host::default();
    let mut b = host.boot_with("b", without_buffers());
    let (mut a, mut c) = (host.boot("a"), host.boot("c"));
    let of_b = b.alloc_for_peer(a.gid(), 1 << 16).unwrap();
    let of_c = c.alloc_for_peer(a.gid(), 1 << 16).unwrap();
    let (to_b, to_c) = (a.attach(of_b.token).unwrap(), a.attach(of_c.token).unwrap());
    let end = Arc::new(AtomicBool::new(false));
    let hostile = std::thread::spawn({
        let end = end.clone();
        move || {
            for _ in 0..60 {
                b.post_event(8);
            }
            while !end.load(Ordering::Relaxed) {
                while let Some((slot, _)) = b.events.take_used() {
                    b.events.publish(slot as u16);
                }
                b.events.notify();
            }
            b
        }
    });
    for _ in 0..50 {
        a.ring(to_b.offset);
        a.ring(to_c.offset);
        assert!(matches!(c.expect_event(), Event::Doorbells(_)));
        a.ping();
        a.send_message(c.gid(), 1, 1).unwrap();
        assert!(matches!(c.expect_event(), Event::Message(..)));
    }
    end.store(true, Ordering::Relaxed);
    let mut b = hostile.join().unwrap();
    b.ping();
    b.reset();
}

/// The same supply, faster than any guest: the ringing thread is released.
#[test]
fn a_delivery_of_short_buffers_ends() {
    #[derive(Default)]
    struct Endless(usize);

    impl EventRing for Endless {
        fn send(&mut self, event: &mut dyn FnMut(usize) -> Vec<u8>) -> Sent {
            assert!(event(8).is_empty());
            self.0 += 1;
            assert!(self.0 < 100_000, "the device returns short buffers forever");
            Sent::Short(Vec::new())
        }
        fn signal(&mut self) -> bool {
            true
        }
        fn await_buffers(&mut self) -> bool {
            true
        }
    }

    let stats = Arc::new(GuestStats::new("hostile".to_owned(), Tracer::default()));
    let sink = Arc::new(EventSink::new(stats.clone()));
    sink.open(Box::new(Endless::default()));
    sink.ring(&[1], 0);
    assert!(stats.findings().count(Finding::ShortEventBuffer) > 0);
}
