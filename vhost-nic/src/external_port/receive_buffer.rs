//! Memory of a socket for what waits to be received.

use std::os::fd::AsFd;

use rustix::io::Result;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};

/// Bytes that are asked for: the windows of several RDMA requesters, each packet with about twice its length.
const SIZE: usize = 4 << 20;

/// Enlarges the buffer, without the privilege (CAP_NET_ADMIN) as far as `net.core.rmem_max` permits.
pub(super) fn enlarge(socket: impl AsFd) -> Result<()> {
    set_socket_recv_buffer_size_force(&socket, SIZE).or_else(|_| set_socket_recv_buffer_size(&socket, SIZE))
}
