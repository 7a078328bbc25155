//! Control requests: decoding, execution on fabric and session, encoding of the answer.

use std::time::Instant;
use std::{io, thread};

use log::debug;
use vhost_daemon::finding::Object;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::abi::*;
use crate::door::RequestFate;
use crate::fabric::{Detached, Placement, Refusal};
use crate::guest::Session;
use crate::ism_event::{IsmEvent, nanoseconds};
use crate::ism_finding::Finding;
use crate::tape::GuestTape;

/// Upper limit on the length of a request in bytes; every valid one is shorter.
pub const MAX_REQUEST: usize = 64;

/// The reply, which follows the status.
#[derive(Debug)]
enum Reply {
    None,
    Alloc(Token, Areas),
    Attach(Areas),
    Slab(SlabReply),
}

/// The areas of a DMB.
#[derive(Debug)]
enum Areas {
    List(Vec<Area>),
    /// Their number alone, for which there is no room.
    Number(u64),
}

impl Areas {
    fn append(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::List(areas) => {
                bytes.extend_from_slice(&(areas.len() as u64).to_le_bytes());
                bytes.extend_from_slice(areas.as_bytes());
            }
            Self::Number(number) => bytes.extend_from_slice(&number.to_le_bytes()),
        }
    }
}

impl Reply {
    fn append(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Alloc(token, areas) => {
                bytes.extend_from_slice(token.as_bytes());
                areas.append(bytes);
            }
            Self::Attach(areas) => areas.append(bytes),
            Self::Slab(reply) => bytes.extend_from_slice(reply.as_bytes()),
        }
    }
}

/// The answer to a request with another status than OK.
#[derive(Debug)]
pub(crate) struct Failure {
    pub status: Status,
    /// Mistake of the guest, if it is one.
    finding: Option<Finding>,
    /// The number of areas, with E2BIG.
    reply: Reply,
}

impl Failure {
    fn new(status: Status, finding: Option<Finding>) -> Self {
        let reply = Reply::None;
        Self { status, finding, reply }
    }
}

/// A refusal of what the guest asks for.
impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::new(status, (status == Status::Err).then_some(Finding::BadRequest))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        use {Finding as F, Status as S};
        let (status, finding) = match refusal {
            Refusal::NoSuchDmb => (S::NoEnt, Some(F::UnknownToken)),
            Refusal::NoSuchPeer | Refusal::Broken => (S::NoEnt, None),
            Refusal::Invalid => (S::Err, Some(F::BadRequest)),
            Refusal::Outside => (S::Err, Some(F::MoveOutside)),
            Refusal::Attach => (S::PermAttach, Some(F::AttachDenied)),
            Refusal::Read => (S::PermRead, Some(F::AttachDenied)),
            Refusal::Write => (S::PermWrite, Some(F::AttachDenied)),
            Refusal::Areas(_) => (S::TooBig, None),
            Refusal::Full => (S::NoSpc, None),
            Refusal::NoMemory => (S::NoMem, None),
        };
        Self::new(status, finding)
    }
}

/// A failure of the VMM to map, which the guest cannot influence.
impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::new(Status::Err, None)
    }
}

/// Executes one request and returns the answer: status, then reply. Of one that could not be read or is longer than
/// [`MAX_REQUEST`], `request` is the descriptor; `room` is the number of bytes that the answer may have, at least 1.
pub fn answer(session: &Session, request: Result<&[u8], &[u8]>, room: usize) -> Vec<u8> {
    session.stats().counters.requests.increment();
    let (status, reply) = match observe(session, request, |request| execute(session, request, room)) {
        Ok(reply) => (Status::Ok, reply),
        Err(Failure { status, reply, .. }) => (status, reply),
    };
    let mut bytes = vec![status as u8];
    reply.append(&mut bytes);
    // The number of areas is left out, too, where there is no room for it.
    if bytes.len() > room {
        bytes.truncate(1);
    }
    bytes
}

