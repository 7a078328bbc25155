//! The wire formats a driver sees: configuration space, control requests and replies, events.
//!
//! Source: the virtio-ism draft of February 2023 (virtio-comment, "[PATCH v3] virtio-ism: introduce new device
//! virtio-ism") for the structures without `Ext`, `Peer`, `Gid` in their name; the rest is this device's own extension,
//! stated in `docs/device.md`.

use std::fmt;

use serde::{Serialize, Serializer};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Index of the control queue.
pub const CONTROL_QUEUE: u16 = 0;
/// Index of the event queue.
pub const EVENT_QUEUE: u16 = 1;
/// Index of the doorbell queue, which carries no buffers.
pub const DOORBELL_QUEUE: u16 = 2;
/// Index of the move queue, which a device in copy mode has in place of the doorbell queue.
pub const MOVE_QUEUE: u16 = 2;
/// Number of queues.
pub const NUM_QUEUES: usize = 3;

/// Shared memory id of the region that holds the DMB window and, unless it is in [`SHMID_NOTIFY`], the doorbell area.
pub const SHMID_REGIONS: u8 = 1;
/// Shared memory id of the doorbell area in the draft's layout ([`F_NOTIFY`]).
pub const SHMID_NOTIFY: u8 = 2;

/// Unit of the DMB window in bytes; also the smallest DMB.
pub const CHUNK_SIZE: u64 = 16 << 10;
/// Bytes per chunk in the doorbell area.
pub const NOTIFY_SIZE: u64 = 1;
/// Marks the extended configuration space: the bytes `VISM`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"VISM");
/// Version of the extension.
pub const VERSION: u16 = 1;
/// Feature of the extension: commands of class 0x80 and their events.
pub const F_PEER: u32 = 1 << 0;
/// Feature of the extension: the awake word is maintained.
pub const F_AWAKE: u32 = 1 << 1;
/// Feature of the extension: the first chunk of every slab that two guests share holds their bells.
pub const F_BELLS: u32 = 1 << 2;
/// Feature of the extension: copy mode. No memory is shared; data moves by [`Move`] requests.
pub const F_MOVE: u32 = 1 << 3;

/// Feature of the extension: the doorbell area is in a region of its own, the bytes first.
pub const F_NOTIFY: u32 = 1 << 4;

/// Offset of the awake word in the doorbell area; with [`F_NOTIFY`], it is at the start of the last page.
pub const DOORBELL_AWAKE: u64 = 0;
/// Offset of the doorbell bytes in the doorbell area; with [`F_NOTIFY`], they are at its start.
pub const DOORBELL_BYTES: u64 = 4096;
/// Length of the page of the awake word.
pub const DOORBELL_PAGE: u64 = 4096;

/// Offset of the awake word of side 0 in the first chunk of a slab with bells.
pub const SLAB_AWAKE: u64 = 0;
/// Offset of the present word of side 0 in that chunk.
pub const SLAB_PRESENT: u64 = 4;
/// Offset of the bells in that chunk.
pub const SLAB_BELLS: u64 = 4096;

/// Permission to read.
pub const PERM_READ: u32 = 1;
/// Permission to write.
pub const PERM_WRITE: u32 = 2;
/// Permission to attach.
pub const PERM_ATTACH: u32 = 4;
/// Permission to grant.
pub const PERM_MANAGE: u32 = 8;
/// A grant for one device that replaces the default instead of adding to it.
pub const PERM_CLEAN_DEFAULT: u32 = 16;
/// Bits of a permission mask that the draft defines; a GRANT with another is refused.
pub const PERMISSIONS: u32 = PERM_READ | PERM_WRITE | PERM_ATTACH | PERM_MANAGE | PERM_CLEAN_DEFAULT;

/// Event type of the draft: a DMB that this guest holds was rung.
pub const EV_UPDATE: u64 = 1 << 0;
/// Event type of the draft: a device attached a DMB that this guest holds.
pub const EV_ATTACH: u64 = 1 << 1;
/// Event type of the draft: a device detached a DMB that this guest holds.
pub const EV_DETACH: u64 = 1 << 2;
/// Event type: doorbells of DMBs that this guest holds.
pub const EV_DOORBELLS: u64 = 1 << 16;
/// Event type: a peer's session ended.
pub const EV_PEER_GONE: u64 = 1 << 17;
/// Event type: a peer sent a message.
pub const EV_MESSAGE: u64 = 1 << 18;

/// Identity of one driver session in the fabric: opaque bytes, both halves non-zero.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Gid(pub [u8; 16]);

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl Serialize for Gid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Token of a DMB: random, so that it cannot be guessed, and never zero.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Token(pub U64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0.get())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Status of a control request, the first byte of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The request was executed.
    Ok = 0,
    /// No such token, GID or device.
    NoEnt = 2,
    /// The answer does not fit the writable part; nothing was done.
    TooBig = 7,
    /// The host has no memory.
    NoMem = 12,
    /// Window, slab budget, DMB table or message queue is full.
    NoSpc = 28,
    /// Attach permission was not granted.
    PermAttach = 100,
    /// Read access was not requested or not granted.
    PermRead = 101,
    /// Write access was not requested or not granted.
    PermWrite = 102,
    /// Any other fault in a request.
    Err = 255,
}

