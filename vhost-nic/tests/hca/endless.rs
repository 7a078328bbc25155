//! A send queue to which the driver posts without end.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mlx5_test_driver::memory::{BASE, Block};
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::Request;
use vhost_nic::net::{Burst, Destination, FrameNumber, PortTap, Switch, Tap};

use crate::frames::plain;
use crate::inspect::Inspect;
use crate::lan::guest;

/// Basic blocks of the queue.
const BLOCKS: u64 = 64;

/// Another processor of the guest: for each frame that leaves, it posts one.
struct Poster {
    memory: File,
    /// Offset of the send producer index.
    record: u64,
    frames: AtomicU64,
}

impl Tap for Poster {
    fn frames(&self, _: &PortTap, _: Destination<'_>, _: FrameNumber, burst: &Burst<'_>) {
        let frames = self.frames.fetch_add(burst.count(), Ordering::Relaxed) + burst.count();
        let producer = (BLOCKS + BLOCKS / 2 + frames) as u16;
        self.memory
            .write_all_at(&u32::from(producer).to_be_bytes(), self.record)
            .unwrap();
    }
}

/// Starts a guest whose queue never becomes empty.
fn endless() -> (Netdev, Arc<Poster>, Block) {
    let switch = Switch::new();
    let options = Options {
        log_sq: BLOCKS.ilog2() as u8,
        ..Options::default()
    };
    let mut guest = guest(&switch, 1, &options);
    let place = guest.place(&plain(guest.hca.machine.mac, [2, 0, 0, 0, 0, 9], 100));
    let machine = guest.hca.machine.clone();
    let sq = &mut guest.channels[0].sq;
    let request = Request {
        data: &[(place.address(), 100)],
        silent: true,
        ..Request::default()
    };
    // Every block of the ring has a WQE.
    for sent in 1..=BLOCKS {
        sq.send(&request);
        while machine.nic().snapshot().port.sent < sent {
            thread::yield_now();
        }
    }
    let poster = Arc::new(Poster {
        memory: machine.memory.file(),
        record: sq.record() - BASE,
        frames: AtomicU64::new(0),
    });
    switch.add_tap(poster.clone());
    sq.send(&request);
    while poster.frames.load(Ordering::Relaxed) < 1 << 16 {
        thread::yield_now();
    }
    (guest, poster, place)
}

#[test]
fn a_reset_ends_beside_a_queue_that_is_never_empty() {
    let (guest, poster, _place) = endless();
    guest.hca.machine.device().reset();
    let frames = poster.frames.load(Ordering::Relaxed);
    let count = guest.hca.machine.nic().snapshot().objects.get("sq").copied();
    assert_eq!(count.unwrap_or(0), 0);
    thread::yield_now();
    assert_eq!(poster.frames.load(Ordering::Relaxed), frames);
}

#[test]
fn a_queue_that_is_never_empty_can_be_destroyed() {
    let (guest, poster, _place) = endless();
    guest.channels[0].sq.destroy(&guest.hca).unwrap();
    let frames = poster.frames.load(Ordering::Relaxed);
    thread::yield_now();
    assert_eq!(poster.frames.load(Ordering::Relaxed), frames);
}
