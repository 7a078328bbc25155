//! Events of a record.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use vhost_daemon::record::{Hex, Level, RecordEvent};

use crate::dma::DmaError;
use crate::pci;

/// Something that entered a NIC. All until the [`Event::Leave`] of its level is caused by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A read of registers.
    Read {
        /// The space.
        space: Space,
        /// Offset in it.
        offset: u64,
        /// Length in bytes.
        length: u32,
    },
    /// A write to registers.
    Write {
        /// The space.
        space: Space,
        /// Offset in it.
        offset: u64,
        /// The bytes.
        data: ByteBuf,
    },
    /// A reset of the function.
    Reset,
    /// Connection of the interrupts.
    Connect {
        /// Whether the attachment, and not the function, owns the mask bits.
        masked_by_attachment: bool,
    },
    /// Disconnection of the interrupts.
    Disconnect,
    /// A vector that the attachment raised.
    Raise(u16),
    /// Vectors that could be sent again: the first, and their number.
    Retry(u16, u16),
    /// A task of the NIC's thread.
    Step,
    /// Frames from the switch.
    Receive(Vec<ByteBuf>),
    /// The cable, plugged in or pulled.
    Cable(bool),
    /// The speed of the other end of the cable in Gb/s, `None` for all.
    PartnerSpeed(Option<u32>),
    /// The end of the machine.
    PowerCycle,
    /// An action of a fault, in JSON.
    Fault(String),
    /// Work that a fault delayed, by its number.
    Late(u32),
}

/// Space of a register access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Space {
    /// Configuration space.
    Config,
    /// A BAR.
    Bar(u8),
}

impl From<pci::Space> for Space {
    fn from(space: pci::Space) -> Self {
        match space {
            pci::Space::Config => Self::Config,
            pci::Space::Bar(bar) => Self::Bar(bar),
        }
    }
}

/// Reason why an access to guest memory failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// Not mapped: address and length.
    Unmapped(u64, u64),
    /// Mapped until recently: address and length.
    AfterUnmap(u64, u64),
    /// Not shared with the device.
    Unreachable(u64),
    /// Read-only.
    ReadOnly(u64),
    /// Not aligned.
    Misaligned(u64),
}

impl From<&DmaError> for Failure {
    fn from(error: &DmaError) -> Self {
        match *error {
            DmaError::Unmapped { address, length } | DmaError::Overlap { address, length } => {
                Self::Unmapped(address, length)
            }
            DmaError::Map { address, .. } | DmaError::Limit { address } => Self::Unmapped(address, 0),
            DmaError::AfterUnmap { address, length } => Self::AfterUnmap(address, length),
            DmaError::Unreachable { address } => Self::Unreachable(address),
            DmaError::ReadOnly { address } => Self::ReadOnly(address),
            DmaError::Misaligned { address } => Self::Misaligned(address),
            DmaError::Source(ref cause) => Self::from(&**cause),
        }
    }
}

impl From<Failure> for DmaError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unmapped(address, length) => Self::Unmapped { address, length },
            Failure::AfterUnmap(address, length) => Self::AfterUnmap { address, length },
            Failure::Unreachable(address) => Self::Unreachable { address },
            Failure::ReadOnly(address) => Self::ReadOnly { address },
            Failure::Misaligned(address) => Self::Misaligned { address },
        }
    }
}

