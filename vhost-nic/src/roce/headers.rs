//! Transport headers (IBTA volume 1, chapter 9; RoCE v2: annex A17), big-endian on the wire.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::opcode::{Extension, Opcode};
use super::psn::Psn;

/// P_Key of RoCE: default partition, full member.
pub const DEFAULT_PKEY: u16 = 0xffff;

/// Mask of the low 24 bits.
const LOW_24: u32 = 0xff_ffff;

/// Base transport header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Bth {
    /// See [`Opcode`].
    pub opcode: u8,
    flags: u8,
    /// Partition key.
    pub pkey: U16,
    congestion_qpn: U32,
    ack_psn: U32,
}
const _: () = assert!(size_of::<Bth>() == 12);

impl Bth {
    const SOLICITED: u8 = 1 << 7;
    const MIGREQ: u8 = 1 << 6;
    const FECN: u32 = 1 << 31;
    const BECN: u32 = 1 << 30;
    const ACKREQ: u32 = 1 << 31;

    /// Creates a header with MigReq and the default P_Key, as ConnectX sends it.
    pub fn new(opcode: Opcode, destination_qpn: u32, psn: Psn) -> Self {
        Self {
            opcode: opcode.byte(),
            flags: Self::MIGREQ,
            pkey: U16::new(DEFAULT_PKEY),
            congestion_qpn: U32::new(destination_qpn & LOW_24),
            ack_psn: U32::new(psn.value()),
        }
    }

    /// Replaces the opcode.
    pub fn with_opcode(mut self, opcode: Opcode) -> Self {
        self.opcode = opcode.byte();
        self
    }

    /// Replaces the packet sequence number.
    pub fn with_psn(mut self, psn: Psn) -> Self {
        self.ack_psn = U32::new(self.ack_psn.get() & !LOW_24 | psn.value());
        self
    }

    /// Sets the solicited event bit.
    pub fn with_solicited(mut self, solicited: bool) -> Self {
        set(&mut self.flags, Self::SOLICITED, solicited);
        self
    }

    /// Sets the acknowledge request bit.
    pub fn with_ack_request(mut self, requested: bool) -> Self {
        let psn = self.psn().value();
        self.ack_psn = U32::new(if requested { psn | Self::ACKREQ } else { psn });
        self
    }

    /// Sets the pad count: bytes of padding after the payload, 0 to 3.
    pub fn with_pad(mut self, pad: u8) -> Self {
        self.flags = self.flags & !0x30 | (pad & 3) << 4;
        self
    }

    /// Sets the congestion bits.
    pub fn with_congestion(mut self, fecn: bool, becn: bool) -> Self {
        let mut bits = 0;
        if fecn {
            bits |= Self::FECN;
        }
        if becn {
            bits |= Self::BECN;
        }
        self.congestion_qpn = U32::new(bits | self.destination_qpn());
        self
    }

    /// Replaces the partition key.
    pub fn with_pkey(mut self, pkey: u16) -> Self {
        self.pkey = U16::new(pkey);
        self
    }

    /// Solicited event.
    pub fn solicited(&self) -> bool {
        self.flags & Self::SOLICITED != 0
    }

    /// Migration state: the only path counts as migrated.
    pub fn migreq(&self) -> bool {
        self.flags & Self::MIGREQ != 0
    }

    /// Pad count: bytes of padding after the payload.
    pub fn pad(&self) -> u8 {
        self.flags >> 4 & 3
    }

    /// Transport header version; 0 is the only one.
    pub fn version(&self) -> u8 {
        self.flags & 0xf
    }

    /// Forward explicit congestion notification.
    pub fn fecn(&self) -> bool {
        self.congestion_qpn.get() & Self::FECN != 0
    }

    /// Backward explicit congestion notification.
    pub fn becn(&self) -> bool {
        self.congestion_qpn.get() & Self::BECN != 0
    }

    /// Destination QP number (24 bits).
    pub fn destination_qpn(&self) -> u32 {
        self.congestion_qpn.get() & LOW_24
    }

    /// Acknowledge request.
    pub fn ack_request(&self) -> bool {
        self.ack_psn.get() & Self::ACKREQ != 0
    }

