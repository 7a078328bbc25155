//! Listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::io::Errno;
use rustix::net::sockopt;

use super::{Buffers, Protocol};

/// Maximum number of connections waiting to be accepted.
const BACKLOG: i32 = 1024;

/// The server could not listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} ({proto:?} on {address})")]
pub struct ListenError {
    operation: &'static str,
    proto: Protocol,
    address: SocketAddr,
    source: io::Error,
}

impl ListenError {
    /// Returns whether this kernel lacks the address family.
    pub fn is_unsupported(&self) -> bool {
        let code = self.source.raw_os_error();
        [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
            .iter()
            .any(|errno| code == Some(errno.raw_os_error()))
    }
}

/// Listens on an address; the listener is non-blocking, and an IPv6 address accepts no IPv4 connections.
///
/// # Errors
///
/// Fails when the address is in use or the kernel lacks the protocol.
pub fn listen(proto: Protocol, address: SocketAddr, buffers: Buffers) -> Result<TcpListener, ListenError> {
    let failed = |operation| {
        move |errno: Errno| ListenError {
            operation,
            proto,
            address,
            source: errno.into(),
        }
    };
    let socket = proto.socket(address).map_err(failed("create a socket"))?;
    sockopt::set_socket_reuseaddr(&socket, true).map_err(failed("reuse the address"))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true).map_err(failed("restrict the socket to IPv6"))?;
    }
    buffers.apply(&socket).map_err(failed("set buffer sizes"))?;
    rustix::net::bind(&socket, &address).map_err(failed("bind"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed("listen"))?;
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true).map_err(|source| ListenError {
        operation: "make the socket non-blocking",
        proto,
        address,
        source,
    })?;
    Ok(listener)
}
