//! Verification of every frame a guest receives, by `frames.py` in that guest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use guest_harness::{Guest, Job, Result, Testbed};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the path of the program, for [`guest_harness::Builder::share`].
pub fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("nic/frames.py")
}

/// A running capture.
#[derive(Debug)]
pub struct Capture(Job);

impl Capture {
    /// Starts to verify what `guest` receives on an interface, as it came over the wire.
    pub fn start(guest: &Guest, interface: &str, mtu: u32) -> Result<Self> {
        guest.run(&format!("ethtool -K {interface} gro off"))?.check()?;
        let capture = guest
            .shell(&format!("exec python3 /host/frames.py {interface} {mtu}"))
            .stdin("")
            .spawn()?;
        capture.wait_line("ready", PATIENCE)?;
        Ok(Self(capture))
    }

    /// Ends the capture; returns its counters.
    pub fn end(self) -> Result<Value> {
        self.0.close_stdin();
        let output = self.0.wait(PATIENCE)?.check()?;
        let report = output.text().lines().last().unwrap_or_default();
        Ok(serde_json::from_str(report).expect("the capture's report is JSON"))
    }

    /// Ends the capture; asserts that it saw frames and all were correct.
    pub fn end_without_fault(self) -> Result<Value> {
        let seen = self.end()?;
        assert_eq!(seen["faults"].as_u64(), None, "{seen:#}");
        assert_eq!(seen["dropped"], 0, "the capture itself lost frames: {seen}");
        assert!(seen["frames"].as_u64() > Some(0), "{seen}");
        Ok(seen)
    }
}

/// Tests the checker itself over a virtio link.
#[test]
fn the_frame_checker_tells_right_checksums_from_wrong_ones() -> Result<()> {
    const FORGE: &str = r#"
import socket, struct, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
wire.bind((sys.argv[1], 0))
# IPv4, UDP from port 1 to 2 with "abcd"; the checksums are of RFC 1071, by hand.
ip = bytes.fromhex("4500002000000000401166cb0a0000010a000002")
udp = bytes.fromhex("00010002000c" + sys.argv[2]) + b"abcd"
wire.send(b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x08\0" + ip + udp)
"#;
    let testbed = Testbed::builder("frames").guests(2).mesh().share(program()).start()?;
    let (a, b) = (testbed.guest(0), testbed.guest(1));
    let flow = guest_harness::Flow::new(a, b, b.addr(0));
    let forge = |checksum: &str| {
        let link = a.interface(1);
        a.command(["python3", "-c", FORGE, &link, checksum]).run()?.check()
    };

    let capture = Capture::start(b, &b.interface(0), 1500)?;
    flow.ping(5, 1000)?;
    flow.iperf(1, "--bitrate 2M --set-mss 1000")?;
    flow.compare_digests(1)?;
    forge("270a")?;
    let seen = capture.end_without_fault()?;
    for protocol in ["icmp", "tcp", "udp"] {
        assert!(seen[protocol].as_u64() > Some(0), "{protocol} in {seen}");
    }

    let capture = Capture::start(b, &b.interface(0), 1500)?;
    forge("2700")?;
    let seen = capture.end()?;
    assert_eq!(seen["faults"], 1, "{seen}");
    testbed.finish()
}
