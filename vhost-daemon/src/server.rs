//! The accept loop of a guest's socket: one connection at a time, each isolated from the others' panics.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{error, warn};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::panic::isolate;
use crate::sandbox::{ThreadKind, confine};

/// Pause after a connection that could not be accepted or served, for lack of descriptors or threads.
const RETRY_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Time in which a stopped server ends.
pub const STOP_TIME: Duration = Duration::from_secs(5);

/// Service of a guest's VMM, one connection after the other.
pub trait Service: Send + Sync + 'static {
    /// Error of a connection that cannot be served.
    type Error: std::error::Error;

    /// Accepts the pending connection of a blocking listener and serves it until it ends. `current` must be given the
    /// means to end the connection.
    ///
    /// # Errors
    ///
    /// Fails when the connection cannot be accepted or its service cannot begin; the server then retries after a pause,
    /// without a reset. A connection that breaks is not an error.
    fn serve(&self, listener: &UnixListener, current: &Current) -> Result<(), Self::Error>;

    /// Resets the device to its state before a connection. Called after each connection, even one whose service
    /// panicked.
    fn reset(&self);
}

/// The connection in service, and the means to end it.
#[derive(Default)]
pub struct Current(Mutex<State>);

#[derive(Default)]
struct State {
    stopped: bool,
    end: Option<Box<dyn FnOnce() + Send>>,
}

impl Current {
    /// Registers the means to end the connection, in place of any earlier one. Calls it at once if the server is
    /// stopping.
    pub fn set(&self, end: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock();
        if state.stopped {
            drop(state);
            end();
        } else {
            state.end = Some(Box::new(end));
        }
    }

    fn clear(&self) {
        self.0.lock().end = None;
    }

    fn stop(&self) {
        let end = {
            let mut state = self.0.lock();
            state.stopped = true;
            state.end.take()
        };
        if let Some(end) = end {
            end();
        }
    }

    fn disconnect(&self) -> bool {
        let end = self.0.lock().end.take();
        let found = end.is_some();
        if let Some(end) = end {
            end();
        }
        found
    }

    fn is_stopped(&self) -> bool {
        self.0.lock().stopped
    }
}

/// A socket and the thread that serves its connections. Dropping it stops the thread.
pub struct Server {
    name: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread ends.
    ended: Mutex<Receiver<()>>,
}

struct Shared {
    current: Current,
    /// Readable once the server is stopping.
    stop: OwnedFd,
}

impl Server {
    /// Starts a thread that serves the connections of `listener`. `name` names the guest in logs and the thread.
    pub fn start(name: impl Into<String>, listener: UnixListener, service: impl Service) -> io::Result<Self> {
        let name = name.into();
        listener.set_nonblocking(false)?;
        let shared = Arc::new(Shared {
            current: Current::default(),
            stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let (end, ended) = mpsc::channel();
        let thread = thread::Builder::new().name(name.clone()).spawn({
            let (name, shared) = (name.clone(), shared.clone());
            move || {
                let _end = end;
                confine(ThreadKind::Attachment);
                shared.run(&name, listener, &service);
            }
        })?;
        Ok(Self {
            name,
            shared,
            thread: Some(thread),
            ended: Mutex::new(ended),
        })
    }

    /// Ends the connection in service, if any, and accepts no more; returns after the device's last reset, or
    /// [`STOP_TIME`] later at the latest: a client can hold up what must end for its connection to end.
    pub fn stop(&mut self) {
        self.stop_by(Instant::now() + STOP_TIME);
    }

    fn stop_by(&mut self, deadline: Instant) {
        let Some(thread) = self.thread.take() else { return };
        self.request_stop();
        let left = deadline.saturating_duration_since(Instant::now());
        if self.ended.get_mut().recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            error!(
                "{}: the connection does not end, and is left to the process's end",
                self.name
            );
        } else if thread.join().is_err() {
            error!("{}: the thread that serves the socket panicked", self.name);
        }
    }

    /// Ends the connection in service, and accepts the next. Returns false if there is none. Does not wait for the end.
    pub fn disconnect(&self) -> bool {
        self.shared.current.disconnect()
    }

    /// Ends the connection in service without waiting for the thread, which then ends with the process at the latest.
    pub fn detach(mut self) {
        self.request_stop();
        self.thread = None;
    }

    fn request_stop(&self) {
        self.shared.current.stop();
        // Written once, so it does not fill up.
        let _ = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Stops servers as [`Server::stop`] does, all within [`STOP_TIME`].
pub fn stop_all<'a>(servers: impl IntoIterator<Item = &'a mut Server>) {
    let servers: Vec<&mut Server> = servers.into_iter().collect();
    servers.iter().for_each(|server| server.request_stop());
    let deadline = Instant::now() + STOP_TIME;
    servers.into_iter().for_each(|server| server.stop_by(deadline));
}

impl Shared {
    fn run<S: Service>(&self, name: &str, listener: UnixListener, service: &S) {
        // A shortage is logged once, not once per attempt.
        let mut failing = false;
        while self.await_connection(&listener) {
            // A process that shares an inherited socket may take the connection first, and accept() then blocks. It is
            // not ended by a shutdown of the socket, which the next daemon is to serve.
            let result = isolate(format_args!("{name}: the service of a connection"), || {
                service.serve(&listener, &self.current)
            });
            self.current.clear();
            match result {
                Some(Err(error)) => {
                    if !failing && !self.current.is_stopped() {
                        warn!("{name}: cannot serve a connection, will retry: {}", chain(&error));
                    }
                    failing = true;
                    let _ = poll(&mut [PollFd::new(&self.stop, PollFlags::IN)], Some(&RETRY_PAUSE));
                }
                _ => {
                    isolate(format_args!("{name}: the reset after a connection"), || service.reset());
                    failing = false;
                }
            }
        }
    }

    /// Waits for a connection; returns false once the server is stopping.
    fn await_connection(&self, listener: &UnixListener) -> bool {
        loop {
            let mut ready = [
                PollFd::new(&self.stop, PollFlags::IN),
                PollFd::new(listener, PollFlags::IN),
            ];
            // The only failure is an interruption by a signal.
            let polled = poll(&mut ready, None);
            if self.current.is_stopped() {
                return false;
            }
            if polled.is_ok() && !ready[1].revents().is_empty() {
                return true;
            }
        }
    }
}

/// Formats an error and its sources, separated by colons.
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Accepts a connection only once the server is stopping.
    struct Late(mpsc::Sender<()>);

    impl Service for Late {
        type Error = io::Error;

        fn serve(&self, listener: &UnixListener, current: &Current) -> io::Result<()> {
            self.0.send(()).expect("the test waits");
            while !current.is_stopped() {
                thread::yield_now();
            }
            listener.accept().map(drop)
        }

        fn reset(&self) {}
    }

    #[test]
    fn a_socket_that_another_process_gave_is_served_by_the_next_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let given = UnixListener::bind(&path).unwrap();
        let (entered, wait) = mpsc::channel();
        let mut server = Server::start("a", given.try_clone().unwrap(), Late(entered)).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        wait.recv().unwrap();
        server.stop();
        let reader = Arc::new(Reader::default());
        let mut next = Server::start("a", given, reader.clone()).unwrap();
        talk(&path, "hello");
        next.stop();
        assert_eq!(reader.resets.load(Ordering::SeqCst), 1);
    }

