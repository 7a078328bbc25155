use super::{Extension, Opcode, Operation, Position, Suffix, Transport};

fn known() -> impl Iterator<Item = (u8, Opcode)> {
    (0..=u8::MAX).filter_map(|byte| Some((byte, Opcode::from_byte(byte)?)))
}

fn extensions(byte: u8) -> Vec<Extension> {
    Opcode::from_byte(byte).map_or(vec![], |opcode| opcode.extensions().collect())
}

#[test]
fn every_opcode_comes_back_from_its_parts() {
    for (byte, opcode) in known() {
        assert_eq!(opcode.byte(), byte);
        assert_eq!(
            Opcode::new(
                opcode.transport(),
                opcode.operation(),
                opcode.position(),
                opcode.suffix()
            ),
            Some(opcode),
            "{byte:#x}"
        );
    }
}

#[test]
fn the_opcodes_of_each_transport_are_those_of_the_specification() {
    let of = |transport| -> Vec<u8> {
        known()
            .filter(|(_, opcode)| opcode.transport() == transport)
            .map(|(byte, _)| byte)
            .collect()
    };
    let reliable: Vec<u8> = (0x00..=0x14).chain([0x16, 0x17]).collect();
    assert_eq!(of(Transport::Rc), reliable);
    assert_eq!(of(Transport::Uc), (0x20..=0x2b).collect::<Vec<u8>>());
    assert_eq!(of(Transport::Ud), [0x64, 0x65]);
    assert_eq!(of(Transport::Cnp), [0x81]);
    assert_eq!(
        of(Transport::Xrc),
        reliable.iter().map(|byte| byte | 0xa0).collect::<Vec<u8>>()
    );
}

#[test]
fn what_has_no_opcode_gets_none() {
    for (transport, operation, position, suffix) in [
        (Transport::Ud, Operation::Send, Position::First, Suffix::None),
        (Transport::Ud, Operation::Send, Position::Only, Suffix::Invalidate),
        (Transport::Uc, Operation::ReadRequest, Position::Only, Suffix::None),
        (Transport::Uc, Operation::Send, Position::Last, Suffix::Invalidate),
        (Transport::Rc, Operation::Send, Position::Middle, Suffix::Immediate),
        (Transport::Rc, Operation::Write, Position::Only, Suffix::Invalidate),
        (
            Transport::Rc,
            Operation::CongestionNotification,
            Position::Only,
            Suffix::None,
        ),
        (Transport::Cnp, Operation::Send, Position::Only, Suffix::None),
    ] {
        let opcode = Opcode::new(transport, operation, position, suffix);
        assert_eq!(opcode, None, "{transport:?} {operation:?} {position:?} {suffix:?}");
    }
}

#[test]
fn the_headers_follow_as_the_specification_says() {
    use Extension::*;
    for (byte, expected) in [
        (0x00, &[][..]),
        (0x01, &[]),
        (0x02, &[]),
        (0x03, &[ImmDt]),
        (0x04, &[]),
        (0x05, &[ImmDt]),
        (0x06, &[Reth]),
        (0x07, &[]),
        (0x08, &[]),
        (0x09, &[ImmDt]),
        (0x0a, &[Reth]),
        (0x0b, &[Reth, ImmDt]),
        (0x0c, &[Reth]),
        (0x0d, &[Aeth]),
        (0x0e, &[]),
        (0x0f, &[Aeth]),
        (0x10, &[Aeth]),
        (0x11, &[Aeth]),
        (0x12, &[Aeth, AtomicAckEth]),
        (0x13, &[AtomicEth]),
        (0x14, &[AtomicEth]),
        (0x16, &[Ieth]),
        (0x17, &[Ieth]),
        (0x2b, &[Reth, ImmDt]),
        (0x64, &[Deth]),
        (0x65, &[Deth, ImmDt]),
        (0x81, &[]),
        (0xa1, &[XrcEth]),
        (0xab, &[XrcEth, Reth, ImmDt]),
        (0xac, &[XrcEth, Reth]),
        (0xad, &[Aeth]),
        (0xae, &[]),
        (0xb1, &[Aeth]),
        (0xb3, &[XrcEth, AtomicEth]),
        (0xb7, &[XrcEth, Ieth]),
    ] {
        assert_eq!(extensions(byte), expected, "{byte:#x}");
    }
}

#[test]
fn the_position_of_a_packet_depends_on_where_it_stands() {
    assert_eq!(Position::new(true, true), Position::Only);
    assert_eq!(Position::new(true, false), Position::First);
    assert_eq!(Position::new(false, false), Position::Middle);
    assert_eq!(Position::new(false, true), Position::Last);
}

#[test]
fn requests_and_responses_are_told_apart() {
    for (byte, opcode) in known() {
        let response = matches!(byte & 0x1f, 0x0d..=0x12);
        assert_eq!(opcode.is_response(), response, "{byte:#x}");
        assert_eq!(opcode.is_request(), !response && byte != 0x81, "{byte:#x}");
    }
}
