use super::{append, check};
use crate::frame::view::FrameView;
use crate::roce::headers::{Aeth, Bth, Deth, Headers, ImmDt, Reth};
use crate::roce::opcode::Opcode;
use crate::roce::packet::emit_headers;
use crate::roce::packet::tests::{ipv4_path, ipv6_path, materialise, v1_path, v1_vlan_path, vlan_path};
use crate::roce::path::{Addresses, Path};
use crate::roce::psn::Psn;

/// A packet as another implementation builds it, and its parameters: scapy (`contrib/roce.py`), or for RoCE v1, which
/// scapy lacks, Python's `zlib.crc32` over 8 bytes of ones and the masked packet.
struct Vector {
    path: Path,
    headers: Headers,
    payload: &'static [u8],
    frame: &'static str,
}

fn bth(opcode: u8, destination_qpn: u32, psn: u32) -> Bth {
    let opcode = Opcode::from_byte(opcode).expect("a known opcode");
    Bth::new(opcode, destination_qpn, Psn::new(psn))
}

fn vectors() -> [Vector; 8] {
    [
        Vector {
            path: ipv4_path(),
            headers: Headers::new(
                bth(0x04, 0x12_3456, 0xff_fffe)
                    .with_solicited(true)
                    .with_ack_request(true),
            ),
            payload: &[0xde, 0xad, 0xbe, 0xef],
            frame: "52540000c50252540000c5010800456a0030000040004011224b0a0102030a010204c12312b7001c000004c0\
                    ffff0012345680fffffedeadbeefdf2454a0",
        },
        Vector {
            path: vlan_path(),
            headers: Headers {
                reth: Some(Reth::new(0x1122_3344_5566_7788, 0xcafe_f00d, 5)),
                immediate: Some(ImmDt {
                    immediate: [1, 2, 3, 4],
                }),
                ..Headers::new(bth(0x0b, 0x77, 1).with_ack_request(true))
            },
            payload: b"hello",
            frame: "52540000c50252540000c5018100a1230800456a004800004000401122330a0102030a010204c12312b70034\
                    00000b70ffff00000077800000011122334455667788cafef00d000000050102030468656c6c6f000000d7ed\
                    92c1",
        },
        Vector {
            path: ipv6_path(),
            headers: Headers {
                deth: Some(Deth::new(0x8001_0000, 1)),
                ..Headers::new(bth(0x64, 1, 0x42))
            },
            payload: b"sixsix",
            frame: "52540000c50252540000c50186dd66a5432100281140fe80000000000000505400fffe00c501fe8000000000\
                    0000505400fffe00c502c12312b7002800006460ffff00000001000000428001000000000001736978736978\
                    000068c6b3df",
        },
        Vector {
            path: ipv4_path(),
            headers: Headers {
                aeth: Some(Aeth::new(0x1f, 0x2a)),
                ..Headers::new(bth(0x11, 0x99, 7))
            },
            payload: b"",
            frame: "52540000c50252540000c5010800456a0030000040004011224b0a0102030a010204c12312b7001c00001140\
                    ffff00000099000000071f00002a6e00a56c",
        },
        Vector {
            path: ipv6_path(),
            headers: Headers::new(bth(0x81, 0x99, 0).with_congestion(false, true)),
            payload: &[0; 16],
            frame: "52540000c50252540000c50186dd66a5432100281140fe80000000000000505400fffe00c501fe8000000000\
                    0000505400fffe00c502c12312b7002800008140ffff40000099000000000000000000000000000000000000\
                    000009a99abb",
        },
        Vector {
            path: ipv6_path(),
            headers: Headers {
                aeth: Some(Aeth::new(0x1f, 0x01_0203)),
                ..Headers::new(bth(0x0f, 0x99, 0x1000))
            },
            payload: b"seven..",
            frame: "52540000c50252540000c50186dd66a5432100241140fe80000000000000505400fffe00c501fe8000000000\
                    0000505400fffe00c502c12312b7002400000f50ffff00000099000010001f010203736576656e2e2e00026d\
                    0125",
        },
        Vector {
            path: v1_path(),
            headers: Headers::new(
                bth(0x04, 0x12_3456, 0xff_fffe)
                    .with_solicited(true)
                    .with_ack_request(true),
            ),
            payload: &[0xde, 0xad, 0xbe, 0xef],
            frame: "52540000c50252540000c501891566a5432100141b40fe80000000000000505400fffe00c501fe8000000000\
                    0000505400fffe00c50204c0ffff0012345680fffffedeadbeef75ba3ea0",
        },
        Vector {
            path: v1_vlan_path(),
            headers: Headers {
                deth: Some(Deth::new(0x8001_0000, 1)),
                ..Headers::new(bth(0x64, 1, 0x42))
            },
            payload: b"sixsix",
            frame: "52540000c50252540000c5018100a123891566a5432100201b4000000000000000000000ffff0a0102030000\
                    0000000000000000ffff0a0102046460ffff00000001000000428001000000000001736978736978\
                    0000f00f52fc",
        },
    ]
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().as_chunks::<2>().0;
    digits
        .iter()
        .map(|digits| {
            let digits = str::from_utf8(digits).expect("digits");
            u8::from_str_radix(digits, 16).expect("hexadecimal digits")
        })
        .collect()
}

