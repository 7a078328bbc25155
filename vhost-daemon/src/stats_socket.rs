//! The stats socket: state and counters of a daemon as one JSON document per connection.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use event_manager::{EventOps, Events, MutEventSubscriber};
use log::{debug, warn};
use serde::Serialize;
use vmm_sys_util::epoll::EventSet;

/// Version of the documents' schema. Raised when a field is removed or changes its meaning, not when one is added.
const SCHEMA_VERSION: u32 = 1;
/// Time a reader may take, during which the main thread waits for it.
const READER_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a connection that cannot be accepted, for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The daemon that a document describes.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name of the program.
    pub name: &'static str,
    /// Version of the program.
    pub version: &'static str,
}

impl Program {
    /// Serializes `state`, a structure, with the fields common to all daemons in front of its own.
    pub fn document<S: Serialize>(self, state: &S) -> serde_json::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Envelope<'a, S> {
            schema_version: u32,
            daemon: &'static str,
            version: &'static str,
            #[serde(flatten)]
            state: &'a S,
        }
        serde_json::to_vec_pretty(&Envelope {
            schema_version: SCHEMA_VERSION,
            daemon: self.name,
            version: self.version,
            state,
        })
    }
}

/// Answers every connection with the document that a closure returns.
pub struct StatsServer<F> {
    listener: UnixListener,
    document: F,
    /// Set while accepting fails, so that the log says so once.
    failing: bool,
}

impl<F: Fn() -> serde_json::Result<Vec<u8>>> StatsServer<F> {
    /// Creates a server on this socket.
    pub fn new(listener: UnixListener, document: F) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            document,
            failing: false,
        })
    }

    fn answer(&self, mut reader: UnixStream) -> io::Result<()> {
        let mut document = (self.document)()?;
        document.push(b'\n');
        reader.set_write_timeout(Some(READER_TIMEOUT))?;
        reader.write_all(&document)
    }
}

impl<F: Fn() -> serde_json::Result<Vec<u8>>> MutEventSubscriber for StatsServer<F> {
    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        match self.listener.accept() {
            Ok((reader, _)) => {
                self.failing = false;
                if let Err(error) = self.answer(reader) {
                    debug!("a reader of the stats socket did not take the document: {error}");
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                if !self.failing {
                    warn!("cannot accept a reader of the stats socket, will retry: {error}");
                }
                self.failing = true;
                // The connection remains pending, and so does the event.
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.listener, EventSet::IN)) {
            warn!("the stats socket is not served: {error}");
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

    #[test]
    fn the_envelope_comes_first() {
        #[derive(Serialize)]
        struct State {
            guests: [u32; 2],
        }
        let program = Program {
            name: "vhost-test",
            version: "1.2.3",
        };
        let document = program.document(&State { guests: [1, 2] }).unwrap();
        let text: String = String::from_utf8(document).unwrap().split_whitespace().collect();
        let expected = r#"{"schema_version":1,"daemon":"vhost-test","version":"1.2.3","guests":[1,2]}"#;
        assert_eq!(text, expected);
    }
}
