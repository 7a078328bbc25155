//! Doorbells of send queues, and alarms: what the NIC's thread waits for.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// What wants attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attention {
    /// A queue from which something may be sent.
    Queue(u32),
    /// A completion queue whose consumer may have waited long enough.
    Cq(u32),
}

/// What wants attention, now or later.
#[derive(Debug, Default)]
pub struct Bells {
    waiting: Mutex<Waiting>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    queues: VecDeque<u32>,
    alarms: BTreeSet<(Instant, Attention)>,
    stop: bool,
}

impl Bells {
    /// A queue wants attention.
    pub fn ring(&self, queue: u32) {
        let mut waiting = self.waiting.lock();
        if !waiting.queues.contains(&queue) {
            waiting.queues.push_back(queue);
            self.rung.notify_one();
        }
    }

    /// Something wants attention at that time. What has an earlier alarm gets both.
    pub fn ring_at(&self, time: Instant, what: Attention) {
        let mut waiting = self.waiting.lock();
        let first = waiting.alarms.first().is_none_or(|(earliest, _)| time < *earliest);
        waiting.alarms.insert((time, what));
        if first {
            self.rung.notify_one();
        }
    }

    /// Nobody waits any more.
    pub fn stop(&self) {
        self.waiting.lock().stop = true;
        self.rung.notify_all();
    }

    /// Forgets all that waits.
    pub fn clear(&self) {
        let mut waiting = self.waiting.lock();
        waiting.queues.clear();
        waiting.alarms.clear();
    }

    /// Waits for the next that wants attention; none if it is time to stop.
    pub fn wait(&self) -> Option<Attention> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.stop {
                return None;
            }
            if let Some(queue) = waiting.queues.pop_front() {
                return Some(Attention::Queue(queue));
            }
            match waiting.alarms.first().copied() {
                Some((time, what)) if time <= Instant::now() => {
                    waiting.alarms.remove(&(time, what));
                    return Some(what);
                }
                Some((time, _)) => drop(self.rung.wait_until(&mut waiting, time)),
                None => self.rung.wait(&mut waiting),
            }
        }
    }
}
