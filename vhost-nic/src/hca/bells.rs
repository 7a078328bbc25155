//! Doorbells of send queues, and alarms: what the NIC's thread waits for.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// Queues that want attention, now or later.
#[derive(Debug, Default)]
pub struct Bells {
    waiting: Mutex<Waiting>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    queues: VecDeque<u32>,
    alarms: BTreeSet<(Instant, u32)>,
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

    /// A queue wants attention at that time. One that has an earlier alarm gets both.
    pub fn ring_at(&self, time: Instant, queue: u32) {
        let mut waiting = self.waiting.lock();
        let first = waiting.alarms.first().is_none_or(|(earliest, _)| time < *earliest);
        waiting.alarms.insert((time, queue));
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

    /// Waits for the next queue that wants attention; none if it is time to stop.
    pub fn wait(&self) -> Option<u32> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.stop {
                return None;
            }
            if let Some(queue) = waiting.queues.pop_front() {
                return Some(queue);
            }
            match waiting.alarms.first().copied() {
                Some((time, queue)) if time <= Instant::now() => {
                    waiting.alarms.remove(&(time, queue));
                    return Some(queue);
                }
                Some((time, _)) => drop(self.rung.wait_until(&mut waiting, time)),
                None => self.rung.wait(&mut waiting),
            }
        }
    }
}
