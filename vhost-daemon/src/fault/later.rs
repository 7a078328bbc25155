//! Work that is done later: what a fault delays.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::panic::isolate;
use crate::sandbox::{ThreadKind, confine};

/// Maximum number of pieces of work that wait; each may be a frame of 10 KB.
const MAX_WAITING: usize = 8192;

type Work = Box<dyn FnOnce() + Send>;

/// A thread that does work at its time, in the order of the times. Work that waits when this is dropped is not done.
pub struct Later {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<(Instant, u64), Work>,
    next: u64,
    ended: bool,
}

impl Later {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let queue = Arc::<Queue>::default();
        let own = queue.clone();
        thread::Builder::new()
            .name("faults".to_owned())
            .spawn(move || own.run())?;
        Ok(Self { queue })
    }

    /// Does `work` after a delay. Returns false, and drops it, if too much waits.
    pub fn after(&self, delay: Duration, work: impl FnOnce() + Send + 'static) -> bool {
        self.at(Instant::now() + delay, work)
    }

    /// Does `work` at a time. Returns false, and drops it, if too much waits.
    pub fn at(&self, time: Instant, work: impl FnOnce() + Send + 'static) -> bool {
        let mut state = self.queue.state.lock();
        if state.waiting.len() >= MAX_WAITING {
            return false;
        }
        let number = state.next;
        state.next += 1;
        state.waiting.insert((time, number), Box::new(work));
        drop(state);
        self.queue.changed.notify_one();
        true
    }
}

impl Queue {
    fn run(&self) {
        confine(ThreadKind::Faults);
        let mut state = self.state.lock();
        while !state.ended {
            match state.waiting.first_entry() {
                None => self.changed.wait(&mut state),
                Some(first) if first.key().0 <= Instant::now() => {
                    let work = first.remove();
                    parking_lot::MutexGuard::unlocked(&mut state, || isolate("a delayed fault", work));
                }
                Some(first) => {
                    let time = first.key().0;
                    self.changed.wait_until(&mut state, time);
                }
            }
        }
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.ended = true;
        state.waiting.clear();
        drop(state);
        self.queue.changed.notify_one();
    }
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Later")
            .field("waiting", &self.queue.state.lock().waiting.len())
            .finish()
    }
}
