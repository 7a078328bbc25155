//! Segmentation of one large TCP or UDP frame into frames with at most `mss` bytes of payload.
//!
//! The driver requests it by `mss` in the Ethernet segment (`struct mlx5_wqe_eth_seg`, `include/linux/mlx5/qp.h`). For
//! UDP there is no capability: mlx5e always offers `NETIF_F_GSO_UDP_L4` (`mlx5e_build_nic_netdev`,
//! `drivers/net/ethernet/mellanox/mlx5/core/en_main.c`).

use std::ops::Range;
use std::slice::Chunks;

use thiserror::Error;

use super::checksum::{self, Fill};
use super::view::{FrameView, Network, Transport, tcp_flags};

/// Reason why a frame cannot be segmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TsoError {
    /// Neither TCP nor UDP, or a fragment.
    #[error("the frame to segment carries neither TCP nor UDP")]
    NoTransport,
    /// The send requests segments without payload.
    #[error("segments have no room for payload")]
    NoPayload,
    /// The length of a segment does not fit the length fields of the headers.
    #[error("a segment of {length} bytes is longer than an IP packet can be")]
    TooLong {
        /// Length of the largest segment behind the Ethernet header, in bytes.
        length: usize,
    },
}

/// A frame to be segmented.
#[derive(Debug, Clone, Copy)]
pub struct Segments<'a> {
    view: FrameView<'a>,
    payload: usize,
    mss: usize,
    fill: Fill,
}

impl<'a> Segments<'a> {
    /// Parses `frame`, which is complete except for its length fields and checksums, for segments with `mss` bytes of
    /// payload.
    pub fn new(frame: &'a [u8], mss: u16, fill: Fill) -> Result<Self, TsoError> {
        let view = FrameView::new_unsegmented(frame).ok_or(TsoError::NoTransport)?;
        let header = match view.transport {
            Transport::Tcp(tcp) => tcp.header_length,
            Transport::Udp(_) => 8,
            Transport::None | Transport::Ipsec { .. } => return Err(TsoError::NoTransport),
        };
        let mss = usize::from(mss);
        if mss == 0 {
            return Err(TsoError::NoPayload);
        }
        let payload = view.transport_offset + header;
        let length = payload - view.network_offset + mss.min(frame.len() - payload);
        if length > usize::from(u16::MAX) {
            return Err(TsoError::TooLong { length });
        }
        Ok(Self {
            view,
            payload,
            mss,
            fill,
        })
    }

    /// Number of segments; a frame without payload stays one.
    pub fn count(&self) -> usize {
        (self.view.bytes().len() - self.payload).div_ceil(self.mss).max(1)
    }

    /// Length of the headers of every segment, in bytes.
    pub fn header_length(&self) -> usize {
        self.payload
    }

    /// Builds the segments one after the other in `buffer`, and calls `emit` with each.
    pub fn emit(&self, buffer: &mut Vec<u8>, mut emit: impl FnMut(&[u8])) {
        self.emit_bursts(buffer, 1, |burst| burst.for_each(&mut emit));
    }

    /// Builds the segments in `buffer`, at most `count` at a time, and calls `emit` with those.
    pub fn emit_bursts(&self, buffer: &mut Vec<u8>, count: usize, mut emit: impl FnMut(Chunks<'_, u8>)) {
        let segments = self.count();
        for first in (0..segments).step_by(count.max(1)) {
            buffer.clear();
            for index in first..(first + count.max(1)).min(segments) {
                self.append(buffer, index, index + 1 == segments);
            }
            // All but the last of all segments are as long as the first.
            emit(buffer.chunks(self.length()));
        }
    }

    /// Length of the first segment, in bytes: none is longer.
    pub fn length(&self) -> usize {
        self.view.bytes().len().min(self.payload + self.mss)
    }

    fn append(&self, buffer: &mut Vec<u8>, index: usize, last: bool) {
        let frame = self.view.bytes();
        let start = self.payload + index * self.mss;
        let payload = start..(start + self.mss).min(frame.len());
        let begin = buffer.len();
        buffer.extend_from_slice(&frame[..self.payload]);
        buffer.extend_from_slice(&frame[payload.clone()]);
        let segment = &mut buffer[begin..];
        self.fix_network(segment, index);
        self.fix_transport(segment, payload, index == 0, last);
        checksum::fill(segment, self.fill);
    }

    fn fix_network(&self, segment: &mut [u8], index: usize) {
        let offset = self.view.network_offset;
        match self.view.network {
            Network::None => {}
            Network::Ipv4(_) => {
                put(segment, offset + 2, (segment.len() - offset) as u16);
                let id = get(segment, offset + 4).wrapping_add(index as u16);
                put(segment, offset + 4, id);
            }
            Network::Ipv6(_) => put(segment, offset + 4, (segment.len() - offset - 40) as u16),
        }
    }

    fn fix_transport(&self, segment: &mut [u8], payload: Range<usize>, first: bool, last: bool) {
        let offset = self.view.transport_offset;
        match self.view.transport {
            Transport::Tcp(_) => {
                let before = (payload.start - self.payload) as u32;
                let sequence = &mut segment[offset + 4..offset + 8];
                let number = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
                sequence.copy_from_slice(&number.wrapping_add(before).to_be_bytes());
                let mut cleared = 0;
                if !first {
                    cleared |= tcp_flags::CWR;
                }
                if !last {
                    cleared |= tcp_flags::FIN | tcp_flags::PSH;
                }
                let flags = get(segment, offset + 12) & !cleared;
                put(segment, offset + 12, flags);
            }
            Transport::Udp(_) => put(segment, offset + 4, (segment.len() - offset) as u16),
            Transport::None | Transport::Ipsec { .. } => {}
        }
    }
}

fn get(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

fn put(bytes: &mut [u8], offset: usize, value: u16) {
    bytes[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests;
