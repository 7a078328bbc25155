//! What two guests share, a third does not see.

use std::fs::File;
use std::io::Read;

use guest_harness::{Job, Result};
use serde_json::Value;

use crate::lab::{Lab, Setup};

/// Sends a pattern over SMC many times, receives it as often, and keeps the connection open until its input ends.
const EXCHANGE: &str = r#"
import socket, sys
role, address, port, pattern, times = sys.argv[1], sys.argv[2], int(sys.argv[3]), bytes.fromhex(sys.argv[4]), 512
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 256)
if role == "server":
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port))
    s.listen()
    print("listening", flush=True)
    s, _ = s.accept()
else:
    s.connect((address, port))
s.settimeout(60)
s.sendall(pattern * times)
received = b""
while len(received) < len(pattern) * times:
    piece = s.recv(65536)
    assert piece, "the peer has gone"
    received += piece
assert received == pattern * times, "wrong data"
print("exchanged", flush=True)
sys.stdin.read()
"#;

/// The whole window, which is read word by word, is small here.
const REGION: &str = "64M";

#[test]
fn a_third_guest_sees_nothing() -> Result<()> {
    let lab = Setup::new("isolation", 3)
        .daemon_args(["--region-size", REGION])
        .start()?;
    let (a, b, c) = (0, 1, 2);
    let ab = pattern();
    let first = exchange(&lab, a, b, 7000, &ab)?;

    for guest in [a, b] {
        let seen = scan(&lab, guest, &ab)?;
        assert!(
            seen["matches"].as_u64() > Some(0),
            "guest {guest} does not see its own: {seen}"
        );
    }
    // Nothing is C's own yet but the word that says whether the device is looking at its doorbells.
    let seen = scan(&lab, c, &ab)?;
    assert_eq!(seen["bytes"], 64 << 20, "all of {REGION}");
    assert_eq!(seen["matches"], 0, "C sees what A and B share: {seen}");
    assert!(
        seen["nonzero_pages"].as_u64() <= Some(1),
        "C sees more than its own: {seen}"
    );

    // With a peer of its own, C sees that, and still nothing else; nor does B see what is A's and C's.
    let ac = pattern();
    let second = exchange(&lab, a, c, 7001, &ac)?;
    for (guest, pattern, sees) in [
        (a, &ab, true),
        (a, &ac, true),
        (b, &ab, true),
        (b, &ac, false),
        (c, &ab, false),
        (c, &ac, true),
    ] {
        let seen = scan(&lab, guest, pattern)?;
        assert_eq!(
            seen["matches"].as_u64() > Some(0),
            sees,
            "guest {guest}, pattern {pattern}: {seen}"
        );
    }

    // Nor does C get to see it when the memory is given back while C makes connections.
    for job in first {
        job.close_stdin();
        job.wait(lab.seconds(20))?.check()?;
    }
    lab.unload_driver(b)?;
    lab.load_driver(b)?;
    lab.call(c, b, "connections --count 8")?;
    lab.call(a, c, "connections --count 8")?;
    let seen = scan(&lab, c, &ab)?;
    assert_eq!(seen["matches"], 0, "C was given what A and B shared: {seen}");
    for job in second {
        job.close_stdin();
        job.wait(lab.seconds(20))?.check()?;
    }
    lab.finish()
}

/// 32 random bytes in hexadecimal.
fn pattern() -> String {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .expect("random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Opens a connection over SMC-D whose buffers hold the pattern at both ends for as long as the jobs live.
fn exchange(lab: &Lab, server: usize, client: usize, port: u16, pattern: &str) -> Result<[Job; 2]> {
    let address = lab.guest(server).addr(client).to_string();
    let port_text = port.to_string();
    let start = |index: usize, role: &str| {
        let argv = ["python3", "-c", EXCHANGE, role, &address, &port_text, pattern];
        lab.guest(index)
            .command(argv)
            .called(format!("exchange as {role}"))
            .stdin("")
            .spawn()
    };
    let serving = start(server, "server")?;
    serving.wait_line("listening", lab.seconds(20))?;
    let calling = start(client, "client")?;
    for job in [&serving, &calling] {
        job.wait_line("exchanged", lab.seconds(20))?;
    }
    lab.ledger().enter([server, client], 1);
    for (here, there) in [(server, client), (client, server)] {
        lab.assert_connections(here, port, &[there], 1)?;
    }
    Ok([serving, calling])
}

fn scan(lab: &Lab, index: usize, pattern: &str) -> Result<Value> {
    let scan = format!("/host/smc-tool bar-scan --pattern {pattern}");
    let out = lab.guest(index).shell(&scan).timeout(lab.seconds(60)).run()?.check()?;
    let mut report: Value = serde_json::from_str(out.text()).expect("the report is JSON");
    // A thousand of them say no more than their number does.
    report.as_object_mut().expect("a report").remove("offsets");
    eprintln!("guest {index}: {report}");
    Ok(report)
}
