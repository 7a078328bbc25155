//! Creating sockets of either protocol.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use clap::ValueEnum;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};
use serde::Serialize;

/// Requested protocol of a socket. An SMC socket may still fall back to TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// `IPPROTO_SMC`.
    Smc,
    /// `IPPROTO_TCP`.
    Tcp,
}

/// `IPPROTO_SMC` (include/uapi/linux/in.h).
const IPPROTO_SMC: NonZeroU32 = NonZeroU32::new(256).unwrap();

impl Protocol {
    /// Creates a stream socket for the family of this address.
    pub(super) fn socket(self, address: SocketAddr) -> Result<OwnedFd, Errno> {
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let protocol = match self {
            Self::Smc => rustix::net::Protocol::from_raw(IPPROTO_SMC),
            Self::Tcp => ipproto::TCP,
        };
        socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(protocol))
    }
}

/// Requested socket buffer sizes. For SMC they select the size classes of the buffers, 16 KiB to 1 MiB.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Buffers {
    /// Receive buffer (SO_RCVBUF) in bytes, K, M; above net.core.rmem_max this needs CAP_NET_ADMIN
    #[arg(long, value_parser = crate::byte_size::parse_block)]
    pub rcvbuf: Option<usize>,
    /// Send buffer (SO_SNDBUF) in bytes, K, M
    #[arg(long, value_parser = crate::byte_size::parse_block)]
    pub sndbuf: Option<usize>,
}

impl Buffers {
    /// Sets the sizes. The kernel doubles the value, and SMC halves it again.
    pub(super) fn apply(self, socket: &OwnedFd) -> Result<(), Errno> {
        if let Some(size) = self.rcvbuf {
            sockopt::set_socket_recv_buffer_size_force(socket, size)
                .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, size))?;
        }
        if let Some(size) = self.sndbuf {
            sockopt::set_socket_send_buffer_size_force(socket, size)
                .or_else(|_| sockopt::set_socket_send_buffer_size(socket, size))?;
        }
        Ok(())
    }
}
