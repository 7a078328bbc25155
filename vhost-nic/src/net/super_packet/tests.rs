use super::*;
use crate::frame::mac::Mac;
use crate::net::{Frame, Port, Switch};
use crate::roce::gid::Gid;
use crate::roce::headers::{Aeth, Bth, Headers, ImmDt, Reth, XrcEth};
use crate::roce::opcode::{Opcode, Operation, Position, Suffix, Transport};
use crate::roce::path::{Addresses, Path};
use crate::roce::psn::Psn;
use parking_lot::Mutex;
use std::sync::Arc;

const MTU: usize = 1024;

fn path() -> Path {
    Path {
        source_mac: Mac([2, 0, 0, 0, 0, 1]),
        destination_mac: Mac([2, 0, 0, 0, 0, 2]),
        vlan: None,
        addresses: Addresses::new(Gid::from_ipv4([10, 0, 0, 1]), Gid::from_ipv4([10, 0, 0, 2])),
        udp_source_port: 0xc001,
        traffic_class: 0,
        hop_limit: 64,
        flow_label: 0,
    }
}

/// A write with immediate of this length, or the part of it at this position.
fn write(transport: Transport, length: usize, position: Position) -> SuperPacket<'static> {
    let suffix = if position.ends() {
        Suffix::Immediate
    } else {
        Suffix::None
    };
    let opcode = Opcode::new(transport, Operation::Write, position, suffix).unwrap();
    let bth = Bth::new(opcode, 7, Psn::new(0xff_fffe))
        .with_ack_request(true)
        .with_solicited(position.ends());
    let mut headers = Headers::new(bth);
    headers.xrc = (transport == Transport::Xrc).then(|| XrcEth::new(5));
    headers.reth = position.begins().then(|| Reth::new(0x1000, 9, length as u32));
    headers.immediate = position.ends().then_some(ImmDt {
        immediate: [1, 2, 3, 4],
    });
    let mut payload = Payload::new();
    // In segments that do not end where packets do.
    let bytes: Vec<u8> = (0..length).map(|index| (index / 7) as u8).collect();
    for segment in bytes.chunks(700) {
        payload.push_bytes(segment);
    }
    SuperPacket {
        mtu: MTU,
        ..SuperPacket::single(Packet::new(path(), opcode, headers, length), payload)
    }
}

#[test]
fn a_train_is_split_into_the_packets_of_its_message() {
    for transport in [Transport::Rc, Transport::Uc, Transport::Xrc] {
        let super_packet = write(transport, 3 * MTU + 5, Position::Only);
        let packets: Vec<SuperPacket<'_>> = super_packet.split().collect();
        assert_eq!(super_packet.packets(), 4);
        assert_eq!(packets.len(), 4);
        let mut bytes = Vec::new();
        for (index, packet) in packets.iter().enumerate() {
            let (first, last) = (index == 0, index == 3);
            let Packet { opcode, headers, .. } = packet.head;
            assert_eq!(packet.packets(), 1);
            assert_eq!(opcode.transport(), transport);
            assert_eq!(opcode.position(), Position::new(first, last));
            assert_eq!(headers.bth.opcode, opcode.byte());
            assert!(headers.are_of(opcode), "{headers:?}");
            assert_eq!(headers.bth.psn(), Psn::new(0xff_fffe) + index as u32);
            assert_eq!(headers.bth.destination_qpn(), 7);
            assert_eq!(headers.bth.ack_request(), last);
            assert_eq!(headers.bth.solicited(), last);
            assert_eq!(headers.bth.pad(), if last { 3 } else { 0 });
            assert_eq!(packet.head.payload_length, if last { 5 } else { MTU });
            packet.payload.append_to(&mut bytes).unwrap();
        }
        let mut expected = Vec::new();
        super_packet.payload.append_to(&mut expected).unwrap();
        assert_eq!(bytes, expected);
    }
}

#[test]
fn a_part_of_a_message_begins_and_ends_as_it_does() {
    for position in [Position::First, Position::Middle, Position::Last] {
        let super_packet = write(Transport::Rc, 2 * MTU, position);
        let positions: Vec<Position> = super_packet
            .split()
            .map(|packet| packet.head.opcode.position())
            .collect();
        let first = Position::new(position.begins(), false);
        assert_eq!(positions, [first, Position::new(false, position.ends())]);
    }
}

#[test]
fn answers_of_reads_have_their_syndrome_first_and_last() {
    let opcode = Opcode::new(Transport::Rc, Operation::ReadResponse, Position::Only, Suffix::None).unwrap();
    let mut headers = Headers::new(Bth::new(opcode, 7, Psn::new(1)));
    headers.aeth = Some(Aeth::new(0x1f, 3));
    let mut payload = Payload::new();
    payload.push_zeros(3 * MTU);
    let super_packet = SuperPacket {
        mtu: MTU,
        ..SuperPacket::single(Packet::new(path(), opcode, headers, 3 * MTU), payload)
    };
    let with: Vec<bool> = super_packet
        .split()
        .map(|packet| packet.head.headers.aeth.is_some())
        .collect();
    assert_eq!(with, [true, false, true]);
}

#[test]
fn lengths_are_those_of_the_frames() {
    for length in [0, 1, MTU - 1, MTU, MTU + 1, 2 * MTU, 2 * MTU + 1, 9 * MTU + 3] {
        for position in [Position::First, Position::Middle, Position::Last, Position::Only] {
            let super_packet = write(Transport::Rc, length, position);
            let mut reported = Vec::new();
            for (length, count) in Frame::SuperPacket(&super_packet).lengths() {
                reported.resize(reported.len() + count as usize, length);
            }
            let mut found = Vec::new();
            Frame::SuperPacket(&super_packet).each(|frame| found.push(frame.to_bytes().unwrap().len()));
            assert_eq!(reported, found, "{length} bytes, {position:?}");
        }
    }
}

/// Records the lengths of received frames.
#[derive(Default)]
struct Inbox(Mutex<Vec<usize>>);

impl Port for Inbox {
    fn receive(&self, frame: Frame<'_>) {
        self.0.lock().push(frame.to_bytes().unwrap().len());
    }
}

#[test]
fn a_switch_counts_the_packets_and_a_port_gets_each() {
    let switch = Switch::new();
    let inbox = Arc::new(Inbox::default());
    let weak = Arc::downgrade(&inbox);
    let (sender, _receiver) = (switch.attach("sender", weak.clone()), switch.attach("receiver", weak));
    let super_packet = write(Transport::Rc, 4 * MTU, Position::Only);
    sender.send(Frame::SuperPacket(&super_packet));
    let received = inbox.0.lock().clone();
    assert_eq!(received.len(), 4);
    let sent = sender.stats().sent;
    assert_eq!(sent.frames, 4);
    assert_eq!(sent.bytes, received.iter().sum::<usize>() as u64);
}
