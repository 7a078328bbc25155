//! Messages between client and server before and after the data of a workload.
//!
//! The client sends a [`Request`], both run the workload, then the server sends a [`Reply`]. A connection may carry
//! several workloads in sequence. All integers are little-endian.

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::data::{Check, Digest, Mismatch, Pattern};

const REQUEST_MAGIC: [u8; 8] = *b"SMCTOOL1";
const REPLY_MAGIC: [u8; 8] = *b"SMCREPL1";

/// Largest block a server allocates.
const BLOCK_LIMIT: u64 = 0x4000_0000;

/// Sent by the server once it holds the connection and nothing is in flight any more.
pub const HELD: u8 = 0x48;

/// Activity of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Sends back `total` messages of `block` bytes.
    Echo,
    /// Receives `total` bytes.
    Sink,
    /// Sends `total` bytes.
    Source,
    /// Receives and sends `total` bytes simultaneously.
    Duplex,
    /// Receives messages of `block` bytes up to the one marked as last.
    Messages,
    /// Sends [`HELD`], then reads until the connection ends; there is no reply.
    Hold,
}

impl Workload {
    const ALL: [Self; 6] = [
        Self::Echo,
        Self::Sink,
        Self::Source,
        Self::Duplex,
        Self::Messages,
        Self::Hold,
    ];

    fn number(self) -> u32 {
        self as u32 + 1
    }

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.number() == number)
    }
}

/// A message that breaks the format.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Wrong magic number.
    #[error("the peer does not speak this protocol")]
    Magic,
    /// A field has an invalid value.
    #[error("field {0} of a request is invalid")]
    Field(&'static str),
}

/// Request of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Activity of the server.
    pub workload: Workload,
    /// Verification of the data.
    pub check: Check,
    /// Size of a message, or of one read or write, in bytes.
    pub block: usize,
    /// Total bytes, or number of messages; `u64::MAX` is unlimited.
    pub total: u64,
    /// Seed of the data pattern.
    pub seed: u64,
    /// Time-out of one read or write of the server in milliseconds; 0: none.
    pub timeout_ms: u32,
}

#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawRequest {
    magic: [u8; 8],
    workload: U32,
    check: U32,
    block: U64,
    total: U64,
    seed: U64,
    timeout_ms: U32,
    reserved: U32,
}

/// Length of a request in bytes.
pub const REQUEST_LENGTH: usize = 48;
const _: () = assert!(size_of::<RawRequest>() == REQUEST_LENGTH);

impl Request {
    /// Returns the data pattern from client to server.
    pub fn upward(&self) -> Pattern {
        Pattern::new(self.seed)
    }

    /// Returns the data pattern from server to client.
    pub fn downward(&self) -> Pattern {
        self.upward().reversed()
    }

    /// Serializes the message.
    pub fn encode(&self) -> [u8; REQUEST_LENGTH] {
        zerocopy::transmute!(RawRequest {
            magic: REQUEST_MAGIC,
            workload: self.workload.number().into(),
            check: self.check.number().into(),
            block: (self.block as u64).into(),
            total: self.total.into(),
            seed: self.seed.into(),
            timeout_ms: self.timeout_ms.into(),
            reserved: 0.into(),
        })
    }

    /// Parses a message.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not a request.
    pub fn decode(bytes: [u8; REQUEST_LENGTH]) -> Result<Self, WireError> {
        let raw: RawRequest = zerocopy::transmute!(bytes);
        if raw.magic != REQUEST_MAGIC {
            return Err(WireError::Magic);
        }
        let block = match raw.block.get() {
            block @ 1..=BLOCK_LIMIT => usize::try_from(block).map_err(|_| WireError::Field("block"))?,
            _ => return Err(WireError::Field("block")),
        };
        Ok(Self {
            workload: Workload::from_number(raw.workload.get()).ok_or(WireError::Field("workload"))?,
            check: Check::from_number(raw.check.get()).ok_or(WireError::Field("check"))?,
            block,
            total: raw.total.get(),
            seed: raw.seed.get(),
            timeout_ms: raw.timeout_ms.get(),
        })
    }
}

