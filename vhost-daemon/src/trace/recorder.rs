//! Recording: the switch, the rings of all threads, and the sessions that read them.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};
use std::{mem, thread};

use parking_lot::Mutex;

use super::event::{ARGUMENTS, Events, Record};
use super::ring::Ring;
use super::trigger;

/// Rings of ended threads that are kept for their records.
const MAX_ENDED: usize = 8;

/// Whether devices can be observed: by traces, taps of frames and commands, and findings. False in the baseline of the
/// benchmarks, `--cfg unobserved`, from which the compiler removes them.
pub const COMPILED_IN: bool = !cfg!(unobserved);

/// Size of a ring, unless another is set.
pub const DEFAULT_RING_BYTES: u64 = 2 << 20;

/// Number of open sessions, and one for the flight recorder.
static RECORDING: AtomicU32 = AtomicU32::new(0);
static FLIGHT_RECORDER: AtomicBool = AtomicBool::new(false);
static RINGS: Mutex<Rings> = Mutex::new(Rings {
    by_number: Vec::new(),
    next: 0,
    discarded: 0,
});
/// Size of the rings of threads that record their first event.
static RING_BYTES: AtomicU64 = AtomicU64::new(DEFAULT_RING_BYTES);
static NEXT_THREAD: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static RING: OnceCell<Arc<Ring>> = const { OnceCell::new() };
}

/// The rings in the order of their threads' first events.
struct Rings {
    by_number: Vec<(u64, Arc<Ring>)>,
    next: u64,
    /// Records written to rings that are not kept any more.
    discarded: u64,
}

impl Rings {
    fn add(&mut self, ring: Arc<Ring>) {
        let ended = |ring: &Arc<Ring>| Arc::strong_count(ring) == 1;
        let mut surplus = (self.by_number.iter().filter(|(_, ring)| ended(ring)).count() + 1).saturating_sub(MAX_ENDED);
        self.by_number.retain(|(_, ring)| {
            let drop = surplus > 0 && ended(ring);
            if drop {
                surplus -= 1;
                self.discarded += ring.written();
            }
            !drop
        });
        self.by_number.push((self.next, ring));
        self.next += 1;
    }
}

/// Longest duration of an event, an argument in nanoseconds.
const LONGEST: Duration = Duration::from_nanos(u32::MAX as u64);

/// The time that records count from, on both clocks. The first event has begun later, too.
fn epoch() -> (Instant, SystemTime) {
    static EPOCH: OnceLock<(Instant, SystemTime)> = OnceLock::new();
    *EPOCH.get_or_init(|| {
        let (monotonic, wall) = (Instant::now(), SystemTime::now());
        match (monotonic.checked_sub(LONGEST), wall.checked_sub(LONGEST)) {
            (Some(monotonic), Some(wall)) => (monotonic, wall),
            _ => (monotonic, wall),
        }
    })
}

/// Returns the wall-clock time that records count from, in nanoseconds since 1970.
pub fn epoch_unix_ns() -> u64 {
    let since = epoch().1.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// Records events of a guest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tracer {
    guest: u16,
}

impl Tracer {
    /// Creates a tracer for the guest of this number.
    pub const fn new(guest: u16) -> Self {
        Self { guest }
    }

    /// Whether events are recorded: for what only a recorded event needs.
    #[inline]
    pub fn is_on(self) -> bool {
        COMPILED_IN && RECORDING.load(Ordering::Relaxed) > 0
    }

    /// Records an event of an object. `arguments` is called only if events are recorded.
    #[inline]
    pub fn record<E: Events>(self, event: E, object: u32, arguments: impl FnOnce() -> [u32; ARGUMENTS]) {
        if self.is_on() {
            self.push(event.index(), object, arguments());
        }
    }

    #[cold]
    fn push(self, event: u16, object: u32, arguments: [u32; ARGUMENTS]) {
        let record = Record {
            time: (epoch().0.elapsed().as_nanos() as u64).into(),
            event: event.into(),
            guest: self.guest.into(),
            object: object.into(),
            arguments: arguments.map(Into::into),
        };
        // What a thread does while it ends is not recorded.
        let _ = RING.try_with(|ring| ring.get_or_init(new_ring).push(record));
        trigger::check(event, self.guest, object, &arguments);
    }
}

fn new_ring() -> Arc<Ring> {
    let thread = thread::current();
    let name = thread.name().map_or_else(
        || format!("thread {}", NEXT_THREAD.fetch_add(1, Ordering::Relaxed)),
        ToOwned::to_owned,
    );
    let ring = Arc::new(Ring::new(name, RING_BYTES.load(Ordering::Relaxed)));
    RINGS.lock().add(ring.clone());
    ring
}

