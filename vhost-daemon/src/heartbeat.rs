//! Heartbeats of the threads that serve guests, and the watch over them.
//!
//! A heartbeat is a number that its thread increments when it begins and when it ends a piece of work, and in between
//! at each progress; it reads no clock. The main thread looks at all of them every second. A thread that only waits,
//! for work or for its VMM, is never stuck: no VMM decides whether the daemon is alive.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use log::{error, info};
use parking_lot::Mutex;

/// Time without progress after which a thread at work counts as stuck.
pub const STUCK_TIME: Duration = Duration::from_secs(10);

static ALL: Mutex<Vec<Weak<Heartbeat>>> = Mutex::new(Vec::new());

thread_local! {
    /// The heartbeat of this thread, once it has worked.
    static CURRENT: RefCell<Option<Arc<Heartbeat>>> = const { RefCell::new(None) };
}

/// Heartbeat of a thread.
#[derive(Debug)]
pub struct Heartbeat {
    guest: String,
    thread: &'static str,
    /// Odd while the thread works. Written by the thread alone.
    beats: AtomicU64,
    /// For the watch alone.
    seen: Mutex<Seen>,
}

/// The last look at a heartbeat.
#[derive(Debug, Default)]
struct Seen {
    beats: u64,
    /// Time of the first look at this number of beats.
    since: Option<Instant>,
    stuck: bool,
}

impl Heartbeat {
    /// Creates the heartbeat of a thread that serves a guest, both by their names in the log.
    pub fn new(guest: &str, thread: &'static str) -> Arc<Self> {
        let heartbeat = Arc::new(Self {
            guest: guest.to_owned(),
            thread,
            beats: AtomicU64::new(0),
            seen: Mutex::default(),
        });
        let mut all = ALL.lock();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&heartbeat));
        heartbeat
    }

    /// Name of the guest.
    pub fn guest(&self) -> &str {
        &self.guest
    }

    /// Does a piece of work of the calling thread, whose heartbeat this is.
    pub fn work<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        CURRENT.with_borrow_mut(|current| {
            if current.as_ref().is_none_or(|current| !Arc::ptr_eq(current, self)) {
                *current = Some(self.clone());
            }
        });
        let _end = Beats::now(self, 1);
        work()
    }

    fn beat(&self, count: u64) {
        let beats = self.beats.load(Ordering::Relaxed);
        self.beats.store(beats.wrapping_add(count), Ordering::Relaxed);
    }

    fn is_at_work(&self) -> bool {
        !self.beats.load(Ordering::Relaxed).is_multiple_of(2)
    }

    /// Returns whether the thread is stuck, and logs a change.
    fn look(&self, now: Instant) -> bool {
        let mut seen = self.seen.lock();
        let beats = self.beats.load(Ordering::Relaxed);
        if seen.since.is_none() || seen.beats != beats {
            if seen.stuck {
                info!("{}: the {} thread goes on", self.guest, self.thread);
            }
            *seen = Seen {
                beats,
                since: Some(now),
                stuck: false,
            };
        }
        let time = now.saturating_duration_since(seen.since.unwrap_or(now));
        let stuck = self.is_at_work() && time >= STUCK_TIME;
        if stuck && !seen.stuck {
            let seconds = time.as_secs();
            error!(
                "{}: the {} thread has made no progress for {seconds} s",
                self.guest, self.thread
            );
        }
        seen.stuck = stuck;
        stuck
    }
}

/// Beats when work begins, and again when it ends or panics.
struct Beats<'a>(&'a Heartbeat);

impl<'a> Beats<'a> {
    fn now(heartbeat: &'a Heartbeat, count: u64) -> Self {
        heartbeat.beat(count);
        Self(heartbeat)
    }
}

impl Drop for Beats<'_> {
    fn drop(&mut self) {
        self.0.beat(1);
    }
}

/// Returns the heartbeat of the calling thread, if the thread is at work.
fn current() -> Option<Arc<Heartbeat>> {
    let current = CURRENT.with_borrow(Clone::clone);
    current.filter(|heartbeat| heartbeat.is_at_work())
}

/// Notes the progress of a piece of work whose length the guest decides.
pub fn progress() {
    if let Some(heartbeat) = current() {
        heartbeat.beat(2);
    }
}

/// Waits for the guest's VMM in the midst of a piece of work.
pub fn wait<T>(wait: impl FnOnce() -> T) -> T {
    let current = current();
    let _end = current.as_deref().map(|heartbeat| Beats::now(heartbeat, 1));
    wait()
}

/// Looks at all heartbeats. Returns the number of threads that are stuck; the log names them.
pub fn watch(now: Instant) -> usize {
    let all: Vec<_> = ALL.lock().iter().filter_map(Weak::upgrade).collect();
    all.iter().filter(|heartbeat| heartbeat.look(now)).count()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Looks at all heartbeats at these seconds.
    fn stuck_at(start: Instant, seconds: u64) -> usize {
        watch(start + Duration::from_secs(seconds))
    }

    #[test]
    fn a_thread_at_work_without_progress_is_stuck_until_it_goes_on() {
        let start = Instant::now();
        let heartbeat = Heartbeat::new("a", "worker");
        heartbeat.work(|| {
            assert_eq!([0, 9, 10, 11].map(|at| stuck_at(start, at)), [0, 0, 1, 1]);
            progress();
            assert_eq!([12, 21, 22].map(|at| stuck_at(start, at)), [0, 0, 1]);
        });
        assert_eq!([23, 99].map(|at| stuck_at(start, at)), [0, 0]);
        heartbeat.work(|| assert_eq!([100, 109, 110].map(|at| stuck_at(start, at)), [0, 0, 1]));
        drop(heartbeat);
        CURRENT.take();
        assert_eq!(stuck_at(start, 999), 0);
    }

    #[test]
    fn a_thread_that_waits_is_not_stuck() {
        let start = Instant::now();
        let heartbeat = Heartbeat::new("a", "control");
        assert_eq!([0, 99].map(|at| stuck_at(start, at)), [0, 0]);
        heartbeat.work(|| {
            wait(|| assert_eq!([100, 199].map(|at| stuck_at(start, at)), [0, 0]));
            assert_eq!([200, 210].map(|at| stuck_at(start, at)), [0, 1]);
        });
        // Outside of work a wait is none.
        wait(|| assert_eq!([300, 399].map(|at| stuck_at(start, at)), [0, 0]));
    }

    #[test]
    fn a_piece_of_work_that_panics_has_ended() {
        let start = Instant::now();
        let heartbeat = Heartbeat::new("a", "worker");
        let panicked = catch_unwind(AssertUnwindSafe(|| heartbeat.work(|| wait(|| panic!("on purpose")))));
        assert!(panicked.is_err());
        assert_eq!([0, 99].map(|at| stuck_at(start, at)), [0, 0]);
    }

    #[test]
    fn each_stuck_thread_counts() {
        let start = Instant::now();
        let (free, held) = (Heartbeat::new("a", "worker"), Heartbeat::new("b", "worker"));
        let (enter, entered) = std::sync::mpsc::channel();
        let (leave, left) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            held.work(|| {
                enter.send(()).unwrap();
                let _ = left.recv();
            });
        });
        entered.recv().unwrap();
        free.work(|| assert_eq!([0, 10].map(|at| stuck_at(start, at)), [0, 2]));
        assert_eq!(stuck_at(start, 11), 1);
        drop(leave);
        thread.join().unwrap();
        assert_eq!(stuck_at(start, 12), 0);
    }
}
