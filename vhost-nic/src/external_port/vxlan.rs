//! A tunnel to one peer elsewhere: VXLAN over UDP (RFC 7348), between switches of two daemons, or with any other end.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use log::info;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use rustix::io::Errno;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, ip_mtu, ipv6_mtu, set_ip_mtu_discover, set_ipv6_mtu_discover,
    set_ipv6_v6only,
};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, bind, sendmsg_addr, socket_with,
};
use thiserror::Error;
use zerocopy::IntoBytes;

use super::join::Outgoing;
use super::medium::{DropReason, Incoming, Medium};
use super::receive_buffer;
use super::vxlan_header::{VNI_LIMIT, VxlanHeader, decapsulate};

/// UDP port of VXLAN (IANA).
pub const VXLAN_PORT: u16 = 4789;
/// Longest datagram, rounded up.
const MAX_DATAGRAM: usize = 1 << 16;
/// Headers in front of the frame, in bytes.
const UDP_AND_VXLAN: u32 = 8 + 8;
const IPV4: u32 = 20;
const IPV6: u32 = 40;

sockopt_impl!(
    /// Datagrams over IPv6 are received without checksum, too.
    NoChecksumNeeded, SetOnly, libc::SOL_UDP, libc::UDP_NO_CHECK6_RX, bool
);

/// Ends of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanPlan {
    /// Address and port of this end.
    pub local: SocketAddr,
    /// Address of the peer, and the port that it receives on. It may send from any port.
    pub remote: SocketAddr,
    /// VXLAN network identifier (24 bits).
    pub vni: u32,
}

/// Reason why a port has no tunnel.
#[derive(Debug, Error)]
pub enum VxlanError {
    /// The identifier has more than 24 bits.
    #[error("the VNI {0} is not less than 16777216")]
    Vni(u32),
    /// The ends are of different families.
    #[error("{0} and {1} are not both of IPv4 or both of IPv6")]
    Families(IpAddr, IpAddr),
    /// An IPv4 address in the form of IPv6, of which the kernel makes IPv4.
    #[error("{0} is an IPv4 address in the form of IPv6")]
    Mapped(IpAddr),
    /// This end has no port.
    #[error("{0} has no port to receive on")]
    Local(SocketAddr),
    /// The peer is everybody or nobody.
    #[error("{0} is not the address of one peer")]
    Peer(SocketAddr),
    /// The peer is this end.
    #[error("{0} is the address of both ends")]
    Itself(SocketAddr),
    /// The host refused.
    #[error("cannot receive VXLAN at {address}")]
    Open {
        /// Address of this end.
        address: SocketAddr,
        /// The host's error.
        #[source]
        source: io::Error,
    },
}

/// A UDP socket that exchanges frames with one peer.
///
/// The source port of a packet is the port of the socket, the same for all flows: the routers in between can spread
/// them over several paths only by what is in the packet. Another port for each flow takes a socket for each, or a raw
/// one, which is a privilege.
#[derive(Debug)]
pub struct VxlanMedium {
    socket: UdpSocket,
    remote: SocketAddr,
    header: VxlanHeader,
    buffer: Vec<u8>,
}

impl VxlanMedium {
    /// Opens this end. The peer need not be there, nor a way to it.
    pub fn open(name: &str, plan: &VxlanPlan) -> Result<Self, VxlanError> {
        let VxlanPlan { local, remote, vni } = *plan;
        if vni >= VNI_LIMIT {
            return Err(VxlanError::Vni(vni));
        }
        for address in [local.ip(), remote.ip()] {
            if address.to_canonical() != address {
                return Err(VxlanError::Mapped(address));
            }
        }
        if local.is_ipv4() != remote.is_ipv4() {
            return Err(VxlanError::Families(local.ip(), remote.ip()));
        }
        if local.port() == 0 {
            return Err(VxlanError::Local(local));
        }
        let address = remote.ip();
        let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
        if broadcast || address.is_multicast() || address.is_unspecified() || remote.port() == 0 {
            return Err(VxlanError::Peer(remote));
        }
        if (local.ip(), local.port()) == (remote.ip(), remote.port()) {
            return Err(VxlanError::Itself(local));
        }
        let socket = open(local).map_err(|source| VxlanError::Open { address: local, source })?;
        match longest_frame(local, remote) {
            Ok(length) => info!("{name}: the way to {remote} carries frames of up to {length} bytes"),
            Err(error) => info!("{name}: there is no way to {remote} yet: {error}"),
        }
        Ok(Self {
            socket,
            remote,
            header: VxlanHeader::new(vni),
            buffer: vec![0; MAX_DATAGRAM],
        })
    }

