use std::sync::Arc;

use pcap_file::pcapng::{Block, PcapNgReader};

use super::*;
use crate::net::{Port, Switch};

struct Sink;

impl Port for Sink {
    fn receive(&self, _: Frame<'_>) {}
}

fn frame(from: u8, length: usize) -> Vec<u8> {
    let mut frame = vec![from; length];
    frame[..6].fill(0xff);
    frame[6] = 2;
    frame
}

fn send_all(capture: &Arc<Capture<Vec<u8>>>, frames: &[(usize, Vec<u8>)]) {
    let switch = Switch::new();
    let sink: Arc<dyn Port> = Arc::new(Sink);
    let ports = ["nic0", "nic1"].map(|name| switch.attach(name, Arc::downgrade(&sink)));
    switch.set_tap(Some(Arc::clone(capture) as Arc<dyn Tap>));
    for (port, bytes) in frames {
        ports[*port].send(Frame::new(bytes));
    }
    switch.set_tap(None);
    ports[0].send(Frame::new(&frame(9, 60)));
}

/// The frames of a capture with the names of their interfaces.
fn read(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut reader = PcapNgReader::new(bytes).unwrap();
    let (mut names, mut frames) = (Vec::new(), Vec::new());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(interface) => {
                assert_eq!(interface.linktype, DataLink::ETHERNET);
                assert!(interface.options.contains(&InterfaceDescriptionOption::IfTsResol(9)));
                let name = interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                names.push(name.unwrap());
            }
            Block::EnhancedPacket(packet) => {
                assert!(now.abs_diff(packet.timestamp) < Duration::from_secs(3600));
                assert_eq!(packet.original_len as usize, packet.data.len());
                frames.push((names[packet.interface_id as usize].clone(), packet.data.to_vec()));
            }
            other => panic!("{other:?}"),
        }
    }
    frames
}

#[test]
fn every_frame_is_in_the_file_once_with_the_port_it_came_from() {
    let capture = Arc::new(Capture::new(Vec::new(), 1 << 20).unwrap());
    let frames = [(1, frame(1, 61)), (0, frame(0, 1514)), (1, frame(1, 60))];
    send_all(&capture, &frames);
    let stats = capture.stats();
    let bytes = Arc::into_inner(capture).unwrap().into_inner();
    assert_eq!(
        stats,
        CaptureStats {
            frames: 3,
            omitted: 0,
            bytes: bytes.len() as u64
        }
    );
    let expected = frames.map(|(port, bytes)| (format!("nic{port}"), bytes));
    assert_eq!(read(&bytes), expected);
}

#[test]
fn a_file_begins_as_the_specification_has_it() {
    let capture = Arc::new(Capture::new(Vec::new(), 1 << 20).unwrap());
    send_all(&capture, &[(0, frame(3, 60))]);
    let bytes = Arc::into_inner(capture).unwrap().into_inner();
    let word = |at: usize| u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
    // draft-ietf-opsawg-pcapng: section header, interface description, enhanced packet; each ends with its length
    // again.
    assert_eq!(
        (word(0), word(4), word(8), word(24)),
        (0x0a0d_0d0a, 28, 0x1a2b_3c4d, 28)
    );
    let interface = word(32) as usize;
    assert_eq!((word(28), word(28 + interface - 4) as usize), (1, interface));
    let packet = 28 + interface;
    assert_eq!(
        (word(packet), word(packet + 4), word(packet + 20), word(packet + 24)),
        (6, 32 + 60, 60, 60)
    );
    assert_eq!(bytes[packet + 28..packet + 88], frame(3, 60));
    assert_eq!(packet + 92, bytes.len());
}

#[test]
fn the_file_keeps_its_limit() {
    let capture = Arc::new(Capture::new(Vec::new(), 2000).unwrap());
    let frames: Vec<_> = (0..30).map(|number| (number % 2, frame(1, 100))).collect();
    send_all(&capture, &frames);
    let stats = capture.stats();
    let bytes = Arc::into_inner(capture).unwrap().into_inner();
    assert!(bytes.len() <= 2000 && stats.bytes == bytes.len() as u64);
    assert_eq!(stats.frames + stats.omitted, 30);
    assert!(stats.frames > 5);
    assert_eq!(read(&bytes).len() as u64, stats.frames);
}

#[test]
fn a_capture_to_a_file_is_complete_when_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcapng");
    let capture = Capture::create(&path, 1 << 20).unwrap();
    capture.frame(0, "nic0", Frame::new(&frame(1, 60)));
    drop(capture);
    assert_eq!(
        read(&std::fs::read(&path).unwrap()),
        [("nic0".to_owned(), frame(1, 60))]
    );
}
