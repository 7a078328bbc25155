//! Messages from a stream, several per system call, with the file descriptors of each.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use zerocopy::FromBytes;

use super::version::{MAX_MESSAGE, MAX_MSG_FDS};
use super::wire::Header;

/// Maximum bytes received by one system call: hundreds of doorbells.
const BUFFER_SIZE: usize = 2 * MAX_MESSAGE;

/// Maximum number of descriptors in a message (SCM_MAX_FD of the kernel): all are received, so that each gets closed.
const DESCRIPTORS: usize = 253;

/// Receiving direction of a connection.
pub struct Receiver<'a> {
    stream: &'a UnixStream,
    buffer: Box<[u8]>,
    /// Bytes received and not yet returned are in the buffer from `start` to `end`.
    start: usize,
    end: usize,
    /// Position of `start` in the stream.
    taken: u64,
    /// Descriptors received and not yet returned, each with the end of its system call as a position in the stream.
    descriptors: VecDeque<(u64, OwnedFd)>,
    /// The same position for descriptors that were dropped.
    lost: Option<u64>,
}

/// A message.
pub struct Message<'a> {
    /// Header of the message.
    pub header: Header,
    /// Bytes behind the header.
    pub payload: &'a [u8],
}

/// The descriptors of one message.
#[derive(Default)]
pub struct Descriptors {
    /// In the order they were sent.
    pub fds: Vec<OwnedFd>,
    /// Whether there were more than [`MAX_MSG_FDS`].
    pub lost: bool,
}

impl<'a> Receiver<'a> {
    /// Creates a receiver at the start of a stream.
    pub fn new(stream: &'a UnixStream) -> Self {
        Self {
            stream,
            buffer: vec![0; BUFFER_SIZE].into(),
            start: 0,
            end: 0,
            taken: 0,
            descriptors: VecDeque::new(),
            lost: None,
        }
    }

    /// Waits for the next message. Returns `None` if the stream ends between two messages.
    pub fn next(&mut self, descriptors: &mut Descriptors) -> io::Result<Option<Message<'_>>> {
        descriptors.fds.clear();
        descriptors.lost = false;
        if !self.fill(size_of::<Header>())? {
            return Ok(None);
        }
        let header = Header::read_from_prefix(&self.buffer[self.start..self.end])
            .map_err(|_| io::ErrorKind::UnexpectedEof)?
            .0;
        let size = header.message_size.get() as usize;
        if !(size_of::<Header>()..=MAX_MESSAGE).contains(&size) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("message of {size} bytes"),
            ));
        }
        self.fill(size)?;
        let from = self.start + size_of::<Header>();
        self.start += size;
        self.taken += size as u64;
        // A call returns the descriptors of one message at most, and no byte behind that message: they belong to the
        // last message that the call has returned bytes of.
        while self
            .descriptors
            .front()
            .is_some_and(|(position, _)| *position <= self.taken)
        {
            descriptors.fds.extend(self.descriptors.pop_front().map(|(_, fd)| fd));
        }
        if self.lost.is_some_and(|position| position <= self.taken) {
            self.lost = None;
            descriptors.lost = true;
        }
        descriptors.lost |= descriptors.fds.len() > MAX_MSG_FDS;
        Ok(Some(Message {
            header,
            payload: &self.buffer[from..self.start],
        }))
    }

    /// Receives until the buffer holds `length` bytes. Returns false if the stream has ended between two messages.
    fn fill(&mut self, length: usize) -> io::Result<bool> {
        while self.end - self.start < length {
            if self.start + length > BUFFER_SIZE || self.start == self.end {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.receive()? == 0 {
                return if self.start == self.end {
                    Ok(false)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
        Ok(true)
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut free = [IoSliceMut::new(&mut self.buffer[self.end..])];
        let received = loop {
            match recvmsg(self.stream, &mut free, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(0),
                result => break result?,
            }
        };
        self.end += received.bytes;
        let position = self.taken + (self.end - self.start) as u64;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                // The descriptors of a message that has begun are kept, and these, which may belong to the next one.
                // Others are closed: every part of a message can carry some, and a client could exhaust the process's
                // descriptor table.
                for fd in fds {
                    if self.descriptors.len() < 2 * MAX_MSG_FDS {
                        self.descriptors.push_back((position, fd));
                    } else {
                        self.lost = Some(position);
                    }
                }
            }
        }
        // The descriptor table of this process is full.
        if received.flags.contains(ReturnFlags::CTRUNC) {
            self.lost = Some(position);
        }
        Ok(received.bytes)
    }
}

#[cfg(test)]
mod tests;
