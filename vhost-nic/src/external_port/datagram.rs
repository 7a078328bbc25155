//! A UNIX datagram socket, one frame per datagram: QEMU's `-netdev dgram`.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use super::join::Outgoing;
use super::length_prefix::MAX_LENGTH;
use super::medium::{DropReason, Incoming, Medium};

/// Time after which a peer that had no room is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// A bound socket and the address of the peer, which may come and go.
#[derive(Debug)]
pub struct DatagramMedium {
    socket: UnixDatagram,
    remote: PathBuf,
    buffer: Vec<u8>,
}

impl DatagramMedium {
    /// Exchanges frames with the socket at `remote`.
    pub fn new(socket: UnixDatagram, remote: PathBuf) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            remote,
            // One more, to tell a frame that is too long.
            buffer: vec![0; MAX_LENGTH + 1],
        })
    }
}

impl Medium for DatagramMedium {
    fn kind(&self) -> &'static str {
        "dgram"
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    /// Only a connected socket becomes writable when its peer has room, and it could not find the next peer: the
    /// sandbox lets no thread connect.
    fn retry(&self) -> Option<Duration> {
        Some(RETRY)
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Incoming {
        match self.socket.recv(&mut self.buffer) {
            Ok(length) if (1..=MAX_LENGTH).contains(&length) => {
                frame.clear();
                frame.extend_from_slice(&self.buffer[..length]);
                Incoming::Frame
            }
            Ok(_) => Incoming::Dropped(DropReason::Malformed),
            // Errors of a datagram socket are those of earlier datagrams.
            Err(_) => Incoming::Nothing,
        }
    }

    fn send(&mut self, outgoing: &Outgoing) -> io::Result<bool> {
        match self.socket.send_to(&outgoing.frame, &self.remote) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}
