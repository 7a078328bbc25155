//! The header of a tunnel's datagrams, bit by bit.

use vhost_nic::external_port::{DropReason, VxlanHeader, decapsulate};
use zerocopy::IntoBytes;

#[test]
fn a_header_has_the_bytes_of_the_rfc() {
    let bytes = |vni| VxlanHeader::new(vni).as_bytes().to_vec();
    assert_eq!(bytes(0x12_3456), [8, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
    assert_eq!(bytes(0), [8, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn every_bit_of_the_header_counts() {
    let expected = VxlanHeader::new(0x12_3456);
    let good = [expected.as_bytes(), b"frame"].concat();
    assert_eq!(decapsulate(&good, expected), Ok(&b"frame"[..]));
    for bit in 0..64 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let reason = match bit {
            3 => DropReason::NoVni,
            32..56 => DropReason::OtherVni,
            _ => DropReason::ReservedBits,
        };
        assert_eq!(decapsulate(&bad, expected), Err(reason), "bit {bit}");
    }
    for length in 0..=8 {
        assert_eq!(
            decapsulate(&good[..length], expected),
            Err(DropReason::Malformed),
            "{length} bytes"
        );
    }
}
