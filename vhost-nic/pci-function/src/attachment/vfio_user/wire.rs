//! Messages of vfio-user 0.0 (docs/interop/vfio-user.rst of QEMU) and the constants of linux/vfio.h in them, in host
//! byte order.

use zerocopy::native_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Header of every message.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Chosen by the sender of a command, and copied to the reply.
    pub message_id: U16,
    /// One of [`command`].
    pub command: U16,
    /// Length of the message with this header, in bytes.
    pub message_size: U32,
    /// Bits of [`flags`].
    pub flags: U32,
    /// Errno of a reply with [`flags::ERROR`].
    pub error: U32,
}
const _: () = assert!(size_of::<Header>() == 16);

/// Supported commands.
pub mod command {
    pub const VERSION: u16 = 1;
    pub const DMA_MAP: u16 = 2;
    pub const DMA_UNMAP: u16 = 3;
    pub const DEVICE_GET_INFO: u16 = 4;
    pub const DEVICE_GET_REGION_INFO: u16 = 5;
    pub const DEVICE_GET_IRQ_INFO: u16 = 7;
    pub const DEVICE_SET_IRQS: u16 = 8;
    pub const REGION_READ: u16 = 9;
    pub const REGION_WRITE: u16 = 10;
    pub const DEVICE_RESET: u16 = 13;
    pub const REGION_WRITE_MULTI: u16 = 15;
}

/// Flags of a [`Header`].
pub mod flags {
    /// Type of the message: 0 is a command.
    pub const TYPE: u32 = 0xf;
    pub const REPLY: u32 = 1;
    pub const NO_REPLY: u32 = 1 << 4;
    pub const ERROR: u32 = 1 << 5;
}

/// VERSION; the capabilities follow, as JSON terminated by a NUL.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Version {
    pub major: U16,
    pub minor: U16,
}
const _: () = assert!(size_of::<Version>() == 4);

/// DMA_MAP, with or without a descriptor.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DmaMap {
    pub argsz: U32,
    pub flags: U32,
    /// Offset of the memory in the file, in bytes.
    pub offset: U64,
    pub address: U64,
    pub size: U64,
}
const _: () = assert!(size_of::<DmaMap>() == 32);

/// VFIO_DMA_MAP_FLAG_READ: the device may read.
pub const DMA_MAP_READ: u32 = 1 << 0;
/// VFIO_DMA_MAP_FLAG_WRITE: the device may write.
pub const DMA_MAP_WRITE: u32 = 1 << 1;

/// DMA_UNMAP, and its reply.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DmaUnmap {
    pub argsz: U32,
    pub flags: U32,
    pub address: U64,
    pub size: U64,
}
const _: () = assert!(size_of::<DmaUnmap>() == 24);

/// VFIO_DMA_UNMAP_FLAG_ALL: all mappings, regardless of address and size.
pub const DMA_UNMAP_ALL: u32 = 1 << 1;

/// DEVICE_GET_INFO, and its reply.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DeviceInfo {
    pub argsz: U32,
    pub flags: U32,
    pub num_regions: U32,
    pub num_irqs: U32,
}
const _: () = assert!(size_of::<DeviceInfo>() == 16);

/// VFIO_DEVICE_FLAGS_RESET: DEVICE_RESET is supported.
pub const DEVICE_RESET: u32 = 1 << 0;
/// VFIO_DEVICE_FLAGS_PCI.
pub const DEVICE_PCI: u32 = 1 << 1;

/// DEVICE_GET_REGION_INFO, and its reply.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RegionInfo {
    pub argsz: U32,
    pub flags: U32,
    pub index: U32,
    pub cap_offset: U32,
    pub size: U64,
    pub offset: U64,
}
const _: () = assert!(size_of::<RegionInfo>() == 32);

/// VFIO_REGION_INFO_FLAG_READ and VFIO_REGION_INFO_FLAG_WRITE.
pub const REGION_READ_WRITE: u32 = 0b11;

/// VFIO_PCI_BAR0_REGION_INDEX.
pub const REGION_BAR0: u32 = 0;
/// VFIO_PCI_CONFIG_REGION_INDEX.
pub const REGION_CONFIG: u32 = 7;
/// VFIO_PCI_NUM_REGIONS.
pub const NUM_REGIONS: u32 = 9;

/// DEVICE_GET_IRQ_INFO, and its reply.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IrqInfo {
    pub argsz: U32,
    pub flags: U32,
    pub index: U32,
    pub count: U32,
}
const _: () = assert!(size_of::<IrqInfo>() == 16);

/// VFIO_IRQ_INFO_EVENTFD.
pub const IRQ_EVENTFD: u32 = 1 << 0;

/// VFIO_PCI_MSIX_IRQ_INDEX.
pub const IRQ_MSIX: u32 = 2;
/// VFIO_PCI_ERR_IRQ_INDEX.
pub const IRQ_ERR: u32 = 3;
/// VFIO_PCI_REQ_IRQ_INDEX.
pub const IRQ_REQ: u32 = 4;
/// VFIO_PCI_NUM_IRQS.
pub const NUM_IRQS: u32 = 5;

/// DEVICE_SET_IRQS; for [`SET_IRQS_BOOL`] a byte per interrupt follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SetIrqs {
    pub argsz: U32,
    pub flags: U32,
    pub index: U32,
    pub start: U32,
    pub count: U32,
}
const _: () = assert!(size_of::<SetIrqs>() == 20);

/// VFIO_IRQ_SET_DATA_NONE.
pub const SET_IRQS_NONE: u32 = 1 << 0;
/// VFIO_IRQ_SET_DATA_BOOL.
pub const SET_IRQS_BOOL: u32 = 1 << 1;
/// VFIO_IRQ_SET_DATA_EVENTFD.
pub const SET_IRQS_EVENTFD: u32 = 1 << 2;
/// VFIO_IRQ_SET_ACTION_MASK.
pub const SET_IRQS_MASK: u32 = 1 << 3;
/// VFIO_IRQ_SET_ACTION_UNMASK.
pub const SET_IRQS_UNMASK: u32 = 1 << 4;
/// VFIO_IRQ_SET_ACTION_TRIGGER.
pub const SET_IRQS_TRIGGER: u32 = 1 << 5;

/// REGION_READ, REGION_WRITE and their replies; data follows in the reply to a read, and in a write.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RegionAccess {
    pub offset: U64,
    pub region: U32,
    pub count: U32,
}
const _: () = assert!(size_of::<RegionAccess>() == 16);

/// REGION_WRITE_MULTI; as many [`SingleWrite`]s follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct WriteMulti {
    pub count: U64,
}
const _: () = assert!(size_of::<WriteMulti>() == 8);

/// One write of a [`WriteMulti`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SingleWrite {
    pub access: RegionAccess,
    /// The first [`RegionAccess::count`] bytes are written.
    pub data: [u8; 8],
}
const _: () = assert!(size_of::<SingleWrite>() == 24);

/// Splits a payload into its leading structure and the rest. `None` if it is too short.
pub fn split<T: FromBytes + KnownLayout + Immutable + Unaligned>(payload: &[u8]) -> Option<(&T, &[u8])> {
    T::ref_from_prefix(payload).ok()
}