    /// Packet sequence number.
    pub fn psn(&self) -> Psn {
        Psn::new(self.ack_psn.get())
    }
}

fn set(flags: &mut u8, bit: u8, on: bool) {
    *flags = if on { *flags | bit } else { *flags & !bit };
}

/// RDMA extended transport header: remote memory of a WRITE or READ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Reth {
    /// Address in the space of the key.
    pub virtual_address: U64,
    /// Remote key.
    pub rkey: U32,
    /// Length of the whole message in bytes.
    pub dma_length: U32,
}
const _: () = assert!(size_of::<Reth>() == 16);

impl Reth {
    /// Creates a header for a message of `dma_length` bytes.
    pub fn new(virtual_address: u64, rkey: u32, dma_length: u32) -> Self {
        Self {
            virtual_address: U64::new(virtual_address),
            rkey: U32::new(rkey),
            dma_length: U32::new(dma_length),
        }
    }
}

/// ACK extended transport header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Aeth {
    /// Encoded [`Syndrome`](super::syndrome::Syndrome).
    pub syndrome: u8,
    msn: [u8; 3],
}
const _: () = assert!(size_of::<Aeth>() == 4);

impl Aeth {
    /// Creates a header with the low 24 bits of the message sequence number.
    pub fn new(syndrome: u8, msn: u32) -> Self {
        let [_, msn @ ..] = msn.to_be_bytes();
        Self { syndrome, msn }
    }

    /// Message sequence number, 24 bits.
    pub fn msn(&self) -> u32 {
        let [high, middle, low] = self.msn;
        u32::from_be_bytes([0, high, middle, low])
    }
}

/// Atomic extended transport header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AtomicEth {
    /// Address in the space of the key.
    pub virtual_address: U64,
    /// Remote key.
    pub rkey: U32,
    /// Swap or add operand.
    pub swap_or_add: U64,
    /// Compare operand.
    pub compare: U64,
}
const _: () = assert!(size_of::<AtomicEth>() == 28);

/// Atomic ACK extended transport header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct AtomicAckEth {
    /// Original value.
    pub original: U64,
}
const _: () = assert!(size_of::<AtomicAckEth>() == 8);

/// Datagram extended transport header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Deth {
    /// Queue key.
    pub qkey: U32,
    source_qpn: U32,
}
const _: () = assert!(size_of::<Deth>() == 8);

impl Deth {
    /// Creates a header with the low 24 bits of the source QP number.
    pub fn new(qkey: u32, source_qpn: u32) -> Self {
        Self {
            qkey: U32::new(qkey),
            source_qpn: U32::new(source_qpn & LOW_24),
        }
    }

    /// Source QP number (24 bits).
    pub fn source_qpn(&self) -> u32 {
        self.source_qpn.get() & LOW_24
    }
}

/// Immediate data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ImmDt {
    /// Four bytes, opaque to the transport.
    pub immediate: [u8; 4],
}
const _: () = assert!(size_of::<ImmDt>() == 4);

/// Invalidate extended transport header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ieth {
    /// R_Key of the receiver to invalidate.
    pub rkey: U32,
}
const _: () = assert!(size_of::<Ieth>() == 4);

/// XRC extended transport header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct XrcEth {
    srqn: U32,
}
const _: () = assert!(size_of::<XrcEth>() == 4);

impl XrcEth {
    /// Creates a header with the low 24 bits of an SRQ number of the receiver.
    pub fn new(srqn: u32) -> Self {
        Self {
            srqn: U32::new(srqn & LOW_24),
        }
    }

    /// SRQ number (24 bits).
    pub fn srqn(&self) -> u32 {
        self.srqn.get() & LOW_24
    }
}

/// Transport headers of a packet: exactly those that its opcode prescribes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the types say it")]
pub struct Headers {
    pub bth: Bth,
    pub xrc: Option<XrcEth>,
    pub deth: Option<Deth>,
    pub reth: Option<Reth>,
    pub atomic: Option<AtomicEth>,
    pub aeth: Option<Aeth>,
    pub atomic_ack: Option<AtomicAckEth>,
    pub immediate: Option<ImmDt>,
    pub invalidate: Option<Ieth>,
}

