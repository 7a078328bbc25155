//! The thread that sends for one NIC.

use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use super::Engine;
use crate::hca::bells::Bells;

/// The sending thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    bells: Arc<Bells>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread of this name.
    pub fn start(name: &str, engine: &Arc<Engine>) -> std::io::Result<Self> {
        let bells = engine.bells().clone();
        let (engine, listening) = (Arc::downgrade(engine), bells.clone());
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&engine, &listening))?;
        Ok(Self {
            bells,
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.bells.stop();
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

fn work(engine: &Weak<Engine>, bells: &Bells) {
    while let Some(what) = bells.wait() {
        let Some(engine) = engine.upgrade() else { return };
        engine.attend(what);
    }
}
