//! The stats socket: the counters, for whoever connects.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use event_manager::{EventOps, Events, MutEventSubscriber};
use log::{debug, warn};
use vmm_sys_util::epoll::EventSet;

/// How long a reader of the counters may keep the main thread.
const READER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection that cannot be taken, for want of descriptors, is left waiting.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Writes what a closure returns to whoever connects.
pub struct StatsServer<F> {
    listener: UnixListener,
    text: F,
    /// Whether taking connections fails at the moment, and the log says so.
    failing: bool,
}

impl<F: Fn() -> serde_json::Result<Vec<u8>>> StatsServer<F> {
    /// A server on this socket.
    pub fn new(listener: UnixListener, text: F) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            text,
            failing: false,
        })
    }

    fn answer(&self, mut reader: UnixStream) -> io::Result<()> {
        let mut text = (self.text)()?;
        text.push(b'\n');
        reader.set_write_timeout(Some(READER_TIMEOUT))?;
        reader.write_all(&text)
    }
}

impl<F: Fn() -> serde_json::Result<Vec<u8>>> MutEventSubscriber for StatsServer<F> {
    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        match self.listener.accept() {
            Ok((reader, _)) => {
                self.failing = false;
                if let Err(error) = self.answer(reader) {
                    debug!("A reader of the counters did not take them: {error}");
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                if !self.failing {
                    warn!("The counters cannot be told for now: {error}");
                }
                self.failing = true;
                // The connection stays and so does the event.
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.listener, EventSet::IN)) {
            warn!("The stats socket is not served: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use event_manager::{EventManager, SubscriberOps};

    use super::*;

    #[test]
    fn every_reader_gets_the_counters_of_its_moment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats.sock");
        let asked = std::cell::Cell::new(0);
        let server = StatsServer::new(UnixListener::bind(&path).unwrap(), || {
            asked.set(asked.get() + 1);
            serde_json::to_vec_pretty(&asked.get())
        })
        .unwrap();
        let mut manager = EventManager::new().unwrap();
        manager.add_subscriber(server);
        for expected in ["1\n", "2\n"] {
            let mut reader = UnixStream::connect(&path).unwrap();
            manager.run().unwrap();
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, expected);
        }
    }
}
