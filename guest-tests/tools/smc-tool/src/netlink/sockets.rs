//! The SMC sockets of this network namespace (net/smc/smc_diag.c).

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use rustix::io::Errno;
use serde::Serialize;
use zerocopy::{FromBytes, IntoBytes};

use super::NetlinkError;
use super::attributes::Attributes;
use super::diag_wire::{AF_SMC, ConnectionInfo, DiagMessage, DmbInfo, Fallback, Message, Request, SocketId, extension};
use super::gid::Gid;
use super::transport::Transport;
use crate::fallback_reason::FallbackReason;

/// Transport of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// SMC-R; also reported for sockets without a connection.
    Smcr,
    /// TCP after a fallback.
    Tcp,
    /// SMC-D.
    Smcd,
    /// A value unknown to this program.
    Unknown,
}

impl From<u8> for Mode {
    fn from(number: u8) -> Self {
        match number {
            0 => Self::Smcr,
            1 => Self::Tcp,
            2 => Self::Smcd,
            _ => Self::Unknown,
        }
    }
}

/// State of a socket, `enum smc_state` in net/smc/smc.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are those of the kernel")]
pub enum State {
    Active,
    Init,
    Closed,
    Listen,
    PeerCloseWait1,
    PeerCloseWait2,
    AppCloseWait1,
    AppCloseWait2,
    AppFinCloseWait,
    PeerFinCloseWait,
    PeerAbortWait,
    ProcessAbort,
    Unknown,
}

impl From<u8> for State {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Active,
            2 => Self::Init,
            7 => Self::Closed,
            10 => Self::Listen,
            20 => Self::PeerCloseWait1,
            21 => Self::PeerCloseWait2,
            22 => Self::AppCloseWait1,
            23 => Self::AppCloseWait2,
            24 => Self::AppFinCloseWait,
            25 => Self::PeerFinCloseWait,
            26 => Self::PeerAbortWait,
            27 => Self::ProcessAbort,
            _ => Self::Unknown,
        }
    }
}

/// Buffer sizes of a connection in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Buffers {
    /// Local send buffer; 0 when the peer's buffer is written in place.
    pub send: u32,
    /// Local receive buffer.
    pub receive: u32,
    /// Receive buffer of the peer.
    pub peer_receive: u32,
}

/// SMC-D state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Dmb {
    /// ID of the link group in this kernel.
    pub link_group: u32,
    /// GID of the local device.
    pub my_gid: Gid,
    /// GID of the peer's device.
    pub peer_gid: Gid,
    /// Token of the local DMB.
    pub token: Token,
    /// Token of the peer's DMB.
    pub peer_token: Token,
}

/// A DMB token, displayed as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(pub u64);

impl Serialize for Token {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

/// An SMC socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SmcSocket {
    /// Inode as `fstat` reports it for the descriptor; 0 when no process holds the socket.
    pub inode: u64,
    /// Unique ID of the socket, never reused by this kernel.
    pub cookie: u64,
    /// User ID of the owner.
    pub user: u32,
    /// Connection state.
    pub state: State,
    /// Transport in use.
    pub mode: Mode,
    /// Local port.
    pub local_port: u16,
    /// Peer port.
    pub peer_port: u16,
    /// Local address. The kernel reports none for sockets created with `IPPROTO_SMC`.
    pub local: Option<SocketAddr>,
    /// Peer address, likewise.
    pub peer: Option<SocketAddr>,
    /// Reason of the fallback to TCP.
    pub fallback_reason: FallbackReason,
    /// Diagnosis in the peer's decline message.
    pub peer_diagnosis: FallbackReason,
    /// Directions that are shut down: bit 0 receive, bit 1 send.
    pub shutdown: u64,
    /// Buffer sizes, once buffers exist.
    pub buffers: Option<Buffers>,
    /// SMC-D state, if SMC-D is in use.
    pub dmb: Option<Dmb>,
    /// Whether the kernel reported an SMC-R link.
    pub has_smcr_link: bool,
}

impl SmcSocket {
    /// Returns whether `mode` is meaningful: listening and unconnected sockets report SMC-R.
    pub fn is_connection(&self) -> bool {
        self.peer_port != 0 && !matches!(self.state, State::Listen | State::Init)
    }