    /// Whether an address is that of the peer, with any port: it makes the port of the flow (RFC 7348, section 5).
    fn is_peer(&self, source: SocketAddr) -> bool {
        match (source, self.remote) {
            (SocketAddr::V6(source), SocketAddr::V6(remote)) => {
                let scopes = [0, source.scope_id()];
                source.ip() == remote.ip() && scopes.contains(&remote.scope_id())
            }
            (source, remote) => source.ip() == remote.ip(),
        }
    }
}

fn open(local: SocketAddr) -> io::Result<UdpSocket> {
    let family = match local {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    if local.is_ipv6() {
        set_ipv6_v6only(&socket, true)?;
        // RFC 7348, section 5: the checksum should be zero, and such a packet must be accepted.
        setsockopt(&socket, NoChecksumNeeded, &true)?;
    }
    receive_buffer::enlarge(&socket)?;
    forbid_fragments(&socket, local)?;
    bind(&socket, &local)?;
    Ok(socket.into())
}

/// Makes the host refuse a packet that must be fragmented on its way, as far as it knows (RFC 7348, section 4.3).
fn forbid_fragments(socket: impl AsFd, local: SocketAddr) -> io::Result<()> {
    match local {
        SocketAddr::V4(_) => set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DO)?,
        SocketAddr::V6(_) => set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DO)?,
    }
    Ok(())
}

/// Longest frame that the way to the peer carries now, in bytes, as far as the host knows. Only a connected socket
/// knows one.
fn longest_frame(local: SocketAddr, remote: SocketAddr) -> io::Result<u32> {
    let socket = UdpSocket::bind((local.ip(), 0))?;
    forbid_fragments(&socket, local)?;
    socket.connect(remote)?;
    let length = match local {
        SocketAddr::V4(_) => ip_mtu(&socket)?.saturating_sub(IPV4),
        SocketAddr::V6(_) => ipv6_mtu(&socket)?.saturating_sub(IPV6),
    };
    Ok(length.saturating_sub(UDP_AND_VXLAN))
}

impl Medium for VxlanMedium {
    fn kind(&self) -> &'static str {
        "vxlan"
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    /// A tunnel has no connection: nobody notices that the peer is absent.
    fn is_connected(&self) -> bool {
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Incoming {
        // Errors are those of earlier datagrams.
        let Ok((length, source)) = self.socket.recv_from(&mut self.buffer) else {
            return Incoming::Nothing;
        };
        if !self.is_peer(source) {
            return Incoming::Dropped(DropReason::OtherSource);
        }
        match decapsulate(&self.buffer[..length], self.header) {
            Ok(bytes) => {
                frame.clear();
                frame.extend_from_slice(bytes);
                Incoming::Frame
            }
            Err(reason) => Incoming::Dropped(reason),
        }
    }

    fn send(&mut self, outgoing: &Outgoing) -> io::Result<bool> {
        let parts = [IoSlice::new(self.header.as_bytes()), IoSlice::new(&outgoing.frame)];
        let mut control = SendAncillaryBuffer::default();
        match sendmsg_addr(&self.socket, &self.remote, &parts, &mut control, SendFlags::empty()) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
