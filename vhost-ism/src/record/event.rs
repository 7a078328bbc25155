//! Events of a record.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use vhost_daemon::record::{Hex, Level, RecordEvent};

use crate::abi::SHMID_REGIONS;
use crate::connection::Outcome;
use crate::tape::Entry;
use crate::window::RegionRange;

/// An event buffer that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// Length in bytes.
    pub capacity: u64,
    /// The event in it; no bytes if it did not fit.
    pub event: ByteBuf,
}

/// An event. Inputs of the devices are entries, and the answers to what they ask of queues, doorbell areas and random
/// numbers; all else is output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// An entry.
    Enter(Entry),
    /// End of an entry, with what it read.
    Leave(ByteBuf),
    /// A random number.
    Random(u64),
    /// A finding.
    Finding {
        /// Number of the guest.
        guest: u16,
        /// Name of its kind.
        kind: String,
        /// Kind of the object.
        object: String,
        /// Number of the object.
        number: u64,
        /// The bytes that show the mistake.
        evidence: ByteBuf,
    },
    /// A write of a guest's awake word.
    Awake {
        /// Number of the guest.
        guest: u16,
        /// Value of the word.
        awake: bool,
    },
    /// A pass over a guest's doorbell area.
    Collect {
        /// Number of the guest.
        guest: u16,
        /// Chunks below which it looks.
        limit: u32,
        /// Chunks whose doorbells were rung.
        rung: Vec<u32>,
    },
    /// A look at one doorbell.
    Take {
        /// Number of the guest.
        guest: u16,
        /// Chunk of the doorbell.
        chunk: u32,
        /// Whether it was rung.
        rung: bool,
    },
    /// Whether the control queue is ready.
    Ready {
        /// Connection.
        connection: u32,
        /// Answer.
        ready: bool,
    },
    /// Whether control and event queue are at their beginning.
    Beginning {
        /// Connection.
        connection: u32,
        /// Answer.
        at_beginning: bool,
    },
    /// A look for a request.
    Request {
        /// Connection.
        connection: u32,
        /// Whether there is one.
        found: bool,
        /// Readable bytes of the request, unless they cannot be read or are too many.
        bytes: Option<ByteBuf>,
        /// Maximum length of the answer in bytes.
        room: u64,
    },
    /// An answer to the request that was taken last, or to one from before a pause.
    Answer {
        /// Connection.
        connection: u32,
        /// Whether the request is from before a pause.
        late: bool,
        /// The bytes.
        data: ByteBuf,
        /// Outcome.
        outcome: Outcome,
    },
    /// Request of a kick for the next request.
    AwaitRequests {
        /// Connection.
        connection: u32,
        /// Whether there is one already.
        more: bool,
    },
    /// Question to the VMM whether it can map.
    Mapper {
        /// Connection.
        connection: u32,
    },
    /// A map of a slab or the doorbell area.
    Map {
        /// Connection.
        connection: u32,
        /// Offset in the region.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
    /// An unmap.
    Unmap {
        /// Connection.
        connection: u32,
        /// Offset in the region.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
    /// A look for an event buffer.
    Send {
        /// Connection.
        connection: u32,
        /// The buffer, if there is one.
        buffer: Option<Buffer>,
    },
    /// Notification of used event buffers.
    Signal {
        /// Connection.
        connection: u32,
        /// Whether the guest was interrupted.
        interrupt: bool,
    },
    /// Request of a kick for the next event buffer.
    AwaitBuffers {
        /// Connection.
        connection: u32,
        /// Whether there is one already.
        more: bool,
    },
    /// A strike of a fault.
    Strike {
        /// Number of the guest.
        guest: u16,
        /// Number of the door.
        door: u32,
        /// Number of the object.
        object: u32,
        /// The fault, in JSON.
        fault: String,
        /// The random number of the strike.
        random: u64,
    },
    /// End of the record.
    End,
    /// A look for a move.
    Move {
        /// Connection.
        connection: u32,
        /// Whether there is one.
        found: bool,
        /// Readable bytes of the request before its data, unless they cannot be read.
        head: Option<ByteBuf>,
        /// Length of the data in bytes.
        length: u64,
    },
    /// The copy of a move's data, which is in no record.
    Copy {
        /// Connection.
        connection: u32,
        /// Whether the data could be read.
        ok: bool,
    },
    /// An answer to a move.
    Moved {
        /// Connection.
        connection: u32,
        /// Status.
        status: u8,
        /// Outcome.
        outcome: Outcome,
    },
    /// Request of a kick for the next move.
    AwaitMoves {
        /// Connection.
        connection: u32,
        /// Whether there is one already.
        more: bool,
    },
    /// A look at the bell of a guest after a move.
    Bell {
        /// Number of the guest.
        guest: u16,
        /// Chunk in the slab.
        chunk: u32,
        /// Whether the guest needs an event.
        asleep: bool,
    },
    /// A map of a part of a slab, or in another region than the first.
    MapPart {
        /// Connection.
        connection: u32,
        /// Id of the region.
        region: u8,
        /// Offset in the region.
        offset: u64,
        /// Length in bytes.
        length: u64,
        /// Offset in the slab.
        from: u64,
    },
    /// The descriptor of the request, move or event buffer before, which cannot be read or is too small.
    Descriptor {
        /// Connection.
        connection: u32,
        /// The bytes.
        bytes: ByteBuf,
    },
}

impl Event {
    /// Describes a map.
    pub fn map(connection: u32, from: u64, to: RegionRange) -> Self {
        let RegionRange {
            shmid: region,
            offset,
            len: length,
        } = to;
        match (region, from) {
            (SHMID_REGIONS, 0) => Self::Map {
                connection,
                offset,
                length,
            },
            _ => Self::MapPart {
                connection,
                region,
                offset,
                length,
                from,
            },
        }
    }

    /// Describes an unmap. Only slabs are unmapped, and they are in the first region.
    pub fn unmap(connection: u32, range: RegionRange) -> Self {
        Self::Unmap {
            connection,
            offset: range.offset,
            length: range.len,
        }
    }
}

impl RecordEvent for Event {
    const END: Self = Self::End;

    fn level(&self) -> Level {
        match self {
            Self::Enter(_) => Level::Enter,
            Self::Leave(_) => Level::Leave,
            _ => Level::Inside,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create => f.write_str("creation of the fabric"),
            Self::Connect { guest } => write!(f, "connection of guest {guest}"),
            Self::Config {
                connection,
                offset,
                length,
            } => write!(
                f,
                "read of the configuration space by connection {connection} at {offset:#x}, {length} bytes"
            ),
            Self::Start(connection) => write!(f, "start by connection {connection}"),
            Self::Control(connection) => write!(f, "kick of the control queue by connection {connection}"),
            Self::Event(connection) => write!(f, "kick of the event queue by connection {connection}"),
            Self::Doorbell(connection) => write!(f, "kick of the doorbell queue by connection {connection}"),
            Self::Move(connection) => write!(f, "kick of the move queue by connection {connection}"),
            Self::Stop(connection) => write!(f, "stop by connection {connection}"),
            Self::Close(connection) => write!(f, "end of connection {connection}"),
            Self::Answer { connection, ok } => {
                let answer = if *ok { "done" } else { "refused" };
                write!(f, "answer of the VMM of connection {connection}: {answer}")
            }
            Self::Abandoned { guest } => write!(f, "reset of guest {guest}"),
            Self::Late(number) => write!(f, "delayed work {number}"),
            Self::End { guest } => write!(f, "end of the session of guest {guest}"),
            Self::Reset { guest } => write!(f, "reset of the session of guest {guest} by the device"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Written { interrupt: true } => "interrupt",
            Self::Written { interrupt: false } => "no interrupt",
            Self::Stopped => "the queue is stopped",
            Self::Dropped => "dropped",
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enter(entry) => entry.fmt(f),
            Self::Leave(data) if data.is_empty() => f.write_str("end of the entry"),
            Self::Leave(data) => write!(f, "end of the entry: {}", Hex(data)),
            Self::Random(number) => write!(f, "random number {number:#018x}"),
            Self::Finding {
                guest,
                kind,
                object,
                number,
                evidence,
            } => write!(
                f,
                "finding {kind} of guest {guest}, {object} {number:#x}: {}",
                Hex(evidence)
            ),
            Self::Awake { guest, awake } => write!(f, "awake word of guest {guest}: {}", u8::from(*awake)),
            Self::Collect { guest, limit, rung } => {
                write!(f, "doorbells of guest {guest} below chunk {limit}: {rung:?}")
            }
            Self::Take { guest, chunk, rung } => write!(f, "doorbell of guest {guest}, chunk {chunk}: {rung}"),
            Self::Ready { connection, ready } => write!(f, "control queue of connection {connection} ready: {ready}"),
            Self::Beginning {
                connection,
                at_beginning,
            } => write!(
                f,
                "queues of connection {connection} at their beginning: {at_beginning}"
            ),
            Self::Request {
                connection,
                found: false,
                ..
            } => write!(f, "no request of connection {connection}"),
            Self::Request {
                connection,
                bytes,
                room,
                ..
            } => {
                write!(f, "request of connection {connection}, room for {room} bytes: ")?;
                match bytes {
                    Some(bytes) => Hex(bytes).fmt(f),
                    None => f.write_str("not readable"),
                }
            }
            Self::Answer {
                connection,
                late,
                data,
                outcome,
            } => {
                let late = if *late { "late " } else { "" };
                write!(f, "{late}answer to connection {connection}: {}, {outcome}", Hex(data))
            }
            Self::AwaitRequests { connection, more } => {
                write!(
                    f,
                    "wait for requests of connection {connection}, there are more: {more}"
                )
            }
            Self::Mapper { connection } => write!(f, "question to the VMM of connection {connection}"),
            Self::Map {
                connection,
                offset,
                length,
            } => write!(f, "map by connection {connection} at {offset:#x}, {length:#x} bytes"),
            Self::MapPart {
                connection,
                region,
                offset,
                length,
                from,
            } => write!(
                f,
                "map by connection {connection} in region {region} at {offset:#x}, {length:#x} bytes from {from:#x}"
            ),
            Self::Unmap {
                connection,
                offset,
                length,
            } => write!(f, "unmap by connection {connection} at {offset:#x}, {length:#x} bytes"),
            Self::Send {
                connection,
                buffer: None,
            } => write!(f, "no event buffer of connection {connection}"),
            Self::Send {
                connection,
                buffer: Some(Buffer { capacity, event }),
            } => write!(
                f,
                "event to connection {connection} in {capacity} bytes: {}",
                Hex(event)
            ),
            Self::Signal { connection, interrupt } => {
                let interrupt = if *interrupt { "interrupt" } else { "no interrupt" };
                write!(f, "notification of connection {connection}: {interrupt}")
            }
            Self::AwaitBuffers { connection, more } => {
                write!(
                    f,
                    "wait for event buffers of connection {connection}, there are more: {more}"
                )
            }
            Self::Strike {
                guest, object, fault, ..
            } => write!(f, "fault of guest {guest} at {object:#x}: {fault}"),
            Self::End => f.write_str("end of the record"),
            Self::Move {
                connection,
                found: false,
                ..
            } => write!(f, "no move of connection {connection}"),
            Self::Move {
                connection,
                head,
                length,
                ..
            } => {
                write!(f, "move of connection {connection}, {length} bytes: ")?;
                match head {
                    Some(head) => Hex(head).fmt(f),
                    None => f.write_str("not readable"),
                }
            }
            Self::Copy { connection, ok } => {
                let copied = if *ok { "copied" } else { "not readable" };
                write!(f, "data of a move of connection {connection}: {copied}")
            }
            Self::Moved {
                connection,
                status,
                outcome,
            } => write!(f, "answer to a move of connection {connection}: {status}, {outcome}"),
            Self::AwaitMoves { connection, more } => {
                write!(f, "wait for moves of connection {connection}, there are more: {more}")
            }
            Self::Bell { guest, chunk, asleep } => {
                write!(f, "bell of guest {guest}, chunk {chunk}, asleep: {asleep}")
            }
            Self::Descriptor { connection, bytes } => {
                write!(f, "descriptor of connection {connection}: {}", Hex(bytes))
            }
        }
    }
}
