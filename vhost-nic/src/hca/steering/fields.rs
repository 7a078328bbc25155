//! Match fields: the headers of a frame in the layout of `fte_match_param` (`include/linux/mlx5/mlx5_ifc.h`).

use mlx5_prm::steering::{FteMatchSetLyr24, FteMatchSetMisc};
use zerocopy::IntoBytes;

use crate::frame::mac::Mac;
use crate::frame::view::{FrameView, Network, Transport, ethertype, protocol};
use crate::roce::grh::{GRH_LENGTH, Grh};

/// UDP port of RoCE v2.
const ROCE_PORT: u16 = 4791;
/// Length of a UDP header in bytes.
const UDP_HEADER: usize = 8;
/// Words of 32 bits in [`MatchFields`].
pub const WORDS: usize = 32;

/// First 128 bytes of the `fte_match_param` of a frame: outer headers and miscellaneous parameters. Masks and values
/// are kept in the same form, so that comparison needs no byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatchFields(pub [u32; WORDS]);

impl MatchFields {
    /// Extracts the fields of a frame.
    pub fn new(view: &FrameView<'_>) -> Self {
        let (outer, misc) = (outer_headers(view), misc_parameters(view));
        let mut words = [0; WORDS];
        let (first, second) = words.split_at_mut(WORDS / 2);
        load(first, outer.as_bytes());
        load(second, misc.as_bytes());
        Self(words)
    }

    /// Converts the first 128 bytes of a mask or value.
    pub fn from_bytes(bytes: &[u8; 4 * WORDS]) -> Self {
        let mut words = [0; WORDS];
        load(&mut words, bytes);
        Self(words)
    }
}

fn load(words: &mut [u32], bytes: &[u8]) {
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
}

fn outer_headers(view: &FrameView<'_>) -> FteMatchSetLyr24 {
    let mut fields = FteMatchSetLyr24::default();
    let (high, low) = split(view.source());
    fields.set_smac_47_16(high);
    fields.set_smac_15_0(low);
    let (high, low) = split(view.destination());
    fields.set_dmac_47_16(high);
    fields.set_dmac_15_0(low);
    fields.set_ethertype(view.ethertype);
    if let Some(tag) = view.vlan[0] {
        fields.set_cvlan_tag(tag.tpid == ethertype::CVLAN);
        fields.set_svlan_tag(tag.tpid == ethertype::SVLAN);
        fields.set_first_prio((tag.tci >> 13) as u8);
        fields.set_first_cfi(tag.tci & 0x1000 != 0);
        fields.set_first_vid(tag.id());
    }
    fields.set_frag(view.is_fragment());
    match view.network {
        Network::None => {}
        Network::Ipv4(header) => {
            fields.set_ip_version(4);
            set_ip(&mut fields, header.tos, header.ttl, header.protocol);
            fields.set_ipv4_ihl((header.header_length / 4) as u8);
            fields.src_ipv4_src_ipv6_mut()[12..].copy_from_slice(&header.source);
            fields.dst_ipv4_dst_ipv6_mut()[12..].copy_from_slice(&header.destination);
        }
        Network::Ipv6(header) => {
            fields.set_ip_version(6);
            set_ip(&mut fields, header.traffic_class, header.hop_limit, header.protocol);
            *fields.src_ipv4_src_ipv6_mut() = header.source;
            *fields.dst_ipv4_dst_ipv6_mut() = header.destination;
        }
    }
    match view.transport {
        Transport::None | Transport::Ipsec { .. } => {}
        Transport::Tcp(header) => {
            fields.set_tcp_flags(header.flags);
            fields.set_tcp_sport(header.source_port);
            fields.set_tcp_dport(header.destination_port);
            set_l4_type(&mut fields, L4Type::Tcp);
        }
        Transport::Udp(header) => {
            fields.set_udp_sport(header.source_port);
            fields.set_udp_dport(header.destination_port);
            set_l4_type(&mut fields, L4Type::Udp);
        }
    }
    fields
}

/// `MLX5_PACKET_L4_TYPE_*`; `MLX5_PACKET_L4_TYPE_EXT_*` has the same numbers for these.
enum L4Type {
    Tcp = 1,
    Udp = 2,
}

fn set_l4_type(fields: &mut FteMatchSetLyr24, value: L4Type) {
    let value = value as u8;
    fields.set_l4_type(value);
    fields.set_l4_type_ext(value);
}

fn set_ip(fields: &mut FteMatchSetLyr24, tos: u8, ttl: u8, protocol: u8) {
    fields.set_ip_dscp(tos >> 2);
    fields.set_ip_ecn(tos & 3);
    fields.set_ttl_hoplimit(ttl);
    fields.set_ip_protocol(protocol);
    if matches!(protocol, protocol::ICMP | protocol::ICMPV6) && !fields.frag() {
        // MLX5_PACKET_L4_TYPE_EXT_ICMP
        fields.set_l4_type_ext(3);
    }
}

fn misc_parameters(view: &FrameView<'_>) -> FteMatchSetMisc {
    let mut fields = FteMatchSetMisc::default();
    if let Some(tag) = view.vlan[1] {
        fields.set_outer_second_cvlan_tag(tag.tpid == ethertype::CVLAN);
        fields.set_outer_second_svlan_tag(tag.tpid == ethertype::SVLAN);
        fields.set_outer_second_prio((tag.tci >> 13) as u8);
        fields.set_outer_second_cfi(tag.tci & 0x1000 != 0);
        fields.set_outer_second_vid(tag.id());
    }
    if let Network::Ipv6(header) = view.network {
        fields.set_outer_ipv6_flow_label(header.flow_label);
    }
    if let Transport::Ipsec { spi } = view.transport {
        fields.set_outer_esp_spi(spi);
    }
    if let Some(&[opcode, _, _, _, _, q0, q1, q2]) = bth(view).and_then(<[u8]>::first_chunk) {
        fields.set_bth_opcode(opcode);
        fields.set_bth_dst_qp(u32::from_be_bytes([0, q0, q1, q2]));
    }
    fields
}

/// Bytes of a RoCE packet from its BTH on. The fields are of the header in either version: the driver's rules for
/// congestion notifications name the opcode and no UDP port (`set_cnp_spec`, `drivers/infiniband/hw/mlx5/fs.c`).
fn bth<'a>(view: &FrameView<'a>) -> Option<&'a [u8]> {
    match view.transport {
        Transport::Udp(header) if header.destination_port == ROCE_PORT => {
            view.bytes()[view.transport_range()].get(UDP_HEADER..)
        }
        _ => {
            Grh::of(view).filter(|grh| grh.is_valid())?;
            view.bytes().get(view.network_offset + GRH_LENGTH..)
        }
    }
}

fn split(Mac([a, b, c, d, e, f]): Mac) -> (u32, u16) {
    (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, f]))
}

#[cfg(test)]
mod tests;