/// An event. Inputs of the NIC are entries, and the answers to its accesses; all else is output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// An entry.
    Enter(Entry),
    /// End of an entry, with what it read.
    Leave(ByteBuf),
    /// A reading of the clock in nanoseconds.
    Time(u64),
    /// A read of guest memory.
    MemoryRead {
        /// Guest address.
        address: u64,
        /// Length in bytes.
        length: u64,
        /// The bytes.
        answer: Result<ByteBuf, Failure>,
    },
    /// A write to guest memory.
    MemoryWrite {
        /// Guest address.
        address: u64,
        /// The bytes.
        data: ByteBuf,
        /// Whether it succeeded.
        answer: Result<(), Failure>,
    },
    /// An atomic update of a 64-bit integer in guest memory.
    MemoryUpdate {
        /// Guest address.
        address: u64,
        /// The value before.
        answer: Result<u64, Failure>,
        /// The value after, if it was replaced.
        new: Option<u64>,
    },
    /// An interrupt.
    Interrupt {
        /// MSI-X vector.
        vector: u16,
        /// Message Address.
        address: u64,
        /// Message Data.
        data: u32,
        /// Whether it was sent, and does not stay pending.
        sent: bool,
    },
    /// Frames to the switch. Entries until the [`Event::Sent`] of its level are answers to them.
    Send(Vec<ByteBuf>),
    /// End of the delivery of frames.
    Sent,
    /// A finding.
    Finding {
        /// Name of its kind.
        kind: String,
        /// Kind of the object.
        object: String,
        /// Number of the object.
        number: u64,
        /// The bytes that show the mistake.
        evidence: ByteBuf,
    },
    /// End of the record.
    End,
    /// A strike of a fault inside the NIC.
    Strike {
        /// Number of the door.
        door: u32,
        /// Number of the object.
        object: u32,
        /// The fault, in JSON.
        fault: String,
        /// The random number of the strike.
        random: u64,
    },
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

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config => f.write_str("configuration space"),
            Self::Bar(bar) => write!(f, "BAR {bar}"),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { space, offset, length } => write!(f, "read of {space} at {offset:#x}, {length} bytes"),
            Self::Write { space, offset, data } => write!(f, "write to {space} at {offset:#x}: {}", Hex(data)),
            Self::Reset => f.write_str("reset"),
            Self::PowerCycle => f.write_str("end of the machine"),
            Self::Connect { .. } => f.write_str("connection of the interrupts"),
            Self::Disconnect => f.write_str("disconnection of the interrupts"),
            Self::Raise(vector) => write!(f, "test of vector {vector}"),
            Self::Retry(first, count) => write!(f, "retry of {count} vectors from {first} on"),
            Self::Step => f.write_str("task"),
            Self::Receive(frames) => write!(f, "frames in: {}", Frames(frames)),
            Self::Cable(true) => f.write_str("cable in"),
            Self::Cable(false) => f.write_str("cable out"),
            Self::Fault(fault) => write!(f, "action of the fault {fault}"),
            Self::Late(number) => write!(f, "delayed work {number}"),
            Self::PartnerSpeed(gbps) => write!(f, "speed of the other end: {gbps:?} Gb/s"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enter(entry) => entry.fmt(f),
            Self::Leave(data) if data.is_empty() => f.write_str("end of the access"),
            Self::Leave(data) => write!(f, "end of the access: {}", Hex(data)),
            Self::Time(time) => write!(f, "clock at {time} ns"),
            Self::MemoryRead {
                address,
                length,
                answer,
            } => {
                write!(f, "read of memory at {address:#x}, {length} bytes")?;
                match answer {
                    Ok(data) => write!(f, ": {}", Hex(data)),
                    Err(failure) => write!(f, ": {}", DmaError::from(*failure)),
                }
            }
            Self::MemoryWrite { address, data, answer } => {
                write!(f, "write to memory at {address:#x}: {}", Hex(data))?;
                match answer {
                    Ok(()) => Ok(()),
                    Err(failure) => write!(f, ": {}", DmaError::from(*failure)),
                }
            }
            Self::MemoryUpdate { address, answer, new } => {
                write!(
                    f,
                    "atomic access to memory at {address:#x}: {answer:x?} becomes {new:x?}"
                )
            }
            Self::Interrupt { vector, sent, .. } => {
                write!(f, "interrupt {vector}{}", if *sent { "" } else { ", not sent" })
            }
            Self::Send(frames) => write!(f, "frames out: {}", Frames(frames)),
            Self::Sent => f.write_str("end of the delivery"),
            Self::Finding {
                kind,
                object,
                number,
                evidence,
            } => {
                write!(f, "finding {kind}, {object} {number:#x}: {}", Hex(evidence))
            }
            Self::End => f.write_str("end of the record"),
            Self::Strike { object, fault, .. } => write!(f, "fault at {object:#x}: {fault}"),
        }
    }
}

/// Number and length of frames, and the beginning of the first.
struct Frames<'a>(&'a [ByteBuf]);

impl fmt::Display for Frames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.0.iter().map(|frame| frame.len()).sum();
        write!(f, "{}, {bytes} bytes", self.0.len())?;
        match self.0.first() {
            Some(first) => write!(f, ": {}", Hex(first)),
            None => Ok(()),
        }
    }
}
