//! Opcodes of the send WQEs that each kind of queue executes. A WQE of any other opcode completes in error.

use mlx5_prm::wqe::WqeOpcode::{self, *};

use super::qp::service;

/// Opcodes as a set, a bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opcodes(u64);

impl Opcodes {
    const fn new(opcodes: &[WqeOpcode]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < opcodes.len() {
            bits |= 1 << opcodes[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Whether the opcode is one of them.
    #[inline]
    pub const fn contains(self, opcode: WqeOpcode) -> bool {
        self.0 & 1 << opcode as u8 != 0
    }
}

/// Of an SQ, which sends Ethernet frames.
pub const ETHERNET: Opcodes = Opcodes::new(&[Nop, Send, Lso]);

/// Of a QP of a service with datagrams.
pub const DATAGRAM: Opcodes = Opcodes::new(&[Nop, Send, SendImmediate, Umr]);

/// Of a QP of service UC.
pub const UNRELIABLE: Opcodes = Opcodes::new(&[
    Nop,
    Send,
    SendImmediate,
    SendInvalidate,
    RdmaWrite,
    RdmaWriteImmediate,
    Umr,
]);

/// Of a QP of any other service.
pub const RELIABLE: Opcodes = Opcodes::new(&[
    Nop,
    Send,
    SendImmediate,
    SendInvalidate,
    RdmaWrite,
    RdmaWriteImmediate,
    RdmaRead,
    AtomicCompareSwap,
    AtomicFetchAdd,
    Umr,
]);

/// Returns the opcodes of a QP's service.
#[inline]
pub const fn of_service(service: u8) -> Opcodes {
    match service {
        service::UD | service::GSI => DATAGRAM,
        service::UC => UNRELIABLE,
        _ => RELIABLE,
    }
}
