//! Captured commands of a driver.

use std::fs::File;

use mlx5_test_driver::domain::{alloc_pd, dealloc_pd};
use mlx5_test_driver::node::Node;
use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use vhost_nic::net::Switch;
use vhost_nic::net::capture::{Capture, CaptureOptions, CommandHeader};
use zerocopy::FromBytes;

use crate::nic::machine;

#[test]
fn commands_are_captured_with_input_and_output() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcapng");
    let switch = Switch::new();
    let nodes = [1, 2].map(|number| Node::open(machine(&switch, number), number));
    let options = CaptureOptions {
        port: Some("nic2".to_owned()),
        commands: true,
        ..CaptureOptions::default()
    };
    let capture = Capture::start(&switch, File::create_new(&path).unwrap(), &options).unwrap();
    // Of the first NIC: not captured.
    dealloc_pd(&nodes[0].hca, alloc_pd(&nodes[0].hca).unwrap()).unwrap();
    let hca = &nodes[1].hca;
    let pd = alloc_pd(hca).unwrap();
    dealloc_pd(hca, pd).unwrap();
    assert!(dealloc_pd(hca, pd).is_err());
    drop(capture);
    nodes.into_iter().for_each(Node::close);

    let bytes = std::fs::read(&path).unwrap();
    let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
    let (mut linktypes, mut seen) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(interface) => linktypes.push(interface.linktype),
            Block::EnhancedPacket(packet) => {
                let [EnhancedPacketOption::Comment(comment)] = &packet.options[..] else {
                    panic!("{packet:?}");
                };
                let (header, rest) = CommandHeader::read_from_prefix(&packet.data).unwrap();
                let (text, duration) = comment.rsplit_once(", ").unwrap();
                assert_eq!(duration, format!("{} ns", header.duration_ns));
                assert_eq!((header.version, header.delivery), (1, 0));
                assert_eq!(header.input_captured, header.input_length);
                assert_eq!(header.output_captured, header.output_length);
                let (input, output) = rest.split_at(header.input_captured.get() as usize);
                seen.push((text.to_owned(), input.to_vec(), output.to_vec()));
            }
            _ => {}
        }
    }
    assert_eq!(linktypes, [DataLink::USER0]);
    let [a, b, c] = [8, 16, 24].map(|shift| (pd >> (24 - shift)) as u8);
    let input = |opcode: u8, pd: [u8; 3]| [8, opcode, 0, 0, 0, 0, 0, 0, 0, pd[0], pd[1], pd[2], 0, 0, 0, 0].to_vec();
    let output = |pd: [u8; 3]| [0, 0, 0, 0, 0, 0, 0, 0, 0, pd[0], pd[1], pd[2], 0, 0, 0, 0].to_vec();
    let (none, pd) = ([0; 3], [a, b, c]);
    let fine = |name: &str| format!("nic2: {name}, op_mod 0x0, status 0x0, syndrome 0x0");
    assert_eq!(
        seen[..2],
        [
            (fine("ALLOC_PD"), input(0x00, none), output(pd)),
            (fine("DEALLOC_PD"), input(0x01, pd), output(none)),
        ]
    );
    let (text, refused, output) = &seen[2];
    let syndrome = u32::from_be_bytes(*output[4..].first_chunk().unwrap());
    assert_ne!(syndrome, 0);
    assert_eq!(
        *text,
        format!(
            "nic2: DEALLOC_PD, op_mod 0x0, status {:#x}, syndrome {syndrome:#x}",
            output[0]
        )
    );
    assert_eq!(*refused, input(0x01, pd));
    assert_eq!(seen.len(), 3);
}
