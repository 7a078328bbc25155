//! Data of messages in guest memory.

use mlx5_prm::wqe::DataSegment;

use super::Engine;
use crate::dma::{Dma, DmaError, Held, Purpose};
use crate::hca::mkey::{self, Access, Accessor, Segment};
use crate::hca::qp::{Data, DataList, Parameters, Qp, Receive};
use crate::net::{Cursor, Payload};

/// Memory that a queue pair may not reach, or that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreachable;

/// Who a queue pair is to memory keys.
pub(super) fn accessor(qp: &Qp, parameters: &Parameters) -> Accessor {
    Accessor {
        pd: parameters.pd,
        qpn: qp.number,
        reserved_lkey: parameters.reserved_lkey,
    }
}

/// Calls `act` with each piece of a key's range and its distance from the beginning.
fn pieces(
    engine: &Engine,
    accessor: Accessor,
    key: u32,
    address: u64,
    length: usize,
    access: Access,
    mut act: impl FnMut(Segment, usize) -> Result<(), DmaError>,
) -> Result<(), Unreachable> {
    let mut done = 0;
    let result = mkey::translate(
        &engine.hca.mkeys,
        key,
        accessor,
        address,
        length as u64,
        access,
        |piece: Segment| {
            let length = piece.length();
            act(piece, done)?;
            done += length;
            Ok::<(), DmaError>(())
        },
    );
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Unreachable),
    }
}

/// Appends a key's range to a payload.
fn push_key(
    engine: &Engine,
    accessor: Accessor,
    key: u32,
    address: u64,
    length: usize,
    access: Access,
    payload: &mut Payload<'_>,
) -> Result<(), Unreachable> {
    pieces(engine, accessor, key, address, length, access, |piece, _| {
        match piece {
            Segment::Memory(address, length) => payload.push_memory(address, length),
            Segment::Null(length) => payload.push_zeros(length),
        }
        Ok(())
    })
}

/// Appends the `length` bytes from `offset` on of a message's data to a payload of the guest's memory, by reference.
pub(super) fn gather(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    data: &DataList,
    offset: usize,
    length: usize,
    payload: &mut Payload<'_>,
) -> Result<(), Unreachable> {
    let (mut at, end) = (0, offset + length);
    for part in data.parts() {
        let size = part.length();
        let (from, to) = (at.max(offset), (at + size).min(end));
        if from < to {
            match part {
                Data::Inline(bytes) => payload.push_bytes(&bytes[from - at..to - at]),
                Data::Memory(segment) => {
                    let (key, address) = (
                        segment.lkey.get(),
                        segment.address.get().wrapping_add((from - at) as u64),
                    );
                    let accessor = accessor(qp, parameters);
                    push_key(engine, accessor, key, address, to - from, Access::LocalRead, payload)?;
                }
            }
        }
        at += size;
    }
    Ok(())
}

/// Appends what another side reads of a key's range to a payload of the guest's memory.
pub(super) fn remote_read(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    rkey: u32,
    address: u64,
    length: usize,
    payload: &mut Payload<'_>,
) -> Result<(), Unreachable> {
    let accessor = accessor(qp, parameters);
    push_key(engine, accessor, rkey, address, length, Access::RemoteRead, payload)
}

/// A guest's memory as a burst of requests reaches it: from one to the next its mappings and the key that was used last are held.
pub(super) struct AccessContext<'a> {
    dma: &'a Dma,
    keys: mkey::Recent<'a>,
    held: Option<Held<'a>>,
}

