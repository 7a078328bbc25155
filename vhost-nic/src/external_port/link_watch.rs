//! State of a network interface, by the notifications of the kernel (rtnetlink).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, sendto, socket_with};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The kernel's port.
const KERNEL: u32 = 0;
/// Bytes of a datagram that are kept; the head of a message is all that counts.
const DATAGRAM: usize = 32 << 10;
/// `NLMSG_ERROR`, of the width of its field.
const ERROR: u16 = libc::NLMSG_ERROR as u16;
/// `NLMSG_ALIGNTO`: messages begin at multiples of it, in bytes.
const ALIGNMENT: usize = 4;
/// Flags of an interface that passes frames.
const PASSES: u32 = (libc::IFF_UP | libc::IFF_RUNNING) as u32;

/// `struct nlmsghdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct MessageHeader {
    /// Length of the message with this header, in bytes.
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

const _: () = assert!(size_of::<MessageHeader>() == size_of::<libc::nlmsghdr>());

/// `struct ifinfomsg`. The attributes after it are not read: kernels add some.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct LinkInfo {
    family: u8,
    padding: u8,
    hardware: u16,
    index: i32,
    flags: u32,
    change: u32,
}

const _: () = assert!(size_of::<LinkInfo>() == size_of::<libc::ifinfomsg>());

/// `RTM_GETLINK` for one interface.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Request {
    header: MessageHeader,
    link: LinkInfo,
}

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
    fn of(flags: u32) -> Self {
        match flags & PASSES == PASSES {
            true => Self::Up,
            false => Self::Down,
        }
    }
}

/// A socket for the notifications about all interfaces, of which those about one count.
#[derive(Debug)]
pub(super) struct LinkWatch {
    socket: OwnedFd,
    index: i32,
    buffer: Vec<u8>,
    /// Notifications are lost, and the present state has not been asked for since.
    lost: bool,
}