/// Executes a request behind the door of its guest; counts and traces the answer, and reports a mistake of the guest.
/// Of one that could not be read, `request` is the descriptor.
pub(crate) fn observe<T>(
    session: &Session,
    request: Result<&[u8], &[u8]>,
    execute: impl FnOnce(&[u8]) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let stats = session.stats();
    let (Ok(evidence) | Err(evidence)) = request;
    let request = request.ok();
    let begun = stats.tracer.is_on().then(Instant::now);
    stats.tracer.record(IsmEvent::Arrival, 0, || [traced(request), 0, 0, 0]);
    let result = match (request, fate(session, request)) {
        (None, _) => Err(Status::Err.into()),
        (Some(_), RequestFate::Refused(status)) => Err(Failure::new(status, None)),
        (Some(request), fate) => {
            let result = execute(request);
            if let RequestFate::Late(delay) = fate {
                match stats.tape() {
                    None => thread::sleep(delay),
                    Some(GuestTape { tape, .. }) => tape.sleep(delay),
                }
            }
            result
        }
    };
    if let Err(Failure { status, finding, .. }) = &result {
        stats.counters.refusals.increment();
        if let Some(kind) = *finding {
            let text = format_args!("{}: {status:?}", kind.text());
            let object = object(request);
            match kind {
                Finding::UnknownToken => session.report_unknown(kind, object, evidence, text),
                _ => stats.report_with(kind, object, evidence, text),
            }
        }
        debug!("{}: request {evidence:02x?} refused: {status:?}", stats.guest());
    }
    if let Some(begun) = begun {
        let status = result.as_ref().err().map_or(Status::Ok, |failure| failure.status);
        let arguments = || [traced(request), status as u32, nanoseconds(begun.elapsed()), 0];
        stats.tracer.record(IsmEvent::Request, 0, arguments);
    }
    result
}

/// Returns class and command of a request, as an argument of an event.
fn traced(request: Option<&[u8]>) -> u32 {
    let header = request.and_then(<[u8]>::first_chunk);
    header.map_or(0, |header| u16::from_be_bytes(*header).into())
}

/// Returns the queue that a request came by, as the object of a finding.
fn object(request: Option<&[u8]>) -> Object {
    let is_move = request.is_some_and(|request| request.starts_with(&[CMD_MOVE.0, CMD_MOVE.1]));
    Object::new("virtqueue", if is_move { MOVE_QUEUE } else { CONTROL_QUEUE }.into())
}

/// Asks the door what becomes of a request.
fn fate(session: &Session, request: Option<&[u8]>) -> RequestFate {
    match (session.stats().door(), request) {
        (Some(door), Some(&[class, command, ..])) => door.request((class, command)),
        _ => RequestFate::Answered,
    }
}

fn execute(session: &Session, request: &[u8], room: usize) -> Result<Reply, Failure> {
    session.settle_window()?;
    let (header, body) = RequestHeader::read_from_prefix(request).map_err(|_| Status::Err)?;
    match (header.class, header.cmd) {
        CMD_ALLOC => {
            let command: Alloc = decode(body)?;
            let max_areas = areas_in(room, size_of::<Token>());
            let placement = session
                .fabric()
                .alloc(session.gid(), command.size.get(), max_areas)
                .map_err(|refusal| failure(refusal, |areas| Reply::Alloc(Token(0.into()), areas)))?;
            session.connect_own_doorbell(&placement);
            finish_alloc(session, placement)
        }
        CMD_ALLOC_FOR_PEER => {
            let command: AllocForPeer = decode(body)?;
            if areas_in(room, size_of::<Token>()) == 0 {
                return Err(failure(Refusal::Areas(1), |areas| Reply::Alloc(Token(0.into()), areas)));
            }
            let placement = session
                .fabric()
                .alloc_for_peer(session.gid(), command.peer_gid, command.size.get())?;
            finish_alloc(session, placement)
        }
        CMD_ATTACH => {
            let packed = if body.len() == size_of::<Attach>() + ATTACH_PADDING {
                &body[..size_of::<Attach>()]
            } else {
                body
            };
            let command: Attach = decode(packed)?;
            attach(session, command, areas_in(room, 0))
        }
        CMD_DETACH => {
            let command: Detach = decode(body)?;
            let detached = session.fabric().detach(session.gid(), command.token)?;
            if let Detached::Owned { chunk, attached: 1.. } = detached {
                let object = Object::new("dmb", chunk.into());
                session.stats().report(Finding::DmbFreedAttached, object, request);
            }
            session.disconnect_doorbell(detached);
            session.deliver_attachments();
            session.stats().counters.detaches.increment();
            // The slab may be unused now.
            session.settle_window()?;
            Ok(Reply::None)
        }
        CMD_GRANT_DEFAULT => {
            let command: GrantDefault = decode(body)?;
            session
                .fabric()
                .grant(session.gid(), command.token, None, command.permissions.get())?;
            Ok(Reply::None)
        }
        CMD_GRANT_DEVICE => {
            let command: GrantDevice = decode(body)?;
            let devid = Some(command.peer_devid.get());
            session
                .fabric()
                .grant(session.gid(), command.token, devid, command.permissions.get())?;
            Ok(Reply::None)
        }
        CMD_QUERY_GID => {
            let command: QueryGid = decode(body)?;
            match session.fabric().is_up(command.gid) {
                true => Ok(Reply::None),
                false => Err(Status::NoEnt.into()),
            }
        }
        CMD_SEND_MESSAGE => {
            let command: SendMessage = decode(body)?;
            send_message(session, command)
        }
        CMD_SUBSCRIBE => {
            let command: Subscribe = decode(body)?;
            let events = command.events.get();
            let together = EV_ATTACH | EV_DETACH;
            if events & !(EV_UPDATE | together) != 0 || ![0, together].contains(&(events & together)) {
                return Err(Status::Err.into());
            }
            session.events().subscribe(events);
            Ok(Reply::None)
        }
        CMD_QUERY_SLAB => {
            let command: QuerySlab = decode(body)?;
            if room <= size_of::<SlabReply>() {
                return Err(Status::TooBig.into());
            }
            let place = session.fabric().pair_slab(session.gid(), command.token)?;
            let area = Area {
                offset: place.base.into(),
                size: place.len.into(),
            };
            Ok(Reply::Slab(SlabReply {
                area,
                side: place.side.into(),
                reserved: 0.into(),
            }))
        }
        CMD_EVENT_VECTOR => {
            let command: EventVector = decode(body)?;
            session.fabric().check_hold(session.gid(), command.token)?;
            // The transport has one vector, so no DMB has one of its own.
            match command.vector.get() {
                NO_VECTOR => Ok(Reply::None),
                _ => Err(Status::Err.into()),
            }
        }
        _ => Err(Status::Err.into()),
    }
}

