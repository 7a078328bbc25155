//! Findings as they happen, for a reader that may be slow.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::record::Record;

/// Findings that wait for a reader; later ones are dropped, and counted.
pub const QUEUE: usize = 1024;

/// A reader of findings of any number of guests.
#[derive(Debug, Default)]
pub struct Subscription(Arc<Queue>);

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    records: VecDeque<Arc<Record>>,
    dropped: u64,
}

impl Queue {
    pub(super) fn push(&self, record: Arc<Record>) {
        let mut waiting = self.waiting.lock();
        if waiting.records.len() < QUEUE {
            waiting.records.push_back(record);
        } else {
            waiting.dropped += 1;
        }
        self.arrived.notify_one();
    }
}

impl Subscription {
    pub(super) fn queue(&self) -> Weak<Queue> {
        Arc::downgrade(&self.0)
    }

    /// Takes the findings that arrived, and the number of those dropped since the last call; waits up to `timeout` for
    /// the first.
    pub fn take(&self, timeout: Duration) -> (Vec<Arc<Record>>, u64) {
        let mut waiting = self.0.waiting.lock();
        if waiting.records.is_empty() {
            self.0.arrived.wait_for(&mut waiting, timeout);
        }
        (
            waiting.records.drain(..).collect(),
            std::mem::take(&mut waiting.dropped),
        )
    }
}
