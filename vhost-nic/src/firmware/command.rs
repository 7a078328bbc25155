//! What a command is to the device: bytes in, a reply or a refusal out.

use mlx5_prm::command::{InputHeader, OutputHeader, Status};
use mlx5_prm::layout::Layout;
use mlx5_prm::opcode::Opcode;
use zerocopy::{FromBytes, IntoBytes};

use super::Firmware;

/// A command that is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of failure.
    pub status: Status,
    /// Why, for the log.
    pub reason: &'static str,
}

impl Refusal {
    /// A failure of this kind.
    pub const fn new(status: Status, reason: &'static str) -> Self {
        Self { status, reason }
    }

    /// A number that tells the reasons apart, as the syndrome of real firmware does. Its values are the vendor's secret; ours follow
    /// from the reason's text (FNV-1a, folded to 24 bits).
    pub const fn syndrome(&self) -> u32 {
        let text = self.reason.as_bytes();
        let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
        while at < text.len() {
            hash = (hash ^ text[at] as u32).wrapping_mul(0x0100_0193);
            at += 1;
        }
        hash >> 24 ^ hash & 0xff_ffff
    }
}

/// What a command returns.
pub type Result<T = Reply> = std::result::Result<T, Refusal>;

/// A parameter makes no sense.
pub const fn bad_parameter(reason: &'static str) -> Refusal {
    Refusal::new(Status::BadParameter, reason)
}

/// An object that is named does not exist.
pub const fn no_such(reason: &'static str) -> Refusal {
    Refusal::new(Status::BadResource, reason)
}

/// An object cannot be destroyed, because another refers to it.
pub const fn in_use(reason: &'static str) -> Refusal {
    Refusal::new(Status::BadResourceState, reason)
}

/// All objects of a kind exist already.
pub const TABLE_FULL: Refusal = Refusal::new(Status::LimitExceeded, "there are no more objects of this kind");

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
pub(super) fn refusal_bytes(refusal: Refusal) -> Vec<u8> {
    let header = OutputHeader::new(refusal.status, refusal.syndrome());
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// What carries out a command.
pub(super) type Handler = fn(&Firmware, Input<'_>) -> Result;

/// Commands and what carries them out.
pub(super) type Commands = &'static [(Opcode, Handler)];