/// Result of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reply {
    /// Bytes received by the server; bytes sent for a workload that only sends.
    pub bytes: u64,
    /// First difference in the received data.
    pub mismatch: Option<Mismatch>,
    /// Digest of the received data.
    pub received: Digest,
    /// Digest of the sent data.
    pub sent: Digest,
}

#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawReply {
    magic: [u8; 8],
    differs: U32,
    expected: u8,
    found: u8,
    reserved: [u8; 2],
    bytes: U64,
    offset: U64,
    received: Digest,
    sent: Digest,
}

/// Length of a reply in bytes.
pub const REPLY_LENGTH: usize = 96;
const _: () = assert!(size_of::<RawReply>() == REPLY_LENGTH);

impl Reply {
    /// Returns whether these bytes can be the start of a reply.
    pub fn may_start_with(bytes: &[u8]) -> bool {
        bytes.iter().zip(REPLY_MAGIC).all(|(byte, magic)| *byte == magic)
    }

    /// Serializes the message.
    pub fn encode(&self) -> [u8; REPLY_LENGTH] {
        let mismatch = self.mismatch.unwrap_or(Mismatch {
            offset: 0,
            expected: 0,
            found: 0,
        });
        zerocopy::transmute!(RawReply {
            magic: REPLY_MAGIC,
            differs: u32::from(self.mismatch.is_some()).into(),
            expected: mismatch.expected,
            found: mismatch.found,
            reserved: [0; 2],
            bytes: self.bytes.into(),
            offset: mismatch.offset.into(),
            received: self.received,
            sent: self.sent,
        })
    }

    /// Parses a message.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not a reply.
    pub fn decode(bytes: [u8; REPLY_LENGTH]) -> Result<Self, WireError> {
        let raw: RawReply = zerocopy::transmute!(bytes);
        if raw.magic != REPLY_MAGIC {
            return Err(WireError::Magic);
        }
        let mismatch = Mismatch {
            offset: raw.offset.get(),
            expected: raw.expected,
            found: raw.found,
        };
        Ok(Self {
            bytes: raw.bytes.get(),
            mismatch: (raw.differs.get() != 0).then_some(mismatch),
            received: raw.received,
            sent: raw.sent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_back() {
        for workload in Workload::ALL {
            let request = Request {
                workload,
                check: Check::Hash,
                block: 65536,
                total: u64::MAX,
                seed: 9,
                timeout_ms: 1000,
            };
            assert_eq!(Request::decode(request.encode()).unwrap(), request);
        }
    }

    #[test]
    fn replies_come_back() {
        let mismatch = Some(Mismatch {
            offset: 1 << 40,
            expected: 1,
            found: 2,
        });
        for mismatch in [None, mismatch] {
            let reply = Reply {
                bytes: 77,
                mismatch,
                received: [3; 32],
                sent: [4; 32],
            };
            assert_eq!(Reply::decode(reply.encode()).unwrap(), reply);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(Request::decode([0; REQUEST_LENGTH]), Err(WireError::Magic)));
        assert!(matches!(Reply::decode([0; REPLY_LENGTH]), Err(WireError::Magic)));
        let request = Request {
            workload: Workload::Sink,
            check: Check::None,
            block: 1,
            total: 1,
            seed: 0,
            timeout_ms: 0,
        };
        for (offset, field) in [(8, "workload"), (12, "check"), (16, "block")] {
            let mut bytes = request.encode();
            bytes[offset..offset + 4].copy_from_slice(&if field == "block" { [0; 4] } else { [9; 4] });
            let error = Request::decode(bytes).unwrap_err();
            assert!(matches!(error, WireError::Field(name) if name == field), "{error}");
        }
    }
}
