//! The thread that sends for one NIC.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::Engine;

/// Queues whose doorbell rang.
#[derive(Debug, Default)]
struct Bells {
    waiting: Mutex<Waiting>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    queues: VecDeque<u32>,
    stop: bool,
}

/// The sending thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    bells: Arc<Bells>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread of this name.
    pub fn start(name: &str, engine: &Arc<Engine>) -> std::io::Result<Self> {
        let bells = Arc::<Bells>::default();
        let (engine, listening) = (Arc::downgrade(engine), bells.clone());
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&engine, &listening))?;
        Ok(Self { bells, thread: Some(thread) })
    }

    /// Something was posted to a queue.
    pub fn ring(&self, queue: u32) {
        let mut waiting = self.bells.waiting.lock();
        if !waiting.queues.contains(&queue) {
            waiting.queues.push_back(queue);
            self.bells.rung.notify_one();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.bells.waiting.lock().stop = true;
        self.bells.rung.notify_one();
        // The thread itself may be the last that held the NIC.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            // A panic has been told already.
            let _ = thread.join();
        }
    }
}

fn work(engine: &Weak<Engine>, bells: &Bells) {
    loop {
        let mut waiting = bells.waiting.lock();
        let queue = loop {
            if waiting.stop {
                return;
            }
            match waiting.queues.pop_front() {
                Some(queue) => break queue,
                None => bells.rung.wait(&mut waiting),
            }
        };
        drop(waiting);
        let Some(engine) = engine.upgrade() else { return };
        engine.run(queue);
    }
}