/// Decodes a command; fails unless the body has exactly its length.
fn decode<T: FromBytes + KnownLayout + Immutable + Unaligned>(body: &[u8]) -> Result<T, Status> {
    T::read_from_bytes(body).map_err(|_| Status::Err)
}

/// Returns the number of areas for which an answer has room, after status, `before` more bytes, and their number.
fn areas_in(room: usize, before: usize) -> usize {
    room.saturating_sub(1 + before + size_of::<u64>()) / size_of::<Area>()
}

/// Returns the answer to a request that was refused; `reply` holds the number of areas for which there was no room.
fn failure(refusal: Refusal, reply: impl FnOnce(Areas) -> Reply) -> Failure {
    let reply = match refusal {
        Refusal::Areas(number) => reply(Areas::Number(number)),
        _ => Reply::None,
    };
    Failure {
        reply,
        ..refusal.into()
    }
}

fn finish_alloc(session: &Session, placement: Placement) -> Result<Reply, Failure> {
    if let Err(error) = session.map(&placement.mapping) {
        // No other guest has the token yet.
        if let Ok(detached) = session.fabric().detach(session.gid(), placement.token) {
            session.disconnect_doorbell(detached);
        }
        return Err(error.into());
    }
    session.stats().counters.allocs.increment();
    Ok(Reply::Alloc(placement.token, Areas::List(placement.areas)))
}

fn attach(session: &Session, command: Attach, max_areas: usize) -> Result<Reply, Failure> {
    let attachment = session
        .fabric()
        .attach(session.gid(), command.token, command.rw_perm.get(), max_areas)
        .map_err(|refusal| failure(refusal, Reply::Attach))?;
    if let Err(error) = session.map(&attachment.placement.mapping) {
        let _ = session.fabric().detach(session.gid(), command.token);
        session.deliver_attachments();
        return Err(error.into());
    }
    session.connect_doorbell(&attachment);
    session.deliver_attachments();
    session.stats().counters.attaches.increment();
    Ok(Reply::Attach(Areas::List(attachment.placement.areas)))
}

fn send_message(session: &Session, command: SendMessage) -> Result<Reply, Failure> {
    if command.peer_gid == session.gid() {
        return Err(Status::Err.into());
    }
    let message = MessageEvent {
        ev_type: EV_MESSAGE.into(),
        gid: session.gid(),
        code: command.code,
        reserved: 0.into(),
        info: command.info,
    };
    session
        .fabric()
        .sink(command.peer_gid)?
        .message(message)
        .map_err(|_| Status::NoSpc)?;
    session.stats().counters.messages.increment();
    Ok(Reply::None)
}
