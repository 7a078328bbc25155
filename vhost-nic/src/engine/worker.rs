//! The NIC's thread: services scheduled work and polls busy send queues.

use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vhost_daemon::heartbeat::Heartbeat;
use vhost_daemon::isolate;
use vhost_daemon::sandbox::{ThreadKind, confine};

use super::Engine;
use crate::hca::scheduler::{Due, Next, Scheduler, Task};
use crate::hca::tape::{Entry, Tape};

/// Maximum number of queues polled at a time.
const MAX_POLLED: usize = 16;

/// Handle of a NIC's thread. Dropping it ends the thread.
#[derive(Debug)]
pub struct Worker {
    scheduler: Arc<Scheduler>,
    thread: Option<JoinHandle<()>>,
    tape: Option<Arc<dyn Tape>>,
}

impl Worker {
    /// Starts a thread of this name. It keeps polling a drained send queue for `busy_poll` before it sleeps. With a
    /// tape, each task is an entry, and nothing is polled.
    pub fn start(
        name: &str,
        engine: &Arc<Engine>,
        busy_poll: Duration,
        tape: Option<Arc<dyn Tape>>,
    ) -> std::io::Result<Self> {
        let scheduler = engine.scheduler().clone();
        let of_thread = tape.clone();
        let heartbeat = Heartbeat::new(name, "worker");
        let (engine, source) = (Arc::downgrade(engine), scheduler.clone());
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            confine(ThreadKind::Worker);
            match of_thread {
                None => work(&engine, &source, busy_poll, &heartbeat),
                Some(tape) => work_by_turns(&engine, &source, &*tape, &heartbeat),
            }
        })?;
        Ok(Self {
            scheduler,
            thread: Some(thread),
            tape,
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(tape) = &self.tape {
            tape.end();
        }
        self.scheduler.stop();
        // The thread itself may drop the last reference to the NIC.
        if let Some(thread) = self
            .thread
            .take()
            .filter(|thread| thread.thread().id() != thread::current().id())
        {
            // The panic hook has reported a panic already.
            let _ = thread.join();
        }
    }
}

/// Does a task. Its panic names the guest and costs what the guest has set up, not the thread, which is all that the
/// NIC has; what is half done may make the reaction panic as well.
fn isolate_task(engine: &Engine, heartbeat: &Heartbeat, task: impl FnOnce()) {
    let what = format_args!("{}: a task of the NIC", heartbeat.guest());
    if isolate(what, task).is_none() {
        let _ = isolate(what, || engine.panicked());
    }
}

/// Services scheduled tasks until the scheduler stops or the engine is gone; polls busy queues in between.
fn work(engine: &Weak<Engine>, scheduler: &Scheduler, period: Duration, heartbeat: &Arc<Heartbeat>) {
    let mut busy = BusyQueues {
        period,
        queues: Vec::new(),
    };
    loop {
        let due = if busy.queues.is_empty() {
            scheduler.wait()
        } else {
            match scheduler.poll() {
                Next::Due(due) => Some(due),
                Next::Stop => None,
                Next::Later(_) => {
                    let Some(engine) = engine.upgrade() else { return };
                    heartbeat.work(|| busy.poll(&engine, heartbeat));
                    continue;
                }
            }
        };
        let (Some(due), Some(engine)) = (due, engine.upgrade()) else {
            return;
        };
        heartbeat.work(|| isolate_task(&engine, heartbeat, || engine.service(due)));
        if let Due {
            task: Task::Queue(number),
            doorbell: true,
        } = due
        {
            busy.add(&engine, number);
        }
    }
}

/// Enters the engine for each task that is due, until the scheduler stops or the engine is gone. The task is chosen in
/// the turn: what others enter before it may change the choice.
fn work_by_turns(engine: &Weak<Engine>, scheduler: &Scheduler, tape: &dyn Tape, heartbeat: &Arc<Heartbeat>) {
    while scheduler.wait_for_due()
        && let Some(engine) = engine.upgrade()
    {
        tape.enter(Entry::Step, &mut || {
            heartbeat.work(|| isolate_task(&engine, heartbeat, || engine.step()));
        });
    }
}

/// Queues with a recent doorbell. Polling their doorbell records finds new WQEs before their doorbell has arrived.
struct BusyQueues {
    period: Duration,
    /// Queue numbers, each with the time of its last work.
    queues: Vec<(u32, Instant)>,
}

impl BusyQueues {
    fn add(&mut self, engine: &Engine, number: u32) {
        if self.period.is_zero() {
            return;
        }
        match self.queues.iter().position(|(other, _)| *other == number) {
            Some(at) => drop(self.queues.remove(at)),
            None => engine.trace_hot_period(number, true),
        }
        if self.queues.len() == MAX_POLLED {
            let (oldest, _) = self.queues.remove(0);
            engine.trace_hot_period(oldest, false);
        }
        self.queues.push((number, Instant::now()));
    }

    /// Services the queues that have work and drops those that had none for the period.
    fn poll(&mut self, engine: &Engine, heartbeat: &Heartbeat) {
        let mut idle = true;
        for (number, last) in &mut self.queues {
            if engine.has_posted(*number) {
                isolate_task(engine, heartbeat, || engine.service_polled(*number));
                *last = Instant::now();
                idle = false;
            }
        }
        self.queues.retain(|(number, last)| {
            let hot = last.elapsed() < self.period;
            if !hot {
                engine.trace_hot_period(*number, false);
            }
            hot
        });
        if idle {
            // The guest's vCPUs may need this CPU.
            thread::yield_now();
        }
    }
}