    /// Reads each connection to its end; panics on request.
    #[derive(Default)]
    struct Reader {
        resets: AtomicU32,
    }

    impl Service for Arc<Reader> {
        type Error = io::Error;

        fn serve(&self, listener: &UnixListener, current: &Current) -> io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let ours = stream.try_clone()?;
            current.set(move || drop(ours.shutdown(Shutdown::Both)));
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            assert_ne!(text, "panic");
            Ok(())
        }

        fn reset(&self) {
            self.resets.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn talk(path: &std::path::Path, text: &str) {
        use std::io::Write;
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        // Until the server is done with it.
        let _ = stream.read(&mut [0]);
    }

    #[test]
    fn a_panic_ends_one_connection_and_the_device_is_reset_after_each() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let reader = Arc::new(Reader::default());
        let mut server = Server::start("a", UnixListener::bind(&path).unwrap(), reader.clone()).unwrap();
        for text in ["hello", "panic", "hello again"] {
            talk(&path, text);
        }
        server.stop();
        assert_eq!(reader.resets.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_connection_is_ended_and_the_next_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let reader = Arc::new(Reader::default());
        let server = Server::start("a", UnixListener::bind(&path).unwrap(), reader.clone()).unwrap();
        assert!(!server.disconnect(), "nobody is connected");
        for round in 1..=2 {
            let mut client = UnixStream::connect(&path).unwrap();
            while !server.disconnect() {
                thread::yield_now();
            }
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
            while reader.resets.load(Ordering::SeqCst) < round {
                thread::yield_now();
            }
        }
        assert!(!server.disconnect());
    }

    #[test]
    fn a_server_stops_with_and_without_a_connection() {
        let dir = tempfile::tempdir().unwrap();
        for connected in [false, true] {
            let path = dir.path().join(connected.to_string());
            let reader = Arc::new(Reader::default());
            let mut server = Server::start("a", UnixListener::bind(&path).unwrap(), reader.clone()).unwrap();
            let client = connected.then(|| UnixStream::connect(&path).unwrap());
            server.stop();
            drop(client);
            assert!(reader.resets.load(Ordering::SeqCst) <= connected.into());
        }
    }

    /// Never returns.
    struct Stuck;

    impl Service for Stuck {
        type Error = io::Error;

        fn serve(&self, _listener: &UnixListener, current: &Current) -> io::Result<()> {
            current.set(|| {});
            loop {
                thread::park();
            }
        }

        fn reset(&self) {}
    }

    #[test]
    fn a_connection_that_does_not_end_does_not_keep_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut server = Server::start("a", UnixListener::bind(&path).unwrap(), Stuck).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        while server.shared.current.0.lock().end.is_none() {
            thread::yield_now();
        }
        server.stop();
    }

    #[test]
    fn any_number_of_connections_that_do_not_end_have_one_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let serve = |number: u32| {
            let path = dir.path().join(number.to_string());
            let server = Server::start("a", UnixListener::bind(&path).unwrap(), Stuck).unwrap();
            let client = UnixStream::connect(&path).unwrap();
            while server.shared.current.0.lock().end.is_none() {
                thread::yield_now();
            }
            (server, client)
        };
        // One after the other, they would take longer than a test may.
        let (mut servers, _clients): (Vec<_>, Vec<_>) = (0..60).map(serve).unzip();
        stop_all(&mut servers);
        assert!(servers.iter().all(|server| server.thread.is_none()));
    }
}
