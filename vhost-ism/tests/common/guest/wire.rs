//! Requests, answers and events as a driver sees them.

use vhost_ism::abi::*;
use zerocopy::{FromBytes, IntoBytes};

/// Status of a refused request.
pub type Refused = Status;

/// A DMB in a guest's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dmb {
    /// Token of the DMB.
    pub token: Token,
    /// Offset in the window.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Doorbells of these chunks.
    Doorbells(Vec<u32>),
    /// Departure of this guest.
    PeerGone(Gid),
    /// Message: sender, code, info.
    Message(Gid, u32, u64),
    /// Ring of a DMB: its offset, the device that rang.
    Update(u64, u64),
    /// Attachment of a DMB: its offset, the device, the number of attachers.
    Attach(u64, u64, u64),
    /// Detachment, with the same.
    Detach(u64, u64, u64),
    /// A buffer returned without an event, too small for it.
    Nothing,
}

/// A part of a control request.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Bytes the device reads.
    Ask(&'a [u8]),
    /// Number of bytes the device may write.
    Room(usize),
}

/// The answer to a control request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The used length.
    pub used: usize,
    /// The writable bytes.
    pub room: Vec<u8>,
}

impl Answer {
    /// Returns the bytes written.
    pub fn written(&self) -> &[u8] {
        &self.room[..self.used]
    }

    /// Returns the status, if one was written.
    pub fn status(&self) -> Option<Status> {
        self.written().first().map(|byte| status(*byte))
    }
}

/// A raw descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Desc {
    /// Guest address.
    pub addr: u64,
    /// Length.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// Index of the next descriptor.
    pub next: u16,
}

/// Decodes a status byte.
#[track_caller]
pub fn status(byte: u8) -> Status {
    [
        Status::Ok,
        Status::NoEnt,
        Status::TooBig,
        Status::NoMem,
        Status::NoSpc,
        Status::PermAttach,
        Status::PermRead,
        Status::PermWrite,
        Status::Err,
    ]
    .into_iter()
    .find(|status| *status as u8 == byte)
    .unwrap_or_else(|| panic!("{byte} is no status"))
}

/// Encodes a request.
pub fn encode(command: (u8, u8), body: &(impl IntoBytes + zerocopy::Immutable + ?Sized)) -> Vec<u8> {
    let mut bytes = vec![command.0, command.1];
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

/// Decodes an event.
#[track_caller]
pub fn parse_event(bytes: &[u8]) -> Event {
    let Some(ev_type) = bytes.first_chunk::<8>() else {
        assert!(bytes.is_empty(), "an event of {} bytes", bytes.len());
        return Event::Nothing;
    };
    match u64::from_le_bytes(*ev_type) {
        EV_DOORBELLS => {
            let (head, rest) = DoorbellsEvent::read_from_prefix(bytes).unwrap();
            assert_eq!(rest.len(), 4 * head.count.get() as usize);
            assert_eq!(head.reserved.get(), 0);
            let chunk = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
            Event::Doorbells(rest.chunks(4).map(chunk).collect())
        }
        EV_PEER_GONE => Event::PeerGone(PeerGoneEvent::read_from_bytes(bytes).unwrap().gid),
        EV_MESSAGE => {
            let message = MessageEvent::read_from_bytes(bytes).unwrap();
            assert_eq!(message.reserved.get(), 0);
            Event::Message(message.gid, message.code.get(), message.info.get())
        }
        EV_UPDATE => {
            let update = UpdateEvent::read_from_bytes(bytes).unwrap();
            Event::Update(update.offset.get(), update.devid.get())
        }
        ev_type @ (EV_ATTACH | EV_DETACH) => {
            let event = AttachDetachEvent::read_from_bytes(bytes).unwrap();
            let (offset, devid, peers) = (event.offset.get(), event.devid.get(), event.peers.get());
            match ev_type {
                EV_ATTACH => Event::Attach(offset, devid, peers),
                _ => Event::Detach(offset, devid, peers),
            }
        }
        other => panic!("an event of type {other:#x}"),
    }
}