impl<'a> AccessContext<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        Self {
            dma: &engine.hca.dma,
            keys: mkey::Recent::new(&engine.hca.mkeys),
            held: None,
        }
    }

    /// Holds nothing any more: before the memory is accessed in another way, or a key changed, by the same thread.
    pub(super) fn let_go(&mut self) {
        self.held = None;
        self.keys.let_go();
    }

    /// Writes a payload into a key's range.
    pub(super) fn write(
        &mut self,
        accessor: Accessor,
        key: u32,
        address: u64,
        payload: &Payload<'_>,
        access: Access,
    ) -> Result<(), Unreachable> {
        self.write_next(accessor, key, address, (&mut payload.cursor(), payload.len()), access)
    }

    /// Writes the next so many bytes of a payload into a key's range.
    fn write_next(
        &mut self,
        accessor: Accessor,
        key: u32,
        address: u64,
        (cursor, length): (&mut Cursor<'_, '_>, usize),
        access: Access,
    ) -> Result<(), Unreachable> {
        let Self { dma, keys, held } = self;
        let memory = held.get_or_insert_with(|| dma.hold(Purpose::Scatter));
        let result = keys.translate(key, accessor, address, length as u64, access, |piece| match piece {
            Segment::Memory(address, length) => cursor.write_to(length, memory, address),
            Segment::Null(length) => {
                cursor.skip(length);
                Ok(())
            }
        });
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Unreachable),
        }
    }
}

/// Whether all of a range may be accessed; nothing is.
pub(super) fn check(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    key: u32,
    address: u64,
    length: usize,
    access: Access,
) -> Result<(), Unreachable> {
    pieces(
        engine,
        accessor(qp, parameters),
        key,
        address,
        length,
        access,
        |_, _| Ok(()),
    )
}

/// Writes a payload into the memory of a receive WQE, `offset` bytes behind its beginning.
pub(super) fn scatter_receive(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    receive: &Receive,
    offset: usize,
    payload: &Payload<'_>,
) -> Result<(), Unreachable> {
    let accessor = Accessor {
        pd: receive.pd,
        ..accessor(qp, parameters)
    };
    scatter_as(engine, accessor, receive.segments.iter().copied(), offset, payload)
}

/// Writes a payload into a scatter list, `offset` bytes behind its beginning. What does not fit is an error.
pub(super) fn scatter(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    segments: impl Iterator<Item = DataSegment>,
    offset: usize,
    payload: &Payload<'_>,
) -> Result<(), Unreachable> {
    scatter_as(engine, accessor(qp, parameters), segments, offset, payload)
}

fn scatter_as(
    engine: &Engine,
    accessor: Accessor,
    segments: impl Iterator<Item = DataSegment>,
    offset: usize,
    payload: &Payload<'_>,
) -> Result<(), Unreachable> {
    let mut reach = AccessContext::new(engine);
    let mut cursor = payload.cursor();
    let (mut at, end) = (0, offset + payload.len());
    for segment in segments {
        let size = segment.byte_count.get() as usize;
        let (from, to) = (at.max(offset), (at + size).min(end));
        if from < to {
            let (key, address) = (
                segment.lkey.get(),
                segment.address.get().wrapping_add((from - at) as u64),
            );
            let next = (&mut cursor, to - from);
            reach.write_next(accessor, key, address, next, Access::LocalWrite)?;
        }
        at += size;
    }
    if at < end { Err(Unreachable) } else { Ok(()) }
}

/// Replaces the 8 bytes at a key's address, and returns what was there. In memory they are in the guest's own order.
pub(super) fn atomic(
    engine: &Engine,
    qp: &Qp,
    parameters: &Parameters,
    rkey: u32,
    address: u64,
    change: impl Fn(u64) -> Option<u64>,
) -> Result<u64, Unreachable> {
    let mut original = None;
    let whole = size_of::<u64>();
    pieces(
        engine,
        accessor(qp, parameters),
        rkey,
        address,
        whole,
        Access::RemoteAtomic,
        |piece, _| {
            match piece {
                Segment::Memory(address, length) if length == whole => {
                    original = Some(engine.hca.dma.update(Purpose::Atomic, address, &change)?);
                }
                Segment::Null(_) => original = Some(0),
                Segment::Memory(..) => {}
            }
            Ok(())
        },
    )?;
    original.ok_or(Unreachable)
}
