//! Invariant CRC (IBTA volume 1, section 7.8.1; RoCE v2: annex A17): the CRC-32 of Ethernet over the fields that no
//! router changes.

use crc32fast::Hasher;

use super::path::{IPV4_HEADER, IPV6_HEADER, UDP_HEADER};
use super::{ICRC_LENGTH, UDP_PORT, pad_length};
use crate::frame::view::{FrameView, Network, Transport};

/// CRC-32 of 8 bytes of ones, which stand for the link header that RoCE does not have. The register is its complement,
/// 0xdebb20e3.
const MASKED_LINK_HEADER: u32 = 0x2144_df1c;
/// Offset of the congestion bits in the BTH, which routers set.
const BTH_CONGESTION: usize = 4;

/// Running ICRC over the bytes of a packet.
#[derive(Debug, Clone)]
pub struct Icrc(Hasher);

impl Icrc {
    /// Covers the IP and UDP headers and the start of the BTH of a frame or head. `None` without these, or with
    /// options.
    fn new(head: &FrameView<'_>) -> Option<Self> {
        if !matches!(head.transport, Transport::Udp(udp) if udp.destination_port == UDP_PORT) {
            return None;
        }
        let bytes = head.bytes().get(head.network_offset..)?;
        let mut hasher = Hasher::new_with_initial(MASKED_LINK_HEADER);
        // The headers with all bits set that may change in transit.
        match head.network {
            Network::Ipv4(ipv4) if ipv4.header_length == IPV4_HEADER => {
                let mut masked: [u8; masked_length(IPV4_HEADER)] = *bytes.first_chunk()?;
                for changing in [1..2, 8..9, 10..12] {
                    masked[changing].fill(0xff);
                }
                mask_transport(&mut masked[IPV4_HEADER..]);
                hasher.update(&masked);
            }
            Network::Ipv6(ipv6) if ipv6.header_length == IPV6_HEADER => {
                let mut masked: [u8; masked_length(IPV6_HEADER)] = *bytes.first_chunk()?;
                masked[0] |= 0x0f;
                masked[1..4].fill(0xff);
                masked[7] = 0xff;
                mask_transport(&mut masked[IPV6_HEADER..]);
                hasher.update(&masked);
            }
            _ => return None,
        }
        Some(Self(hasher))
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

/// Length of the headers with masked fields, in bytes.
const fn masked_length(ip_header: usize) -> usize {
    ip_header + UDP_HEADER + BTH_CONGESTION + 1
}

/// Masks the UDP checksum and the congestion bits of the BTH.
fn mask_transport(headers: &mut [u8]) {
    headers[6..UDP_HEADER].fill(0xff);
    headers[UDP_HEADER + BTH_CONGESTION] = 0xff;
}

/// Offset of the first byte behind the masked headers.
fn unmasked_offset(head: &FrameView<'_>) -> usize {
    head.transport_offset + UDP_HEADER + BTH_CONGESTION + 1
}

/// Appends a complete packet: head, payload, padding and ICRC. The payload must have the length in the head.
///
/// Returns false, and appends nothing, if `head` is not the head of a packet.
#[must_use]
pub fn append<'a>(head: &FrameView<'_>, payload: impl IntoIterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> bool {
    let Some(mut icrc) = Icrc::new(head) else {
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
    icrc.update(&out[start + unmasked_offset(head)..]);
    out.extend_from_slice(&icrc.finish());
    true
}

/// Whether the ICRC of a complete frame is correct.
pub fn check(frame: &FrameView<'_>) -> bool {
    let Transport::Udp(udp) = frame.transport else {
        return false;
    };
    let end = frame.transport_offset + usize::from(udp.length);
    let covered = end
        .checked_sub(ICRC_LENGTH)
        .and_then(|end| frame.bytes().get(unmasked_offset(frame)..end));
    let (Some(mut icrc), Some(covered), Some(stored)) =
        (Icrc::new(frame), covered, frame.bytes().get(end - ICRC_LENGTH..end))
    else {
        return false;
    };
    icrc.update(covered);
    icrc.finish() == stored
}

#[cfg(test)]
mod tests;
