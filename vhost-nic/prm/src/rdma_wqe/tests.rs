use super::{AddressVector, Klm, MaskedAtomicSegment, RemoteAddressSegment, UmrControlSegment, XrcSegment};
use zerocopy::FromBytes;

/// Returns bytes that differ by position.
fn counted<const N: usize>() -> [u8; N] {
    std::array::from_fn(|place| place as u8)
}

#[test]
fn fields_stand_where_the_kernel_has_them() {
    let raddr = RemoteAddressSegment::read_from_bytes(&counted::<16>()).expect("16 bytes");
    assert_eq!(raddr.raddr.get(), 0x0001_0203_0405_0607);
    assert_eq!(raddr.rkey.get(), 0x0809_0a0b);
    let atomic = MaskedAtomicSegment::read_from_bytes(&counted::<32>()).expect("32 bytes");
    assert_eq!(atomic.compare.get(), 0x0809_0a0b_0c0d_0e0f);
    assert_eq!(atomic.compare_mask.get(), 0x1819_1a1b_1c1d_1e1f);
    let xrc = XrcSegment::read_from_bytes(&counted::<16>()).expect("16 bytes");
    assert_eq!(xrc.xrc_srqn.get(), 0x0001_0203);
    let klm = Klm::read_from_bytes(&counted::<16>()).expect("16 bytes");
    assert_eq!((klm.bcount.get(), klm.key.get()), (0x0001_0203, 0x0405_0607));
    assert_eq!(klm.va.get(), 0x0809_0a0b_0c0d_0e0f);
}

#[test]
fn an_address_vector_is_read_by_the_bit() {
    let mut bytes = counted::<48>();
    bytes[8..12].copy_from_slice(&[0x80, 0x12, 0x34, 0x56]);
    bytes[12] = 0x3a;
    bytes[28..32].copy_from_slice(&[0x4a, 0xb5, 0x43, 0x21]);
    let vector = AddressVector::read_from_bytes(&bytes).expect("48 bytes");
    assert_eq!(vector.qkey.get(), 0x0001_0203);
    assert_eq!(vector.remote_queue_number(), 0x12_3456);
    assert_ne!(vector.dqp_dct.get() & AddressVector::EXTENDED, 0);
    assert_eq!((vector.static_rate(), vector.service_level()), (3, 10));
    assert_eq!(vector.ethernet_priority(), 5);
    assert_eq!(vector.udp_sport.get(), 0x0e0f);
    assert_eq!(vector.rmac, [20, 21, 22, 23, 24, 25]);
    assert_eq!((vector.tclass, vector.hop_limit), (26, 27));
    assert!(vector.has_grh());
    assert_eq!(vector.source_gid_index(), 0xab);
    assert_eq!(vector.flow_label(), 0x5_4321);
    assert_eq!(vector.rgid[..], bytes[32..]);
}

#[test]
fn a_key_change_says_where_its_translations_go() {
    let mut bytes = counted::<48>();
    bytes[0] = UmrControlSegment::TRANSLATION_OFFSET_EN;
    let umr = UmrControlSegment::read_from_bytes(&bytes).expect("48 bytes");
    assert_eq!(umr.translation_length(), 0x0405 * 16);
    assert_eq!(umr.mkey_mask.get(), 0x0809_0a0b_0c0d_0e0f);
    assert_eq!(umr.translation_offset(), 0x1011_1213_0607);
    bytes[0] = 0;
    let umr = UmrControlSegment::read_from_bytes(&bytes).expect("48 bytes");
    assert_eq!(umr.translation_offset(), 0);
}
