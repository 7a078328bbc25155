use super::Gid;
use crate::frame::mac::Mac;

#[test]
fn an_ipv4_address_is_mapped_and_found_again() {
    let gid = Gid::from_ipv4([10, 1, 2, 3]);
    assert_eq!(gid.0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3]);
    assert_eq!(gid.ipv4(), Some([10, 1, 2, 3]));
    assert_eq!(gid.to_string(), "::ffff:10.1.2.3");
}

#[test]
fn an_ipv6_address_is_not_an_ipv4_one() {
    let mut gid = Gid::from_ipv4([10, 1, 2, 3]);
    gid.0[0] = 0xfe;
    assert_eq!(gid.ipv4(), None);
    assert_eq!(Gid::default().ipv4(), None);
}

#[test]
fn an_ipv4_group_has_23_bits_in_its_mac_address() {
    let group = Gid::from_ipv4([239, 0x81, 2, 3]);
    assert!(group.is_multicast());
    assert_eq!(group.multicast_mac(), Some(Mac([0x01, 0x00, 0x5e, 0x01, 2, 3])));
    assert_eq!(group.ipv6_multicast_mac(), Mac([0x33, 0x33, 239, 0x81, 2, 3]));
}

#[test]
fn an_ipv6_group_has_32_bits_in_its_mac_address() {
    let group = Gid([0xff, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd]);
    assert!(group.is_multicast());
    assert_eq!(group.multicast_mac(), Some(Mac([0x33, 0x33, 0xaa, 0xbb, 0xcc, 0xdd])));
}

#[test]
fn the_address_of_one_port_is_not_a_group() {
    for gid in [
        Gid::from_ipv4([223, 255, 255, 255]),
        Gid::from_ipv4([240, 0, 0, 0]),
        Gid([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        Gid::default(),
    ] {
        assert!(!gid.is_multicast(), "{gid}");
        assert_eq!(gid.multicast_mac(), None, "{gid}");
    }
}
