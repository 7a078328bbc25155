//! Input, reply and refusal of a command.

use std::cell::Cell;

use mlx5_prm::command::{InputHeader, OutputHeader, Status};
use mlx5_prm::layout::{Declaration, Layout};
use mlx5_prm::opcode::Opcode;
use zerocopy::{FromBytes, IntoBytes};

use super::Firmware;
use super::syndrome::{self, Cause};
use crate::hca::buffer::BufferError;

/// Refusal of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Status for the output.
    pub status: Status,
    /// Reason, for the log and for a syndrome specific to this device.
    pub reason: &'static str,
    cause: Cause,
}

impl Refusal {
    /// Refuses with this status.
    pub const fn new(status: Status, reason: &'static str) -> Self {
        Self {
            status,
            reason,
            cause: Cause::Other,
        }
    }

    /// Returns the refusal with the vendor's syndrome.
    pub const fn with_syndrome(self, syndrome: u32) -> Self {
        Self {
            cause: Cause::Known(syndrome),
            ..self
        }
    }

    const fn because(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    /// Returns the syndrome: the vendor's where it is known, otherwise one specific to this device.
    pub fn syndrome(&self, opcode: Opcode) -> u32 {
        let syndrome = match self.cause {
            Cause::Known(syndrome) => Some(syndrome),
            cause => syndrome::of_common(opcode, cause),
        }
        .unwrap_or(syndrome::device_specific(self.reason));
        debug_assert!(
            syndrome::agrees(syndrome, opcode, self.status),
            "{opcode}: {syndrome:#x}, {:?}",
            self.status
        );
        syndrome
    }
}

/// Result of a command.
pub type Result<T = Reply> = std::result::Result<T, Refusal>;

/// Refuses an invalid parameter.
pub const fn bad_parameter(reason: &'static str) -> Refusal {
    Refusal::new(Status::BadParameter, reason)
}

/// Refuses a parameter that names an object that does not exist.
pub const fn no_such(reason: &'static str) -> Refusal {
    Refusal::new(Status::BadResource, reason)
}

/// Refuses a command whose object does not exist.
pub const fn no_object(reason: &'static str) -> Refusal {
    Refusal::new(Status::BadResourceState, reason).because(Cause::NoObject)
}

/// Refuses to destroy an object that others refer to.
pub const fn in_use(reason: &'static str) -> Refusal {
    Refusal::new(Status::BadResourceState, reason).because(Cause::InUse)
}

/// Refuses to create an object whose table is full.
pub const TABLE_FULL: Refusal =
    Refusal::new(Status::LimitExceeded, "there are no more objects of this kind").because(Cause::Full);

/// Refuses to create an object for which the guest's budget has no host memory: as hardware without memory for its
/// context does.
pub const OVER_BUDGET: Refusal = Refusal::new(
    Status::LimitExceeded,
    "the host memory for the guest's objects is used up",
);

/// Returns the refusal of a buffer; `text` describes one that is invalid.
pub const fn bad_buffer(error: &BufferError, text: Refusal) -> Refusal {
    match error {
        BufferError::OverBudget(_) => OVER_BUDGET,
        _ => text,
    }
}

/// Input of a command.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    bytes: &'a [u8],
    layout: &'a Cell<Option<Declaration>>,
}

impl<'a> Input<'a> {
    /// Wraps the bytes of an input; `None` if they are shorter than a header. `layout` receives that of the fixed part
    /// when a handler reads it.
    pub fn new(bytes: &'a [u8], layout: &'a Cell<Option<Declaration>>) -> Option<Self> {
        (bytes.len() >= size_of::<InputHeader>()).then_some(Self { bytes, layout })
    }

    /// The bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    fn header(&self) -> InputHeader {
        InputHeader::read_from_prefix(self.bytes).map_or_else(|_| InputHeader::default(), |(header, _)| header)
    }

    /// Opcode of the command.
    pub fn opcode(&self) -> Opcode {
        Opcode(self.header().opcode.get())
    }

    /// Variant of the command.
    pub fn op_mod(&self) -> u16 {
        self.header().op_mod.get()
    }

    /// Returns the fixed part.
    pub fn fields<T: Layout>(&self) -> Result<&'a T> {
        self.with_tail().map(|(fields, _)| fields)
    }

    /// Returns the fixed part and the bytes behind it.
    pub fn with_tail<T: Layout>(&self) -> Result<(&'a T, &'a [u8])> {
        self.layout.set(Some(Declaration::of::<T>()));
        T::ref_from_prefix(self.bytes).map_err(|_| Refusal::new(Status::BadInputLength, "the input is too short"))
    }
}

/// Output of a command that succeeded.
#[derive(Debug)]
pub struct Reply {
    pub(super) bytes: Vec<u8>,
    /// Bytes of it that must fit in the guest's output.
    pub(super) fixed: usize,
    /// Layout of its beginning.
    pub(super) layout: Declaration,
    /// Offset in bits of a field that is a union, and the layout that it has.
    pub(super) union: Option<(usize, Declaration)>,
}

impl Reply {
    /// Returns an output without results.
    pub fn ok<T: Layout + Default>() -> Result {
        Self::new(T::default())
    }

    /// Returns an output.
    pub fn new<T: Layout>(output: T) -> Result {
        Ok(Self {
            bytes: output.as_bytes().to_vec(),
            fixed: T::SIZE,
            layout: Declaration::of::<T>(),
            union: None,
        })
    }

    /// Returns an output with a list behind it, which is cut to the length of the guest's output.
    pub fn with_tail<T: Layout>(output: T, tail: &[u8]) -> Result {
        let mut bytes = output.as_bytes().to_vec();
        bytes.extend_from_slice(tail);
        Ok(Self {
            bytes,
            fixed: T::SIZE,
            layout: Declaration::of::<T>(),
            union: None,
        })
    }
}

/// Returns the output of a refused command.
pub(super) fn refusal_bytes(opcode: Opcode, refusal: Refusal) -> Vec<u8> {
    let header = OutputHeader::new(refusal.status, refusal.syndrome(opcode));
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// Returns the output of a command that is answered with a status and a syndrome without being executed.
pub(super) fn unexecuted_bytes(status: u8, syndrome: u32) -> Vec<u8> {
    let mut header = OutputHeader::new(Status::Ok, syndrome);
    header.status = status;
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// Function that executes a command.
pub(super) type Handler = fn(&Firmware, Input<'_>) -> Result;

/// Commands of one family with their handlers.
pub(super) type Commands = &'static [(Opcode, Handler)];