    fn decode(body: &[u8]) -> Result<Self, NetlinkError> {
        let (message, attributes) =
            Message::read_from_prefix(body).map_err(|error| NetlinkError::malformed(error.to_string()))?;
        let attributes = Attributes::parse(attributes)?;
        let fallback: Fallback = extension_of(&attributes, extension::FALLBACK)?.unwrap_or_default();
        let buffers: Option<ConnectionInfo> = extension_of(&attributes, extension::CONNECTION)?;
        let dmb: Option<DmbInfo> = extension_of(&attributes, extension::DMB)?;
        let SocketId {
            source,
            destination,
            source_port,
            destination_port,
            cookie,
            ..
        } = message.id;
        Ok(Self {
            inode: message.inode,
            cookie: u64::from(cookie[1]) << 32 | u64::from(cookie[0]),
            user: message.user,
            state: message.state.into(),
            mode: message.mode.into(),
            local_port: source_port.get(),
            peer_port: destination_port.get(),
            local: address(source, source_port.get()),
            peer: address(destination, destination_port.get()),
            fallback_reason: FallbackReason(fallback.reason),
            peer_diagnosis: FallbackReason(fallback.peer_diagnosis),
            shutdown: attributes.counter(extension::SHUTDOWN)?,
            buffers: buffers.map(|info| Buffers {
                send: info.send_buffer,
                receive: info.receive_buffer,
                peer_receive: info.peer_receive_buffer,
            }),
            dmb: dmb.map(|info| Dmb {
                link_group: info.link_group,
                my_gid: Gid::from_halves(info.my_gid, info.my_gid_ext),
                peer_gid: Gid::from_halves(info.peer_gid, info.peer_gid_ext),
                token: Token(info.token),
                peer_token: Token(info.peer_token),
            }),
            has_smcr_link: attributes.bytes(extension::LINK_GROUP).is_some(),
        })
    }
}

/// Reads the start of an attribute as a fixed layout. Later kernels may append fields.
fn extension_of<T: FromBytes>(attributes: &Attributes<'_>, number: u16) -> Result<Option<T>, NetlinkError> {
    let Some(bytes) = attributes.bytes(number) else {
        return Ok(None);
    };
    match T::read_from_prefix(bytes) {
        Ok((value, _)) => Ok(Some(value)),
        Err(_) => Err(NetlinkError::malformed(format!(
            "attribute {number} has {} bytes",
            bytes.len()
        ))),
    }
}

/// Decodes an address; `None` if it is all zeros. An IPv4 address fills only the first four bytes.
fn address(bytes: [u8; 16], port: u16) -> Option<SocketAddr> {
    let [a, b, c, d, rest @ ..] = bytes;
    let ip = if rest.iter().any(|&byte| byte != 0) {
        IpAddr::V6(Ipv6Addr::from(bytes))
    } else {
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    (!ip.is_unspecified()).then_some(SocketAddr::new(ip, port))
}

/// Lists all SMC sockets of this network namespace.
///
/// # Errors
///
/// Fails when the module smc_diag is not loaded, and when the netlink exchange fails.
pub fn list() -> Result<Vec<SmcSocket>, NetlinkError> {
    use extension::{CONNECTION, DMB, LINK_GROUP, bit};
    let request = Request {
        family: AF_SMC,
        extensions: bit(CONNECTION) | bit(LINK_GROUP) | bit(DMB),
        ..Default::default()
    };
    let mut transport = Transport::open(NETLINK_SOCK_DIAG)?;
    let answers = match transport.dump("a list of SMC sockets", DiagMessage(request.as_bytes().to_vec())) {
        Err(NetlinkError::Refused { source, .. }) if source.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
            return Err(NetlinkError::NoSocketDiag(source));
        }
        other => other?,
    };
    let sockets = answers
        .iter()
        .map(|answer| SmcSocket::decode(&answer.0))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(without_repeats(sockets))
}

/// Removes duplicates: a dump of several datagrams repeats sockets when new ones appear in between.
fn without_repeats(mut sockets: Vec<SmcSocket>) -> Vec<SmcSocket> {
    let mut seen = HashSet::new();
    sockets.retain(|socket| seen.insert(socket.cookie));
    sockets
}

