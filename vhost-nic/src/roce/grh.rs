//! Global route header: the network header of RoCE v1.

use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::frame::view::{FrameView, ethertype};

/// Length of the header in bytes.
pub const GRH_LENGTH: usize = size_of::<Grh>();
const _: () = assert!(GRH_LENGTH == 40);

/// IPVer, the only value.
const VERSION: u32 = 6;
/// NxtHdr of an IBA transport header.
const NEXT_HEADER_BTH: u8 = 0x1b;

/// Global route header (IBTA volume 1, section 8.3; RoCE v1: annex A16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Grh {
    version_class_label: U32,
    payload_length: U16,
    next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// SGID.
    pub source: [u8; 16],
    /// DGID.
    pub destination: [u8; 16],
}

impl Grh {
    /// Creates the header of a packet with `length` bytes from BTH to ICRC, which has a multiple of 4.
    pub fn new(traffic_class: u8, flow_label: u32, length: u16, hop_limit: u8, gids: [[u8; 16]; 2]) -> Self {
        let [source, destination] = gids;
        Self {
            version_class_label: U32::new(VERSION << 28 | u32::from(traffic_class) << 20 | flow_label & 0xf_ffff),
            payload_length: U16::new(length),
            next_header: NEXT_HEADER_BTH,
            hop_limit,
            source,
            destination,
        }
    }

    /// Returns the header of a RoCE v1 frame, valid or not. `None` for other frames, and if the frame ends in it.
    pub fn of<'a>(frame: &FrameView<'a>) -> Option<&'a Self> {
        if frame.ethertype != ethertype::ROCE {
            return None;
        }
        let bytes = frame.bytes().get(frame.network_offset..)?;
        Self::ref_from_prefix(bytes).ok().map(|(grh, _)| grh)
    }

    /// Whether a transport header follows.
    pub fn is_valid(&self) -> bool {
        self.version_class_label.get() >> 28 == VERSION && self.next_header == NEXT_HEADER_BTH
    }

    /// PayLen: bytes from BTH to ICRC.
    pub fn payload_length(&self) -> usize {
        self.payload_length.get().into()
    }

    /// TClass.
    pub fn traffic_class(&self) -> u8 {
        (self.version_class_label.get() >> 20) as u8
    }

    /// FlowLabel, 20 bits.
    pub fn flow_label(&self) -> u32 {
        self.version_class_label.get() & 0xf_ffff
    }
}
