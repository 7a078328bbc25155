//! State of a network interface, by the notifications of the kernel (rtnetlink).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily as LinkFamily, RouteNetlinkMessage};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, sendto, socket_with};

/// `RTMGRP_LINK` (`include/uapi/linux/rtnetlink.h`).
const GROUP_LINK: u32 = 1;
/// The kernel's port.
const KERNEL: u32 = 0;
/// Bytes of a datagram; the kernel makes none of more than 32 KiB.
const DATAGRAM: usize = 32 << 10;

/// State of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// It passes frames.
    Up,
    /// It is down, or has no carrier.
    Down,
    /// It has been deleted, or is in another network namespace.
    Gone,
}

impl LinkState {
    fn of(flags: LinkFlags) -> Self {
        match flags.contains(LinkFlags::Up | LinkFlags::Running) {
            true => Self::Up,
            false => Self::Down,
        }
    }
}

/// A socket for the notifications about all interfaces, of which those about one count.
#[derive(Debug)]
pub(super) struct LinkWatch {
    socket: OwnedFd,
    index: u32,
    buffer: Vec<u8>,
}

impl LinkWatch {
    /// Watches the interface of an index. Its present state is the first that [`next`](Self::next) returns.
    pub fn new(index: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // NETLINK_ROUTE is protocol 0.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP_LINK))?;
        let watch = Self {
            socket,
            index,
            buffer: vec![0; DATAGRAM],
        };
        watch.ask()?;
        Ok(watch)
    }

    /// Descriptor that becomes readable when there may be another state.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Asks for the present state.
    fn ask(&self) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = self.index;
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetLink(link));
        message.header.flags = NLM_F_REQUEST;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        sendto(
            &self.socket,
            &bytes,
            SendFlags::empty(),
            &SocketAddrNetlink::new(KERNEL, 0),
        )?;
        Ok(())
    }

    /// Returns the next state that the kernel has reported, which may be the same as before; `None` for now if there is
    /// none.
    pub fn next(&mut self) -> Option<LinkState> {
        loop {
            match recvfrom(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((length, _, source)) => {
                    let source = source.and_then(|source| SocketAddrNetlink::try_from(source).ok());
                    // Any process may send to the socket.
                    if source.is_none_or(|source| source.pid() != KERNEL) {
                        continue;
                    }
                    if let Some(state) = last_state(&self.buffer[..length], self.index) {
                        return Some(state);
                    }
                }
                // Notifications are lost.
                Err(Errno::NOBUFS) => self.ask().ok()?,
                Err(_) => return None,
            }
        }
    }
}

/// Last state of an interface in a datagram.
fn last_state(mut datagram: &[u8], index: u32) -> Option<LinkState> {
    let mut state = None;
    while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) {
        let length = (message.header.length as usize).next_multiple_of(4);
        // A bridge reports its ports as links of its own family.
        let own = |link: &LinkMessage| link.header.index == index && link.header.interface_family == LinkFamily::Unspec;
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) if own(&link) => {
                state = Some(LinkState::of(link.header.flags));
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) if own(&link) => {
                state = Some(LinkState::Gone);
            }
            // Of a request: there is no such interface.
            NetlinkPayload::Error(error) if error.raw_code() == -Errno::NODEV.raw_os_error() => {
                state = Some(LinkState::Gone);
            }
            _ => {}
        }
        match datagram.get(length..) {
            Some(rest) if length > 0 => datagram = rest,
            _ => break,
        }
    }
    state
}