impl LinkWatch {
    /// Watches the interface of an index. Its present state is the first that [`next`](Self::next) returns.
    pub fn new(index: i32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // NETLINK_ROUTE is protocol 0.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, libc::RTMGRP_LINK as u32))?;
        let watch = Self {
            socket,
            index,
            buffer: vec![0; DATAGRAM],
            lost: false,
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
        let request = Request {
            header: MessageHeader {
                length: size_of::<Request>() as u32,
                kind: libc::RTM_GETLINK,
                flags: libc::NLM_F_REQUEST as u16,
                sequence: 0,
                port: 0,
            },
            link: LinkInfo {
                index: self.index,
                ..LinkInfo::default()
            },
        };
        let kernel = SocketAddrNetlink::new(KERNEL, 0);
        sendto(&self.socket, request.as_bytes(), SendFlags::empty(), &kernel)?;
        Ok(())
    }

    /// Returns the next state that the kernel has reported, which may be the same as before; `None` for now if there is
    /// none.
    pub fn next(&mut self) -> Option<LinkState> {
        loop {
            match recvfrom(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((length, _, source)) => {
                    let source = source.and_then(|source| SocketAddrNetlink::try_from(source).ok());
                    // A process with CAP_NET_ADMIN may send to the socket, too.
                    if source.is_none_or(|source| source.pid() != KERNEL) {
                        continue;
                    }
                    if let Some(state) = last_state(&self.buffer[..length], self.index) {
                        return Some(state);
                    }
                }
                Err(Errno::NOBUFS) => self.lost = true,
                // The answer needs room in the buffer: it would be lost as well before all else is read.
                Err(Errno::AGAIN) if self.lost => {
                    self.ask().ok()?;
                    self.lost = false;
                }
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

/// Last state of an interface in a datagram.
fn last_state(mut datagram: &[u8], index: i32) -> Option<LinkState> {
    let mut state = None;
    while let Ok((header, rest)) = MessageHeader::read_from_prefix(datagram) {
        let length = header.length as usize;
        let Some(body) = length.checked_sub(size_of::<MessageHeader>()) else {
            break;
        };
        let body = &rest[..body.min(rest.len())];
        // A bridge reports its ports as links of its own family.
        let own = LinkInfo::read_from_prefix(body)
            .ok()
            .map(|(link, _)| link)
            .filter(|link| link.index == index && i32::from(link.family) == libc::AF_UNSPEC);
        match (header.kind, own) {
            (libc::RTM_NEWLINK, Some(link)) => state = Some(LinkState::of(link.flags)),
            (libc::RTM_DELLINK, Some(_)) => state = Some(LinkState::Gone),
            // Of a request: there is no such interface.
            (ERROR, _) if i32::read_from_prefix(body).is_ok_and(|(error, _)| error == -libc::ENODEV) => {
                state = Some(LinkState::Gone);
            }
            _ => {}
        }
        datagram = datagram.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: i32 = 7;

    /// A message of a kind, with a length field of its own.
    fn message_of_length(length: usize, kind: u16, body: &[u8]) -> Vec<u8> {
        let header = MessageHeader {
            length: length as u32,
            kind,
            flags: 0,
            sequence: 0,
            port: 0,
        };
        [header.as_bytes(), body].concat()
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        message_of_length(size_of::<MessageHeader>() + body.len(), kind, body)
    }

    /// About an interface, with an attribute that no kernel has.
    fn link(kind: u16, family: i32, index: i32, flags: i32) -> Vec<u8> {
        let link = LinkInfo {
            family: family as u8,
            index,
            flags: flags as u32,
            ..LinkInfo::default()
        };
        message(kind, &[link.as_bytes(), &[8, 0, 0xff, 0x3f, 1, 2, 3, 4]].concat())
    }

    fn new(index: i32, flags: i32) -> Vec<u8> {
        link(libc::RTM_NEWLINK, libc::AF_UNSPEC, index, flags)
    }

    fn error(code: i32) -> Vec<u8> {
        message(ERROR, &[&code.to_ne_bytes()[..], &[0; 16]].concat())
    }

    const UP: i32 = libc::IFF_UP | libc::IFF_RUNNING;

    #[test]
    fn a_message_about_the_interface_is_its_state() {
        let state = |datagram: &[u8]| last_state(datagram, INDEX);
        assert_eq!(state(&new(INDEX, UP | libc::IFF_PROMISC)), Some(LinkState::Up));
        for flags in [0, libc::IFF_UP, libc::IFF_RUNNING] {
            assert_eq!(state(&new(INDEX, flags)), Some(LinkState::Down), "{flags:#x}");
        }
        let deleted = link(libc::RTM_DELLINK, libc::AF_UNSPEC, INDEX, UP);
        assert_eq!(state(&deleted), Some(LinkState::Gone));
        assert_eq!(state(&error(-libc::ENODEV)), Some(LinkState::Gone));
    }

    #[test]
    fn other_messages_are_no_state() {
        let others = [
            new(INDEX + 1, UP),
            link(libc::RTM_NEWLINK, libc::AF_BRIDGE, INDEX, UP),
            link(libc::RTM_DELLINK, libc::AF_BRIDGE, INDEX, 0),
            link(libc::RTM_GETLINK, libc::AF_UNSPEC, INDEX, UP),
            error(0),
            error(-libc::EPERM),
            error(libc::ENODEV),
        ];
        for other in others {
            assert_eq!(last_state(&other, INDEX), None, "{other:02x?}");
        }
    }

    #[test]
    fn the_last_of_several_messages_counts() {
        let messages = [
            new(INDEX, UP),
            // Padded to four bytes.
            [message(0xffff, &[1]), vec![0; 3]].concat(),
            new(INDEX, 0),
            new(INDEX + 1, UP),
        ];
        assert_eq!(last_state(&messages.concat(), INDEX), Some(LinkState::Down));
        assert_eq!(last_state(&messages[..2].concat(), INDEX), Some(LinkState::Up));
    }

    #[test]
    fn a_message_that_is_cut_off_counts_as_far_as_its_head_is_there() {
        let up = new(INDEX, UP);
        for end in 0..=up.len() {
            let expected = (end >= size_of::<Request>()).then_some(LinkState::Up);
            assert_eq!(last_state(&up[..end], INDEX), expected, "{end} bytes");
        }
        let body = &up[size_of::<MessageHeader>()..];
        // The body ends where its length says.
        for length in 0..size_of::<Request>() {
            let short = message_of_length(length, libc::RTM_NEWLINK, body);
            assert_eq!(last_state(&short, INDEX), None, "a length of {length}");
        }
        let endless = message_of_length(u32::MAX as usize, libc::RTM_NEWLINK, body);
        assert_eq!(last_state(&endless, INDEX), Some(LinkState::Up));
    }
}
