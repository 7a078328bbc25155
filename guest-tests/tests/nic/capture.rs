//! Captures of stock drivers and a stock program between two guests, as Wireshark sees them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use guest_harness::{NicOptions, Result, workspace_dir};
use serde_json::Value;

use crate::fixture::{Fixture, Setup, step};

/// Messages in each direction, of four packets.
const MESSAGES: usize = 100;
const PROGRAM: &str = "ibv_rc_pingpong -d mlx5_0 -g 3 -m 1024 -s 4096";
const PACKETS: usize = 4;
/// BTH opcodes of RC (IBTA 9.2.1): a send's first, middle and last packet, and an acknowledgement.
const SEND_FIRST: u64 = 0;
const SEND_MIDDLE: u64 = 1;
const SEND_LAST: u64 = 2;
const ACKNOWLEDGE: u64 = 0x11;
/// Part of the comments of sends.
const SEND: &str = ", RC SEND ";
const LINKTYPE_ETHERNET: u64 = 1;
const LINKTYPE_USER0: u64 = 147;

fn tshark() -> OsString {
    env::var_os("VHOST_TEST_TSHARK").expect("run scripts/test, which installs tshark")
}

/// Captures a running daemon into tshark through a pipe, as into `wireshark -k -i -`.
struct Live {
    capture: Child,
    tshark: Child,
}

impl Live {
    fn start(control: &Path, output: &Path) -> Self {
        let mut command = Command::new(NicOptions::program().expect("the program is built"));
        command.args(["capture", "--commands", "--control-socket"]).arg(control);
        let mut capture = command.stdout(Stdio::piped()).spawn().expect("the capture begins");
        let frames = capture.stdout.take().expect("the capture is piped");
        let mut command = Command::new(tshark());
        command.args(["-l", "-i", "-", "-T", "fields", "-e", "frame.comment"]);
        let output = File::create(output).expect("the comments can be written");
        let tshark = command.stdin(frames).stdout(output).stderr(Stdio::null()).spawn();
        Self {
            capture,
            tshark: tshark.expect("tshark begins"),
        }
    }

    /// Ends the capture, and waits until tshark has read it.
    fn end(mut self) {
        self.capture.kill().expect("the capture runs");
        self.capture.wait().expect("the capture is a child");
        let status = self.tshark.wait().expect("tshark is a child");
        assert!(status.success(), "{status}");
    }
}

