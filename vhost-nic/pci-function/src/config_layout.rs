//! Configuration space after a reset, and the bits that a guest can write.
//!
//! The capabilities are where ConnectX adapters have them. Sections are those of the PCI Express Base Specification,
//! revision 5.0.

use crate::spec::FunctionSpec;

/// Size of the configuration space in bytes (7.2).
pub const CONFIG_SPACE_SIZE: usize = 4096;

pub(super) const COMMAND: usize = 0x04;
pub(super) const COMMAND_MEMORY: u16 = 1 << 1;
pub(super) const COMMAND_BUS_MASTER: u16 = 1 << 2;

const PM: usize = 0x40;
pub(super) const PMCSR: usize = PM + 4;
pub(super) const PMCSR_STATE: u8 = 3;

const VITAL_PRODUCT_DATA: usize = 0x48;
pub(super) const VPD_ADDRESS: usize = VITAL_PRODUCT_DATA + 2;
pub(super) const VPD_DATA: usize = VITAL_PRODUCT_DATA + 4;
/// Flag of the address: the data register has been read, or is to be written.
pub(super) const VPD_FLAG: u16 = 1 << 15;

const EXPRESS: usize = 0x60;
/// Byte of Device Control with Initiate Function Level Reset.
pub(super) const DEVICE_CONTROL_HIGH: usize = EXPRESS + 9;
pub(super) const INITIATE_FLR: u8 = 1 << 7;

const MSIX: usize = 0x9c;
pub(super) const MSIX_CONTROL: usize = MSIX + 2;
pub(super) const MSIX_ENABLE: u16 = 1 << 15;
pub(super) const MSIX_FUNCTION_MASK: u16 = 1 << 14;

pub(super) const VENDOR_SPECIFIC: usize = 0xc0;

const SERIAL_NUMBER: usize = 0x100;

/// Values after a reset, and masks of the writable bits.
pub(super) struct Layout {
    pub(super) values: Box<[u8; CONFIG_SPACE_SIZE]>,
    pub(super) writable: Box<[u8; CONFIG_SPACE_SIZE]>,
    /// Offset of the pointer to the next capability.
    link: usize,
}

impl Layout {
    pub(super) fn new(spec: &FunctionSpec, vectors: u16) -> Self {
        let mut layout = Self {
            values: Box::new([0; CONFIG_SPACE_SIZE]),
            writable: Box::new([0; CONFIG_SPACE_SIZE]),
            link: 0x34,
        };
        layout.header(spec);
        layout.express();
        if spec.vital_product_data.is_some() {
            layout.vital_product_data();
        }
        layout.msix(spec, vectors);
        if let Some(vendor) = &spec.vendor_specific {
            layout.vendor_specific(vendor.length());
        }
        layout.power_management();
        if let Some(number) = spec.serial_number {
            layout.serial_number(number);
        }
        layout
    }

    /// Type 0 header (7.5.1.1, 7.5.1.2).
    fn header(&mut self, spec: &FunctionSpec) {
        self.word(0x00, spec.vendor_id, 0);
        self.word(0x02, spec.device_id, 0);
        // Command: Memory Space Enable, Bus Master Enable, Parity Error Response, SERR# Enable, Interrupt Disable.
        // There is no I/O space.
        self.word(COMMAND, 0, 0x0546);
        // Status: Capabilities List. Errors are never reported, so there is nothing to clear.
        self.word(0x06, 1 << 4, 0);
        // Revision 0.
        self.dword(0x08, spec.class_code << 8, 0);
        // Cache Line Size: read-write without effect.
        self.byte(0x0c, 0, 0xff);
        // BAR 0: 64-bit, prefetchable. Only the address bits above the size are writable, which is how software sizes
        // it.
        self.dword(0x10, 0xc, !(spec.bar.size as u32 - 1));
        self.dword(0x14, 0, u32::MAX);
        self.word(0x2c, spec.subsystem_vendor_id, 0);
        self.word(0x2e, spec.subsystem_id, 0);
        // The Expansion ROM Base Address at 0x30 stays 0: there is no ROM.
        // Interrupt Line. Interrupt Pin stays 0: there is no INTx.
        self.byte(0x3c, 0, 0xff);
    }

