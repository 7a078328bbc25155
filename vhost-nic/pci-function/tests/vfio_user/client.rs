//! A vfio-user client whose every byte a test controls.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::MemfdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub const VERSION: u16 = 1;
pub const DMA_MAP: u16 = 2;
pub const DMA_UNMAP: u16 = 3;
pub const GET_INFO: u16 = 4;
pub const GET_REGION_INFO: u16 = 5;
pub const GET_REGION_IO_FDS: u16 = 6;
pub const GET_IRQ_INFO: u16 = 7;
pub const SET_IRQS: u16 = 8;
pub const REGION_READ: u16 = 9;
pub const REGION_WRITE: u16 = 10;
pub const RESET: u16 = 13;
pub const WRITE_MULTI: u16 = 15;

pub const NO_REPLY: u32 = 0x10;

pub const BAR0: u32 = 0;
pub const CONFIG: u32 = 7;

/// First message of QEMU 11.1.
pub const QEMU_PROPOSAL: &str = concat!(
    r#"{"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, "max_data_xfer_size": 1048576, "#,
    r#""migration": {"pgsize": 4096, "max_bitmap_size": 268435456}, "write_multiple": true}}"#
);

/// A reply: its payload, or the errno of a failed command.
pub type Reply = Result<Vec<u8>, u32>;

/// A client's end of a connection.
pub struct Client {
    pub stream: UnixStream,
    message_id: u16,
}

impl Client {
    /// A client before its first message, with a timeout.
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self {
            stream,
            message_id: 0x1230,
        }
    }

    /// Proposes a version, as QEMU does. Returns the answer's payload.
    pub fn negotiate(&mut self) -> Vec<u8> {
        self.call(VERSION, &version(0, 0, QEMU_PROPOSAL)).unwrap()
    }

    /// Sends bytes with descriptors.
    pub fn send_raw(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let sent = sendmsg(
            &self.stream,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
        .unwrap();
        self.stream.write_all(&bytes[sent..]).unwrap();
    }

    /// Sends a command without waiting for the reply. Returns the message ID.
    pub fn send(&mut self, command: u16, flags: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> u16 {
        self.message_id = self.message_id.wrapping_add(1);
        let bytes = message(self.message_id, command, flags, payload);
        self.send_raw(&bytes, fds);
        self.message_id
    }

    /// Sends a command that requests no reply.
    pub fn post(&mut self, command: u16, payload: &[u8]) {
        self.send(command, NO_REPLY, payload, &[]);
    }

    /// Sends a command and returns the reply.
    pub fn call(&mut self, command: u16, payload: &[u8]) -> Reply {
        self.call_with(command, payload, &[])
    }

    /// Sends a command with descriptors and returns the reply.
    pub fn call_with(&mut self, command: u16, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Reply {
        let id = self.send(command, 0, payload, fds);
        self.reply(id, command)
    }

    /// Receives the reply to a command; any other is a failure.
    pub fn reply(&mut self, id: u16, command: u16) -> Reply {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).unwrap();
        assert_eq!(header[..2], id.to_ne_bytes(), "the message ID");
        assert_eq!(header[2..4], command.to_ne_bytes(), "the command");
        let [size, flags, error] = [4, 8, 12].map(|at| u32_at(&header, at));
        let mut payload = vec![0; size as usize - 16];
        self.stream.read_exact(&mut payload).unwrap();
        match flags {
            1 => {
                assert_eq!(error, 0);
                Ok(payload)
            }
            0x21 => {
                assert!(payload.is_empty(), "an error has no payload");
                assert_ne!(error, 0, "an error has an errno");
                Err(error)
            }
            _ => panic!("a reply with flags {flags:#x}"),
        }
    }

    /// Whether the server has closed the connection; discards bytes sent before.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    pub fn read(&mut self, region: u32, offset: u64, count: u32) -> Reply {
        let access = access(region, offset, count, &[]);
        let reply = self.call(REGION_READ, &access)?;
        assert_eq!(reply[..16], access[..]);
        assert_eq!(reply.len(), 16 + count as usize);
        Ok(reply[16..].to_vec())
    }

    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Reply {
        self.call(REGION_WRITE, &access(region, offset, data.len() as u32, data))
    }

    /// SET_IRQS without data.
    pub fn set_irqs(&mut self, index: u32, flags: u32, start: u32, count: u32, fds: &[&OwnedFd]) -> Reply {
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        self.call_with(SET_IRQS, &words(&[20, flags, index, start, count]), &fds)
    }

    pub fn dma_map(&mut self, flags: u32, offset: u64, address: u64, size: u64, fds: &[BorrowedFd<'_>]) -> Reply {
        let payload = [words(&[32, flags]), longs(&[offset, address, size])].concat();
        self.call_with(DMA_MAP, &payload, fds)
    }

    pub fn dma_unmap(&mut self, flags: u32, address: u64, size: u64) -> Reply {
        self.call(DMA_UNMAP, &[words(&[24, flags]), longs(&[address, size])].concat())
    }
}

/// A message with header.
pub fn message(id: u16, command: u16, flags: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(id.to_ne_bytes());
    bytes.extend(command.to_ne_bytes());
    bytes.extend(words(&[16 + payload.len() as u32, flags, 0]));
    bytes.extend(payload);
    bytes
}

/// The payload of VERSION.
pub fn version(major: u16, minor: u16, capabilities: &str) -> Vec<u8> {
    let mut payload = [major.to_ne_bytes(), minor.to_ne_bytes()].concat();
    payload.extend(capabilities.bytes());
    payload.push(0);
    payload
}

/// The payload of REGION_READ and REGION_WRITE.
pub fn access(region: u32, offset: u64, count: u32, data: &[u8]) -> Vec<u8> {
    [longs(&[offset]), words(&[region, count]), data.to_vec()].concat()
}

pub fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

pub fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// An eventfd, as QEMU creates it.
pub fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// Takes the count of an eventfd.
pub fn events(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(eventfd, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(rustix::io::Errno::AGAIN) => 0,
        Err(error) => panic!("{error}"),
    }
}

/// A file of shareable memory.
pub fn memory(size: u64) -> std::fs::File {
    let file = std::fs::File::from(rustix::fs::memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(size).unwrap();
    file
}
