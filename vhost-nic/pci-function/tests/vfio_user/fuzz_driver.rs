//! Turns bytes into messages of a client, with a model of the replies.
//!
//! Shared by the fuzz target and a test that needs no fuzzer.

use std::io::{ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pci_function::attachment::vfio_user::{VfioUserStats, serve_stream};
use pci_function::{Device, PciFunction};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::common::{FunctionParts, Purpose, spec};

/// A device that raises interrupts and accesses memory at the client's request.
struct Busy(FunctionParts);

impl Device for Busy {
    fn read(&self, offset: u64, data: &mut [u8]) {
        // A wild address is what a guest may well give.
        let _ = self.0.dma.read(Purpose::Gather, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let _ = self.0.dma.write(Purpose::Scatter, offset, data);
        self.0.msix.raise(offset as u16 % 40);
    }

    fn reset(&self) {}
}

/// Result of one run.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Messages sent.
    pub messages: u64,
    /// Replies without an error.
    pub successes: u64,
}

/// Fuzzer input, followed by zeros.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let length = N.min(self.0.len());
        taken[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        taken
    }

    fn u8(&mut self) -> u8 {
        u8::from_ne_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }

    /// Mostly one of the given values.
    fn pick(&mut self, values: &[u64]) -> u64 {
        match self.u8() {
            255 => self.u64(),
            byte => values[usize::from(byte) % values.len()].wrapping_add(u64::from(byte / 250)),
        }
    }

    fn rest(&mut self, length: usize) -> Vec<u8> {
        let length = length.min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken.to_vec()
    }
}

/// A message: command, payload, and number of descriptors.
fn compose(bytes: &mut Bytes<'_>) -> (u16, Vec<u8>, usize) {
    let addresses = [0, 0x1000, 0x2000, 0x3000, 0x10_0000, u64::MAX - 0xfff];
    let lengths = [0, 1, 4, 8, 0x1000, 0x2000, 0x4000, 0x1_0000];
    let offsets = [
        0, 4, 0x68, 0x9c, 0xc4, 0x2000, 0x200c, 0x21fc, 0x3000, 0x1_0800, 0xff_fff8,
    ];
    let mut payload = Vec::new();
    let mut word = |value: u64| payload.extend_from_slice(&(value as u32).to_ne_bytes());
    let (command, fds) = match bytes.u8() % 16 {
        0 => {
            word(32);
            word(bytes.pick(&[1, 3, 3, 3]));
            for value in [
                bytes.pick(&[0, 0, 0x1000]),
                bytes.pick(&addresses),
                bytes.pick(&lengths),
            ] {
                payload.extend_from_slice(&value.to_ne_bytes());
            }
            (2, bytes.pick(&[0, 1, 1, 1, 2]) as usize % 20)
        }
        1 => {
            word(24);
            word(bytes.pick(&[0, 0, 0, 2]));
            for value in [bytes.pick(&addresses), bytes.pick(&lengths)] {
                payload.extend_from_slice(&value.to_ne_bytes());
            }
            (3, 0)
        }
        2 => {
            word(bytes.pick(&[16, 32]));
            (0..3).for_each(|_| word(0));
            (4, 0)
        }
        3 => {
            word(32);
            word(0);
            word(bytes.pick(&[0, 1, 6, 7, 8, 9]));
            (0..5).for_each(|_| word(0));
            (5, 0)
        }
        4 => {
            for value in [16, 0, bytes.pick(&[0, 1, 2, 3, 4, 5]), 0] {
                word(value);
            }
            (7, 0)
        }
        5..=7 => {
            word(20);
            word(bytes.pick(&[0x21, 0x24, 0x24, 0x24, 0x09, 0x11, 0x0a, 0x12, 0x22]));
            word(bytes.pick(&[0, 2, 2, 2, 2, 3, 4, 5]));
            word(bytes.pick(&[0, 0, 1, 2, 16, 31, 32]));
            let count = bytes.pick(&[0, 1, 2, 4, 16, 32]);
            word(count);
            let length = bytes.u8() % 40;
            let data = bytes.rest(length.into());
            payload.extend(data);
            (8, bytes.pick(&[0, 0, count, count, count, 1]) as usize % 20)
        }
        8 | 9 => {
            payload.extend(bytes.pick(&offsets).to_ne_bytes());
            payload.extend((bytes.pick(&[0, 7, 7, 1]) as u32).to_ne_bytes());
            payload.extend((bytes.pick(&lengths) as u32).to_ne_bytes());
            (9, 0)
        }
        10..=12 => {
            let count = bytes.pick(&[1, 2, 4, 8, 8, 24, 200]) as usize % 300;
            payload.extend(bytes.pick(&offsets).to_ne_bytes());
            payload.extend((bytes.pick(&[0, 7, 7, 1]) as u32).to_ne_bytes());
            payload.extend((count as u32).to_ne_bytes());
            payload.extend(bytes.rest(count));
            (10, 0)
        }
        13 => (13, 0),
        14 => {
            let count = bytes.pick(&[0, 1, 2, 5]);
            payload.extend(count.to_ne_bytes());
            for _ in 0..count.min(10) {
                payload.extend(bytes.pick(&offsets).to_ne_bytes());
                payload.extend((bytes.pick(&[0, 7]) as u32).to_ne_bytes());
                payload.extend((bytes.pick(&[1, 4, 8, 9]) as u32).to_ne_bytes());
                payload.extend(bytes.take::<8>());
            }
            (15, 0)
        }
        _ => {
            let length = bytes.u8();
            let payload = bytes.rest(length.into());
            return (bytes.u32() as u16, payload, usize::from(bytes.u8() % 20));
        }
    };
    (command, payload, fds)
}

