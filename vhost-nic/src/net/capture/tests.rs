use std::sync::mpsc;

use parking_lot::Mutex;
use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};

use super::*;
use crate::net::{Burst, CommandRecord, CqePlace, Effect, Frame, Port, QueueKind, Sender, SwitchPort, WqeId};

struct Sink;

impl Port for Sink {
    fn receive(&self, _: Frame<'_>) {}
}

/// Output in memory that can be made to wait before its first byte.
#[derive(Clone, Default)]
struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    wait: Arc<Mutex<Option<mpsc::Receiver<()>>>>,
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(wait) = self.wait.lock().take() {
            wait.recv().unwrap();
        }
        self.bytes.lock().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A switch with three ports and a capture.
struct Fixture {
    ports: [SwitchPort; 3],
    capture: Capture,
    output: Memory,
    _sink: Arc<dyn Port>,
}

impl Fixture {
    fn new(options: &CaptureOptions) -> Self {
        Self::with_output(options, Memory::default())
    }

    fn with_output(options: &CaptureOptions, output: Memory) -> Self {
        let switch = Switch::new();
        let sink: Arc<dyn Port> = Arc::new(Sink);
        Self {
            ports: ["a", "b", "c"].map(|name| switch.attach(name, Arc::downgrade(&sink))),
            capture: Capture::start(&switch, output.clone(), options).unwrap(),
            output,
            _sink: sink,
        }
    }

    fn send(&self, port: usize, frame: &[u8]) {
        self.ports[port].send(Frame::new(frame));
    }

    /// Ends the capture and returns its counters with what it has written.
    fn end(self) -> (CaptureStats, Vec<u8>) {
        let queue = self.capture.queue.clone();
        drop(self.capture);
        let bytes = self.output.bytes.lock().clone();
        (queue.stats(), bytes)
    }
}

/// A captured frame or command.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    interface: String,
    bytes: Vec<u8>,
    comment: String,
}

/// Contents of a capture.
#[derive(Debug, Default)]
struct Contents {
    interfaces: Vec<(String, DataLink)>,
    seen: Vec<Seen>,
    times: Vec<Duration>,
    /// Frames seen and omitted, by interface.
    statistics: Vec<(u64, u64)>,
}

fn read(bytes: &[u8]) -> Contents {
    let mut reader = PcapNgReader::new(bytes).unwrap();
    let mut contents = Contents::default();
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::InterfaceDescription(interface) => {
                assert!(interface.options.contains(&InterfaceDescriptionOption::IfTsResol(9)));
                let name = interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                });
                contents.interfaces.push((name.unwrap(), interface.linktype));
            }
            Block::EnhancedPacket(packet) => {
                let [EnhancedPacketOption::Comment(comment)] = &packet.options[..] else {
                    panic!("{packet:?}");
                };
                contents.times.push(packet.timestamp);
                contents.seen.push(Seen {
                    interface: contents.interfaces[packet.interface_id as usize].0.clone(),
                    bytes: packet.data.to_vec(),
                    comment: comment.to_string(),
                });
            }
            Block::InterfaceStatistics(statistics) => {
                assert_eq!(statistics.interface_id as usize, contents.statistics.len());
                let [
                    InterfaceStatisticsOption::IsbIfRecv(seen),
                    InterfaceStatisticsOption::IsbIfDrop(omitted),
                ] = statistics.options[..]
                else {
                    panic!("{statistics:?}");
                };
                contents.statistics.push((seen, omitted));
            }
            other => panic!("{other:?}"),
        }
    }
    contents
}

/// A frame from the station of a port to that of another, or to all if it is the same.
fn frame(from: u8, to: u8, length: usize) -> Vec<u8> {
    let mut frame = vec![from; length];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from]);
    if from == to {
        frame[..6].fill(0xff);
    }
    frame
}

fn seen(interface: &str, bytes: &[u8]) -> Seen {
    Seen {
        interface: interface.to_owned(),
        bytes: bytes.to_owned(),
        comment: interface.to_owned(),
    }
}

