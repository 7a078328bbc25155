//! Scheduled work: queues whose doorbell rang, and deadlines. The NIC's thread waits for it.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::time::Instant;

use foldhash::fast::RandomState;
use parking_lot::{Condvar, Mutex};

use super::blue_flame::Half;
use super::clock::Clock;

/// Work for the NIC's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// A queue that may have something to send.
    Queue(u32),
    /// A doorbell register whose WQE may never be complete.
    Register(Half),
    /// A completion queue whose moderation period may be over.
    Cq(u32),
}

/// Work due now or at a deadline.
#[derive(Debug, Default)]
pub struct Scheduler {
    clock: Clock,
    waiting: Mutex<Waiting>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    queues: FifoSet,
    deadlines: BTreeSet<(Instant, Task)>,
    /// Those of the deadlines that repeat a task.
    repetitions: BTreeMap<Task, Instant>,
    stop: bool,
}

/// Queues in the order of their doorbells, each once: a doorbell of a waiting queue is found without a scan.
#[derive(Debug, Default)]
struct FifoSet {
    order: VecDeque<u32>,
    members: HashSet<u32, RandomState>,
}

impl FifoSet {
    /// Appends a queue and returns whether it was not waiting yet.
    fn push(&mut self, queue: u32) -> bool {
        let new = self.members.insert(queue);
        if new {
            self.order.push_back(queue);
        }
        new
    }

    fn pop(&mut self) -> Option<u32> {
        let queue = self.order.pop_front()?;
        self.members.remove(&queue);
        Some(queue)
    }

    fn clear(&mut self) {
        self.order.clear();
        self.members.clear();
    }
}

impl Scheduler {
    /// Creates a scheduler without work.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }

    /// Schedules a queue behind the waiting ones, unless it waits already.
    pub fn schedule(&self, queue: u32) {
        let mut waiting = self.waiting.lock();
        if waiting.queues.push(queue) {
            self.rung.notify_one();
        }
    }

    /// Schedules a task for `time`; earlier deadlines of the task stay.
    pub fn schedule_at(&self, time: Instant, task: Task) {
        let first = self.waiting.lock().add_deadline(time, task);
        if first {
            self.rung.notify_one();
        }
    }

    /// Schedules a task that runs periodically for `time`, unless its next period is scheduled already: what also runs
    /// for doorbells must not begin a period with each of them. Returns whether it is scheduled now.
    pub fn repeat_at(&self, time: Instant, task: Task) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.repetitions.contains_key(&task) {
            return false;
        }
        waiting.repetitions.insert(task, time);
        if waiting.add_deadline(time, task) {
            self.rung.notify_one();
        }
        true
    }

    /// Drops the deadlines of a task: those of a queue that is gone would wait for hours.
    pub fn cancel(&self, task: Task) {
        let mut waiting = self.waiting.lock();
        waiting.deadlines.retain(|(_, waiting)| *waiting != task);
        waiting.repetitions.remove(&task);
    }

    /// Ends [`wait`](Self::wait), now and later.
    pub fn stop(&self) {
        self.waiting.lock().stop = true;
        self.rung.notify_all();
    }

    /// Drops all scheduled work.
    pub fn clear(&self) {
        let mut waiting = self.waiting.lock();
        waiting.queues.clear();
        waiting.deadlines.clear();
        waiting.repetitions.clear();
    }

    /// Waits for the next task that is due; `None` after [`stop`](Self::stop).
    pub fn wait(&self) -> Option<Due> {
        let mut waiting = self.waiting.lock();
        loop {
            match waiting.next(&self.clock) {
                Next::Due(due) => return Some(due),
                Next::Stop => return None,
                Next::Later(Some(time)) => drop(self.rung.wait_until(&mut waiting, time)),
                Next::Later(None) => self.rung.wait(&mut waiting),
            }
        }
    }

    /// Whether anything is due besides the task in progress, which should yield then.
    pub fn has_other_work(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.stop || !waiting.queues.order.is_empty() || waiting.due(&self.clock).is_some()
    }

    /// Takes the next task that is due, without waiting.
    pub fn poll(&self) -> Next {
        self.waiting.lock().next(&self.clock)
    }

    /// Waits until a task is due, and leaves it to [`poll`](Self::poll); false after [`stop`](Self::stop). Does not
    /// read the clock.
    pub fn wait_for_due(&self) -> bool {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.stop {
                return false;
            }
            let deadline = waiting.deadlines.first().map(|(time, _)| *time);
            if !waiting.queues.order.is_empty() || deadline.is_some_and(|time| time <= Instant::now()) {
                return true;
            }
            match deadline {
                Some(time) => drop(self.rung.wait_until(&mut waiting, time)),
                None => self.rung.wait(&mut waiting),
            }
        }
    }
}