/// Runs a client until the input is used up or the server closes the connection.
pub fn run(input: &[u8]) -> Tally {
    let parts = FunctionParts::new(32);
    let function = Arc::new(PciFunction::new(spec(), parts.clone(), Arc::new(Busy(parts))));
    let (stream, ours) = UnixStream::pair().expect("a pair of sockets");
    let server = thread::spawn(move || serve_stream("fuzz", &ours, &function, &VfioUserStats::default()));
    let tally = converse(&mut Bytes(input), stream);
    server.join().expect("the server survives whatever it is sent");
    tally
}

fn converse(bytes: &mut Bytes<'_>, mut stream: UnixStream) -> Tally {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a time limit");
    let memory: OwnedFd = memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("memory");
    ftruncate(&memory, 0x4000).expect("memory");
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd");
    let mut tally = Tally::default();
    let mut first = true;
    while !bytes.0.is_empty() || first {
        let shape = bytes.u8();
        let (command, payload, fds) = if first {
            (
                1,
                [&[0; 4][..], br#"{"capabilities":{"write_multiple":true}}"#].concat(),
                0,
            )
        } else {
            compose(bytes)
        };
        let no_reply = shape & 3 == 3 && !first;
        let mut size = 16 + payload.len() as u32;
        let honest = shape < 254 || first;
        if !honest {
            size = bytes.u32() >> (bytes.u8() % 32);
        }
        let id = tally.messages as u16;
        let mut message = [id.to_ne_bytes(), command.to_ne_bytes()].concat();
        for value in [size, if no_reply { 0x10 } else { 0 }, 0] {
            message.extend(value.to_ne_bytes());
        }
        message.extend(&payload);
        let fds = vec![if command == 2 { memory.as_fd() } else { event.as_fd() }; fds];
        tally.messages += 1;
        if !send(&stream, &message, &fds) {
            return tally;
        }
        if !honest {
            // From here on the server cannot tell where a message begins.
            send(&stream, &bytes.rest(4096), &[]);
            return tally;
        }
        if !no_reply {
            match reply(&mut stream, id, command) {
                Some(success) => tally.successes += u64::from(success),
                None => panic!("message {id}, command {command}, {} bytes: no reply", message.len()),
            }
        }
        first = false;
    }
    tally
}

fn send(stream: &UnixStream, bytes: &[u8], fds: &[std::os::fd::BorrowedFd<'_>]) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
    }
    sendmsg(stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).is_ok()
}

/// Whether the command succeeded; `None` if the connection has ended.
fn reply(stream: &mut UnixStream, id: u16, command: u16) -> Option<bool> {
    let mut header = [0; 16];
    match stream.read_exact(&mut header) {
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
        result => result.expect("a reply in time"),
    }
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    assert_eq!(word(0), u32::from(command) << 16 | u32::from(id));
    let mut payload = vec![0; word(4) as usize - 16];
    stream.read_exact(&mut payload).expect("the payload of a reply");
    match word(8) {
        1 => Some(true),
        0x21 => {
            assert!(payload.is_empty() && word(12) != 0);
            Some(false)
        }
        flags => panic!("a reply with flags {flags:#x}"),
    }
}
