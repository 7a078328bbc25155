//! Connecting, and checking the mode of the connection.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use serde::Serialize;

use super::mode::find_own;
use super::{Buffers, ExpectedMode, Protocol, WrongMode};
use crate::fallback_reason::FallbackReason;
use crate::netlink::NetlinkError;
use crate::netlink::sockets::{Mode, SmcSocket};

/// Options of a connection.
#[derive(Debug, Clone, clap::Args)]
pub struct ConnectOptions {
    /// Server as ADDRESS:PORT, an IPv6 address in brackets
    #[arg(long)]
    pub to: SocketAddr,
    /// Protocol of the socket
    #[arg(long, value_enum, default_value_t = Protocol::Smc)]
    pub proto: Protocol,
    /// Fail with exit code 3 unless the connection has this mode
    #[arg(long, value_enum)]
    pub expect_mode: Option<ExpectedMode>,
    /// Time-out of each single wait in seconds; an SMC connect to a silent host takes several waits
    #[arg(long, default_value = "30", value_parser = seconds)]
    pub timeout: Duration,
    /// Socket buffer sizes
    #[command(flatten)]
    pub buffers: Buffers,
    /// Seed of the data pattern
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Parses a time in seconds, fractions allowed, from a millisecond to some years.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..1e8).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("`{text}` is not a positive number of seconds")),
    }
}

impl ConnectOptions {
    /// Returns the time-out in the unit of a request.
    pub fn timeout_ms(&self) -> u32 {
        u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX)
    }
}

/// No connection, or one of the wrong mode.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A system call failed.
    #[error("cannot {operation} ({proto:?} to {to})")]
    System {
        /// The failed operation, a verb.
        operation: &'static str,
        /// Requested protocol.
        proto: Protocol,
        /// Server address.
        to: SocketAddr,
        /// Error of the system call.
        source: io::Error,
    },
    /// The mode is not the expected one.
    #[error(transparent)]
    WrongMode(#[from] WrongMode),
    /// The mode could not be determined.
    #[error("cannot determine the mode of the connection")]
    Unknown(#[from] NetlinkError),
    /// The kernel does not list the socket.
    #[error("the kernel does not list this SMC socket")]
    NotListed,
}

/// A connection and its state in the kernel.
#[derive(Debug)]
pub struct Connected {
    /// The connection; reads and writes are subject to the time-out.
    pub stream: TcpStream,
    /// State in the kernel.
    pub report: ConnectionReport,
}

/// State of a connection in the kernel.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionReport {
    /// Requested protocol.
    pub proto: Protocol,
    /// Transport in use; `None` if it could not be determined.
    pub mode: Option<Mode>,
    /// Reason of the fallback to TCP.
    pub fallback_reason: FallbackReason,
    /// Local address.
    pub local: Option<SocketAddr>,
    /// Server address.
    pub peer: SocketAddr,
    /// Complete state of the SMC socket.
    pub socket: Option<SmcSocket>,
}

/// Connects, and checks the expected mode if there is one.
///
/// # Errors
///
/// Fails when the server does not answer in time, or the mode is wrong.
pub fn connect(options: &ConnectOptions) -> Result<Connected, ConnectError> {
    let stream = open(options)?;
    let socket = match options.proto {
        Protocol::Tcp => None,
        Protocol::Smc => match find_own(&stream) {
            Ok(socket) => socket,
            Err(_) if options.expect_mode.is_none() => None,
            Err(error) => return Err(error.into()),
        },
    };
    let mode = match (options.proto, &socket) {
        (Protocol::Tcp, _) => Some(Mode::Tcp),
        (Protocol::Smc, socket) => socket.as_ref().map(|socket| socket.mode),
    };
    let reason = socket
        .as_ref()
        .map_or(FallbackReason(0), |socket| socket.fallback_reason);
    if let Some(expected) = options.expect_mode {
        let diagnosis = socket
            .as_ref()
            .map_or(FallbackReason(0), |socket| socket.peer_diagnosis);
        expected.check(mode.ok_or(ConnectError::NotListed)?, reason, diagnosis)?;
    }
    let report = ConnectionReport {
        proto: options.proto,
        mode,
        fallback_reason: reason,
        local: stream.local_addr().ok(),
        peer: options.to,
        socket,
    };
    Ok(Connected { stream, report })
}

/// Connects without checking the mode.
///
/// # Errors
///
/// Fails when the server does not answer in time.
pub fn open(options: &ConnectOptions) -> Result<TcpStream, ConnectError> {
    let failed = |operation| {
        move |errno: Errno| {
            // A blocking connect that times out reports that it is still in progress.
            let errno = if errno == Errno::INPROGRESS {
                Errno::TIMEDOUT
            } else {
                errno
            };
            ConnectError::System {
                operation,
                proto: options.proto,
                to: options.to,
                source: errno.into(),
            }
        }
    };
    let socket = options.proto.socket(options.to).map_err(failed("create a socket"))?;
    options.buffers.apply(&socket).map_err(failed("set buffer sizes"))?;
    for direction in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(&socket, direction, Some(options.timeout)).map_err(failed("set the time-out"))?;
    }
    rustix::net::connect(&socket, &options.to).map_err(failed("connect"))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_positive() {
        assert_eq!(seconds("1.5").unwrap(), Duration::from_millis(1500));
        for text in ["0", "-1", "x", "nan", "1e99"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