/// Waits until a file has as many lines with a text; calls `act` meanwhile.
fn await_lines(path: &Path, count: usize, text: &str, act: impl Fn() -> Result<()>) -> Result<()> {
    let mut found = 0;
    for _ in 0..600 {
        let lines = fs::read_to_string(path).expect("the comments are text");
        found = lines.lines().filter(|line| line.contains(text)).count();
        if found >= count {
            return Ok(());
        }
        act()?;
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{found} of {count} lines with {text:?} after a minute");
}

/// Packets of a file, as `read_capture.py` reports them.
fn read(path: &Path) -> Vec<Value> {
    let script = workspace_dir().join("guest-tests/tests/nic/read_capture.py");
    let mut command = Command::new("python3");
    let output = command
        .arg(script)
        .arg(tshark())
        .arg(path)
        .output()
        .expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("the report is text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect()
}

fn comment(packet: &Value) -> &str {
    packet["comment"].as_str().expect("a packet has a comment")
}

/// The number behind a word of a comment.
fn number_in(text: &str, word: &str) -> Option<u64> {
    let rest = &text[text.find(word)? + word.len()..];
    let end = rest.find([',', ';', ':', ' ']).unwrap_or(rest.len());
    match rest[..end].strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => rest[..end].parse().ok(),
    }
}

/// Both readers agree, and every RoCE packet is whole, right and named.
fn check_packets(packets: &[Value]) {
    for packet in packets {
        let text = comment(packet);
        assert_eq!(packet["malformed"], false, "{packet:#}");
        assert_eq!(packet["same_comment"], true, "{packet:#}");
        assert_eq!(packet["same_transport"], true, "{packet:#}");
        assert_eq!(packet["whole"], true, "{packet:#}");
        assert_eq!(packet["resolution"], 9, "{packet:#}");
        let interface = packet["interface"].as_str().expect("a packet has an interface");
        let (guest, is_command) = match interface.strip_suffix(" commands") {
            Some(guest) => (guest, true),
            None => (interface, false),
        };
        assert!(["nic-0", "nic-1"].contains(&guest), "{packet:#}");
        assert!(text.starts_with(&format!("{guest}: ")), "{packet:#}");
        let link = if is_command { LINKTYPE_USER0 } else { LINKTYPE_ETHERNET };
        assert_eq!(packet["link"], link, "{packet:#}");
        if !packet["opcode"].is_null() {
            assert_eq!(packet["crc_is_right"], true, "{packet:#}");
            assert_eq!(number_in(text, "PSN "), packet["psn"].as_u64(), "{packet:#}");
        }
    }
    let exact = packets
        .iter()
        .filter(|packet| packet["time"].as_u64().is_some_and(|time| time % 1000 != 0));
    assert!(exact.count() > packets.len() / 2, "the times are in nanoseconds");
}

/// The packets of one direction: their comments name the queue pair that the other direction goes to, each message is
/// whole, and its last packet names the receive WQE and the CQE.
fn check_direction(packets: &[Value], from: &str, to: &str) {
    let of = |opcode: u64, guest: &str| {
        let found = packets
            .iter()
            .filter(|packet| packet["opcode"] == opcode && packet["interface"] == guest);
        found.collect::<Vec<_>>()
    };
    let last = of(SEND_LAST, from);
    assert_eq!(last.len(), MESSAGES);
    assert_eq!(of(SEND_FIRST, from).len(), MESSAGES);
    assert_eq!(of(SEND_MIDDLE, from).len(), MESSAGES * (PACKETS - 2));
    let own = of(SEND_LAST, to)[0]["qp"].as_u64();
    let peer = last[0]["qp"].as_u64();
    let mut received = Vec::new();
    for (index, packet) in last.iter().enumerate() {
        let text = comment(packet);
        let (sender, receiver) = text.split_once("; ").unwrap_or_else(|| panic!("no end: {packet:#}"));
        assert!(sender.ends_with(", RC SEND Last"), "{packet:#}");
        assert_eq!(number_in(sender, "QP "), own, "{packet:#}");
        assert_eq!(number_in(sender, "WQE "), Some(index as u64), "{packet:#}");
        let begin = format!("{to}: ends receive WQE ");
        assert!(receiver.starts_with(&begin), "{packet:#}");
        assert_eq!(number_in(receiver, "of QP "), peer, "{packet:#}");
        assert!(
            number_in(receiver, ": CQE ").is_some() && receiver.contains(" of CQ 0x"),
            "{packet:#}"
        );
        received.extend(number_in(receiver, "receive WQE "));
    }
    // In order; the queue has 500 receives, which are more.
    assert_eq!(received, (0..MESSAGES as u64).collect::<Vec<_>>());

    // Each send WQE is ended by an acknowledgement, with a CQE.
    let ends = format!("{from}: ends WQE ");
    let mut ended = HashMap::<u64, usize>::new();
    for acknowledgement in of(ACKNOWLEDGE, to) {
        for part in comment(acknowledgement)
            .split("; ")
            .filter(|part| part.starts_with(&ends))
        {
            assert!(
                part.contains(": CQE ") && number_in(part, "of QP ") == own,
                "{acknowledgement:#}"
            );
            *ended.entry(number_in(part, "ends WQE ").expect("a WQE")).or_default() += 1;
        }
    }
    let expected = (0..MESSAGES as u64).map(|wqe| (wqe, 1)).collect();
    assert_eq!(ended, expected);
}

fn check_commands(packets: &[Value]) {
    for guest in ["nic-0", "nic-1"] {
        let interface = format!("{guest} commands");
        let commands = packets
            .iter()
            .filter(|packet| packet["interface"] == interface.as_str());
        let comments: Vec<&str> = commands.map(comment).collect();
        for command in ["INIT_HCA", "CREATE_MKEY", "CREATE_QP", "RTR2RTS_QP", "DESTROY_QP"] {
            let begin = format!("{guest}: {command}, op_mod 0x0, status 0x0, syndrome 0x0, ");
            let found = comments
                .iter()
                .any(|text| text.starts_with(&begin) && text.ends_with(" ns"));
            assert!(found, "no {begin:?} in {comments:#?}");
        }
    }
}

#[test]
fn a_capture_of_two_guests_is_dissected() -> Result<()> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [control, file, live] = ["control.sock", "all.pcapng", "live.txt"].map(|name| directory.path().join(name));
    let options = NicOptions::default()
        .args(["--capture-commands", "--capture"].map(str::to_owned))
        .args([
            file.display().to_string(),
            "--control-socket".to_owned(),
            control.display().to_string(),
        ]);
    let fixture: Fixture = Setup::new("nic-capture", 2).options(options).start()?;
    let wireshark = Live::start(&control, &live);
    // The first frames may be before the capture has begun.
    await_lines(&live, 1, "", || {
        let ping = format!("ping -c 1 -W 5 {}", NicOptions::address(0));
        fixture.guest(1).run(&ping).map(drop)
    })?;
    step("ibv_rc_pingpong", || {
        let program = format!("{PROGRAM} -n {MESSAGES}");
        let said = fixture.flow(1, 0).converse_alike(&program, Duration::from_secs(120))?;
        assert!(
            said.client.stdout.contains(&format!("{MESSAGES} iters in")),
            "{}",
            said.client
        );
        Ok(())
    })?;
    await_lines(&live, 2 * MESSAGES * PACKETS, SEND, || Ok(()))?;
    wireshark.end();
    fixture.finish()?;

    let packets = read(&file);
    check_packets(&packets);
    check_direction(&packets, "nic-0", "nic-1");
    check_direction(&packets, "nic-1", "nic-0");
    check_commands(&packets);

    let live = fs::read_to_string(&live).expect("the comments are text");
    let sends = |text: &&str| text.contains(SEND);
    let live: Vec<&str> = live.lines().filter(sends).collect();
    let expected: Vec<&str> = packets.iter().map(comment).filter(|text| sends(text)).collect();
    assert_eq!(expected.len(), 2 * MESSAGES * PACKETS);
    assert_eq!(live, expected);
    Ok(())
}
