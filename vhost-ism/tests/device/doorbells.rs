//! Doorbells: none is lost, none is misdelivered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use vhost_ism::abi::*;
use vhost_ism::ism_finding::Finding;

use crate::common::*;

/// One of two guests, each with a DMB that the other has attached.
struct End {
    guest: TestGuest,
    /// Own, written by the peer.
    inbox: Dmb,
    /// The peer's, rung here.
    outbox: Dmb,
    _host: Arc<Host>,
}

impl End {
    fn received(&self) -> u64 {
        self.guest.window.word(self.inbox.offset).load(Ordering::Acquire)
    }

    fn send(&self, value: u64) {
        self.guest
            .window
            .word(self.outbox.offset)
            .store(value, Ordering::Release);
        self.guest.ring(self.outbox.offset);
    }

    fn chunk(&self) -> u32 {
        (self.inbox.offset / CHUNK_SIZE) as u32
    }

    /// Waits for a value by events alone: reads only after an event.
    #[track_caller]
    fn await_value(&mut self, value: u64) {
        loop {
            match self.guest.expect_event() {
                Event::Doorbells(chunks) => assert_eq!(chunks, [self.chunk()]),
                other => panic!("{other:?}"),
            }
            if self.received() >= value {
                return;
            }
        }
    }
}

fn pair_with(options: &Options) -> (End, End) {
    let host = Arc::new(Host::default());
    let (mut a, mut b) = (
        host.boot_with("a", options.clone()),
        host.boot_with("b", options.clone()),
    );
    let of_a = a.alloc_for_peer(b.gid(), 1 << 16).unwrap();
    let of_b = b.alloc_for_peer(a.gid(), 1 << 16).unwrap();
    let (a_sends, b_sends) = (a.attach(of_b.token).unwrap(), b.attach(of_a.token).unwrap());
    let a = End {
        guest: a,
        inbox: of_a,
        outbox: a_sends,
        _host: host.clone(),
    };
    let b = End {
        guest: b,
        inbox: of_b,
        outbox: b_sends,
        _host: host,
    };
    (a, b)
}

fn pair() -> (End, End) {
    pair_with(&Options::default())
}

// Draft: Virtqueues; Notification
#[test]
fn a_ring_reaches_the_owner() {
    let (mut a, mut b) = pair();
    a.send(1);
    b.await_value(1);
    b.send(2);
    a.await_value(2);
    a.guest.expect_silence();
    b.guest.expect_silence();
}

#[test]
fn the_event_names_the_first_chunk_in_the_owners_window() {
    let host = Host::default();
    let (mut a, mut b, c) = (host.boot("a"), host.boot("b"), host.boot("c"));
    // The windows differ.
    b.alloc_for_peer(c.gid(), 1 << 20).unwrap();
    let small = a.alloc_for_peer(b.gid(), 5000).unwrap();
    let large = a.alloc_for_peer(b.gid(), 1 << 20).unwrap();
    for owned in [small, large] {
        let attached = b.attach(owned.token).unwrap();
        b.ring(attached.offset);
        let chunk = (owned.offset / CHUNK_SIZE) as u32;
        assert_eq!(a.expect_event(), Event::Doorbells(vec![chunk]));
    }
    // Only the first chunk has a bell.
    let attached = b.alloc_for_peer(a.gid(), 1).unwrap();
    b.ring(attached.offset);
    a.expect_silence();
}

#[test]
fn rings_coalesce_while_the_owner_takes_none() {
    let (a, mut b) = pair_with(&Options {
        event_buffers: 0,
        ..Options::default()
    });
    for value in 1..=1000 {
        a.send(value);
    }
    eventually("the bells are taken", || {
        a.guest.window.bell(a.outbox.offset).is_silent() && a.guest.window.awake() == 0
    });
    b.guest.expect_silence();
    b.guest.post_event(256);
    b.await_value(1000);
    b.guest.expect_silence();
}

#[test]
fn a_ring_waits_for_a_buffer_of_many() {
    let host = Host::default();
    let mut b = host.boot_with(
        "b",
        Options {
            event_buffers: 0,
            event_size: 64,
            ..Options::default()
        },
    );
    let mut a = host.boot("a");
    let mut chunks = Vec::new();
    for _ in 0..30 {
        let dmb = b.alloc_for_peer(a.gid(), CHUNK_SIZE).unwrap();
        chunks.push((dmb.offset / CHUNK_SIZE) as u32);
        let attached = a.attach(dmb.token).unwrap();
        a.ring(attached.offset);
    }
    let counters = || b.seat.clone().unwrap().counters();
    eventually("all rings are passed on", || counters().rings == 30);
    // 64 bytes hold twelve.
    let mut got = Vec::new();
    for expected in [12, 12, 6] {
        b.post_event(64);
        let Some(Event::Doorbells(rung)) = b.last_event(PATIENCE) else {
            panic!("a doorbell event");
        };
        assert_eq!(rung.len(), expected);
        got.extend(rung);
    }
    assert_eq!(got, chunks);
    b.post_event(64);
    b.expect_silence();
}