    /// PCI Express capability of an endpoint (7.5.3).
    fn express(&mut self) {
        self.capability(EXPRESS, 0x10);
        // PCI Express Capabilities: version 2, endpoint.
        self.word(EXPRESS + 0x02, 0x0002, 0);
        // Device Capabilities: Max_Payload_Size 512, Extended Tag, Endpoint L0s and L1 latency of 64 ns and 1 us at
        // most, Role-Based Error Reporting, Function Level Reset.
        self.dword(EXPRESS + 0x04, 0x1000_8022, 0);
        // Device Control: error reporting, Relaxed Ordering, Max_Payload_Size, Extended Tag, No Snoop,
        // Max_Read_Request_Size of 512 at first. Initiate FLR reads 0.
        self.word(EXPRESS + 0x08, 0x2810, 0x79ff);
        // Device Status: no errors, nothing pending.
        self.word(EXPRESS + 0x0a, 0, 0);
        // Link Capabilities: 16 GT/s, x16, no ASPM, ASPM Optionality Compliance.
        self.dword(EXPRESS + 0x0c, 0x0040_0104, 0);
        // Link Control: Read Completion Boundary, Common Clock, Extended Synch.
        self.word(EXPRESS + 0x10, 0, 0x00c8);
        // Link Status: 16 GT/s, x16, Slot Clock.
        self.word(EXPRESS + 0x12, 0x1104, 0);
        // Device Capabilities 2: Completion Timeout ranges A to D and its disabling, atomic completer of 32, 64 and 128
        // bits, 10-bit tags as completer.
        self.dword(EXPRESS + 0x24, 0x0001_039f, 0);
        // Device Control 2: Completion Timeout value and disabling, Atomic Requester, ID-based ordering.
        self.word(EXPRESS + 0x28, 0, 0x035f);
        // Link Capabilities 2: 2.5 to 16 GT/s.
        self.dword(EXPRESS + 0x2c, 0x1e, 0);
        // Link Control 2: Target Link Speed of 16 GT/s.
        self.word(EXPRESS + 0x30, 4, 0xf);
    }

    /// Vital Product Data capability (7.9.18): address with flag, and data.
    fn vital_product_data(&mut self) {
        self.capability(VITAL_PRODUCT_DATA, 0x03);
        self.word(VPD_ADDRESS, 0, u16::MAX);
        self.dword(VPD_DATA, 0, u32::MAX);
    }

    /// MSI-X capability (7.7.2).
    fn msix(&mut self, spec: &FunctionSpec, vectors: u16) {
        self.capability(MSIX, 0x11);
        // Message Control: Table Size is encoded as N-1; MSI-X Enable and Function Mask.
        self.word(MSIX_CONTROL, vectors - 1, MSIX_ENABLE | MSIX_FUNCTION_MASK);
        // Table and PBA, both in BAR 0.
        self.dword(MSIX + 0x4, spec.bar.msix_table as u32, 0);
        self.dword(MSIX + 0x8, spec.bar.msix_pba as u32, 0);
    }

    /// Vendor-specific capability (7.9.4), without its registers.
    fn vendor_specific(&mut self, length: u8) {
        self.capability(VENDOR_SPECIFIC, 0x09);
        self.byte(VENDOR_SPECIFIC + 2, length, 0);
    }

    /// PCI Power Management capability (7.5.2).
    fn power_management(&mut self) {
        self.capability(PM, 0x01);
        // Power Management Capabilities: version 3, no PME, neither D1 nor D2.
        self.word(PM + 2, 3, 0);
        // Control/Status: PowerState. No_Soft_Reset: D3hot loses nothing.
        self.word(PMCSR, 1 << 3, PMCSR_STATE.into());
    }

    /// Device Serial Number extended capability (7.9.3), an EUI-64.
    fn serial_number(&mut self, number: u64) {
        // Version 1, last of the list.
        self.dword(SERIAL_NUMBER, 0x0001_0003, 0);
        self.dword(SERIAL_NUMBER + 4, number as u32, 0);
        self.dword(SERIAL_NUMBER + 8, (number >> 32) as u32, 0);
    }

    /// Appends a capability to the linked list.
    fn capability(&mut self, offset: usize, id: u8) {
        self.values[self.link] = offset as u8;
        self.values[offset] = id;
        self.link = offset + 1;
    }

    fn byte(&mut self, offset: usize, value: u8, writable: u8) {
        self.set(offset, [value], [writable]);
    }

    fn word(&mut self, offset: usize, value: u16, writable: u16) {
        self.set(offset, value.to_le_bytes(), writable.to_le_bytes());
    }

    fn dword(&mut self, offset: usize, value: u32, writable: u32) {
        self.set(offset, value.to_le_bytes(), writable.to_le_bytes());
    }

    fn set<const N: usize>(&mut self, offset: usize, value: [u8; N], writable: [u8; N]) {
        self.values[offset..offset + N].copy_from_slice(&value);
        self.writable[offset..offset + N].copy_from_slice(&writable);
    }
}