impl Headers {
    /// Length of the longest headers in bytes: an atomic operation over XRC.
    pub const MAX_LENGTH: usize = size_of::<Bth>() + size_of::<XrcEth>() + size_of::<AtomicEth>();

    /// Creates headers of a BTH without extended headers.
    pub fn new(bth: Bth) -> Self {
        Self { bth, ..Self::default() }
    }

    /// Length in bytes.
    pub fn length(&self) -> usize {
        let mut length = 0;
        self.each(|bytes| length += bytes.len());
        length
    }

    /// Appends the headers.
    pub fn emit(&self, out: &mut Vec<u8>) {
        self.each(|bytes| out.extend_from_slice(bytes));
    }

    /// Parses the extended headers of `opcode` behind its BTH; returns the headers and the remaining bytes. `None` if
    /// there are too few bytes.
    pub fn parse(bth: Bth, opcode: Opcode, mut rest: &[u8]) -> Option<(Self, &[u8])> {
        let mut headers = Self::new(bth);
        for extension in opcode.extensions() {
            match extension {
                Extension::XrcEth => headers.xrc = Some(take(&mut rest)?),
                Extension::Deth => headers.deth = Some(take(&mut rest)?),
                Extension::Reth => headers.reth = Some(take(&mut rest)?),
                Extension::AtomicEth => headers.atomic = Some(take(&mut rest)?),
                Extension::Aeth => headers.aeth = Some(take(&mut rest)?),
                Extension::AtomicAckEth => headers.atomic_ack = Some(take(&mut rest)?),
                Extension::ImmDt => headers.immediate = Some(take(&mut rest)?),
                Extension::Ieth => headers.invalidate = Some(take(&mut rest)?),
            }
        }
        Some((headers, rest))
    }

    /// Returns the subset that `opcode` prescribes.
    pub fn of(&self, opcode: Opcode) -> Self {
        let mut headers = Self::new(self.bth);
        for extension in opcode.extensions() {
            match extension {
                Extension::XrcEth => headers.xrc = self.xrc,
                Extension::Deth => headers.deth = self.deth,
                Extension::Reth => headers.reth = self.reth,
                Extension::AtomicEth => headers.atomic = self.atomic,
                Extension::Aeth => headers.aeth = self.aeth,
                Extension::AtomicAckEth => headers.atomic_ack = self.atomic_ack,
                Extension::ImmDt => headers.immediate = self.immediate,
                Extension::Ieth => headers.invalidate = self.invalidate,
            }
        }
        headers
    }

    /// Whether these are exactly the headers that `opcode` prescribes.
    pub fn are_of(&self, opcode: Opcode) -> bool {
        let present = [
            (Extension::XrcEth, self.xrc.is_some()),
            (Extension::Deth, self.deth.is_some()),
            (Extension::Reth, self.reth.is_some()),
            (Extension::AtomicEth, self.atomic.is_some()),
            (Extension::Aeth, self.aeth.is_some()),
            (Extension::AtomicAckEth, self.atomic_ack.is_some()),
            (Extension::ImmDt, self.immediate.is_some()),
            (Extension::Ieth, self.invalidate.is_some()),
        ];
        present
            .into_iter()
            .filter_map(|(extension, present)| present.then_some(extension))
            .eq(opcode.extensions())
    }

    fn each(&self, mut visit: impl FnMut(&[u8])) {
        visit(self.bth.as_bytes());
        // The order on the wire, for every opcode.
        visit(bytes(&self.xrc));
        visit(bytes(&self.deth));
        visit(bytes(&self.reth));
        visit(bytes(&self.atomic));
        visit(bytes(&self.aeth));
        visit(bytes(&self.atomic_ack));
        visit(bytes(&self.immediate));
        visit(bytes(&self.invalidate));
    }
}

fn bytes<T: IntoBytes + Immutable>(header: &Option<T>) -> &[u8] {
    header.as_ref().map_or(&[], IntoBytes::as_bytes)
}

fn take<T: FromBytes>(rest: &mut &[u8]) -> Option<T> {
    let (header, behind) = T::read_from_prefix(rest).ok()?;
    *rest = behind;
    Some(header)
}

#[cfg(test)]
mod tests;