/// Sets the size of the rings of threads that have not recorded an event yet; it is rounded up to a power of two.
pub fn set_ring_bytes(bytes: u64) {
    RING_BYTES.store(bytes, Ordering::Relaxed);
}

/// Records from now on, so that a session can begin with what was before it.
pub fn start_flight_recorder() {
    set_flight_recorder(true);
}

/// Starts or stops the flight recorder.
pub fn set_flight_recorder(on: bool) {
    match (FLIGHT_RECORDER.swap(on, Ordering::Relaxed), on) {
        (false, true) => RECORDING.fetch_add(1, Ordering::Relaxed),
        (true, false) => RECORDING.fetch_sub(1, Ordering::Relaxed),
        _ => return,
    };
}

/// Whether the flight recorder is on.
pub fn flight_recorder_is_on() -> bool {
    FLIGHT_RECORDER.load(Ordering::Relaxed)
}

/// A reader of all events while it exists.
#[derive(Debug)]
pub struct Session {
    /// Next record of each ring.
    next: HashMap<u64, u64>,
    /// [`Rings::discarded`] when the rings were last read.
    discarded: u64,
}

/// Number and name of a batch of what [`MAX_ENDED`] loses.
const DISCARDED: (u64, &str) = (u64::MAX, "ended threads");

/// Records of one thread, or the loss of those that ended.
#[derive(Debug)]
pub struct Batch {
    /// Number of the thread.
    pub thread: u64,
    /// Name of the thread.
    pub name: String,
    /// Records in order.
    pub records: Vec<Record>,
    /// Records overwritten before they could be read.
    pub lost: u64,
}

impl Session {
    /// Begins to record. With `recent`, the session reads first what the flight recorder has.
    pub fn start(recent: bool) -> Self {
        let rings = RINGS.lock();
        // What the rings hold is either all older than the session, or all wanted.
        let next = |ring: &Ring| match recent {
            true => (ring.written() + 1).saturating_sub(ring.capacity()),
            false => ring.written(),
        };
        let next = rings
            .by_number
            .iter()
            .map(|(number, ring)| (*number, next(ring)))
            .collect();
        RECORDING.fetch_add(1, Ordering::Relaxed);
        Self {
            next,
            discarded: rings.discarded,
        }
    }

    /// Takes what each thread has recorded since the last call.
    pub fn drain(&mut self) -> Vec<Batch> {
        let (rings, discarded) = {
            let rings = RINGS.lock();
            (rings.by_number.clone(), rings.discarded)
        };
        // Of what the discarded rings had, all but what was read before.
        let mut unread = discarded - mem::replace(&mut self.discarded, discarded);
        self.next.retain(|number, next| {
            let kept = rings.iter().any(|(live, _)| live == number);
            if !kept {
                unread -= *next;
            }
            kept
        });
        let mut batches = Vec::new();
        if unread > 0 {
            let (thread, name) = DISCARDED;
            batches.push(Batch {
                thread,
                name: name.to_owned(),
                records: Vec::new(),
                lost: unread,
            });
        }
        for (thread, ring) in rings {
            let next = self.next.entry(thread).or_default();
            let mut records = Vec::new();
            let begin = ring.read(*next, &mut records);
            let lost = begin - *next;
            *next = begin + records.len() as u64;
            if lost > 0 || !records.is_empty() {
                batches.push(Batch {
                    thread,
                    name: ring.thread.clone(),
                    records,
                    lost,
                });
            }
        }
        batches
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        RECORDING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::trace_events! {
        /// An event.
        enum Event {
            /// The only one.
            Only = "only" of "object" [],
        }
    }

    /// The test has a process of its own: other threads record nothing.
    #[test]
    fn what_rings_of_ended_threads_had_is_counted_as_lost() {
        const THREADS: usize = 12;
        const EVENTS: u64 = 3;
        let mut session = Session::start(false);
        let record = |events| {
            let act = move || (0..events).for_each(|_| Tracer::new(0).record(Event::Only, 0, Default::default));
            thread::Builder::new().name("recording".to_owned()).spawn(act)
        };
        let counts = |session: &mut Session| {
            let batches = session.drain();
            let read: usize = batches.iter().map(|batch| batch.records.len()).sum();
            (read as u64, batches.iter().map(|batch| batch.lost).sum::<u64>())
        };
        // One that the session has read before its ring is discarded.
        record(EVENTS).unwrap().join().unwrap();
        assert_eq!(counts(&mut session), (EVENTS, 0));
        for _ in 0..THREADS {
            record(EVENTS).unwrap().join().unwrap();
        }
        let (kept, lost) = counts(&mut session);
        assert_eq!(kept, MAX_ENDED as u64 * EVENTS);
        assert_eq!(kept + lost, THREADS as u64 * EVENTS);
        assert_eq!(counts(&mut session), (0, 0));
    }
}