#[test]
fn every_frame_is_written_once_with_the_port_it_came_from() {
    let fixture = Fixture::new(&CaptureOptions::default());
    let frames = [(1, frame(1, 1, 61)), (0, frame(0, 1, 1514)), (1, frame(1, 0, 60))];
    for (port, frame) in &frames {
        fixture.send(*port, frame);
    }
    let (stats, bytes) = fixture.end();
    let expected = CaptureStats {
        frames: 3,
        bytes: bytes.len() as u64,
        ..CaptureStats::default()
    };
    assert_eq!(stats, expected);
    let contents = read(&bytes);
    let ethernet = |name: &str| (name.to_owned(), DataLink::ETHERNET);
    assert_eq!(contents.interfaces, [ethernet("b"), ethernet("a")]);
    let [first, second, third] = &frames;
    assert_eq!(
        contents.seen,
        [seen("b", &first.1), seen("a", &second.1), seen("b", &third.1)]
    );
    assert!(contents.times.is_sorted());
    assert_eq!(contents.statistics, [(2, 0), (1, 0)]);
}

#[test]
fn an_ended_capture_sees_nothing() {
    let Fixture {
        ports,
        capture,
        output,
        _sink,
    } = Fixture::new(&CaptureOptions::default());
    drop(capture);
    ports[0].send(Frame::new(&frame(0, 0, 60)));
    assert_eq!(read(&output.bytes.lock()).seen, []);
    assert!(!ports[0].tap().is_on());
}

#[test]
fn the_output_begins_as_the_specification_has_it() {
    let fixture = Fixture::new(&CaptureOptions::default());
    fixture.send(0, &frame(3, 3, 60));
    let (_, bytes) = fixture.end();
    let word = |at: usize| u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
    // draft-ietf-opsawg-pcapng: section header, interface description, enhanced packet, interface statistics; each ends
    // with its length again.
    assert_eq!(
        (word(0), word(4), word(8), word(24)),
        (0x0a0d_0d0a, 28, 0x1a2b_3c4d, 28)
    );
    let interface = word(32) as usize;
    assert_eq!((word(28), word(28 + interface - 4) as usize), (1, interface));
    let packet = 28 + interface;
    // The comment: option 1 with one character, padded; then the end of the options.
    assert_eq!((word(packet), word(packet + 4)), (6, 32 + 60 + 12));
    assert_eq!((word(packet + 20), word(packet + 24)), (60, 60));
    assert_eq!(bytes[packet + 28..packet + 88], frame(3, 3, 60));
    assert_eq!(bytes[packet + 88..packet + 96], [1, 0, 1, 0, b'a', 0, 0, 0]);
    let statistics = packet + 104;
    assert_eq!(
        (word(statistics), word(statistics + 4), word(statistics + 8)),
        (5, 52, 0)
    );
    // The times: the upper half first. That of the statistics is later, within the same four seconds or the next.
    let later = word(statistics + 12) - word(packet + 12);
    assert!(later <= 1, "{later}");
    assert_eq!(statistics + 52, bytes.len());
}

#[test]
fn a_capture_of_a_port_has_what_the_port_sends_and_receives() {
    let fixture = Fixture::new(&CaptureOptions {
        port: Some("a".to_owned()),
        ..CaptureOptions::default()
    });
    // All stations become known: c's only to the switch.
    for port in 0..3 {
        fixture.send(port.into(), &frame(port, port, 60));
    }
    for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1), (2, 0)] {
        fixture.send(from.into(), &frame(from, to, 100));
    }
    let (stats, bytes) = fixture.end();
    assert_eq!((stats.frames, stats.omitted), (6, 0));
    assert_eq!(
        read(&bytes).seen,
        [
            seen("a", &frame(0, 0, 60)),
            seen("b", &frame(1, 1, 60)),
            seen("c", &frame(2, 2, 60)),
            seen("a", &frame(0, 1, 100)),
            seen("b", &frame(1, 0, 100)),
            seen("c", &frame(2, 0, 100)),
        ]
    );
}

