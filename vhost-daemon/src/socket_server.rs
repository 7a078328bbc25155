//! The accept loop of a socket that serves any number of clients of the operator: a thread for each, up to a limit.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use event_manager::{EventOps, Events, MutEventSubscriber};
use log::{debug, warn};
use vmm_sys_util::epoll::EventSet;

use crate::panic::isolate;
use crate::sandbox::{ThreadKind, confine};

/// Maximum number of connections to a socket at a time.
pub const MAX_CONNECTIONS: usize = 16;
/// Time a client may take to make room for more of an answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a connection that cannot be accepted, for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Time a client may take for a whole document.
pub const DOCUMENT_TIME: Duration = Duration::from_secs(10);
/// Longest part of a document that is written at once: the kernel waits anew for each buffer of a longer one.
const PART: usize = 16 << 10;

/// Writes a document, for a time at most.
pub fn send_within(mut stream: &UnixStream, document: &[u8], time: Duration) -> io::Result<()> {
    let end = Instant::now() + time;
    for part in document.chunks(PART) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        stream.write_all(part)?;
    }
    Ok(())
}

/// Service of one connection, until it ends.
pub trait Serve: Send + Sync + 'static {
    /// Serves a connection. Runs on a thread of its own.
    fn serve(&self, stream: &UnixStream) -> io::Result<()>;

    /// Answers a connection beyond the limit, on the main thread: it must not wait.
    fn refuse(&self, _stream: &UnixStream) -> io::Result<()> {
        Ok(())
    }
}

/// Accepts connections and serves each on a thread of its own.
pub struct SocketServer<S> {
    /// Name of the socket, in logs and of the threads.
    name: &'static str,
    listener: UnixListener,
    /// A reference by each connection.
    service: Arc<S>,
    /// Set while accepting fails, so that the log says so once.
    failing: bool,
}

impl<S: Serve> SocketServer<S> {
    /// Creates a server on this socket.
    pub fn new(name: &'static str, listener: UnixListener, service: S) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            name,
            listener,
            service: Arc::new(service),
            failing: false,
        })
    }

    fn begin(&self, stream: UnixStream) -> io::Result<()> {
        stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        if Arc::strong_count(&self.service) > MAX_CONNECTIONS {
            stream.set_nonblocking(true)?;
            return self.service.refuse(&stream);
        }
        let (name, service) = (self.name, self.service.clone());
        let serve = move || {
            confine(ThreadKind::Operator);
            isolate(format_args!("the {name} socket"), || {
                if let Err(error) = service.serve(&stream) {
                    debug!("a client of the {name} socket ended early: {error}");
                }
            });
        };
        thread::Builder::new().name(name.to_owned()).spawn(serve)?;
        Ok(())
    }
}

impl<S: Serve> MutEventSubscriber for SocketServer<S> {
    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        let name = self.name;
        match self.listener.accept() {
            Ok((stream, _)) => {
                self.failing = false;
                if let Err(error) = self.begin(stream) {
                    debug!("a client of the {name} socket is not served: {error}");
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                if !self.failing {
                    warn!("cannot accept a client of the {name} socket, will retry: {error}");
                }
                self.failing = true;
                // The connection remains pending, and so does the event.
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.listener, EventSet::IN)) {
            warn!("the {} socket is not served: {error}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_client_that_reads_a_few_bytes_at_a_time_is_left() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let reader = thread::spawn(move || {
            let mut theirs = theirs;
            // As long as the document is written; then the stream ends.
            while theirs.read(&mut [0; 16]).is_ok_and(|length| length == 16) {
                thread::sleep(Duration::from_millis(1));
            }
        });
        let document = vec![1; 16 << 20];
        let error = send_within(&ours, &document, Duration::from_millis(100)).unwrap_err();
        assert!(matches!(
            error.kind(),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
        ));
        ours.shutdown(std::net::Shutdown::Both).unwrap();
        drop(ours);
        drop(reader);
    }
}
