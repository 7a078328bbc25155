//! RoCE packets, v1 and v2: formats only, no queues.
//!
//! The *head* of a packet is everything up to its payload. Between two NICs of one daemon the payload travels by
//! reference, behind a head whose lengths count payload, padding and ICRC; these are serialized ([`icrc::append`]) only
//! where a packet leaves the daemon.

mod display;
pub mod gid;
pub mod grh;
pub mod grh_area;
pub mod headers;
pub mod icrc;
pub mod opcode;
pub mod packet;
pub mod path;
pub mod psn;
pub mod rnr;
pub mod syndrome;

/// UDP destination port of RoCE v2 (IANA).
pub const UDP_PORT: u16 = 4791;
/// Length of the ICRC in bytes.
pub const ICRC_LENGTH: usize = 4;
/// Maximum bytes of payload in a packet: the largest path MTU.
pub const MAX_PAYLOAD: usize = 4096;

/// Number of zeros that pad a payload to a multiple of 4 bytes.
pub const fn pad_length(payload_length: usize) -> usize {
    payload_length.wrapping_neg() & 3
}
