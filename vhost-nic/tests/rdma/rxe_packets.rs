//! Packets of Linux's rdma_rxe as it sent them (Linux 7.3.4, virtio-net on QEMU's `-netdev stream`, 30 November 2026):
//! the shortest of each opcode and padding, from `guest-tests/tests/nic/interop.rs`.

use std::collections::BTreeSet;

use pcap_file::pcap::PcapReader;
use vhost_nic::external_port::{Arrived, admit};
use vhost_nic::frame::view::FrameView;
use vhost_nic::net::Frame;
use vhost_nic::roce::packet::Packet;

const CAPTURE: &[u8] = include_bytes!("../captures/rxe.pcap");

fn packets() -> Vec<Vec<u8>> {
    let (mut reader, mut packets) = (PcapReader::new(CAPTURE).unwrap(), Vec::new());
    while let Some(packet) = reader.next_packet() {
        packets.push(packet.unwrap().data.into_owned());
    }
    packets
}

/// Fields that a packet may differ in when it leaves the daemon again: the identification of its IPv4 header, whose
/// checksum follows, and the ICRC, which covers it.
fn without_identification(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[18..20].fill(0);
    packet[24..26].fill(0);
    let icrc = packet.len() - 4;
    packet[icrc..].fill(0);
    packet
}

#[test]
fn every_packet_of_rxe_is_admitted_and_leaves_as_it_came() {
    let packets = packets();
    let mut opcodes = BTreeSet::new();
    for packet in &packets {
        let Some(arrived @ Arrived::Packet(_)) = admit(packet) else {
            panic!("{} is refused", Frame::new(packet));
        };
        let again = arrived.frame().to_bytes().unwrap().into_owned();
        assert_eq!(without_identification(&again), without_identification(packet));
        assert!(matches!(admit(&again), Some(Arrived::Packet(_))));
        opcodes.insert(packet[42]);
    }
    // All of RC with SEND_WITH_INV and atomics, of UC, and of UD.
    let rc = (0x00..=0x14).chain(0x16..=0x17);
    let expected: BTreeSet<u8> = rc.chain(0x20..=0x2b).chain(0x64..=0x65).collect();
    assert_eq!(opcodes, expected);
}

#[test]
fn no_bit_of_a_packet_changes_unnoticed_but_those_of_routers() {
    /// Bytes outside the ICRC: Ethernet addresses; TOS, TTL and checksum of IPv4; checksum of UDP; congestion bits.
    const UNCOVERED: [usize; 18] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 22, 24, 25, 40, 41];
    const CONGESTION: usize = 46;
    for packet in packets().iter().filter(|packet| packet.len() < 120) {
        for bit in 0..packet.len() * 8 {
            let mut changed = packet.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let is_packet = matches!(admit(&changed), Some(Arrived::Packet(_)));
            let byte = bit / 8;
            // The checksum of the IPv4 header covers what the ICRC does not.
            let is_covered = !UNCOVERED.contains(&byte) && byte != CONGESTION || [15, 22, 24, 25].contains(&byte);
            assert_eq!(is_packet, !is_covered, "bit {bit} of {}", Frame::new(packet));
        }
    }
}

#[test]
fn no_packet_is_complete_without_its_last_byte() {
    for packet in packets() {
        let cut = &packet[..packet.len() - 1];
        assert!(matches!(admit(cut), Some(Arrived::Bytes(_))), "{}", Frame::new(&packet));
        assert!(FrameView::new(cut).is_none_or(|view| Packet::new_checked(&view).is_err()));
    }
}
