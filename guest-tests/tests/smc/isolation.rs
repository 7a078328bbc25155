//! Memory shared by two guests is invisible to a third.

use std::fs::File;
use std::io::Read;

use guest_harness::{Job, Result};
use serde_json::Value;

use crate::fixture::{Fixture, Setup};

/// Sends and receives a pattern many times over SMC, then keeps the connection open until standard input ends.
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
    chunk = s.recv(65536)
    assert chunk, "the peer has gone"
    received += chunk
assert received == pattern * times, "wrong data"
print("exchanged", flush=True)
sys.stdin.read()
"#;

/// Size of the shared memory region: small, as the test reads all of it word by word.
const REGION: &str = "64M";

#[test]
fn a_third_guest_sees_nothing() -> Result<()> {
    let fixture = Setup::new("isolation", 3)
        .daemon_args(["--region-size", REGION])
        .start()?;
    let (a, b, c) = (0, 1, 2);
    let ab = pattern();
    let first = exchange(&fixture, a, b, 7000, &ab)?;

    for guest in [a, b] {
        let seen = scan(&fixture, guest, &ab)?;
        assert!(
            seen["matches"].as_u64() > Some(0),
            "guest {guest} does not see its own: {seen}"
        );
    }
    // C itself has only the word with which the device announces that it polls the doorbells.
    let seen = scan(&fixture, c, &ab)?;
    assert_eq!(seen["bytes"], 64 << 20, "all of {REGION}");
    assert_eq!(seen["matches"], 0, "C sees what A and B share: {seen}");
    assert!(
        seen["nonzero_pages"].as_u64() <= Some(1),
        "C sees more than its own: {seen}"
    );

    // With a peer, C sees the memory shared with that peer only, and B does not see the memory of A and C.
    let ac = pattern();
    let second = exchange(&fixture, a, c, 7001, &ac)?;
    for (guest, pattern, sees) in [
        (a, &ab, true),
        (a, &ac, true),
        (b, &ab, true),
        (b, &ac, false),
        (c, &ab, false),
        (c, &ac, true),
    ] {
        let seen = scan(&fixture, guest, pattern)?;
        assert_eq!(
            seen["matches"].as_u64() > Some(0),
            sees,
            "guest {guest}, pattern {pattern}: {seen}"
        );
    }

    // Freed memory is not exposed to C, which makes new connections.
    for job in first {
        job.close_stdin();
        job.wait(fixture.seconds(20))?.check()?;
    }
    fixture.unload_driver(b)?;
    fixture.load_driver(b)?;
    fixture.call(c, b, "connections --count 8")?;
    fixture.call(a, c, "connections --count 8")?;
    let seen = scan(&fixture, c, &ab)?;
    assert_eq!(seen["matches"], 0, "C got memory with data of A and B: {seen}");
    for job in second {
        job.close_stdin();
        job.wait(fixture.seconds(20))?.check()?;
    }
    fixture.finish()
}

/// Returns 32 random bytes in hexadecimal.
fn pattern() -> String {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .expect("random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Opens an SMC-D connection; its buffers hold the pattern at both ends as long as the jobs live.
fn exchange(fixture: &Fixture, server: usize, client: usize, port: u16, pattern: &str) -> Result<[Job; 2]> {
    let address = fixture.guest(server).addr(client).to_string();
    let port_text = port.to_string();
    let start = |index: usize, role: &str| {
        let argv = ["python3", "-c", EXCHANGE, role, &address, &port_text, pattern];
        fixture
            .guest(index)
            .command(argv)
            .called(format!("exchange as {role}"))
            .stdin("")
            .spawn()
    };
    let serving = start(server, "server")?;
    serving.wait_line("listening", fixture.seconds(20))?;
    let calling = start(client, "client")?;
    for job in [&serving, &calling] {
        job.wait_line("exchanged", fixture.seconds(20))?;
    }
    fixture.ledger().enter([server, client], 1);
    for (here, there) in [(server, client), (client, server)] {
        fixture.assert_connections(here, port, &[there], 1)?;
    }
    Ok([serving, calling])
}

fn scan(fixture: &Fixture, index: usize, pattern: &str) -> Result<Value> {
    let scan = format!("/host/smc-tool bar-scan --pattern {pattern}");
    let out = fixture
        .guest(index)
        .shell(&scan)
        .timeout(fixture.seconds(60))
        .run()?
        .check()?;
    let mut report: Value = serde_json::from_str(out.text()).expect("the report is JSON");
    // The number of matches is enough.
    report.as_object_mut().expect("a report").remove("offsets");
    eprintln!("guest {index}: {report}");
    Ok(report)
}