#[test]
fn the_awake_word_falls_back() {
    let (a, mut b) = pair();
    let total = 20_000;
    let seat = a.guest.seat.clone().unwrap();
    // The device looks once when it starts, and counts that.
    let before = seat.counters().kicks;
    let kicks = (1..=total).filter(|value| {
        let window = &a.guest.window;
        window.word(a.outbox.offset).store(*value, Ordering::Release);
        a.guest.ring(a.outbox.offset)
    });
    let kicks = kicks.count() as u64;
    b.await_value(total);
    eventually("the device sleeps", || a.guest.window.awake() == 0);
    let seen = seat.counters().kicks - before;
    assert!(seen <= kicks, "{seen} kicks seen of {kicks}");
    println!("{kicks} kicks for {total} rings");
}

#[test]
fn stray_rings_are_counted_and_wake_nobody() {
    let (mut a, mut b) = pair();
    let seat = a.guest.seat.clone().unwrap();
    let stray = || seat.found(Finding::StrayDoorbell);

    // A DMB of its own, and unused chunks, up to the last one.
    let last = a.guest.config.window_size.get() - CHUNK_SIZE;
    for (count, offset) in [a.inbox.offset, a.outbox.offset + CHUNK_SIZE, 20 << 20, last]
        .into_iter()
        .enumerate()
    {
        a.guest.ring(offset);
        eventually("a stray ring is counted", || stray() == count as u64 + 1);
    }
    // A detached DMB.
    a.guest.detach(a.outbox.token).unwrap();
    a.guest.ring(a.outbox.offset);
    eventually("a ring after DETACH is counted", || stray() == 5);
    b.guest.expect_silence();
    a.guest.expect_silence();
}

#[test]
fn a_ring_before_detach_is_delivered() {
    let (mut a, mut b) = pair();
    let mut dmb = b.inbox;
    for value in 1..=500 {
        a.send(value);
        // At once, as SMC does when it aborts a connection.
        a.guest.detach(dmb.token).unwrap();
        b.await_value(value);
        b.guest.detach(dmb.token).unwrap();
        dmb = b.guest.alloc_for_peer(a.guest.gid(), 1 << 16).unwrap();
        b.inbox = dmb;
        a.outbox = a.guest.attach(dmb.token).unwrap();
    }
    let seat = a.guest.seat.clone().unwrap();
    assert_eq!(seat.found(Finding::StrayDoorbell), 0);
}

#[test]
fn a_ring_for_a_freed_dmb_does_no_harm() {
    let (a, mut b) = pair();
    b.guest.detach(b.inbox.token).unwrap();
    a.guest.ring(a.outbox.offset);
    // The owner may get an event for a DMB that it has detached, but for no other.
    let event = b.guest.next_event(BRIEF);
    assert!(
        event.is_none() || event == Some(Event::Doorbells(vec![b.chunk()])),
        "{event:?}"
    );
    b.guest.ping();
}

/// Both ring without pause, and each takes events at times; in the end each must have an event for the last write.
#[test]
fn no_wakeup_is_lost_in_a_storm() {
    const RINGS: u64 = 100_000;
    let (a, b) = pair();
    let storm = |mut end: End| {
        move || {
            for value in 1..=RINGS {
                end.send(value);
                if value % 64 == 0 {
                    while let Some(event) = end.guest.next_event(Duration::ZERO) {
                        assert_eq!(event, Event::Doorbells(vec![end.chunk()]));
                    }
                }
            }
            // An event is due for every write not read yet.
            while end.received() < RINGS {
                end.guest.expect_event();
            }
            end
        }
    };
    let (one, two) = (thread::spawn(storm(a)), thread::spawn(storm(b)));
    let (a, b) = (one.join().unwrap(), two.join().unwrap());
    for end in [&a, &b] {
        let seat = end.guest.seat.as_ref().unwrap();
        assert!(seat.counters().doorbells <= RINGS);
        assert_eq!(seat.guest.stats().total_errors(), 0, "{:?}", seat.guest.stats());
    }
}

fn ping_pong(options: &Options, rounds: u64) {
    let (mut a, mut b) = pair_with(options);
    let start = Instant::now();
    let answering = thread::spawn(move || {
        for value in 1..=rounds {
            b.await_value(value);
            b.send(value);
        }
        b
    });
    for value in 1..=rounds {
        a.send(value);
        a.await_value(value);
    }
    let b = answering.join().unwrap();
    println!("{rounds} round trips, {:?} each", start.elapsed() / rounds as u32);
    for end in [&a, &b] {
        let stats = end.guest.seat.as_ref().unwrap().guest.stats();
        assert_eq!(stats.total_errors(), 0, "{stats:?}");
    }
}

#[test]
fn twenty_thousand_round_trips() {
    ping_pong(&Options::default(), 20_000);
}

#[test]
fn round_trips_without_event_idx_and_with_few_buffers() {
    let options = Options {
        event_idx: false,
        event_buffers: 2,
        queue_size: 2,
        ..Options::default()
    };
    ping_pong(&options, 3_000);
}
