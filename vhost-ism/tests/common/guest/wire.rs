//! What a driver sends and gets.

use vhost_ism::abi::*;
use zerocopy::{FromBytes, IntoBytes};

/// The device's answer when it is no.
pub type Refused = Status;

/// A DMB in a guest's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dmb {
    /// Its name.
    pub token: Token,
    /// Where it is.
    pub offset: u64,
    /// How long it is.
    pub size: u64,
}

/// What came over the event queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These chunks were rung.
    Doorbells(Vec<u32>),
    /// That guest is gone.
    PeerGone(Gid),
    /// Sender, code, info.
    Message(Gid, u32, u64),
    /// A buffer came back without an event: it was too small.
    Nothing,
}

/// A stretch of a control request.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Bytes the device reads.
    Ask(&'a [u8]),
    /// Room the device writes.
    Room(usize),
}

/// What became of a control request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The used length.
    pub used: usize,
    /// All of the room.
    pub room: Vec<u8>,
}

impl Answer {
    /// What was written.
    pub fn written(&self) -> &[u8] {
        &self.room[..self.used]
    }

    /// The status, if one was written.
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
    /// The next one.
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

/// A request's bytes.
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
        other => panic!("an event of type {other:#x}"),
    }
}