/// A task that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The task.
    pub task: Task,
    /// Whether a doorbell scheduled the task, and not a deadline.
    pub doorbell: bool,
}

/// Result of [`Scheduler::poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A task is due.
    Due(Due),
    /// Nothing is due before this deadline, if there is one, or the next doorbell.
    Later(Option<Instant>),
    /// The NIC's thread must end.
    Stop,
}

impl Waiting {
    /// Adds a deadline and returns whether it is the earliest now.
    fn add_deadline(&mut self, time: Instant, task: Task) -> bool {
        let first = self.deadlines.first().is_none_or(|(earliest, _)| time < *earliest);
        self.deadlines.insert((time, task));
        first
    }

    fn next(&mut self, clock: &Clock) -> Next {
        if self.stop {
            return Next::Stop;
        }
        // Deadlines before doorbells, which may come without end.
        if let Some(deadline) = self.due(clock) {
            self.deadlines.remove(&deadline);
            let (time, task) = deadline;
            if self.repetitions.get(&task) == Some(&time) {
                self.repetitions.remove(&task);
            }
            return Next::Due(Due { task, doorbell: false });
        }
        if let Some(queue) = self.queues.pop() {
            return Next::Due(Due {
                task: Task::Queue(queue),
                doorbell: true,
            });
        }
        Next::Later(self.deadlines.first().map(|(time, _)| *time))
    }

    /// Returns the earliest deadline, if it has passed.
    fn due(&self, clock: &Clock) -> Option<(Instant, Task)> {
        let first = self.deadlines.first().copied();
        first.filter(|(time, _)| *time <= clock.instant())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn rung(queue: u32) -> Next {
        Next::Due(Due {
            task: Task::Queue(queue),
            doorbell: true,
        })
    }

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
        let call = |task, doorbell| Next::Due(Due { task, doorbell });
        for (task, doorbell) in [(Task::Cq(2), false), (Task::Queue(3), true), (Task::Queue(4), true)] {
            assert!(scheduler.has_other_work());
            assert_eq!(scheduler.poll(), call(task, doorbell));
        }
        assert!(matches!(scheduler.poll(), Next::Later(Some(_))));
        scheduler.stop();
        assert!(scheduler.has_other_work());
        assert_eq!(scheduler.poll(), Next::Stop);
    }

    #[test]
    fn a_period_begins_once() {
        let scheduler = Scheduler::default();
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let due = Next::Due(Due {
            task: Task::Queue(1),
            doorbell: false,
        });
        for doorbell in 0..1000 {
            scheduler.repeat_at(now + doorbell * second, Task::Queue(1));
        }
        // Another deadline of the task does not end the period.
        scheduler.schedule_at(now, Task::Queue(2));
        scheduler.schedule_at(now - second, Task::Queue(1));
        assert_eq!(scheduler.poll(), due);
        scheduler.repeat_at(now + second, Task::Queue(1));
        assert_eq!(scheduler.poll(), due);
        scheduler.cancel(Task::Queue(2));
        assert_eq!(scheduler.poll(), Next::Later(None));
        scheduler.repeat_at(now + second, Task::Queue(1));
        assert_eq!(scheduler.poll(), Next::Later(Some(now + second)));
        scheduler.cancel(Task::Queue(1));
        scheduler.repeat_at(now, Task::Queue(1));
        assert_eq!(scheduler.poll(), due);
    }

    #[test]
    fn a_task_that_is_cancelled_has_no_deadlines() {
        let scheduler = Scheduler::default();
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        for time in [now, now + hour, now + 2 * hour] {
            scheduler.schedule_at(time, Task::Queue(1));
        }
        scheduler.schedule_at(now + hour, Task::Queue(2));
        scheduler.cancel(Task::Queue(1));
        assert_eq!(scheduler.poll(), Next::Later(Some(now + hour)));
        scheduler.cancel(Task::Queue(2));
        assert_eq!(scheduler.poll(), Next::Later(None));
    }

    #[test]
    fn a_queue_waits_once_and_again_when_it_was_taken() {
        let scheduler = Scheduler::default();
        for queue in [7, 8, 7, 7, 9, 8] {
            scheduler.schedule(queue);
        }
        assert_eq!(scheduler.poll(), rung(7));
        // Behind those that wait already.
        scheduler.schedule(7);
        for queue in [8, 9, 7] {
            assert_eq!(scheduler.poll(), rung(queue));
        }
        assert_eq!(scheduler.poll(), Next::Later(None));
        scheduler.schedule(7);
        scheduler.clear();
        assert_eq!(scheduler.poll(), Next::Later(None));
        scheduler.schedule(7);
        assert_eq!(scheduler.poll(), rung(7));
    }
}
