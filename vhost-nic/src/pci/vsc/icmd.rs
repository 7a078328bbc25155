//! ICMD: firmware commands through the gateway, by which the vendor's tools reach registers without a driver.
//!
//! The space has a control register, the size of the mailbox, a syndrome and the mailbox. A tool that holds the
//! semaphore writes the command's opcode and data, sets the busy bit, and waits until it is clear (`icmd_send_command`,
//! mstflint's mtcr_ul/mtcr_ul_icmd_cif.c). One command tells what there is, the other accesses a register: an
//! operation TLV names it, a register TLV holds it (mtcr_ul/packets_layout.h).

use std::fmt;
use std::sync::Arc;

use zerocopy::{BE, FromBytes, Immutable, IntoBytes, KnownLayout, U16, U32, U64, Unaligned};

/// Addresses in the space: control, size of the mailbox, syndrome, mailbox.
const CONTROL: u32 = 0;
const MAILBOX_SIZE: u32 = 0x1000;
const SYNDROME: u32 = 0x1008;
const MAILBOX: u32 = 0x10_0000;
/// Bytes of the mailbox.
const MAILBOX_BYTES: usize = 0x350;

/// Fields of the control register: go and busy, status, opcode.
const BUSY: u32 = 1 << 0;
const STATUS: u32 = 0xff << 8;
/// Capabilities (`ICMD_QUERY_CAP_CMD_ID`), and access to a register (`FLASH_REG_ACCESS`).
const QUERY_CAPABILITIES: u32 = 0x8400;
const ACCESS_REGISTER: u32 = 0x9001;
/// Bytes of the capabilities, and those there are (`icmd_hca_icmd_query_cap_general`, mstflint's
/// tools_layouts/icmd_hca_layouts.h): access to any register, PCAM, MCAM.
const CAPABILITIES_SIZE: usize = 24;
const CAPABILITIES: u32 = 1 << 29 | 1 << 27 | 1 << 26;
/// Status of a command with an unknown opcode, and of one whose TLVs are invalid.
const INVALID_OPCODE: u32 = 1;
const BAD_PARAMETER: u32 = 4;

/// Refusal of a register access, as the status of an operation TLV (`return_by_reg_status`, mtcr_ul_com.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RegisterError {
    /// There is no such register.
    NotSupported = 4,
    /// The register cannot be read or written so.
    BadParameter = 7,
}

/// Registers of the adapter.
pub trait AdapterRegisters: Send + Sync {
    /// Reads or writes register `id`, and returns its new value.
    fn access(&self, id: u16, write: bool, value: &[u8]) -> Result<Vec<u8>, RegisterError>;
}

/// Operation TLV.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct OperationTlv {
    /// Type in bits 15:11, length in dwords in bits 10:0.
    kind: U16<BE>,
    /// Direction in bit 15, status in bits 14:8.
    status: U16<BE>,
    register: U16<BE>,
    /// Response in bit 15, method in bits 14:8, class in bits 7:0.
    method: U16<BE>,
    transaction: U64<BE>,
}
const _: () = assert!(size_of::<OperationTlv>() == 16);

/// Register TLV, before the register.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RegisterTlv {
    /// Type in bits 31:27, length in dwords with this header in bits 26:16.
    kind: U32<BE>,
}
const _: () = assert!(size_of::<RegisterTlv>() == 4);

/// Types of TLVs, and methods of the operation.
const OPERATION: u16 = 1;
const REGISTER: u32 = 3;
const QUERY: u16 = 1;
const WRITE: u16 = 2;

/// Registers of the space.
pub(super) struct Icmd {
    control: u32,
    mailbox: [u8; MAILBOX_BYTES],
    registers: Option<Arc<dyn AdapterRegisters>>,
}

impl fmt::Debug for Icmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Icmd")
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

impl Icmd {
    /// Creates the space after power-on, before these registers.
    pub(super) fn new(registers: Option<Arc<dyn AdapterRegisters>>) -> Self {
        Self {
            control: 0,
            mailbox: [0; MAILBOX_BYTES],
            registers,
        }
    }

    /// Returns to the state after power-on.
    pub(super) fn power_cycle(&mut self) {
        *self = Self::new(self.registers.take());
    }

    /// Returns the dword of the mailbox at an address.
    fn word(&mut self, address: u32) -> Option<&mut [u8]> {
        let offset = address.checked_sub(MAILBOX)? as usize;
        self.mailbox.get_mut(offset..offset.checked_add(4)?)
    }

    pub(super) fn read(&mut self, address: u32) -> u32 {
        match address {
            CONTROL => self.control,
            MAILBOX_SIZE => MAILBOX_BYTES as u32,
            // Refusals are in the operation TLV.
            SYNDROME => 0,
            _ => self.word(address).map_or(0, |word| {
                word.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
            }),
        }
    }

