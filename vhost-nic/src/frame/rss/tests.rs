use etherparse::{IpNumber, PacketBuilder};
use proptest::prelude::*;

use super::*;

/// The key and vectors of "Verifying the RSS Hash Calculation" in Microsoft's documentation of network drivers.
const KEY: [u8; KEY_LENGTH] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
];
const ADDRESSES: u32 = selected::SRC_IP | selected::DST_IP;
const PORTS: u32 = selected::L4_SPORT | selected::L4_DPORT;

fn rss(l3: L3Protocol, fields: u32, symmetric: bool) -> RssHash {
    RssHash {
        function: HashFunction::Toeplitz(Toeplitz::new(&KEY)),
        symmetric,
        l3,
        l4: L4Protocol::Tcp,
        fields,
    }
}

fn tcp_frame(source: &str, source_port: u16, destination: &str, destination_port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]);
    let builder = match (source.parse().unwrap(), destination.parse().unwrap()) {
        (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) => {
            builder.ipv4(source.octets(), destination.octets(), 64)
        }
        (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) => {
            builder.ipv6(source.octets(), destination.octets(), 64)
        }
        _ => panic!("addresses of two kinds"),
    };
    let mut frame = Vec::new();
    builder
        .tcp(source_port, destination_port, 0, 0)
        .write(&mut frame, &[])
        .unwrap();
    frame
}

fn hash(rss: &RssHash, frame: &[u8]) -> HashResult {
    rss.hash(&FrameView::new(frame).unwrap())
}

#[test]
fn the_published_ipv4_vectors_hold() {
    for (destination, destination_port, source, source_port, addresses, with_ports) in [
        ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0_a5de, 0x5c2b_394a),
        ("209.142.163.6", 2217, "38.27.205.30", 48228, 0x8298_9176, 0xafc7_327f),
        ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d18_09c5, 0x10e8_28a2),
    ] {
        let frame = tcp_frame(source, source_port, destination, destination_port);
        assert_eq!(hash(&rss(L3Protocol::Ipv4, ADDRESSES, false), &frame).value, addresses);
        assert_eq!(
            hash(&rss(L3Protocol::Ipv4, ADDRESSES | PORTS, false), &frame).value,
            with_ports
        );
    }
}

#[test]
fn the_published_ipv6_vectors_hold() {
    for (destination, destination_port, source, source_port, addresses, with_ports) in [
        (
            "3ffe:2501:200:3::1",
            1766,
            "3ffe:2501:200:1fff::7",
            2794,
            0x2cc1_8cd5,
            0x4020_7d3d,
        ),
        (
            "ff02::1",
            4739,
            "3ffe:501:8::260:97ff:fe40:efab",
            14230,
            0x0f0c_461c,
            0xdde5_1bbf,
        ),
        (
            "fe80::200:f8ff:fe21:67cf",
            38024,
            "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
            44251,
            0x4b61_e985,
            0x02d1_feef,
        ),
    ] {
        let frame = tcp_frame(source, source_port, destination, destination_port);
        assert_eq!(hash(&rss(L3Protocol::Ipv6, ADDRESSES, false), &frame).value, addresses);
        assert_eq!(
            hash(&rss(L3Protocol::Ipv6, ADDRESSES | PORTS, false), &frame).value,
            with_ports
        );
    }
}

#[test]
fn the_type_says_what_was_hashed() {
    let frame = tcp_frame("10.0.0.1", 1, "10.0.0.2", 2);
    assert_eq!(
        hash(&rss(L3Protocol::Ipv4, ADDRESSES | PORTS, false), &frame).kind,
        0b0101_0101
    );
    assert_eq!(
        hash(&rss(L3Protocol::Ipv4, selected::DST_IP, false), &frame).kind,
        0b0000_0100
    );
    assert_eq!(
        hash(&rss(L3Protocol::Ipv6, ADDRESSES, false), &frame),
        HashResult::default()
    );
    assert_eq!(hash(&rss(L3Protocol::Ipv4, 0, false), &frame), HashResult::default());
}

#[test]
fn an_spi_is_hashed_behind_the_addresses() {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    builder
        .write(&mut frame, IpNumber(50), &[9, 8, 7, 6, 0, 0, 0, 0])
        .unwrap();
    let result = hash(&rss(L3Protocol::Ipv4, ADDRESSES | selected::IPSEC_SPI, false), &frame);
    assert_eq!(
        result.value,
        Toeplitz::new(&KEY).hash(&[10, 0, 0, 1, 10, 0, 0, 2, 9, 8, 7, 6])
    );
    assert_eq!(result.kind, 0b1100_0101);
}

#[test]
fn inverted_xor8_is_one_byte_with_its_bits_reversed() {
    let xor = RssHash {
        function: HashFunction::InvertedXor8,
        ..rss(L3Protocol::Ipv4, ADDRESSES, false)
    };
    let frame = tcp_frame("1.2.4.8", 1, "16.0.0.0", 2);
    assert_eq!(hash(&xor, &frame).value, 0xf8);
}

#[test]
fn an_entry_is_always_in_the_table() {
    let result = HashResult {
        value: u32::MAX,
        kind: 0,
    };
    assert_eq!((result.entry(0), result.entry(1), result.entry(128)), (0, 0, 127));
}

proptest! {
    #[test]
    fn the_tables_give_what_the_definition_gives(
        key: [[u8; 20]; 2],
        input in prop::collection::vec(any::<u8>(), 0..=MAX_INPUT),
    ) {
        let key: [u8; KEY_LENGTH] = key.concat().try_into().unwrap();
        let bit = |bytes: &[u8], n: usize| bytes[n / 8] >> (7 - n % 8) & 1;
        let mut expected = 0u32;
        for n in (0..input.len() * 8).filter(|&n| bit(&input, n) == 1) {
            expected ^= (n..n + 32).fold(0, |window, n| window << 1 | u32::from(bit(&key, n)));
        }
        prop_assert_eq!(Toeplitz::new(&key).hash(&input), expected);
    }

    #[test]
    fn a_symmetric_hash_is_the_same_in_both_directions(a: [u8; 4], b: [u8; 4], ports: (u16, u16)) {
        let (a, b) = (std::net::Ipv4Addr::from(a).to_string(), std::net::Ipv4Addr::from(b).to_string());
        let rss = rss(L3Protocol::Ipv4, ADDRESSES | PORTS, true);
        let there = hash(&rss, &tcp_frame(&a, ports.0, &b, ports.1));
        let back = hash(&rss, &tcp_frame(&b, ports.1, &a, ports.0));
        prop_assert_eq!(there, back);
    }
}
