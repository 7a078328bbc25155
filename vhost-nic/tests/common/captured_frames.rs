//! Fuzz driver: bytes become the names of ports and frames that pass a switch with a capture. The capture has each
//! frame that the switch took, byte for byte, in order, in a file that a reader of its format takes.

use std::io::{self, Write};
use std::sync::Arc;

use mlx5_test_driver::fuzz::Tally;
use mlx5_test_driver::fuzz::choices::Choices;
use mlx5_test_driver::fuzz::frames::frame;
use parking_lot::Mutex;
use pcap_file::pcapng::{Block, PcapNgReader};
use vhost_nic::net::capture::{Capture, CaptureOptions};
use vhost_nic::net::{Frame, Port, Switch};

const MACS: [[u8; 6]; 5] = [
    [2, 0, 0, 0, 0, 1],
    [2, 0, 0, 0, 0, 2],
    [0xff; 6],
    [0; 6],
    // Flow control, which goes nowhere.
    [1, 0x80, 0xc2, 0, 0, 1],
];
/// Bytes of names of ports.
const NAMES: [&str; 4] = ["nic-0", "", "ä\u{1f300}", "a name with \"quotes\" and\nlines"];
const MAX_FRAMES: u64 = 50;

struct Sink;

impl Port for Sink {
    fn receive(&self, _: Frame<'_>) {}
}

/// A file in memory.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the switch takes a frame: with addresses, from a station.
fn is_taken(frame: &[u8]) -> bool {
    frame.len() >= 14 && frame[6] & 1 == 0 && frame[6..12] != [0; 6]
}

/// Runs an input.
pub fn run(input: &[u8]) -> Tally {
    let mut choices = Choices::new(input);
    let switch = Switch::new();
    let sink: Arc<dyn Port> = Arc::new(Sink);
    let names = [(); 2].map(|()| choices.one(&NAMES).unwrap_or_default());
    let ports = names.map(|name| switch.attach(name, Arc::downgrade(&sink)));
    let options = CaptureOptions {
        commands: choices.byte().is_some_and(|byte| byte & 1 == 0),
        ..CaptureOptions::default()
    };
    let output = Output::default();
    let capture = Capture::start(&switch, output.clone(), &options).unwrap();
    let (mut tally, mut sent) = (Tally::default(), Vec::new());
    while tally.made < MAX_FRAMES
        && let Some(from) = choices.index(ports.len())
        && let Some(frame) = frame(&mut choices, &MACS)
    {
        ports[from].send(Frame::new(&frame));
        tally.made += 1;
        if is_taken(&frame) {
            tally.succeeded += 1;
            sent.push(frame);
        } else {
            tally.refused += 1;
        }
    }
    drop(capture);
    let bytes = output.0.lock();
    let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
    let mut seen = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            assert_eq!(packet.original_len as usize, packet.data.len());
            seen.push(packet.data.to_vec());
        }
    }
    assert!(seen == sent, "the capture has {} frames of {}", seen.len(), sent.len());
    tally
}
