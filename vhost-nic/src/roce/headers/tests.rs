use super::{Aeth, AtomicEth, Bth, Deth, Headers, ImmDt, Reth, XrcEth};
use crate::roce::opcode::Opcode;
use crate::roce::psn::Psn;
use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

fn opcode(byte: u8) -> Opcode {
    Opcode::from_byte(byte).expect("a known opcode")
}

#[test]
fn each_field_of_the_bth_stands_in_its_bits() {
    let bth = Bth::new(opcode(0x04), 0x12_3456, Psn::new(0xab_cdef));
    assert_eq!(
        bth.as_bytes(),
        [4, 0x40, 0xff, 0xff, 0, 0x12, 0x34, 0x56, 0, 0xab, 0xcd, 0xef]
    );
    let bth = bth.with_solicited(true).with_pad(3).with_pkey(0x7fff);
    assert_eq!(bth.as_bytes()[..4], [4, 0xf0, 0x7f, 0xff]);
    let bth = bth.with_congestion(true, false).with_ack_request(true);
    assert_eq!(bth.as_bytes()[4..], [0x80, 0x12, 0x34, 0x56, 0x80, 0xab, 0xcd, 0xef]);
    let bth = bth
        .with_congestion(false, true)
        .with_ack_request(false)
        .with_solicited(false);
    assert_eq!(
        bth.as_bytes(),
        [4, 0x70, 0x7f, 0xff, 0x40, 0x12, 0x34, 0x56, 0, 0xab, 0xcd, 0xef]
    );
}

#[test]
fn the_bth_is_read_by_the_bit() {
    let bth = Bth::read_from_bytes(&[0x64, 0xa5, 0x12, 0x34, 0xbf, 1, 2, 3, 0xff, 4, 5, 6]).expect("12 bytes");
    assert_eq!(bth.opcode, 0x64);
    assert!(bth.solicited() && !bth.migreq());
    assert_eq!((bth.pad(), bth.version(), bth.pkey.get()), (2, 5, 0x1234));
    assert!(bth.fecn() && !bth.becn());
    assert_eq!(bth.destination_qpn(), 0x01_0203);
    assert!(bth.ack_request());
    assert_eq!(bth.psn().value(), 0x04_0506);
}

#[test]
fn numbers_of_24_bits_leave_the_reserved_byte_clear() {
    assert_eq!(Aeth::new(0x60, 0xff12_3456).as_bytes(), [0x60, 0x12, 0x34, 0x56]);
    assert_eq!(Aeth::new(0x60, 0xff12_3456).msn(), 0x12_3456);
    assert_eq!(
        Deth::new(0x8001_0000, 0xff00_0001).as_bytes(),
        [0x80, 1, 0, 0, 0, 0, 0, 1]
    );
    assert_eq!(XrcEth::new(0xff12_3456).as_bytes(), [0, 0x12, 0x34, 0x56]);
}

#[test]
fn headers_are_written_in_order_and_read_again() {
    let headers = Headers {
        xrc: Some(XrcEth::new(7)),
        reth: Some(Reth::new(0x1122_3344_5566_7788, 0xcafe_f00d, 0x100)),
        immediate: Some(ImmDt {
            immediate: [0xa, 0xb, 0xc, 0xd],
        }),
        ..Headers::new(Bth::new(opcode(0xab), 1, Psn::new(2)))
    };
    let mut bytes = vec![];
    headers.emit(&mut bytes);
    let expected = [
        0xab, 0x40, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 2, // BTH
        0, 0, 0, 7, // XRCETH
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0xca, 0xfe, 0xf0, 0x0d, 0, 0, 1, 0, // RETH
        0xa, 0xb, 0xc, 0xd, // ImmDt
    ];
    assert_eq!(bytes, expected);
    assert_eq!(headers.length(), expected.len());
    bytes.extend(b"payload");
    let parsed = Headers::parse(headers.bth, opcode(0xab), &bytes[12..]).expect("enough bytes");
    assert_eq!(parsed, (headers, &b"payload"[..]));
}

#[test]
fn headers_that_are_cut_off_are_none() {
    let bth = Bth::new(opcode(0x13), 1, Psn::new(2));
    let atomic = AtomicEth {
        virtual_address: U64::new(8),
        rkey: U32::new(9),
        swap_or_add: U64::new(10),
        compare: U64::new(11),
    };
    let bytes = atomic.as_bytes();
    assert_eq!(Headers::parse(bth, opcode(0x13), &bytes[..27]), None);
    let (headers, rest) = Headers::parse(bth, opcode(0x13), bytes).expect("enough bytes");
    assert_eq!((headers.atomic, rest.len()), (Some(atomic), 0));
}

#[test]
fn headers_of_another_opcode_are_noticed() {
    let bth = Bth::new(opcode(0x0b), 1, Psn::new(2));
    let mut headers = Headers {
        reth: Some(Reth::default()),
        ..Headers::new(bth)
    };
    assert!(!headers.are_of(opcode(0x0b)));
    headers.immediate = Some(ImmDt::default());
    assert!(headers.are_of(opcode(0x0b)));
    headers.aeth = Some(Aeth::default());
    assert!(!headers.are_of(opcode(0x0b)));
}