fn right(frame: &[u8]) -> bool {
    check(&FrameView::new(frame).expect("a frame"))
}

#[test]
fn packets_are_those_of_another_implementation() {
    for vector in vectors() {
        let mut head = vec![];
        emit_headers(&vector.path, &vector.headers, vector.payload.len(), &mut head);
        assert_eq!(
            materialise(&head, vector.payload),
            bytes(vector.frame),
            "{:?}",
            vector.headers
        );
    }
}

#[test]
fn packets_of_another_implementation_are_right() {
    for vector in vectors() {
        let mut frame = bytes(vector.frame);
        assert!(right(&frame), "{:?}", vector.headers);
        frame.resize(frame.len() + 9, 0xee);
        assert!(right(&frame), "with Ethernet padding: {:?}", vector.headers);
    }
}

/// Offsets and bits of everything between Ethernet header and ICRC that may change in transit.
fn changing(path: &Path) -> Vec<(usize, u8)> {
    let network = if path.vlan.is_some() { 18 } else { 14 };
    let (ip, transport): (&[(usize, u8)], usize) = match path.addresses {
        Addresses::Ipv4 { .. } => (&[(1, 0xff), (8, 0xff), (10, 0xff), (11, 0xff)], network + 20),
        Addresses::Ipv6 { .. } => (&[(0, 0x0f), (1, 0xff), (2, 0xff), (3, 0xff), (7, 0xff)], network + 40),
        // Congestion bits of the BTH instead of the UDP checksum.
        Addresses::Grh { .. } => (
            &[(0, 0x0f), (1, 0xff), (2, 0xff), (3, 0xff), (7, 0xff), (44, 0xff)],
            network + 40,
        ),
    };
    let udp: &[(usize, u8)] = match path.addresses.is_v1() {
        true => &[],
        // UDP checksum, FECN and BECN.
        false => &[(6, 0xff), (7, 0xff), (12, 0xff)],
    };
    ip.iter()
        .map(|(offset, bits)| (network + offset, *bits))
        .chain(udp.iter().map(|(offset, bits)| (transport + offset, *bits)))
        .collect()
}

#[test]
fn each_bit_counts_but_for_those_that_may_change_on_the_way() {
    for vector in vectors() {
        let good = bytes(vector.frame);
        let changing = changing(&vector.path);
        let network = if vector.path.vlan.is_some() { 18 } else { 14 };
        for offset in network..good.len() {
            for bit in (0..8).map(|shift| 1 << shift) {
                let mut frame = good.clone();
                frame[offset] ^= bit;
                let may_change = changing.iter().any(|(at, bits)| *at == offset && bits & bit != 0);
                assert_eq!(right(&frame), may_change, "bit {bit:#04x} of byte {offset}");
            }
        }
    }
}

#[test]
fn the_link_header_does_not_count() {
    for vector in vectors() {
        let mut frame = bytes(vector.frame);
        frame[..12].fill(0x22);
        if vector.path.vlan.is_some() {
            frame[14..16].fill(0x33);
        }
        assert!(right(&frame), "{:?}", vector.headers);
    }
}

#[test]
fn the_seed_stands_for_eight_bytes_of_ones() {
    assert_eq!(crc32fast::hash(&[0xff; 8]), super::MASKED_LINK_HEADER);
    assert_eq!(!super::MASKED_LINK_HEADER, 0xdebb_20e3);
}

#[test]
fn a_payload_may_come_in_pieces() {
    for vector in vectors() {
        let mut head = vec![];
        emit_headers(&vector.path, &vector.headers, vector.payload.len(), &mut head);
        let mut out = b"before".to_vec();
        let view = FrameView::new(&head).expect("a frame");
        assert!(append(&view, vector.payload.chunks(3), &mut out));
        assert_eq!(out[..6], *b"before");
        assert_eq!(out[6..], bytes(vector.frame));
    }
}

#[test]
fn what_is_not_a_packet_is_neither_right_nor_gets_an_icrc() {
    let noise = [0xff; 60];
    assert!(!right(&noise));
    let mut out = vec![];
    assert!(!append(&FrameView::new(&noise).expect("a frame"), [&[1][..]], &mut out));
    assert!(out.is_empty());
}
