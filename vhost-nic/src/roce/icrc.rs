//! Invariant CRC (IBTA volume 1, section 7.8.1; RoCE v1: annex A16; RoCE v2: annex A17): the CRC-32 of Ethernet over
//! the fields that no router changes.

use crc32fast::Hasher;

use super::grh::{GRH_LENGTH, Grh};
use super::path::{IPV4_HEADER, IPV6_HEADER, UDP_HEADER};
use super::{ICRC_LENGTH, UDP_PORT, pad_length};
use crate::frame::view::{FrameView, Network, Transport};

/// CRC-32 of 8 bytes of ones, which stand for the link header that RoCE does not have. The register is its complement,
/// 0xdebb20e3.
const MASKED_LINK_HEADER: u32 = 0x2144_df1c;
/// Offset of the congestion bits in the BTH, which routers set.
const BTH_CONGESTION: usize = 4;
/// Bytes of the BTH up to and with the congestion bits.
const BTH_MASKED: usize = BTH_CONGESTION + 1;

/// Running ICRC over the bytes of a packet.
#[derive(Debug, Clone)]
pub struct Icrc(Hasher);

impl Icrc {
    /// Covers the headers of a frame or head up to the congestion bits of the BTH. Returns the offset of the byte
    /// behind them as well. `None` if there are no such headers, or options between them.
    fn new(head: &FrameView<'_>) -> Option<(Self, usize)> {
        let bytes = head.bytes().get(head.network_offset..)?;
        let mut hasher = Hasher::new_with_initial(MASKED_LINK_HEADER);
        // The headers with all bits set that may change in transit.
        let length = match (head.network, head.transport) {
            (Network::Ipv4(ipv4), Transport::Udp(udp))
                if ipv4.header_length == IPV4_HEADER && udp.destination_port == UDP_PORT =>
            {
                let mut masked: [u8; IPV4_HEADER + UDP_HEADER + BTH_MASKED] = *bytes.first_chunk()?;
                for changing in [1..2, 8..9, 10..12] {
                    masked[changing].fill(0xff);
                }
                mask_transport(&mut masked[IPV4_HEADER..]);
                hasher.update(&masked);
                masked.len()
            }
            (Network::Ipv6(ipv6), Transport::Udp(udp))
                if ipv6.header_length == IPV6_HEADER && udp.destination_port == UDP_PORT =>
            {
                let mut masked: [u8; IPV6_HEADER + UDP_HEADER + BTH_MASKED] = *bytes.first_chunk()?;
                mask_route(&mut masked);
                mask_transport(&mut masked[IPV6_HEADER..]);
                hasher.update(&masked);
                masked.len()
            }
            _ => {
                Grh::of(head).filter(|grh| grh.is_valid())?;
                let mut masked: [u8; GRH_LENGTH + BTH_MASKED] = *bytes.first_chunk()?;
                mask_route(&mut masked);
                masked[GRH_LENGTH + BTH_CONGESTION] = 0xff;
                hasher.update(&masked);
                masked.len()
            }
        };
        Some((Self(hasher), head.network_offset + length))
    }

    /// Covers the next bytes: rest of the BTH, extended headers, payload, padding.
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the ICRC in the byte order of the packet.
    fn finish(self) -> [u8; ICRC_LENGTH] {
        self.0.finalize().to_le_bytes()
    }
}

/// Masks traffic class, flow label and hop limit of an IPv6 header or GRH.
fn mask_route(headers: &mut [u8]) {
    headers[0] |= 0x0f;
    headers[1..4].fill(0xff);
    headers[7] = 0xff;
}

/// Masks the UDP checksum and the congestion bits of the BTH.
fn mask_transport(headers: &mut [u8]) {
    headers[6..UDP_HEADER].fill(0xff);
    headers[UDP_HEADER + BTH_CONGESTION] = 0xff;
}

/// Appends a complete packet: head, payload, padding and ICRC. The payload must have the length in the head.
///
/// Returns false, and appends nothing, if `head` is not the head of a packet.
#[must_use]
pub fn append<'a>(head: &FrameView<'_>, payload: impl IntoIterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> bool {
    let Some((mut icrc, covered)) = Icrc::new(head) else {
        return false;
    };
    let start = out.len();
    out.extend_from_slice(head.bytes());
    let payload_start = out.len();
    for part in payload {
        out.extend_from_slice(part);
    }
    let pad = pad_length(out.len() - payload_start);
    out.resize(out.len() + pad, 0);
    icrc.update(&out[start + covered..]);
    out.extend_from_slice(&icrc.finish());
    true
}

/// Whether the ICRC of a complete frame is correct.
pub fn check(frame: &FrameView<'_>) -> bool {
    let end = match (Grh::of(frame), frame.transport) {
        (Some(grh), _) => frame.network_offset + GRH_LENGTH + grh.payload_length(),
        (None, Transport::Udp(udp)) => frame.transport_offset + usize::from(udp.length),
        (None, _) => return false,
    };
    let Some((mut icrc, begin)) = Icrc::new(frame) else {
        return false;
    };
    let covered = end
        .checked_sub(ICRC_LENGTH)
        .and_then(|end| frame.bytes().get(begin..end));
    let (Some(covered), Some(stored)) = (covered, frame.bytes().get(end - ICRC_LENGTH..end)) else {
        return false;
    };
    icrc.update(covered);
    icrc.finish() == stored
}

#[cfg(test)]
mod tests;
