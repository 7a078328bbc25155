use super::{Nak, Syndrome};
use crate::roce::rnr::RnrTimer;

#[test]
fn syndromes_have_the_bytes_of_the_specification() {
    for (syndrome, byte) in [
        (Syndrome::ACK, 0x1f),
        (Syndrome::Ack { credits: 3 }, 0x03),
        (Syndrome::Rnr(RnrTimer::new(12)), 0x2c),
        (Syndrome::Nak(Nak::PsnSequence), 0x60),
        (Syndrome::Nak(Nak::InvalidRequest), 0x61),
        (Syndrome::Nak(Nak::RemoteAccess), 0x62),
        (Syndrome::Nak(Nak::RemoteOperational), 0x63),
        (Syndrome::Nak(Nak::InvalidRdRequest), 0x64),
    ] {
        assert_eq!(syndrome.byte(), byte, "{syndrome:?}");
        assert_eq!(Syndrome::from_byte(byte), Some(syndrome));
    }
}

#[test]
fn every_byte_is_either_reserved_or_comes_back() {
    for byte in 0..=u8::MAX {
        let reserved = matches!(byte, 0x40..=0x5f | 0x65..);
        match Syndrome::from_byte(byte) {
            Some(syndrome) => assert_eq!(syndrome.byte(), byte),
            None => assert!(reserved, "{byte:#x}"),
        }
        assert_eq!(Syndrome::from_byte(byte).is_none(), reserved, "{byte:#x}");
    }
}
