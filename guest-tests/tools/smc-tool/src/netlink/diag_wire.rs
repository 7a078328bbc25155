//! Layouts of socket diagnosis for SMC (include/uapi/linux/smc_diag.h, inet_diag.h).

use std::convert::Infallible;

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SOCK_DIAG_BY_FAMILY` (include/uapi/linux/sock_diag.h).
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `AF_SMC`.
pub(super) const AF_SMC: u8 = 43;

/// Attributes of an answer, `SMC_DIAG_*`.
pub(super) mod extension {
    pub(crate) const CONNECTION: u16 = 1;
    pub(crate) const LINK_GROUP: u16 = 2;
    pub(crate) const SHUTDOWN: u16 = 3;
    pub(crate) const DMB: u16 = 4;
    pub(crate) const FALLBACK: u16 = 5;

    /// Returns the bit of `Request::extensions` that requests an attribute.
    pub(crate) const fn bit(number: u16) -> u8 {
        1 << (number - 1)
    }
}

/// A message of socket diagnosis after its netlink header, in wire format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DiagMessage(pub(super) Vec<u8>);

impl NetlinkSerializable for DiagMessage {
    fn message_type(&self) -> u16 {
        SOCK_DIAG_BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

impl NetlinkDeserializable for DiagMessage {
    type Error = Infallible;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self(payload.to_vec()))
    }
}

/// `struct inet_diag_sockid`. Addresses are in network order.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SocketId {
    pub(super) source_port: U16,
    pub(super) destination_port: U16,
    pub(super) source: [u8; 16],
    pub(super) destination: [u8; 16],
    pub(super) interface: u32,
    pub(super) cookie: [u32; 2],
}

/// `struct smc_diag_req`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Request {
    pub(super) family: u8,
    pub(super) pad: [u8; 2],
    pub(super) extensions: u8,
    pub(super) id: SocketId,
}

/// `struct smc_diag_msg`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Message {
    pub(super) family: u8,
    pub(super) state: u8,
    pub(super) mode: u8,
    pub(super) shutdown: u8,
    pub(super) id: SocketId,
    pub(super) user: u32,
    pub(super) inode: u64,
}

/// `struct smc_diag_fallback`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Fallback {
    pub(super) reason: u32,
    pub(super) peer_diagnosis: u32,
}

/// Start of `struct smc_diag_conninfo`; cursors and flags follow.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ConnectionInfo {
    pub(super) token: u32,
    pub(super) send_buffer: u32,
    pub(super) receive_buffer: u32,
    pub(super) peer_receive_buffer: u32,
}

/// `struct smcd_diag_dmbinfo`.
#[derive(Debug, Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct DmbInfo {
    pub(super) link_group: u32,
    pub(super) pad: u32,
    pub(super) peer_gid: u64,
    pub(super) my_gid: u64,
    pub(super) token: u64,
    pub(super) peer_token: u64,
    pub(super) peer_gid_ext: u64,
    pub(super) my_gid_ext: u64,
}

const _: () = {
    assert!(size_of::<SocketId>() == 48);
    assert!(size_of::<Request>() == 52);
    assert!(size_of::<Message>() == 64);
    assert!(std::mem::offset_of!(Message, inode) == 56);
    assert!(size_of::<Fallback>() == 8);
    assert!(size_of::<ConnectionInfo>() == 16);
    assert!(size_of::<DmbInfo>() == 56);
};
