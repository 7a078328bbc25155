//! What a command is to the device: bytes in, a reply or a refusal out.

use mlx5_prm::command::{InputHeader, OutputHeader, Status};
use mlx5_prm::layout::Layout;
use mlx5_prm::opcode::Opcode;
use zerocopy::{FromBytes, IntoBytes};

use super::{Firmware, syndrome};

/// A command that is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of failure.
    pub status: Status,
    /// Why, for the log.
    pub reason: &'static str,
    cause: Cause,
}

/// Why a command is refused, as far as its syndrome depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The object that the command is about does not exist.
    NoObject,
    /// The object that the command is about is in use.
    InUse,
    /// All objects of the kind exist already.
    Full,
    /// One for which hardware's syndrome is known.
    Known(u32),
    /// Any other.
    Other,
}

impl Refusal {
    /// A failure of this kind.
    pub const fn new(status: Status, reason: &'static str) -> Self {
        Self {
            status,
            reason,
            cause: Cause::Other,
        }
    }

    /// The same with hardware's syndrome for it.
    pub const fn with_syndrome(self, syndrome: u32) -> Self {
        Self {
            cause: Cause::Known(syndrome),
            ..self
        }
    }

    const fn because(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    /// The number that tells the causes apart: hardware's where it is known, else one of the device's own.
    pub fn syndrome(&self, opcode: Opcode) -> u32 {
        match self.cause {
            Cause::Known(syndrome) => Some(syndrome),
            cause => syndrome::of_common(opcode, cause),
        }
        .unwrap_or(syndrome::own(self.reason))
    }
}

/// What a command returns.
pub type Result<T = Reply> = std::result::Result<T, Refusal>;

/// A parameter makes no sense.
pub const fn bad_parameter(reason: &'static str) -> Refusal {
    Refusal::new(Status::BadParameter, reason)
}

/// An object that a parameter names does not exist.
pub const fn no_such(reason: &'static str) -> Refusal {
    Refusal::new(Status::BadResource, reason)
}

/// The object that the command is about does not exist.
pub const fn no_object(reason: &'static str) -> Refusal {
    Refusal::new(Status::BadResourceState, reason).because(Cause::NoObject)
}

/// An object cannot be destroyed, because another refers to it.
pub const fn in_use(reason: &'static str) -> Refusal {
    Refusal::new(Status::BadResourceState, reason).because(Cause::InUse)
}

/// All objects of a kind exist already.
pub const TABLE_FULL: Refusal =
    Refusal::new(Status::LimitExceeded, "there are no more objects of this kind").because(Cause::Full);

/// A command's input.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// The input that these bytes are; they are at least a header.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= size_of::<InputHeader>()).then_some(Self(bytes))
    }

    fn header(&self) -> InputHeader {
        InputHeader::read_from_prefix(self.0).map_or_else(|_| InputHeader::default(), |(header, _)| header)
    }

    /// Which command it is.
    pub fn opcode(&self) -> Opcode {
        Opcode(self.header().opcode.get())
    }

    /// Which variant of it.
    pub fn op_mod(&self) -> u16 {
        self.header().op_mod.get()
    }

    /// The fields.
    pub fn fields<T: Layout>(&self) -> Result<&'a T> {
        self.with_tail().map(|(fields, _)| fields)
    }

    /// The fields, and what comes behind them.
    pub fn with_tail<T: Layout>(&self) -> Result<(&'a T, &'a [u8])> {
        T::ref_from_prefix(self.0).map_err(|_| Refusal::new(Status::BadInputLength, "the input is too short"))
    }
}

/// A command's output, with a header that says OK.
#[derive(Debug)]
pub struct Reply {
    pub(super) bytes: Vec<u8>,
    /// Bytes of it that the guest must have room for.
    pub(super) fixed: usize,
}

impl Reply {
    /// An output without results.
    pub fn ok<T: Layout + Default>() -> Result {
        Self::new(T::default())
    }

    /// An output.
    pub fn new<T: Layout>(output: T) -> Result {
        Ok(Self {
            bytes: output.as_bytes().to_vec(),
            fixed: T::SIZE,
        })
    }

    /// An output with a list behind it. The guest sees as much of the list as it made room for.
    pub fn with_tail<T: Layout>(output: T, tail: &[u8]) -> Result {
        let mut bytes = output.as_bytes().to_vec();
        bytes.extend_from_slice(tail);
        Ok(Self { bytes, fixed: T::SIZE })
    }
}

/// The bytes of an output that says why a command is refused.
pub(super) fn refusal_bytes(opcode: Opcode, refusal: Refusal) -> Vec<u8> {
    let header = OutputHeader::new(refusal.status, refusal.syndrome(opcode));
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// What carries out a command.
pub(super) type Handler = fn(&Firmware, Input<'_>) -> Result;

/// Commands and what carries them out.
pub(super) type Commands = &'static [(Opcode, Handler)];
