//! The messages of PCI over virtio, as include/uapi/linux/virtio_pcidev.h has them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Queue of the commands from the driver.
pub const COMMAND_QUEUE: u16 = 0;
/// Queue of the interrupts to the driver.
pub const INTERRUPT_QUEUE: u16 = 1;
/// How many queues there are.
pub const NUM_QUEUES: usize = 2;

/// `struct virtio_pcidev_msg` without its data. The fields are in the byte order of the processor, the data after it is
/// little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// What to do: an [`Operation`], or [`OP_MSI`].
    pub op: u8,
    /// Which BAR, for accesses to one.
    pub bar: u8,
    /// Zero.
    pub reserved: u16,
    /// Length of the access in bytes.
    pub size: u32,
    /// Offset in the configuration space or the BAR; the address of an MSI.
    pub addr: u64,
}

const _: () = assert!(size_of::<Header>() == 16);

/// An MSI or MSI-X message to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct MsiMessage {
    /// [`OP_MSI`], 4 bytes.
    pub header: Header,
    /// What is written, little-endian.
    pub data: [u8; 4],
}

const _: () = assert!(size_of::<MsiMessage>() == 20);

/// An MSI or MSI-X message, of `enum virtio_pcidev_ops`.
pub const OP_MSI: u8 = 7;

/// The commands of `enum virtio_pcidev_ops`.
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
    /// Fill a part of a BAR with one byte.
    MmioMemset,
}

impl Operation {
    /// The command of a header; `None` for what is none, such as an interrupt.
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
