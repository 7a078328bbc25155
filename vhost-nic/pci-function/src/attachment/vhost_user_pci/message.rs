//! Messages of PCI over virtio (include/uapi/linux/virtio_pcidev.h).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Queue of commands from the driver.
pub const COMMAND_QUEUE: u16 = 0;
/// Queue of interrupts to the driver.
pub const INTERRUPT_QUEUE: u16 = 1;
/// Number of queues.
pub const NUM_QUEUES: usize = 2;

/// `struct virtio_pcidev_msg` without data. The fields are in native byte order, the data behind them is little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// An [`Operation`], or [`OP_MSI`].
    pub op: u8,
    /// Number of the BAR, for an access to one.
    pub bar: u8,
    /// Zero.
    pub reserved: u16,
    /// Length of the access in bytes.
    pub size: u32,
    /// Offset in configuration space or in the BAR; address of an MSI.
    pub addr: u64,
}

const _: () = assert!(size_of::<Header>() == 16);

/// An MSI or MSI-X message to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct MsiMessage {
    /// [`OP_MSI`], 4 bytes.
    pub header: Header,
    /// Message data, little-endian.
    pub data: [u8; 4],
}

const _: () = assert!(size_of::<MsiMessage>() == 20);

/// VIRTIO_PCIDEV_OP_MSI: an MSI or MSI-X message.
pub const OP_MSI: u8 = 7;

/// Commands of `enum virtio_pcidev_ops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read configuration space.
    ConfigRead,
    /// Write configuration space.
    ConfigWrite,
    /// Read a BAR.
    MmioRead,
    /// Write a BAR.
    MmioWrite,
    /// Fill part of a BAR with one byte.
    MmioMemset,
}

impl Operation {
    /// Command of a header; `None` if it is unknown, or an interrupt.
    pub fn command(op: u8) -> Option<Self> {
        match op {
            1 => Some(Self::ConfigRead),
            2 => Some(Self::ConfigWrite),
            3 => Some(Self::MmioRead),
            4 => Some(Self::MmioWrite),
            5 => Some(Self::MmioMemset),
            _ => None,
        }
    }
}
