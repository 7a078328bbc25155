//! The header of VXLAN in front of a frame (RFC 7348, section 5).

use std::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::medium::DropReason;

/// A VXLAN network identifier is less than this.
pub const VNI_LIMIT: u32 = 1 << 24;
/// The I flag: the VNI is valid.
const FLAG_VNI: u8 = 1 << 3;

/// `struct vxlanhdr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VxlanHeader {
    /// The I flag, and seven reserved bits.
    pub flags: u8,
    /// Reserved.
    pub reserved: [u8; 3],
    /// VXLAN network identifier, big-endian.
    pub vni: [u8; 3],
    /// Reserved.
    pub reserved_end: u8,
}

const _: () = assert!(size_of::<VxlanHeader>() == 8);
const _: () = assert!(offset_of!(VxlanHeader, vni) == 4);

impl VxlanHeader {
    /// Header of frames of a network, of whose identifier the low 24 bits count.
    pub fn new(vni: u32) -> Self {
        let [_, vni @ ..] = vni.to_be_bytes();
        Self {
            flags: FLAG_VNI,
            reserved: [0; 3],
            vni,
            reserved_end: 0,
        }
    }
}

/// Returns the frame in a datagram, whose header must be `expected`.
///
/// Reserved bits would be ignored by RFC 7348. Extensions use them to say that something else than a frame follows
/// (VXLAN-GPE), and Linux drops what it does not know (`vxlan_rcv`, `drivers/net/vxlan/vxlan_core.c`).
pub fn decapsulate(datagram: &[u8], expected: VxlanHeader) -> Result<&[u8], DropReason> {
    let (header, frame) = VxlanHeader::read_from_prefix(datagram).map_err(|_| DropReason::Malformed)?;
    if header.flags & FLAG_VNI == 0 {
        return Err(DropReason::NoVni);
    }
    if header
        != (VxlanHeader {
            vni: header.vni,
            ..expected
        })
    {
        return Err(DropReason::ReservedBits);
    }
    match (header.vni == expected.vni, frame) {
        (false, _) => Err(DropReason::OtherVni),
        (true, []) => Err(DropReason::Malformed),
        (true, frame) => Ok(frame),
    }
}
