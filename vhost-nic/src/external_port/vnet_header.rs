//! The header of virtio-net in front of a frame: what its sender left undone (virtio 1.2, section 5.1.6, and
//! `virtio_net_hdr_to_skb`, `include/linux/virtio_net.h`).

use std::collections::VecDeque;

use crc32c::crc32c;
use thiserror::Error;
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::frame::checksum::{Fill, Sum};
use crate::frame::segmentation::{Segments, TsoError};
use crate::frame::view::{FrameView, Network, Transport};

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the transport checksum covers the pseudo header only.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`: the checksum has been verified.
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// `IPPROTO_SCTP`.
const SCTP: u8 = 132;
/// Offset of the CRC32c in the header of SCTP (RFC 9260, section 3.1), in bytes.
const SCTP_CHECKSUM: u16 = 8;
/// Length of the header of SCTP, in bytes.
const SCTP_HEADER: usize = 12;
/// The frame has ECN bits; segmentation treats them alike.
const GSO_ECN: u8 = 0x80;
/// Segments of a frame: 64 KiB of the smallest that Linux makes (`TCP_MIN_GSO_SIZE`, `include/net/tcp.h`).
const MAX_SEGMENTS: usize = 8192;

/// `struct virtio_net_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VnetHeader {
    /// `VIRTIO_NET_HDR_F_*`.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`.
    pub gso_type: u8,
    /// Length of the headers, in bytes; a hint.
    pub hdr_len: U16,
    /// Payload of each segment, in bytes.
    pub gso_size: U16,
    /// Offset of the first byte that the checksum covers.
    pub csum_start: U16,
    /// Offset of the checksum from there.
    pub csum_offset: U16,
}

const _: () = assert!(size_of::<VnetHeader>() == 10);

/// Reason why a frame is none that the sender of its header could have meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VnetError {
    /// There is no whole header.
    #[error("{0} bytes have no header")]
    Short(usize),
    /// A segmentation that was not negotiated.
    #[error("the segmentation {0:#x} is unknown")]
    GsoType(u8),
    /// The frame carries another protocol than is to be segmented.
    #[error("the frame is not of the protocol of its segmentation {0:#x}")]
    Protocol(u8),
    /// The frame cannot be segmented.
    #[error(transparent)]
    Segmentation(#[from] TsoError),
    /// Segments without end.
    #[error("{0} segments are too many")]
    Segments(usize),
    /// The checksum is not in the frame.
    #[error("the checksum at {start} + {offset} is beyond the frame of {length} bytes")]
    Checksum {
        /// `csum_start`.
        start: u16,
        /// `csum_offset`.
        offset: u16,
        /// Length of the frame, in bytes.
        length: usize,
    },
}

/// Appends to `frames` the frames on the wire of a frame that follows its header.
pub(super) fn take_apart(bytes: &[u8], frames: &mut VecDeque<Vec<u8>>) -> Result<(), VnetError> {
    let (header, frame) = VnetHeader::read_from_prefix(bytes).map_err(|_| VnetError::Short(bytes.len()))?;
    header.complete(frame, frames)
}

impl VnetHeader {
    /// In front of a frame whose checksum has been verified.
    pub(super) fn data_valid() -> Self {
        Self {
            flags: DATA_VALID,
            ..Self::default()
        }
    }

    /// In front of joined segments of TCP, whose checksum is still to be filled in.
    pub(super) fn segments_of_tcp(is_v4: bool) -> Self {
        Self {
            flags: NEEDS_CSUM,
            gso_type: if is_v4 { GSO_TCPV4 } else { GSO_TCPV6 },
            ..Self::default()
        }
    }

    /// Does what the sender left undone: appends to `frames` the frames on the wire, with all checksums.
    pub fn complete(&self, frame: &[u8], frames: &mut VecDeque<Vec<u8>>) -> Result<(), VnetError> {
        match self.gso_type & !GSO_ECN {
            GSO_NONE => {
                let mut frame = frame.to_vec();
                if self.flags & NEEDS_CSUM != 0 {
                    self.fill_checksum(&mut frame)?;
                }
                frames.push_back(frame);
                Ok(())
            }
            kind => self.segment(kind, frame, frames),
        }
    }

    fn fill_checksum(&self, frame: &mut [u8]) -> Result<(), VnetError> {
        let start = usize::from(self.csum_start.get());
        let field = start + usize::from(self.csum_offset.get());
        if frame.len() < field + 2 {
            return Err(VnetError::Checksum {
                start: self.csum_start.get(),
                offset: self.csum_offset.get(),
                length: frame.len(),
            });
        }
        // The header does not say which checksum is meant. Linux leaves CRC32c to a device, too
        // (`skb_csum_hwoffload_help`, `net/core/dev.c`).
        if self.csum_offset.get() == SCTP_CHECKSUM
            && let Some(packet) = sctp(frame, start)
        {
            fill_crc32c(packet);
            return Ok(());
        }
        // The field has the sum of the pseudo header. 0 would mean to UDP that there is no checksum (RFC 768), and is
        // the same number otherwise.
        let checksum = match Sum::of(&frame[start..]).checksum() {
            0 => 0xffff,
            checksum => checksum,
        };
        frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        Ok(())
    }

    fn segment(&self, kind: u8, frame: &[u8], frames: &mut VecDeque<Vec<u8>>) -> Result<(), VnetError> {
        let view = FrameView::new_unsegmented(frame).ok_or(VnetError::Protocol(kind))?;
        match (kind, view.network, view.transport) {
            (GSO_TCPV4, Network::Ipv4(_), Transport::Tcp(_))
            | (GSO_TCPV6, Network::Ipv6(_), Transport::Tcp(_))
            | (GSO_UDP_L4, _, Transport::Udp(_)) => {}
            (GSO_TCPV4 | GSO_TCPV6 | GSO_UDP_L4, ..) => return Err(VnetError::Protocol(kind)),
            _ => return Err(VnetError::GsoType(kind)),
        }
        let segments = Segments::new(frame, self.gso_size.get(), Fill { l3: true, l4: true })?;
        if segments.count() > MAX_SEGMENTS {
            return Err(VnetError::Segments(segments.count()));
        }
        segments.emit(&mut Vec::new(), |segment| frames.push_back(segment.to_vec()));
        Ok(())
    }
}

/// Returns the SCTP packet that begins at `start`, without padding behind it.
fn sctp(frame: &mut [u8], start: usize) -> Option<&mut [u8]> {
    let view = FrameView::new(frame)?;
    let protocol = match view.network {
        Network::Ipv4(header) => header.protocol,
        Network::Ipv6(header) => header.protocol,
        Network::None => return None,
    };
    let packet = view.transport_range();
    let is_sctp = protocol == SCTP && packet.start == start && packet.len() >= SCTP_HEADER;
    frame.get_mut(packet).filter(|_| is_sctp)
}

/// Fills in the checksum of an SCTP packet (RFC 9260, appendix A).
fn fill_crc32c(packet: &mut [u8]) {
    let field = usize::from(SCTP_CHECKSUM)..SCTP_HEADER;
    packet[field.clone()].fill(0);
    let checksum = crc32c(packet);
    packet[field].copy_from_slice(&checksum.to_le_bytes());
}

#[cfg(test)]
mod tests;
