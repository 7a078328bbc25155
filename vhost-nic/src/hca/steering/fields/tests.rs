use etherparse::{IpNumber, PacketBuilder};
use zerocopy::FromBytes;

use super::*;

/// Returns both parts in the driver's structures.
fn fields(frame: &[u8]) -> (FteMatchSetLyr24, FteMatchSetMisc) {
    let fields = MatchFields::new(&FrameView::new(frame).unwrap());
    let bytes: Vec<u8> = fields.0.iter().flat_map(|word| word.to_ne_bytes()).collect();
    (
        FteMatchSetLyr24::read_from_bytes(&bytes[..64]).unwrap(),
        FteMatchSetMisc::read_from_bytes(&bytes[64..]).unwrap(),
    )
}

#[test]
fn a_tcp_frame_with_two_tags_shows_all_its_headers() {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let builder = builder.double_vlan(5.try_into().unwrap(), 6.try_into().unwrap());
    let builder = builder
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 63)
        .tcp(80, 1024, 0, 0)
        .syn()
        .ns();
    builder.write(&mut frame, &[]).unwrap();
    frame[14] |= 0xb0;
    frame[23] = 0x2e << 2 | 1;
    let (outer, misc) = fields(&frame);
    let mut expected = FteMatchSetLyr24::default();
    expected.set_smac_47_16(0x0200_0000);
    expected.set_smac_15_0(1);
    expected.set_dmac_47_16(0x0200_0000);
    expected.set_dmac_15_0(2);
    expected.set_ethertype(0x0800);
    // etherparse's outer tag is a service tag.
    expected.set_svlan_tag(true);
    expected.set_first_prio(5);
    expected.set_first_cfi(true);
    expected.set_first_vid(5);
    expected.set_ip_version(4);
    expected.set_ip_dscp(0x2e);
    expected.set_ip_ecn(1);
    expected.set_ttl_hoplimit(63);
    expected.set_ip_protocol(6);
    expected.set_ipv4_ihl(5);
    expected.set_tcp_flags(0x102);
    expected.set_tcp_sport(80);
    expected.set_tcp_dport(1024);
    expected.set_l4_type(1);
    expected.set_l4_type_ext(1);
    expected.src_ipv4_src_ipv6_mut()[12..].copy_from_slice(&[10, 0, 0, 1]);
    expected.dst_ipv4_dst_ipv6_mut()[12..].copy_from_slice(&[10, 0, 0, 2]);
    assert_eq!(outer, expected);
    assert!(misc.outer_second_cvlan_tag());
    assert_eq!(misc.outer_second_vid(), 6);
}

#[test]
fn a_roce_frame_shows_its_queue_pair() {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6([0xfe; 16], [5; 16], 64)
        .udp(49152, 4791);
    builder
        .write(&mut frame, &[4, 0, 0xff, 0xff, 0, 0x01, 0x23, 0x45, 0, 0, 0, 0])
        .unwrap();
    frame[15] |= 0x0a;
    frame[17] = 0x55;
    let (outer, misc) = fields(&frame);
    assert_eq!(
        (
            outer.ip_version(),
            outer.udp_sport(),
            outer.udp_dport(),
            outer.l4_type()
        ),
        (6, 49152, 4791, 2)
    );
    assert_eq!((outer.tcp_sport(), outer.tcp_dport()), (0, 0));
    assert_eq!(outer.src_ipv4_src_ipv6(), &[0xfe; 16]);
    assert_eq!(
        (misc.bth_opcode(), misc.bth_dst_qp(), misc.outer_ipv6_flow_label()),
        (4, 0x01_2345, 0xa_0055)
    );
}

#[test]
fn a_roce_v1_frame_shows_its_queue_pair_unless_its_grh_is_invalid() {
    let bth = [0x64, 0, 0xff, 0xff, 0, 0x01, 0x23, 0x45, 0, 0, 0, 0];
    let grh = Grh::new(0, 0, 16, 64, [[1; 16], [2; 16]]);
    let mut frame = [&[2; 6][..], &[4; 6], &[0x89, 0x15], grh.as_bytes(), &bth, &[0; 4]].concat();
    let (outer, misc) = fields(&frame);
    assert_eq!((outer.ethertype(), outer.ip_version()), (0x8915, 0));
    assert_eq!((misc.bth_opcode(), misc.bth_dst_qp()), (0x64, 0x01_2345));
    // NxtHdr.
    frame[14 + 6] = 17;
    let (_, misc) = fields(&frame);
    assert_eq!((misc.bth_opcode(), misc.bth_dst_qp()), (0, 0));
    // Ends in the BTH.
    let (_, misc) = fields(&frame[..14 + 40 + 7]);
    assert_eq!((misc.bth_opcode(), misc.bth_dst_qp()), (0, 0));
}

#[test]
fn a_fragment_shows_no_ports() {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([1; 4], [2; 4], 64)
        .udp(1, 2);
    builder.write(&mut frame, &[0; 8]).unwrap();
    frame[20] = 0x20;
    let (outer, _) = fields(&frame);
    assert!(outer.frag());
    assert_eq!((outer.ip_protocol(), outer.udp_dport(), outer.l4_type()), (17, 0, 0));
}

#[test]
fn icmp_has_a_type_of_its_own() {
    for (number, v6) in [(1, false), (58, true)] {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let builder = if v6 {
            builder.ipv6([1; 16], [2; 16], 64)
        } else {
            builder.ipv4([1; 4], [2; 4], 64)
        };
        builder.write(&mut frame, IpNumber(number), &[0; 8]).unwrap();
        let (outer, _) = fields(&frame);
        assert_eq!(
            (outer.ip_protocol(), outer.l4_type(), outer.l4_type_ext()),
            (number, 0, 3)
        );
    }
}
