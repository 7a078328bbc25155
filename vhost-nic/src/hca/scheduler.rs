//! Doorbells of send queues, and alarms: what the NIC's thread waits for.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::blue_flame::Half;

/// What wants attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// A queue from which something may be sent.
    Queue(u32),
    /// A doorbell register whose WQE may never be complete.
    Register(Half),
    /// A completion queue whose consumer may have waited long enough.
    Cq(u32),
}

/// What wants attention, now or later.
#[derive(Debug, Default)]
pub struct Scheduler {
    waiting: Mutex<Waiting>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    queues: VecDeque<u32>,
    alarms: BTreeSet<(Instant, Task)>,
    stop: bool,
}

impl Scheduler {
    /// A queue wants attention.
    pub fn schedule(&self, queue: u32) {
        let mut waiting = self.waiting.lock();
        if !waiting.queues.contains(&queue) {
            waiting.queues.push_back(queue);
            self.rung.notify_one();
        }
    }

    /// Something wants attention at that time. What has an earlier alarm gets both.
    pub fn schedule_at(&self, time: Instant, what: Task) {
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
    pub fn wait(&self) -> Option<Due> {
        let mut waiting = self.waiting.lock();
        loop {
            match waiting.next() {
                Next::Due(call) => return Some(call),
                Next::Stop => return None,
                Next::Later(Some(time)) => drop(self.rung.wait_until(&mut waiting, time)),
                Next::Later(None) => self.rung.wait(&mut waiting),
            }
        }
    }

    /// Whether there is something for the NIC's thread to do at once, besides what it is at. Who has much to do lets it come in between.
    pub fn has_other_work(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.stop || !waiting.queues.is_empty() || waiting.due().is_some()
    }

    /// What comes next at this moment, without waiting.
    pub fn poll(&self) -> Next {
        self.waiting.lock().next()
    }
}

/// Something that wants attention now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// What it is.
    pub what: Task,
    /// Whether it doorbell; else its time has come.
    pub doorbell: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This, now.
    Due(Due),
    /// Nothing now; something then, if nothing rings.
    Later(Option<Instant>),
    /// Nothing any more.
    Stop,
}

impl Waiting {
    fn next(&mut self) -> Next {
        if self.stop {
            return Next::Stop;
        }
        // Before what rings: that may never end.
        if let Some(alarm) = self.due() {
            self.alarms.remove(&alarm);
            let (_, what) = alarm;
            return Next::Due(Due { what, doorbell: false });
        }
        if let Some(queue) = self.queues.pop_front() {
            return Next::Due(Due {
                what: Task::Queue(queue),
                doorbell: true,
            });
        }
        Next::Later(self.alarms.first().map(|(time, _)| *time))
    }

    /// The earliest alarm, if its time has come.
    fn due(&self) -> Option<(Instant, Task)> {
        let first = self.alarms.first().copied();
        first.filter(|(time, _)| *time <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_rings_all_the_time_does_not_drown_an_alarm() {
        let scheduler = Scheduler::default();
        assert!(!scheduler.has_other_work());
        scheduler.schedule_at(Instant::now() + Duration::from_secs(3600), Task::Cq(1));
        assert!(!scheduler.has_other_work());
        scheduler.schedule_at(Instant::now(), Task::Cq(2));
        scheduler.schedule(3);
        scheduler.schedule(4);
        scheduler.schedule(3);
        let call = |what, doorbell| Next::Due(Due { what, doorbell });
        for (what, doorbell) in [(Task::Cq(2), false), (Task::Queue(3), true), (Task::Queue(4), true)] {
            assert!(scheduler.has_other_work());
            assert_eq!(scheduler.poll(), call(what, doorbell));
        }
        assert!(matches!(scheduler.poll(), Next::Later(Some(_))));
        scheduler.stop();
        assert!(scheduler.has_other_work());
        assert_eq!(scheduler.poll(), Next::Stop);
    }
}
