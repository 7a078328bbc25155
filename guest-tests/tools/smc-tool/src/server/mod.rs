//! The server of all workloads: one thread per connection.

mod session;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::stream::{Buffers, ListenError, Protocol, listen};
use session::{Session, SessionEnd};

/// Stack size of a connection's thread; data blocks are on the heap.
const STACK: usize = 128 * 1024;

/// Options of the server.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeOptions {
    /// Port; 0 lets the kernel choose one, printed in the `ready` line
    #[arg(long)]
    pub port: u16,
    /// Address to listen on, repeatable; default: all IPv4 and IPv6 addresses
    #[arg(long)]
    pub bind: Vec<IpAddr>,
    /// Protocol of the sockets; an SMC server accepts TCP clients too
    #[arg(long, value_enum, default_value_t = Protocol::Smc)]
    pub proto: Protocol,
    /// Socket buffer sizes of all connections
    #[command(flatten)]
    pub buffers: Buffers,
    /// Print a line of JSON to stdout when a connection ends
    #[arg(long)]
    pub events: bool,
}

/// The server failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The server could not listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A system call failed.
    #[error("cannot {operation}")]
    System {
        /// The failed operation, a verb.
        operation: &'static str,
        /// Error of the system call.
        source: io::Error,
    },
}

/// Counters of the server.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ServeReport {
    /// Connections accepted.
    pub connections: u64,
    /// Workloads completed.
    pub workloads: u64,
    /// Workloads that received wrong data.
    pub mismatches: u64,
    /// Connections that ended with an error.
    pub failures: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    workloads: AtomicU64,
    mismatches: AtomicU64,
    failures: AtomicU64,
}

/// JSON line about the end of a connection.
#[derive(Debug, Serialize)]
struct EndEvent<'a> {
    event: &'static str,
    connection: u64,
    peer: Option<SocketAddr>,
    #[serde(flatten)]
    end: &'a SessionEnd,
    seconds: f64,
    monotonic: f64,
}

/// Listening sockets, ready to serve.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    stop: UnixStream,
    stopper: UnixStream,
    events: bool,
    counters: Counters,
    stdout: Mutex<()>,
}

impl Server {
    /// Opens the listening sockets.
    ///
    /// # Errors
    ///
    /// Fails when an address is in use or the kernel lacks the protocol.
    pub fn new(options: &ServeOptions) -> Result<Self, ServeError> {
        let mut port = options.port;
        let mut listeners = Vec::new();
        let everywhere = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
        let addresses = if options.bind.is_empty() {
            &everywhere
        } else {
            options.bind.as_slice()
        };
        for address in addresses {
            match listen(options.proto, SocketAddr::new(*address, port), options.buffers) {
                Ok(listener) => {
                    // The other addresses get the port the kernel chose for the first.
                    port = listener.local_addr().map_err(system("get the port"))?.port();
                    listeners.push(listener);
                }
                Err(error) if options.bind.is_empty() && address.is_ipv6() && error.is_unsupported() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (stop, stopper) = UnixStream::pair().map_err(system("create a socket pair"))?;
        Ok(Self {
            listeners,
            stop,
            stopper,
            events: options.events,
            counters: Counters::default(),
            stdout: Mutex::new(()),
        })
    }

    /// Returns the listening addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Makes SIGTERM and SIGINT end [`Server::run`].
    ///
    /// # Errors
    ///
    /// Fails when the signal handlers cannot be installed.
    pub fn end_on_signals(&self) -> Result<(), ServeError> {
        for signal in [SIGTERM, SIGINT] {
            let stopper = self.stopper.try_clone().map_err(system("duplicate a socket"))?;
            signal_hook::low_level::pipe::register(signal, stopper).map_err(system("catch signals"))?;
        }
        Ok(())
    }

    /// Ends [`Server::run`] from another thread.
    ///
    /// # Errors
    ///
    /// Returns the error of writing to the socket pair.
    pub fn end(&self) -> io::Result<()> {
        (&self.stopper).write_all(&[0])
    }

    /// Serves until the end is requested. Open connections remain with their threads.
    ///
    /// # Errors
    ///
    /// Fails when waiting for connections fails.
    pub fn run(self: &std::sync::Arc<Self>) -> Result<ServeReport, ServeError> {
        loop {
            let mut ready: Vec<_> = self
                .listeners
                .iter()
                .map(|listener| PollFd::new(listener, PollFlags::IN))
                .collect();
            ready.push(PollFd::new(&self.stop, PollFlags::IN));
            match poll(&mut ready, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => {
                    return Err(ServeError::System {
                        operation: "wait",
                        source: errno.into(),
                    });
                }
            }
            let ready: Vec<bool> = ready.iter().map(|entry| !entry.revents().is_empty()).collect();
            if ready.last() == Some(&true) {
                return Ok(self.report());
            }
            for (listener, _) in self.listeners.iter().zip(ready).filter(|(_, ready)| *ready) {
                self.accept(listener);
            }
        }
    }

    fn accept(self: &std::sync::Arc<Self>, listener: &TcpListener) {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
            Err(error) => {
                // A connection may fail before it is accepted. No error here is known to be permanent.
                eprintln!("smc-tool serve: accept: {error}");
                thread::sleep(Duration::from_millis(10));
                return;
            }
        };
        let number = self.counters.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let server = self.clone();
        let thread = thread::Builder::new().stack_size(STACK);
        if let Err(error) = thread.spawn(move || server.serve(number, Some(peer), &stream)) {
            eprintln!("smc-tool serve: cannot start a thread for connection {number}: {error}");
        }
    }

    fn serve(&self, number: u64, peer: Option<SocketAddr>, stream: &TcpStream) {
        let start = Instant::now();
        let session = Session::new(stream);
        let end = session.run(|mismatch| {
            self.counters.workloads.fetch_add(1, Ordering::Relaxed);
            if let Some(mismatch) = mismatch {
                self.counters.mismatches.fetch_add(1, Ordering::Relaxed);
                eprintln!("smc-tool serve: connection {number}: {mismatch}");
            }
        });
        if end.failed {
            self.counters.failures.fetch_add(1, Ordering::Relaxed);
            eprintln!("smc-tool serve: connection {number}: {} {}", end.workload, end.how);
        }
        if self.events {
            let event = EndEvent {
                event: "ended",
                connection: number,
                peer,
                end: &end,
                seconds: start.elapsed().as_secs_f64(),
                monotonic: crate::monotonic::seconds(),
            };
            let _lock = self.stdout.lock();
            // The reader may be gone; that is no reason to stop serving.
            let _ = writeln!(io::stdout(), "{}", serde_json::to_string(&event).unwrap_or_default());
        }
    }

    /// Returns the counters so far.
    pub fn report(&self) -> ServeReport {
        ServeReport {
            connections: self.counters.connections.load(Ordering::Relaxed),
            workloads: self.counters.workloads.load(Ordering::Relaxed),
            mismatches: self.counters.mismatches.load(Ordering::Relaxed),
            failures: self.counters.failures.load(Ordering::Relaxed),
        }
    }
}

fn system(operation: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |source| ServeError::System { operation, source }
}