#[test]
fn the_output_keeps_its_limit() {
    let fixture = Fixture::new(&CaptureOptions {
        limit: Some(2000),
        ..CaptureOptions::default()
    });
    for number in 0..30 {
        fixture.send(number % 2, &frame(number as u8 % 2, 2, 100));
    }
    let (stats, bytes) = fixture.end();
    // 28 bytes of section header, 40 of each interface, 144 of each frame, 52 of each interface's statistics.
    assert_eq!((stats.frames, stats.omitted), (12, 18));
    assert_eq!(bytes.len(), 28 + 2 * 40 + 12 * 144 + 2 * 52);
    assert_eq!(stats.bytes, bytes.len() as u64);
    let contents = read(&bytes);
    assert_eq!(contents.seen.len(), 12);
    assert_eq!(contents.statistics, [(15, 9), (15, 9)]);
}

#[test]
fn senders_do_not_wait_for_the_output() {
    let (go, wait) = mpsc::channel();
    let output = Memory {
        wait: Arc::new(Mutex::new(Some(wait))),
        ..Memory::default()
    };
    let options = CaptureOptions {
        memory: 10 * (256 + 100),
        ..CaptureOptions::default()
    };
    let fixture = Fixture::with_output(&options, output);
    for _ in 0..30 {
        fixture.send(0, &frame(0, 1, 100));
    }
    assert_eq!(fixture.capture.stats().omitted, 20);
    assert_eq!(fixture.output.bytes.lock().len(), 0);
    go.send(()).unwrap();
    let (stats, bytes) = fixture.end();
    assert_eq!((stats.frames, stats.omitted), (10, 20));
    let contents = read(&bytes);
    assert_eq!(contents.seen.len(), 10);
    assert_eq!(contents.statistics, [(30, 20)]);
}

#[test]
fn a_reader_that_goes_away_ends_the_capture_only() {
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let switch = Switch::new();
    let sink: Arc<dyn Port> = Arc::new(Sink);
    let port = switch.attach("a", Arc::downgrade(&sink));
    let capture = Capture::start(&switch, Gone, &CaptureOptions::default()).unwrap();
    while !capture.is_over() {
        thread::yield_now();
    }
    port.send(Frame::new(&frame(0, 0, 60)));
    let expected = CaptureStats {
        omitted: 1,
        ..CaptureStats::default()
    };
    assert_eq!(capture.stats(), expected);
}

#[test]
fn a_comment_has_the_sender_and_the_wqes_that_ended() {
    let fixture = Fixture::new(&CaptureOptions::default());
    let bytes = frame(0, 1, 60);
    let frames = [Frame::new(&bytes)];
    let sender = Sender {
        kind: QueueKind::Sq,
        queue: 0x2f,
        wqe: Some(3),
    };
    let burst = Burst::new(&frames).of(sender);
    fixture.ports[0].send_burst(&burst);
    let wqe = |queue, index, receive| WqeId {
        kind: if receive { QueueKind::Rq } else { QueueKind::Sq },
        queue,
        index,
        receive,
    };
    let cqe = |cq, index, syndrome| Some(CqePlace { cq, index, syndrome });
    let [a, b, c] = &fixture.ports;
    let number = burst.number();
    b.tap()
        .effect(number, 1, Effect::Ends(wqe(0x31, 9, true), cqe(8, 2, None)));
    c.tap()
        .effect(number, 1, Effect::Ends(wqe(0x32, 0, true), cqe(9, 0, Some(4))));
    a.tap().effect(number, 1, Effect::Ends(wqe(0x2f, 3, false), None));
    // Not a frame of the capture.
    a.tap().effect(number.plus(1), 1, Effect::Answers(wqe(1, 1, false)));
    let (_, bytes) = fixture.end();
    assert_eq!(
        read(&bytes).seen[0].comment,
        "a: SQ 0x2f, WQE 3; b: ends receive WQE 9 of RQ 0x31: CQE 2 of CQ 0x8; \
         c: ends receive WQE 0 of RQ 0x32: error CQE 0 of CQ 0x9, syndrome 0x4; a: ends WQE 3 of SQ 0x2f: no CQE"
    );
}

