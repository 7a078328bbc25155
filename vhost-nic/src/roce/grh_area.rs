//! The 40 bytes in front of a received datagram.

use super::grh::GRH_LENGTH;
use super::path::{IPV4_HEADER, IPV6_HEADER};
use crate::frame::view::{FrameView, Network, ethertype};

const _: () = assert!(GRH_LENGTH == IPV6_HEADER);

/// Returns the area in front of a received datagram (IBTA volume 1, section 11.4.1.2; RoCE v2: annex A17): GRH or IPv6
/// header of the packet, or its IPv4 header behind 20 zeros. All zeros if it has none of them.
pub fn area(frame: &FrameView<'_>) -> [u8; GRH_LENGTH] {
    let mut area = [0; GRH_LENGTH];
    let length = match frame.network {
        Network::Ipv4(_) => IPV4_HEADER,
        Network::Ipv6(_) => IPV6_HEADER,
        Network::None if frame.ethertype == ethertype::ROCE => GRH_LENGTH,
        Network::None => return area,
    };
    if let Some(header) = frame.bytes().get(frame.network_offset..frame.network_offset + length) {
        area[GRH_LENGTH - length..].copy_from_slice(header);
    }
    area
}

#[cfg(test)]
mod tests;
