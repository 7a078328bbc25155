//! A network interface of the host: frames pass by a packet socket (AF_PACKET), beside the host's own network stack.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use log::{debug, info, warn};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, getsockopt, recv,
    recvmsg, setsockopt, socket,
};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use rustix::io::{Errno, writev};
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::join::Outgoing;
use super::length_prefix::MAX_LENGTH;
use super::link_watch::{LinkState, LinkWatch};
use super::medium::{DropReason, Incoming, Medium};
use super::receive_buffer;
use super::vnet_header::{VnetHeader, take_apart};

/// Offset of a VLAN tag in a frame, in bytes.
const TAG: usize = 12;
/// Bytes for control messages: one, of [`AuxData`].
const CONTROL: usize = 64;
/// Frames between two looks at the link, which would have none otherwise while frames enter without a pause.
const LOOK_EVERY: u32 = 64;

sockopt_impl!(
    /// Frames that the host itself sends by the interface are not received.
    IgnoreOutgoing, SetOnly, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, bool
);
sockopt_impl!(
    /// The header of virtio-net is in front of each frame, in both directions.
    VnetHeaders, SetOnly, libc::SOL_PACKET, libc::PACKET_VNET_HDR, bool
);
sockopt_impl!(
    /// Each frame comes with its [`AuxData`].
    AuxDataOfFrames, SetOnly, libc::SOL_PACKET, libc::PACKET_AUXDATA, bool
);
sockopt_impl!(
    /// The interface receives more than is sent to it, as long as the socket is open.
    Membership, SetOnly, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, libc::packet_mreq
);
sockopt_impl!(
    /// Frames since the last call; `tp_packets` includes those of `tp_drops`.
    Counts, GetOnly, libc::SOL_PACKET, libc::PACKET_STATISTICS, libc::tpacket_stats
);

/// `struct tpacket_auxdata`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct AuxData {
    status: u32,
    length: u32,
    captured: u32,
    mac: u16,
    network: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

const _: () = assert!(size_of::<AuxData>() == size_of::<libc::tpacket_auxdata>());

impl AuxData {
    /// The VLAN tag that the kernel has taken out of the frame.
    fn tag(&self) -> Option<[u8; 4]> {
        if self.status & libc::TP_STATUS_VLAN_VALID == 0 {
            return None;
        }
        let tpid = match self.status & libc::TP_STATUS_VLAN_TPID_VALID {
            0 => libc::ETH_P_8021Q as u16,
            _ => self.vlan_tpid,
        };
        let ([a, b], [c, d]) = (tpid.to_be_bytes(), self.vlan_tci.to_be_bytes());
        Some([a, b, c, d])
    }
}

/// Reason why a port has no interface.
#[derive(Debug, Error)]
pub enum PacketError {
    /// There is none of the name.
    #[error("there is no network interface {0}")]
    Absent(String),
    /// It has no Ethernet frames.
    #[error("the network interface {0} is not of Ethernet")]
    NotEthernet(String),
    /// The host refused.
    #[error("cannot open a packet socket on the network interface {interface}")]
    Open {
        /// Name of the interface.
        interface: String,
        /// The host's error.
        #[source]
        source: io::Error,
    },
}

/// A packet socket that is bound to one interface.
#[derive(Debug)]
pub struct PacketMedium {
    interface: String,
    socket: OwnedFd,
    links: LinkWatch,
    up: bool,
    /// The interface has been deleted.
    gone: bool,
    buffer: Vec<u8>,
    control: Vec<u8>,
    /// Segments of the last frame that have not been received yet.
    segments: VecDeque<Vec<u8>>,
    /// Frames since the last look at the link.
    since_look: u32,
}