#[test]
fn commands_have_an_interface_of_their_own() {
    let options = CaptureOptions {
        commands: true,
        ..CaptureOptions::default()
    };
    let fixture = Fixture::new(&options);
    fixture.send(0, &frame(0, 0, 60));
    let command = |delivery, input: &[u8], output: &[u8]| {
        fixture.ports[0].tap().command(&CommandRecord {
            delivery,
            input,
            output,
            duration: Duration::from_nanos(0x0102),
        });
    };
    // CREATE_MKEY, refused.
    command(0, &[2, 0, 0, 0, 0, 0, 0, 7, 0xaa], &[3, 0, 0, 0, 0, 0x1b, 0x2c, 0x3d]);
    command(5, &[], &[]);
    command(0, &[0; 40_000], &[0; 8]);
    let (stats, bytes) = fixture.end();
    assert_eq!((stats.frames, stats.commands), (1, 3));
    let contents = read(&bytes);
    let expected = [
        ("a".to_owned(), DataLink::ETHERNET),
        ("a commands".to_owned(), DataLink::USER0),
    ];
    assert_eq!(contents.interfaces, expected);
    let first = &contents.seen[1];
    assert_eq!(first.interface, "a commands");
    assert_eq!(
        first.comment,
        "a: CREATE_MKEY, op_mod 0x7, status 0x3, syndrome 0x1b2c3d, 258 ns"
    );
    let header = [
        1, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2,
    ];
    assert_eq!(first.bytes[..28], header);
    assert_eq!(first.bytes[28..37], [2, 0, 0, 0, 0, 0, 0, 7, 0xaa]);
    assert_eq!(first.bytes[37..], [3, 0, 0, 0, 0, 0x1b, 0x2c, 0x3d]);
    assert_eq!(
        contents.seen[2].comment,
        "a: 0x0, op_mod 0x0, delivery status 0x5, 258 ns"
    );
    assert_eq!(contents.seen[3].bytes.len(), 28 + 32_768 + 8);
}

/// Output in memory that sends a frame when it gets its first byte.
struct Sending<'a> {
    port: &'a SwitchPort,
    bytes: Vec<u8>,
}

impl Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            self.port.send(Frame::new(&frame(0, 0, 60)));
        }
        self.bytes.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_capture_ends_after_its_duration() {
    let switch = Switch::new();
    let sink: Arc<dyn Port> = Arc::new(Sink);
    let port = switch.attach("a", Arc::downgrade(&sink));
    let mut output = Sending {
        port: &port,
        bytes: Vec::new(),
    };
    let options = CaptureOptions::default();
    let stats = capture_for(&switch, &mut output, &options, Some(Duration::from_millis(1)));
    assert!(!port.tap().is_on());
    let bytes = output.bytes;
    assert_eq!((stats.frames, stats.omitted, stats.bytes), (1, 0, bytes.len() as u64));
    let contents = read(&bytes);
    assert_eq!(contents.seen, [seen("a", &frame(0, 0, 60))]);
    assert_eq!(contents.statistics, [(1, 0)]);
}

#[test]
fn commands_are_captured_on_request_only() {
    let fixture = Fixture::new(&CaptureOptions::default());
    fixture.ports[0].tap().command(&CommandRecord {
        delivery: 0,
        input: &[0; 16],
        output: &[0; 16],
        duration: Duration::ZERO,
    });
    let (stats, bytes) = fixture.end();
    assert_eq!((stats.commands, stats.omitted), (0, 0));
    assert_eq!(read(&bytes).interfaces, []);
}