macro_rules! wire {
    (
        $(#[$meta:meta])*
        $name:ident, $size:literal { $($(#[$fmeta:meta])* $offset:literal => $field:ident: $ty:ty,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }
        const _: () = assert!(size_of::<$name>() == $size);
        $(const _: () = assert!(std::mem::offset_of!($name, $field) == $offset);)*
    };
}

wire! {
    /// Configuration space: the draft's four fields, then the extension.
    Config, 96 {
        /// The fabric; equal for every guest of one daemon.
        0 => gid: U64,
        /// This device.
        8 => devid: U64,
        /// Unit of the DMB window in bytes.
        16 => chunk_size: U64,
        /// Bytes per chunk in the doorbell area.
        24 => notify_size: U64,
        /// [`MAGIC`].
        32 => magic: U32,
        /// [`VERSION`].
        36 => version: U16,
        /// Fabric id for SMC.
        38 => chid: U16,
        /// [`F_PEER`], [`F_AWAKE`], [`F_BELLS`], [`F_MOVE`], [`F_NOTIFY`].
        40 => features: U32,
        /// Maximum number of DMBs this guest owns and attaches together.
        44 => max_dmbs: U32,
        /// This guest's GID in this driver session.
        48 => dmb_gid: Gid,
        /// Bytes of shared memory 1, from offset 0, that hold DMBs.
        64 => window_size: U64,
        /// Offset of the doorbell area in its region.
        72 => doorbell_offset: U64,
        /// Length of the doorbell area in bytes.
        80 => doorbell_size: U64,
        /// Largest DMB in bytes.
        88 => max_dmb_size: U64,
    }
}

wire! {
    /// First two bytes of every control request.
    RequestHeader, 2 {
        /// Command class.
        0 => class: u8,
        /// Command within the class.
        1 => cmd: u8,
    }
}

/// Class and command of ALLOC.
pub const CMD_ALLOC: (u8, u8) = (0, 0);
/// Class and command of ATTACH.
pub const CMD_ATTACH: (u8, u8) = (1, 0);
/// Class and command of DETACH.
pub const CMD_DETACH: (u8, u8) = (2, 0);
/// Class and command of GRANT SET_DEFAULT.
pub const CMD_GRANT_DEFAULT: (u8, u8) = (3, 0);
/// Class and command of GRANT SET_FOR_DEVICE.
pub const CMD_GRANT_DEVICE: (u8, u8) = (3, 1);
/// Class and command of EVENT_VECTOR SET.
pub const CMD_EVENT_VECTOR: (u8, u8) = (4, 0);
/// Class and command of ALLOC_FOR_PEER.
pub const CMD_ALLOC_FOR_PEER: (u8, u8) = (0x80, 0);
/// Class and command of QUERY_GID.
pub const CMD_QUERY_GID: (u8, u8) = (0x80, 1);
/// Class and command of SEND_MESSAGE.
pub const CMD_SEND_MESSAGE: (u8, u8) = (0x80, 2);

/// Class and command of QUERY_SLAB.
pub const CMD_QUERY_SLAB: (u8, u8) = (0x80, 3);

/// Class and command of SUBSCRIBE.
pub const CMD_SUBSCRIBE: (u8, u8) = (0x80, 5);

/// Class and command of MOVE, the only request of the move queue.
pub const CMD_MOVE: (u8, u8) = (0x80, 4);

wire! {
    /// ALLOC.
    Alloc, 8 {
        /// Length of the DMB in bytes.
        0 => size: U64,
    }
}

wire! {
    /// ATTACH, as packed. A C driver's structure carries [`ATTACH_PADDING`] bytes more.
    Attach, 12 {
        /// The DMB.
        0 => token: Token,
        /// Requested access, [`PERM_READ`] and [`PERM_WRITE`].
        8 => rw_perm: U32,
    }
}

/// Trailing padding that a C compiler gives [`Attach`].
pub const ATTACH_PADDING: usize = 4;

wire! {
    /// DETACH.
    Detach, 8 {
        /// The DMB.
        0 => token: Token,
    }
}

wire! {
    /// GRANT SET_DEFAULT.
    GrantDefault, 16 {
        /// The DMB.
        0 => token: Token,
        /// Permissions of every other guest.
        8 => permissions: U64,
    }
}

wire! {
    /// GRANT SET_FOR_DEVICE.
    GrantDevice, 24 {
        /// The DMB.
        0 => token: Token,
        /// Permissions of that device.
        8 => permissions: U64,
        /// The device.
        16 => peer_devid: U64,
    }
}

wire! {
    /// EVENT_VECTOR SET.
    EventVector, 16 {
        /// The DMB.
        0 => token: Token,
        /// Vector of the DMB's events, or [`NO_VECTOR`].
        8 => vector: U64,
    }
}

/// Vector of EVENT_VECTOR for a DMB without one of its own (VIRTIO_MSI_NO_VECTOR of virtio 1.2, 4.1.5.1.2).
pub const NO_VECTOR: u64 = 0xffff;

wire! {
    /// ALLOC_FOR_PEER.
    AllocForPeer, 24 {
        /// Length of the DMB in bytes.
        0 => size: U64,
        /// The only guest that may attach.
        8 => peer_gid: Gid,
    }
}

wire! {
    /// QUERY_GID.
    QueryGid, 16 {
        /// GID to look up.
        0 => gid: Gid,
    }
}

wire! {
    /// SEND_MESSAGE.
    SendMessage, 32 {
        /// Receiver.
        0 => peer_gid: Gid,
        /// Opaque.
        16 => code: U32,
        /// Zero.
        20 => reserved: U32,
        /// Opaque.
        24 => info: U64,
    }
}

wire! {
    /// QUERY_SLAB.
    QuerySlab, 8 {
        /// A DMB in it that the guest owns or has attached.
        0 => token: Token,
    }
}

wire! {
    /// SUBSCRIBE.
    Subscribe, 8 {
        /// [`EV_UPDATE`], and [`EV_ATTACH`] together with [`EV_DETACH`].
        0 => events: U64,
    }
}

wire! {
    /// MOVE, without its data, which are the remaining readable bytes.
    Move, 24 {
        /// The DMB.
        0 => token: Token,
        /// Offset in the DMB in bytes.
        8 => offset: U64,
        /// [`MOVE_SIGNAL`].
        16 => flags: U32,
        /// Element of the DMB, zero.
        20 => index: U32,
    }
}

/// Flag of MOVE: the owner is notified when the data is visible.
pub const MOVE_SIGNAL: u32 = 1 << 0;
/// Length of a MOVE request without its data in bytes.
pub const MOVE_HEAD: usize = size_of::<RequestHeader>() + size_of::<Move>();

wire! {
    /// A range of the DMB window.
    Area, 16 {
        /// Offset in shared memory 1.
        0 => offset: U64,
        /// Length in bytes.
        8 => size: U64,
    }
}

wire! {
    /// Reply to ALLOC and ALLOC_FOR_PEER.
    AllocReply, 32 {
        /// The new DMB.
        0 => token: Token,
        /// Number of areas, 1.
        8 => num: U64,
        /// Location in the window.
        16 => area: Area,
    }
}

wire! {
    /// Reply to ATTACH.
    AttachReply, 24 {
        /// Number of areas, 1.
        0 => num: U64,
        /// Location in the window.
        8 => area: Area,
    }
}

wire! {
    /// Reply to QUERY_SLAB.
    SlabReply, 24 {
        /// Location of the slab in the window.
        0 => area: Area,
        /// Side of this guest, 0 or 1.
        16 => side: U32,
        /// Zero.
        20 => reserved: U32,
    }
}

wire! {
    /// UPDATE event.
    UpdateEvent, 24 {
        /// [`EV_UPDATE`].
        0 => ev_type: U64,
        /// Location of the DMB in the window of the receiver.
        8 => offset: U64,
        /// The device that rang last.
        16 => devid: U64,
    }
}

wire! {
    /// ATTACH or DETACH event.
    AttachDetachEvent, 32 {
        /// [`EV_ATTACH`] or [`EV_DETACH`].
        0 => ev_type: U64,
        /// Location of the DMB in the window of the receiver.
        8 => offset: U64,
        /// The device that attached or detached it.
        16 => devid: U64,
        /// Number of devices that have it attached afterwards.
        24 => peers: U64,
    }
}

wire! {
    /// Head of a DOORBELLS event, followed by `count` le32 chunk numbers.
    DoorbellsEvent, 16 {
        /// [`EV_DOORBELLS`].
        0 => ev_type: U64,
        /// Number of chunks that follow.
        8 => count: U32,
        /// Zero.
        12 => reserved: U32,
    }
}

wire! {
    /// PEER_GONE event.
    PeerGoneEvent, 24 {
        /// [`EV_PEER_GONE`].
        0 => ev_type: U64,
        /// The peer whose session ended.
        8 => gid: Gid,
    }
}

wire! {
    /// MESSAGE event.
    MessageEvent, 40 {
        /// [`EV_MESSAGE`].
        0 => ev_type: U64,
        /// Sender.
        8 => gid: Gid,
        /// As sent.
        24 => code: U32,
        /// Zero.
        28 => reserved: U32,
        /// As sent.
        32 => info: U64,
    }
}