#[cfg(test)]
mod tests {
    use super::super::attributes::emit::attribute;
    use super::*;

    fn message() -> Message {
        let id = SocketId {
            source_port: 40000.into(),
            destination_port: 5000.into(),
            source: [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            cookie: [5, 1],
            ..Default::default()
        };
        Message {
            family: AF_SMC,
            state: 1,
            mode: 2,
            shutdown: 0,
            id,
            user: 0,
            inode: 4711,
        }
    }

    #[test]
    fn smcd_socket_is_decoded() {
        let dmb = DmbInfo {
            my_gid: 1,
            my_gid_ext: 2,
            peer_gid: 3,
            peer_gid_ext: 4,
            token: 0xabc,
            ..Default::default()
        };
        let connection = ConnectionInfo {
            receive_buffer: 65504,
            ..Default::default()
        };
        let mut body = message().as_bytes().to_vec();
        body.extend(attribute(extension::SHUTDOWN, &[2]));
        body.extend(attribute(extension::FALLBACK, Fallback::default().as_bytes()));
        let mut cursors = connection.as_bytes().to_vec();
        cursors.resize(76, 0);
        body.extend(attribute(extension::CONNECTION, &cursors));
        body.extend(attribute(extension::DMB, dmb.as_bytes()));
        let socket = SmcSocket::decode(&body).unwrap();
        assert_eq!(
            (socket.inode, socket.mode, socket.state),
            (4711, Mode::Smcd, State::Active)
        );
        assert_eq!(socket.cookie, (1 << 32) | 5);
        assert_eq!(socket.local, Some("127.0.0.1:40000".parse().unwrap()));
        assert_eq!((socket.peer, socket.peer_port), (None, 5000));
        assert_eq!(socket.shutdown, 2);
        assert_eq!(socket.buffers.unwrap().receive, 65504);
        let dmb = socket.dmb.unwrap();
        assert_eq!(
            (dmb.my_gid, dmb.peer_gid),
            (Gid::from_halves(1, 2), Gid::from_halves(3, 4))
        );
        assert_eq!(serde_json::to_string(&dmb.token).unwrap(), "\"0000000000000abc\"");
        assert!(socket.is_connection());
    }

    #[test]
    fn fallback_has_reason_and_diagnosis() {
        let mut body = Message { mode: 1, ..message() }.as_bytes().to_vec();
        let fallback = Fallback {
            reason: 0x0500_0000,
            peer_diagnosis: 0x0303_0008,
        };
        body.extend(attribute(extension::FALLBACK, fallback.as_bytes()));
        let socket = SmcSocket::decode(&body).unwrap();
        assert_eq!(socket.mode, Mode::Tcp);
        assert_eq!(socket.fallback_reason.name(), Some("PEERDECL"));
        assert_eq!(socket.peer_diagnosis.name(), Some("NOUEID"));
        assert_eq!(socket.dmb, None);
    }

    #[test]
    fn listening_sockets_are_no_connections() {
        let mut body = Message {
            state: 10,
            mode: 0,
            ..message()
        }
        .as_bytes()
        .to_vec();
        body.extend(attribute(extension::SHUTDOWN, &[0]));
        assert!(!SmcSocket::decode(&body).unwrap().is_connection());
    }

    #[test]
    fn short_answers_are_refused() {
        assert!(SmcSocket::decode(&message().as_bytes()[..60]).is_err());
        let mut body = message().as_bytes().to_vec();
        body.extend(attribute(extension::DMB, &[0; 40]));
        assert!(SmcSocket::decode(&body).is_err());
    }

    #[test]
    fn repeated_sockets_are_left_out() {
        let socket = SmcSocket::decode(message().as_bytes()).unwrap();
        assert_eq!(without_repeats(vec![socket.clone(), socket]).len(), 1);
    }

    #[test]
    fn ipv6_addresses_are_told_from_ipv4() {
        let ip: Ipv6Addr = "fe80::1".parse().unwrap();
        assert_eq!(address(ip.octets(), 7), Some(SocketAddr::new(ip.into(), 7)));
        let loopback = address(Ipv6Addr::LOCALHOST.octets(), 7);
        assert_eq!(loopback, Some(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 7)));
    }
}
