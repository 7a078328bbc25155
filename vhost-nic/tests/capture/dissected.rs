//! Captures as Wireshark's dissectors see them.
//!
//! `VHOST_TEST_TSHARK` is the path of tshark (4.0 or newer), which `scripts/test` installs; without it, these tests
//! pass unseen. The dissector shows the ICRC without a verdict, so it is compared with one computed here.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pcap_file::pcapng::{Block, PcapNgReader};

use crate::exchange::{Expected, capture};
use crate::invariant_crc;

/// Columns of tshark's output.
const FIELDS: [&str; 9] = [
    "frame.protocols",
    "infiniband.bth.opcode",
    "infiniband.bth.destqp",
    "infiniband.bth.psn",
    "infiniband.invariant.crc",
    "frame.comment",
    "frame.interface_name",
    "_ws.expert.severity",
    "_ws.malformed",
];
/// Severity of a packet that has a comment (`PI_COMMENT`, epan/proto.h); warnings and errors have higher ones.
const COMMENT: &str = "1048576";

fn tshark() -> Option<OsString> {
    let path = std::env::var_os("VHOST_TEST_TSHARK");
    if path.is_none() {
        eprintln!("VHOST_TEST_TSHARK is not set: not tested");
    }
    path
}

/// A packet by tshark.
#[derive(Debug)]
struct Dissected {
    is_roce: bool,
    transport: Option<(u8, u32, u32)>,
    crc: Option<[u8; 4]>,
    comment: String,
    interface: String,
    severities: String,
    malformed: String,
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn dissect(tshark: &OsString, path: &Path) -> Vec<Dissected> {
    let mut command = Command::new(tshark);
    command.arg("-r").arg(path).args(["-T", "fields", "-E", "separator=/t"]);
    FIELDS.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let [
                protocols,
                opcode,
                qpn,
                psn,
                crc,
                comment,
                interface,
                severities,
                malformed,
            ] = columns[..]
            else {
                panic!("{line:?}");
            };
            let transport = || Some((number(opcode)? as u8, number(qpn)?, number(psn)?));
            Dissected {
                is_roce: protocols.split(':').any(|protocol| protocol == "infiniband"),
                transport: transport(),
                crc: number(crc).map(u32::to_be_bytes),
                comment: comment.to_owned(),
                interface: interface.to_owned(),
                severities: severities.to_owned(),
                malformed: malformed.to_owned(),
            }
        })
        .collect()
}

fn frames(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let mut reader = PcapNgReader::new(&bytes[..]).unwrap();
    let mut frames = Vec::new();
    while let Some(block) = reader.next_block() {
        if let Block::EnhancedPacket(packet) = block.unwrap() {
            frames.push(packet.data.to_vec());
        }
    }
    frames
}

/// Returns the positions of the RoCE packets whose ICRC, as tshark shows it, is wrong.
fn wrong_crcs(tshark: &OsString, path: &Path) -> Vec<usize> {
    let (frames, dissected) = (frames(path), dissect(tshark, path));
    assert_eq!(frames.len(), dissected.len());
    let is_wrong = |at: &usize| {
        let crc = invariant_crc::of_frame(&frames[*at]);
        dissected[*at].is_roce && dissected[*at].crc != Some(crc)
    };
    (0..frames.len()).filter(is_wrong).collect()
}

struct Fixture {
    _directory: tempfile::TempDir,
    path: PathBuf,
    expected: Vec<Expected>,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcapng");
    let expected = capture(&path);
    Fixture {
        _directory: directory,
        path,
        expected,
    }
}

#[test]
fn the_dissector_agrees_about_every_packet() {
    let Some(tshark) = tshark() else { return };
    let Fixture { path, expected, .. } = &fixture();
    let dissected = dissect(&tshark, path);
    let seen: Vec<Expected> = dissected
        .iter()
        .map(|packet| Expected {
            transport: packet.transport,
            comment: packet.comment.clone(),
        })
        .collect();
    assert_eq!(&seen, expected);
    for packet in &dissected {
        assert_eq!(packet.is_roce, packet.transport.is_some(), "{packet:?}");
        assert!(packet.malformed.is_empty(), "{packet:?}");
        assert_eq!(packet.severities, COMMENT, "{packet:?}");
        assert!(
            packet.comment.starts_with(&format!("{}: ", packet.interface)),
            "{packet:?}"
        );
    }
}

#[test]
fn every_invariant_crc_is_right_and_a_wrong_one_is_found() {
    let Some(tshark) = tshark() else { return };
    let Fixture { path, expected, .. } = &fixture();
    assert_eq!(wrong_crcs(&tshark, path), Vec::<usize>::new());
    let with_transport: Vec<usize> = (0..expected.len())
        .filter(|at| expected[*at].transport.is_some())
        .collect();
    assert_eq!(with_transport.len(), 26);
    // A bit of the last byte of a packet, which is the ICRC's, or of the last byte before the ICRC.
    let original = fs::read(path).unwrap();
    let frames = frames(path);
    for (nth, behind) in [(0, 1), (3, 5), (21, 1), (25, 5)] {
        let at = with_transport[nth];
        let begin = position(&original, &frames[at]);
        let mut bytes = original.clone();
        bytes[begin + frames[at].len() - behind] ^= 0x10;
        fs::write(path, bytes).unwrap();
        assert_eq!(wrong_crcs(&tshark, path), [at]);
    }
}

/// Position of a frame in a file.
fn position(file: &[u8], frame: &[u8]) -> usize {
    let found: Vec<usize> = (0..file.len()).filter(|at| file[*at..].starts_with(frame)).collect();
    let [at] = found[..] else {
        panic!("the frame is in the file {} times", found.len());
    };
    at
}
