//! A listening UNIX stream socket for one peer at a time, in the format of QEMU's `-netdev stream`.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use log::{info, warn};

use super::join::Outgoing;
use super::length_prefix::{LengthPrefixed, append};
use super::medium::{DropReason, Incoming, Medium};

/// Bytes that are read at once.
const READ: usize = 64 << 10;
/// Bytes of frames that are written at once.
const WRITE: usize = 64 << 10;
/// Delay after a peer could not be accepted: the process has no descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A peer.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    incoming: LengthPrefixed,
    /// Bytes of frames to be written, from `written` on.
    outgoing: Vec<u8>,
    written: usize,
    /// Writing has failed: reading will say so, too, after what the peer has sent.
    broken: bool,
}

/// A listening socket. The next peer is accepted when the one before is gone.
#[derive(Debug)]
pub struct StreamMedium {
    name: String,
    listener: UnixListener,
    connection: Option<Connection>,
    buffer: Vec<u8>,
}

impl StreamMedium {
    /// Waits for peers on a listening socket; `name` is for the log.
    pub fn new(name: &str, listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            name: name.to_owned(),
            listener,
            connection: None,
            buffer: vec![0; READ],
        })
    }

    fn accept(&mut self) -> Incoming {
        let accepted = self.listener.accept().and_then(|(stream, _)| {
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        match accepted {
            Ok(stream) => {
                info!("{}: a peer has connected", self.name);
                self.connection = Some(Connection {
                    stream,
                    incoming: LengthPrefixed::default(),
                    outgoing: Vec::new(),
                    written: 0,
                    broken: false,
                });
                Incoming::Connected
            }
            Err(error) => {
                if error.kind() != ErrorKind::WouldBlock {
                    warn!("{}: cannot accept a peer: {error}", self.name);
                    // The listener stays readable, and the thread has nothing else to do.
                    thread::sleep(ACCEPT_RETRY);
                }
                Incoming::Nothing
            }
        }
    }

    fn disconnect(&mut self, why: &dyn std::fmt::Display) {
        info!("{}: the peer is gone: {why}", self.name);
        self.connection = None;
    }
}

impl Connection {
    /// Writes what is to be written. Returns whether nothing is left.
    fn flush(&mut self) -> bool {
        while self.written < self.outgoing.len() && !self.broken {
            match (&self.stream).write(&self.outgoing[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => self.broken = true,
            }
        }
        self.outgoing.clear();
        self.written = 0;
        true
    }
}

impl Medium for StreamMedium {
    fn kind(&self) -> &'static str {
        "stream"
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(match &self.connection {
            Some(connection) => connection.stream.as_fd(),
            None => self.listener.as_fd(),
        })
    }

    fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Incoming {
        loop {
            let Some(connection) = &mut self.connection else {
                return self.accept();
            };
            match connection.incoming.next_frame() {
                Ok(Some([])) => return Incoming::Dropped(DropReason::Malformed),
                Ok(Some(bytes)) => {
                    frame.clear();
                    frame.extend_from_slice(bytes);
                    return Incoming::Frame;
                }
                Ok(None) => {}
                Err(oversized) => {
                    self.disconnect(&oversized);
                    return Incoming::Confused;
                }
            }
            match (&connection.stream).read(&mut self.buffer) {
                Ok(0) => {
                    self.disconnect(&"end of stream");
                    return Incoming::Disconnected;
                }
                Ok(count) => connection.incoming.push(&self.buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Incoming::Nothing,
                Err(error) => {
                    self.disconnect(&error);
                    return Incoming::Disconnected;
                }
            }
        }
    }

    fn send(&mut self, outgoing: &Outgoing) -> io::Result<bool> {
        let Some(connection) = &mut self.connection else {
            return Err(ErrorKind::NotConnected.into());
        };
        if connection.outgoing.len() >= WRITE && !connection.flush() {
            return Ok(false);
        }
        append(&outgoing.frame, &mut connection.outgoing);
        Ok(true)
    }

    fn flush(&mut self) -> bool {
        self.connection.as_mut().is_none_or(Connection::flush)
    }
}