impl PacketMedium {
    /// Opens a socket on the interface. It needs CAP_NET_RAW here, and no privilege later.
    pub fn open(interface: &str) -> Result<Self, PacketError> {
        let host_error = |source: io::Error| PacketError::Open {
            interface: interface.to_owned(),
            source,
        };
        let mut interfaces = getifaddrs().map_err(|error| host_error(error.into()))?;
        let found = interfaces.find_map(|found| {
            let address = *found.address?.as_link_addr()?;
            (found.interface_name == interface).then_some((address, found.flags))
        });
        let (address, flags) = found.ok_or_else(|| PacketError::Absent(interface.to_owned()))?;
        if address.hatype() != libc::ARPHRD_ETHER {
            return Err(PacketError::NotEthernet(interface.to_owned()));
        }
        let socket = open(&address).map_err(host_error)?;
        Ok(Self {
            interface: interface.to_owned(),
            socket,
            links: LinkWatch::new(address.ifindex() as i32).map_err(host_error)?,
            up: flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING),
            gone: false,
            buffer: vec![0; size_of::<VnetHeader>() + MAX_LENGTH],
            control: vec![0; CONTROL],
            segments: VecDeque::new(),
            since_look: 0,
        })
    }

    /// Receives what the host has, and takes it apart into the frames on the wire.
    fn take(&mut self) -> Result<(), Incoming> {
        let fd = self.socket.as_raw_fd();
        let mut parts = [IoSliceMut::new(&mut self.buffer)];
        let message = match recvmsg::<()>(fd, &mut parts, Some(&mut self.control), MsgFlags::empty()) {
            Ok(message) => message,
            // A frame that the header of virtio-net cannot describe.
            Err(nix::errno::Errno::EINVAL) => return Err(Incoming::Dropped(DropReason::Malformed)),
            Err(_) => return Err(Incoming::Nothing),
        };
        let truncated = message.flags.contains(MsgFlags::MSG_TRUNC);
        let tag = message.cmsgs().into_iter().flatten().find_map(|control| match control {
            ControlMessageOwned::Unknown(control)
                if (control.cmsg_header.cmsg_level, control.cmsg_header.cmsg_type)
                    == (libc::SOL_PACKET, libc::PACKET_AUXDATA) =>
            {
                AuxData::read_from_prefix(&control.data_bytes).ok()?.0.tag()
            }
            _ => None,
        });
        let length = message.bytes;
        let result = take_apart(&self.buffer[..length], &mut self.segments);
        if let Err(error) = &result {
            debug!("{}: a frame of the host is malformed: {error}", self.interface);
        }
        if truncated || result.is_err() {
            self.segments.clear();
            return Err(Incoming::Dropped(DropReason::Malformed));
        }
        if let Some(tag) = tag {
            let tagged = self.segments.iter_mut().filter(|segment| segment.len() >= TAG);
            tagged.for_each(|segment| drop(segment.splice(TAG..TAG, tag)));
        }
        Ok(())
    }

    fn follow_link(&mut self) -> Incoming {
        self.since_look = 0;
        while let Some(state) = self.links.next() {
            let was_up = std::mem::replace(&mut self.up, state == LinkState::Up);
            match state {
                LinkState::Up if !was_up => {
                    info!("{}: the interface is up", self.interface);
                    return Incoming::Connected;
                }
                LinkState::Gone => {
                    warn!("{}: the interface is gone", self.interface);
                    self.gone = true;
                    return if was_up {
                        Incoming::Disconnected
                    } else {
                        Incoming::Nothing
                    };
                }
                LinkState::Down if was_up => {
                    info!("{}: the interface is down", self.interface);
                    return Incoming::Disconnected;
                }
                LinkState::Up | LinkState::Down => {}
            }
        }
        Incoming::Nothing
    }
}

/// Discards what the socket has received so far, as often as the kernel has counted a frame: it may get more meanwhile.
fn discard(socket: &OwnedFd) -> io::Result<()> {
    let counts = getsockopt(socket, Counts)?;
    // Once more, as an interface that is down is an error that comes first. Other errors are of frames that are gone
    // then.
    for _ in 0..=counts.tp_packets.saturating_sub(counts.tp_drops) {
        let result = recv(socket.as_raw_fd(), &mut [], MsgFlags::MSG_TRUNC);
        if result == Err(nix::errno::Errno::EAGAIN) {
            break;
        }
    }
    Ok(())
}

fn open(address: &LinkAddr) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    setsockopt(&socket, IgnoreOutgoing, &true)?;
    setsockopt(&socket, VnetHeaders, &true)?;
    setsockopt(&socket, AuxDataOfFrames, &true)?;
    receive_buffer::enlarge(&socket)?;
    bind(socket.as_raw_fd(), address)?;
    let everything = libc::packet_mreq {
        mr_ifindex: address.ifindex() as i32,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    setsockopt(&socket, Membership, &everything)?;
    // A socket without protocol would receive nothing before, but could be given one by `bind` alone, with an address
    // that only unsafe code makes: that of `getifaddrs` has no protocol. Frames of other interfaces, and of this one
    // without the options, are in the queue.
    discard(&socket)?;
    Ok(socket)
}

impl Medium for PacketMedium {
    fn kind(&self) -> &'static str {
        "packet"
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (!self.gone).then(|| self.socket.as_fd())
    }

    fn state_descriptor(&self) -> Option<BorrowedFd<'_>> {
        (!self.gone).then(|| self.links.descriptor())
    }

    fn is_connected(&self) -> bool {
        self.up
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Incoming {
        if self.segments.is_empty() && self.since_look == LOOK_EVERY {
            let change = self.follow_link();
            if change != Incoming::Nothing {
                return change;
            }
        }
        if self.segments.is_empty() && !self.gone {
            self.since_look += 1;
            match self.take() {
                Ok(()) => {}
                Err(Incoming::Nothing) => return self.follow_link(),
                Err(other) => return other,
            }
        }
        match self.segments.pop_front() {
            Some(segment) => {
                *frame = segment;
                Incoming::Frame
            }
            None => Incoming::Nothing,
        }
    }

    fn send(&mut self, outgoing: &Outgoing) -> io::Result<bool> {
        let parts = [outgoing.header.as_bytes(), &outgoing.frame].map(IoSlice::new);
        match writev(&self.socket, &parts) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
