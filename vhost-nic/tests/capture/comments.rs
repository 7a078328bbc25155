//! Comments of captured packets.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mlx5_prm::wqe::EthernetSegment;
use mlx5_test_driver::cqe_session::MiniFormat;
use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::{Netdev, Options};
use mlx5_test_driver::sq::Request;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use vhost_nic::net::Switch;
use vhost_nic::net::capture::{Capture, CaptureOptions};

use crate::exchange;
use crate::nic::machine;

/// Comments and times of the packets in a file.
fn read(path: &Path) -> (Vec<String>, Vec<Duration>) {
    let bytes = fs::read(path).unwrap();
    let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
    let (mut comments, mut times) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            let [EnhancedPacketOption::Comment(comment)] = &packet.options[..] else {
                panic!("{packet:?}");
            };
            comments.push(comment.to_string());
            times.push(packet.timestamp);
        }
    }
    (comments, times)
}

#[test]
fn every_packet_names_its_wqe_and_those_that_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcapng");
    let expected = exchange::capture(&path);
    let (comments, times) = read(&path);
    let expected: Vec<String> = expected.into_iter().map(|packet| packet.comment).collect();
    assert_eq!(comments, expected);
    assert!(times.is_sorted());
}

#[test]
fn each_segment_of_a_packet_names_the_wqe_that_it_ends() {
    const SEGMENTS: usize = 5;
    const MSS: u16 = 100;
    for compression in [None, Some(MiniFormat::Checksum)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.pcapng");
        let switch = Switch::new();
        let options = Options {
            compression,
            ..Options::default()
        };
        let open = |number| Netdev::open(&Arc::new(Hca::boot(&Arc::new(machine(&switch, number)))), &options);
        let (mut a, mut b) = (open(1), open(2));
        let capture = Capture::start(&switch, File::create_new(&path).unwrap(), &CaptureOptions::default()).unwrap();

        let mut packet = [&b.hca.machine.mac[..], &a.hca.machine.mac, &[8, 0]].concat();
        packet.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
        packet.resize(packet.len() + SEGMENTS * usize::from(MSS), 0x5a);
        let request = Request {
            checksums: EthernetSegment::L3_CSUM | EthernetSegment::L4_CSUM,
            mss: MSS,
            ..Request::default()
        };
        a.send_with(&packet, request);
        (0..SEGMENTS).for_each(|_| drop(b.receive()));
        drop(capture);

        let (sender, receiver) = (&a.channels[0], &b.channels[0]);
        let (sq, rq) = (sender.sq.number, receiver.rq.number);
        let (sent, received) = (sender.send_cq.number, receiver.receive_cq.number);
        let mut expected: Vec<String> = (0..SEGMENTS)
            .map(|index| {
                format!(
                    "nic1: SQ {sq:#x}, WQE 0; \
                     nic2: ends receive WQE {index} of RQ {rq:#x}: CQE {index} of CQ {received:#x}"
                )
            })
            .collect();
        expected[SEGMENTS - 1] += &format!("; nic1: ends WQE 0 of SQ {sq:#x}: CQE 0 of CQ {sent:#x}");
        assert_eq!(read(&path).0, expected);
        assert_eq!(
            receiver.receive_cq.compressed().sessions,
            u64::from(compression.is_some())
        );
        [a, b].into_iter().for_each(Netdev::shut_down);
    }
}
