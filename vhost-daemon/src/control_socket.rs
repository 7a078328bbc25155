//! The control socket: requests to a running daemon, a JSON object per line, and their answers.
//!
//! `{"version": 1, "command": "trace", "seconds": 5, "recent": false}` is answered by a trace (see
//! [`trace`](crate::trace)): a line that describes it, then for each thread a line and its records in binary, and a
//! last line `{"end": true}`. A request that is refused is answered by `{"error": "..."}`. A connection may make any
//! number of requests, one after the other.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use event_manager::{EventOps, Events, MutEventSubscriber};
use log::{debug, warn};
use serde::{Deserialize, Serialize};
use serde_json::json;
use vmm_sys_util::epoll::EventSet;

use crate::panic::isolate;
use crate::stats_socket::Program;
use crate::trace::{EventInfo, Header, write_stream};

/// Version of the requests.
pub const VERSION: u32 = 1;
/// Maximum number of connections; each has a thread.
const MAX_CONNECTIONS: usize = 8;
/// Longest request in bytes.
const MAX_REQUEST: u64 = 4096;
/// Longest trace.
const MAX_SECONDS: f64 = 86_400.0;
/// Time a client may take to make room for more of an answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a connection that cannot be accepted, for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The daemon under control.
#[derive(Debug)]
pub struct Control {
    /// Identification of the daemon.
    pub program: Program,
    /// Names of the guests, in the order of their numbers.
    pub guests: Vec<String>,
    /// The events of the daemon's traces.
    pub events: &'static [EventInfo],
    /// Whether the flight recorder is on.
    pub flight_recorder: bool,
}

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The command and its parameters.
    #[serde(flatten)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Records a trace.
    Trace {
        /// Duration.
        seconds: f64,
        /// Whether it begins with what the flight recorder has.
        #[serde(default)]
        recent: bool,
    },
}

impl Control {
    /// Answers the requests of a connection until it ends.
    fn serve(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
        let mut input = BufReader::new(stream);
        let mut out = BufWriter::new(stream);
        loop {
            let mut line = Vec::new();
            (&mut input).take(MAX_REQUEST).read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                return Ok(());
            }
            match self.command(&line) {
                Ok(Command::Trace { seconds, recent }) => {
                    let header = Header::new(self.program, &self.guests, self.events);
                    write_stream(&mut out, &header, Duration::from_secs_f64(seconds), recent)?;
                }
                Err(refusal) => {
                    serde_json::to_writer(&mut out, &json!({ "error": refusal }))?;
                    out.write_all(b"\n")?;
                    out.flush()?;
                }
            }
        }
    }

    /// Parses and checks a request.
    fn command(&self, line: &[u8]) -> Result<Command, String> {
        let request: Request = serde_json::from_slice(line).map_err(|error| format!("invalid request: {error}"))?;
        if request.version != VERSION {
            return Err(format!("requests of version {} are not supported", request.version));
        }
        match request.command {
            Command::Trace { seconds, .. } if !(0.0..=MAX_SECONDS).contains(&seconds) => {
                Err(format!("a trace takes from 0 to {MAX_SECONDS} seconds"))
            }
            Command::Trace { recent: true, .. } if !self.flight_recorder => {
                Err("the daemon runs without --flight-recorder".to_owned())
            }
            command => Ok(command),
        }
    }
}

/// Accepts connections and serves each on a thread of its own.
pub struct ControlServer {
    listener: UnixListener,
    /// A reference by each connection.
    control: Arc<Control>,
}

impl ControlServer {
    /// Creates a server on this socket.
    pub fn new(listener: UnixListener, control: Control) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            control: Arc::new(control),
        })
    }

    fn accept(&self, stream: UnixStream) -> io::Result<()> {
        if Arc::strong_count(&self.control) > MAX_CONNECTIONS {
            return Err(io::Error::other("too many connections"));
        }
        let control = self.control.clone();
        let serve = move || {
            isolate("the control socket", || {
                if let Err(error) = control.serve(&stream) {
                    debug!("a client of the control socket ended early: {error}");
                }
            });
        };
        thread::Builder::new().name("control".to_owned()).spawn(serve)?;
        Ok(())
    }
}

impl MutEventSubscriber for ControlServer {
    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        match self.listener.accept() {
            Ok((stream, _)) => {
                if let Err(error) = self.accept(stream) {
                    debug!("a client of the control socket is not served: {error}");
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                debug!("cannot accept a client of the control socket, will retry: {error}");
                // The connection remains pending, and so does the event.
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.listener, EventSet::IN)) {
            warn!("the control socket is not served: {error}");
        }
    }
}
