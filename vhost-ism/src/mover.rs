//! MOVE requests, in copy mode: their execution on the fabric.

use zerocopy::FromBytes;

use crate::abi::{CMD_MOVE, MOVE_HEAD, MOVE_SIGNAL, Move, RequestHeader, Status};
use crate::control::{Failure, observe};
use crate::fabric::Destination;
use crate::guest::Session;
use crate::ism_finding::Descriptor;

/// A request from the move queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveRequest {
    /// The bytes before the data, or the descriptor if they cannot be read, or there are too many descriptors.
    pub head: Result<[u8; MOVE_HEAD], Descriptor>,
    /// Length of the data in bytes.
    pub length: u64,
}

/// Copies the data of a move to its destination. Returns false if it cannot be read.
pub type CopyData<'a> = dyn FnMut(&Destination) -> bool + 'a;
/// Executes a move.
pub type ExecuteMove<'a> = dyn FnMut(&MoveRequest, &mut CopyData<'_>) -> Status + 'a;

/// Executes a move; `copy` copies its data.
pub fn execute(session: &Session, request: &MoveRequest, copy: &mut CopyData<'_>) -> Status {
    let evidence = request.head.as_ref().map(|head| {
        let mut bytes = [0; MOVE_HEAD + size_of::<u64>()];
        bytes[..MOVE_HEAD].copy_from_slice(head);
        bytes[MOVE_HEAD..].copy_from_slice(&request.length.to_le_bytes());
        bytes
    });
    let command = request.head.as_ref().ok().and_then(decode);
    let counters = &session.stats().counters;
    counters.moves.increment();
    let result = observe(
        session,
        evidence.as_ref().map(|bytes| &bytes[..]).map_err(|bytes| &bytes[..]),
        |_| {
            let command = command.as_ref().ok_or(Status::Err)?;
            run(session, command, request.length, copy)
        },
    );
    match (result, command) {
        (Ok(()), _) => {
            counters.moved_bytes.add(request.length);
            Status::Ok
        }
        (Err(failure), Some(command)) => {
            session.fabric().break_moves(session.gid(), command.token);
            failure.status
        }
        (Err(failure), None) => failure.status,
    }
}

fn decode(head: &[u8; MOVE_HEAD]) -> Option<Move> {
    let (header, command) = RequestHeader::read_from_prefix(head).ok()?;
    let command = Move::read_from_bytes(command).ok()?;
    ((header.class, header.cmd) == CMD_MOVE).then_some(command)
}

fn run(session: &Session, command: &Move, length: u64, copy: &mut CopyData<'_>) -> Result<(), Failure> {
    let flags = command.flags.get();
    if flags & !MOVE_SIGNAL != 0 || command.index.get() != 0 {
        return Err(Status::Err.into());
    }
    let fabric = session.fabric();
    let destination = fabric.begin_move(session.gid(), command.token, command.offset.get(), length)?;
    let copied = copy(&destination);
    let moved = fabric.end_move(command.token);
    if !copied {
        return Err(Status::Err.into());
    }
    if let Some(moved) = moved
        && flags & MOVE_SIGNAL != 0
    {
        let (view, devid) = (&moved.view, session.devid());
        moved.owner.signal(view, moved.slab_chunk, moved.owner_chunk, devid);
    }
    Ok(())
}
