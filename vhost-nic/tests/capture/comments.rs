//! Comments of captured packets.

use std::fs;

use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};

use crate::exchange::capture;

#[test]
fn every_packet_names_its_wqe_and_those_that_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcapng");
    let expected = capture(&path);
    let bytes = fs::read(&path).unwrap();
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
    let expected: Vec<String> = expected.into_iter().map(|packet| packet.comment).collect();
    assert_eq!(comments, expected);
    assert!(times.is_sorted());
}