    pub(super) fn write(&mut self, address: u32, value: u32) {
        if address == CONTROL {
            self.control = value & !(BUSY | STATUS);
            if value & BUSY != 0 {
                self.control |= self.execute(value >> 16) << 8;
            }
        } else if let Some(word) = self.word(address) {
            word.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Executes a command and returns its status.
    fn execute(&mut self, opcode: u32) -> u32 {
        match opcode {
            QUERY_CAPABILITIES => {
                self.mailbox[..CAPABILITIES_SIZE].fill(0);
                self.mailbox[..4].copy_from_slice(&CAPABILITIES.to_be_bytes());
                0
            }
            ACCESS_REGISTER => self.access_register().map_or(BAD_PARAMETER, |()| 0),
            _ => INVALID_OPCODE,
        }
    }

    /// Accesses the register in the mailbox; `None` if its TLVs are invalid.
    fn access_register(&mut self) -> Option<()> {
        let (operation, rest) = OperationTlv::mut_from_prefix(&mut self.mailbox).ok()?;
        let (register, rest) = RegisterTlv::ref_from_prefix(rest).ok()?;
        let kind = register.kind.get();
        let length = (kind >> 16 & 0x7ff) as usize * 4;
        if operation.kind.get() >> 11 != OPERATION || kind >> 27 != REGISTER {
            return None;
        }
        let length = length.checked_sub(size_of::<RegisterTlv>())?;
        let start = size_of::<OperationTlv>() + size_of::<RegisterTlv>();
        if length > rest.len() {
            return None;
        }
        let write = match operation.method.get() >> 8 & 0x7f {
            QUERY => false,
            WRITE => true,
            _ => return None,
        };
        let id = operation.register.get();
        let value = &self.mailbox[start..start + length];
        let answer = match &self.registers {
            Some(registers) => registers.access(id, write, value),
            None => Err(RegisterError::NotSupported),
        };
        let status = match answer {
            Ok(value) => {
                let length = length.min(value.len());
                self.mailbox[start..start + length].copy_from_slice(&value[..length]);
                0
            }
            Err(error) => error as u16,
        };
        let (operation, _) = OperationTlv::mut_from_prefix(&mut self.mailbox).ok()?;
        operation.status.set(status << 8);
        operation.method.set(operation.method.get() | 1 << 15);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One;

    impl AdapterRegisters for One {
        fn access(&self, id: u16, write: bool, value: &[u8]) -> Result<Vec<u8>, RegisterError> {
            match (id, write) {
                (0x1234, false) => Ok([&[0xa5; 4], value].concat()),
                (0x1234, true) => Err(RegisterError::BadParameter),
                _ => Err(RegisterError::NotSupported),
            }
        }
    }

    /// Executes a register access with two dwords, and returns control register, status of the operation, and data.
    fn access(icmd: &mut Icmd, id: u32, method: u32, register_tlv: u32) -> (u32, u32, [u32; 2]) {
        let words = [
            1 << 27 | 4 << 16,
            id << 16 | method << 8 | 1,
            0,
            7,
            register_tlv,
            0x1122_3344,
            0x5566_7788,
        ];
        for (index, word) in (0..).zip(words) {
            icmd.write(MAILBOX + 4 * index, word);
        }
        icmd.write(CONTROL, ACCESS_REGISTER << 16);
        icmd.write(CONTROL, ACCESS_REGISTER << 16 | BUSY);
        let status = icmd.read(MAILBOX) >> 8 & 0x7f;
        (
            icmd.read(CONTROL),
            status,
            [icmd.read(MAILBOX + 20), icmd.read(MAILBOX + 24)],
        )
    }

    const TLV: u32 = 3 << 27 | 3 << 16;
    const UNCHANGED: [u32; 2] = [0x1122_3344, 0x5566_7788];

    #[test]
    fn a_register_is_read_through_the_mailbox() {
        let mut icmd = Icmd::new(Some(Arc::new(One)));
        let done = ACCESS_REGISTER << 16;
        assert_eq!(access(&mut icmd, 0x1234, 1, TLV), (done, 0, [0xa5a5_a5a5, 0x1122_3344]));
        assert_eq!(icmd.read(MAILBOX + 12), 7, "the transaction stays");
        assert_eq!(access(&mut icmd, 0x1234, 2, TLV), (done, 7, UNCHANGED));
        assert_eq!(access(&mut icmd, 0x1235, 1, TLV), (done, 4, UNCHANGED));
        icmd.power_cycle();
        assert_eq!((icmd.read(CONTROL), icmd.read(MAILBOX)), (0, 0));
        assert_eq!(access(&mut icmd, 0x1234, 1, TLV).1, 0);
    }

    #[test]
    fn an_invalid_command_is_refused() {
        let mut icmd = Icmd::new(Some(Arc::new(One)));
        let refused = ACCESS_REGISTER << 16 | BAD_PARAMETER << 8;
        for tlv in [0, 2 << 27 | 3 << 16, 3 << 27, 3 << 27 | 0x7ff << 16] {
            assert_eq!(access(&mut icmd, 0x1234, 1, tlv).0, refused, "{tlv:#x}");
        }
        assert_eq!(access(&mut icmd, 0x1234, 3, TLV).0, refused);
        icmd.write(CONTROL, 0x8401 << 16 | BUSY);
        assert_eq!(icmd.read(CONTROL), 0x8401 << 16 | INVALID_OPCODE << 8);
    }

    #[test]
    fn tools_may_access_any_register() {
        let mut icmd = Icmd::new(None);
        icmd.write(MAILBOX + 4, u32::MAX);
        icmd.write(CONTROL, QUERY_CAPABILITIES << 16 | BUSY);
        assert_eq!(icmd.read(CONTROL), QUERY_CAPABILITIES << 16);
        assert_eq!((icmd.read(MAILBOX), icmd.read(MAILBOX + 4)), (CAPABILITIES, 0));
    }

    #[test]
    fn nothing_is_outside_the_mailbox() {
        let mut icmd = Icmd::new(None);
        let end = MAILBOX + MAILBOX_BYTES as u32;
        for address in [4, 0x1004, MAILBOX - 4, end - 3, end, (1 << 30) - 1] {
            icmd.write(address, u32::MAX);
            assert_eq!(icmd.read(address), 0, "{address:#x}");
        }
        assert_eq!(icmd.read(MAILBOX_SIZE), MAILBOX_BYTES as u32);
        icmd.write(end - 4, 5);
        assert_eq!(icmd.read(end - 4), 5);
    }
}
