//! A guest's machine: the device in its slot, RAM and interrupts.

use std::any::Any;
use std::sync::Arc;

use crate::device::Device;
use crate::interrupts::{Interrupts, MESSAGE_ADDRESS, MESSAGE_DATA};
use crate::memory::Memory;

/// Command register of the configuration space, with Memory Space Enable and Bus Master Enable.
const COMMAND: u64 = 0x04;
const MEMORY_AND_MASTER: u16 = 1 << 1 | 1 << 2;
/// Capabilities Pointer.
const CAPABILITIES: u64 = 0x34;
/// The MSI-X capability: its ID, offsets of Message Control and of Table Offset, and fields of these.
const MSIX_CAPABILITY: u8 = 0x11;
const MESSAGE_CONTROL: u64 = 2;
const TABLE_OFFSET: u64 = 4;
const MSIX_ENABLE: u16 = 1 << 15;
const TABLE_SIZE: u16 = 0x7ff;
const TABLE_BIR: u32 = 0b111;
/// Bytes of an MSI-X table entry.
const ENTRY: u64 = 16;

/// A machine with one device.
pub struct Machine {
    device: Arc<dyn Device>,
    /// RAM.
    pub memory: Arc<Memory>,
    /// Interrupts of the device.
    pub interrupts: Arc<Interrupts>,
    /// MAC address of the device's port.
    pub mac: [u8; 6],
}

impl Machine {
    /// Plugs a device in: maps all RAM, connects the interrupts and enables the function.
    pub fn new(device: Arc<dyn Device>, mac: [u8; 6]) -> Self {
        let machine = Self {
            device,
            memory: Memory::new(),
            interrupts: Arc::default(),
            mac,
        };
        machine.map();
        machine.device.connect(Arc::clone(&machine.interrupts));
        machine.enable();
        machine
    }

    /// The device.
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// The device as its own type. Panics if it is of another one.
    #[track_caller]
    pub fn device_as<D: Device>(&self) -> &D {
        let device: &dyn Any = &*self.device;
        device.downcast_ref().expect("the device is of another type")
    }

    /// Maps all RAM for DMA.
    pub fn map(&self) {
        self.device.map(&self.memory);
    }

    /// Enables memory decoding, bus mastering and MSI-X with all vectors unmasked, as a kernel's PCI core does for a
    /// driver.
    pub fn enable(&self) {
        self.device.config_write(COMMAND, &MEMORY_AND_MASTER.to_le_bytes());
        let capability = self.msix_capability();
        let mut table = [0; 4];
        self.device.config_read(capability + TABLE_OFFSET, &mut table);
        let table = u32::from_le_bytes(table);
        assert_eq!(table & TABLE_BIR, 0, "the MSI-X table is not in BAR 0");
        for vector in 0..self.vectors() {
            let mut entry = [0; ENTRY as usize];
            entry[..8].copy_from_slice(&MESSAGE_ADDRESS.to_le_bytes());
            entry[8..12].copy_from_slice(&(MESSAGE_DATA | u32::from(vector)).to_le_bytes());
            self.device
                .bar_write(u64::from(table) + u64::from(vector) * ENTRY, &entry);
        }
        self.device
            .config_write(capability + MESSAGE_CONTROL, &MSIX_ENABLE.to_le_bytes());
    }

    /// Number of MSI-X vectors.
    pub fn vectors(&self) -> u16 {
        let mut control = [0; 2];
        self.device
            .config_read(self.msix_capability() + MESSAGE_CONTROL, &mut control);
        (u16::from_le_bytes(control) & TABLE_SIZE) + 1
    }

    fn msix_capability(&self) -> u64 {
        let mut at = self.config_byte(CAPABILITIES);
        while self.config_byte(at.into()) != MSIX_CAPABILITY {
            at = self.config_byte(u64::from(at) + 1);
            assert_ne!(at, 0, "no MSI-X capability");
        }
        at.into()
    }

    fn config_byte(&self, offset: u64) -> u8 {
        let mut byte = [0];
        self.device.config_read(offset, &mut byte);
        byte[0]
    }

    /// Reads a big-endian register of 32 bits.
    pub fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.device.bar_read(offset, &mut data);
        u32::from_be_bytes(data)
    }

    /// Writes a big-endian register of 32 bits.
    pub fn write(&self, offset: u64, value: u32) {
        self.device.bar_write(offset, &value.to_be_bytes());
    }

    /// Writes a register of 64 bits in one access.
    pub fn write_pair(&self, offset: u64, value: [u8; 8]) {
        self.device.bar_write(offset, &value);
    }
}
