//! The thread that sends for one NIC.

use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Engine;
use crate::hca::scheduler::{Due, Next, Scheduler, Task};

/// Most queues that are looked after at a time.
const MAX_HOT: usize = 16;

/// The sending thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    scheduler: Arc<Scheduler>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread of this name. It looks after a queue for `hot` longer than there is something posted.
    pub fn start(name: &str, engine: &Arc<Engine>, hot: Duration) -> std::io::Result<Self> {
        let scheduler = engine.scheduler().clone();
        let (engine, listening) = (Arc::downgrade(engine), scheduler.clone());
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&engine, &listening, hot))?;
        Ok(Self {
            scheduler,
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.scheduler.stop();
        // The thread itself may be the last that held the NIC.
        if let Some(thread) = self
            .thread
            .take()
            .filter(|thread| thread.thread().id() != thread::current().id())
        {
            // A panic has been told already.
            let _ = thread.join();
        }
    }
}

/// Attends to what rings and to alarms, and meanwhile to hot queues.
fn work(engine: &Weak<Engine>, scheduler: &Scheduler, period: Duration) {
    let mut hot = HotQueues {
        period,
        queues: Vec::new(),
    };
    loop {
        let call = if hot.queues.is_empty() {
            scheduler.wait()
        } else {
            match scheduler.poll() {
                Next::Due(call) => Some(call),
                Next::Stop => None,
                Next::Later(_) => {
                    let Some(engine) = engine.upgrade() else { return };
                    hot.attend(&engine);
                    continue;
                }
            }
        };
        let (Some(call), Some(engine)) = (call, engine.upgrade()) else {
            return;
        };
        engine.attend(call.what);
        if let Due {
            what: Task::Queue(number),
            doorbell: true,
        } = call
        {
            hot.add(number);
        }
    }
}

/// Queues whose doorbell doorbell a short time ago. Their doorbell records are looked at: the next doorbell itself takes its time to come through.
struct HotQueues {
    period: Duration,
    /// With the time when there was something to do last.
    queues: Vec<(u32, Instant)>,
}

impl HotQueues {
    fn add(&mut self, number: u32) {
        if self.period.is_zero() {
            return;
        }
        self.queues.retain(|(other, _)| *other != number);
        if self.queues.len() == MAX_HOT {
            self.queues.remove(0);
        }
        self.queues.push((number, Instant::now()));
    }

    fn attend(&mut self, engine: &Engine) {
        let mut idle = true;
        for (number, last) in &mut self.queues {
            if engine.has_posted(*number) {
                engine.attend(Task::Queue(*number));
                *last = Instant::now();
                idle = false;
            }
        }
        self.queues.retain(|(_, last)| last.elapsed() < self.period);
        if idle {
            // The guest's own processors may want this one.
            thread::yield_now();
        }
    }
}
