//! Unmodified programs over SMC-D, and zero-copy transfers by splice and sendfile.

use std::thread;
use std::time::Duration;

use guest_harness::{Job, Result};
use serde_json::Value;

use crate::fixture::{Fixture, Kernel, Setup};
use crate::server::TERM;

#[test]
fn programs() -> Result<()> {
    let fixture = Setup::new("programs", 2).start()?;
    splice(&fixture, "8M")?;
    nginx(&fixture)?;
    iperf3(&fixture)?;
    qperf(&fixture)?;
    fixture.finish()
}

#[test]
#[ignore = "long: the debug kernel"]
fn debug_splice() -> Result<()> {
    let fixture = Setup::new("debug-splice", 2).kernel(Kernel::Debug).start()?;
    splice(&fixture, "2M")?;
    fixture.finish()
}

#[test]
#[ignore = "long: the debug kernel"]
fn debug_splice_copying() -> Result<()> {
    let setup = Setup::new("debug-splice-copy", 2)
        .kernel(Kernel::Debug)
        .driver_arg("copy=1");
    let fixture = setup.start()?;
    splice(&fixture, "2M")?;
    fixture.finish()
}

/// Splices from the socket through a pipe to a file and back, at odd sizes and offsets, with every byte compared.
fn splice(fixture: &Fixture, bytes: &str) -> Result<()> {
    for (from, to, options) in [
        (0, 1, "--drain file"),
        (1, 0, "--drain alternate --pipe-delay 2 --rcvbuf 16K"),
        (0, 1, "--drain read --rcvbuf 1M"),
    ] {
        let report = fixture.call(
            from,
            to,
            &format!("splice --file /tmp/spliced --bytes {bytes} {options}"),
        )?;
        for count in ["splices", "sendfiles", "splices_to"] {
            assert!(report[count].as_u64() > Some(0), "{count}: {report}");
        }
        // Whole pages of the buffer were spliced, not small copies.
        assert!(report["largest_splice"].as_u64() > Some(4096), "{report}");
        fixture.guest(from).run("rm /tmp/spliced")?.check()?;
    }
    Ok(())
}

const WEB: u16 = 8080;

const NGINX: &str = "\
daemon off;
user root;
worker_processes 2;
pid /tmp/nginx/pid;
error_log stderr;
events { worker_connections 256; }
http {
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    client_body_temp_path /tmp/nginx/body;
    proxy_temp_path /tmp/nginx/proxy;
    fastcgi_temp_path /tmp/nginx/fastcgi;
    uwsgi_temp_path /tmp/nginx/uwsgi;
    scgi_temp_path /tmp/nginx/scgi;
    server { listen 8080; root /tmp/nginx/files; }
}
";

/// Fetches a large file, then many small ones over parallel connections.
fn nginx(fixture: &Fixture) -> Result<()> {
    let (server, client) = (fixture.guest(0), fixture.guest(1));
    let files = "mkdir -p /tmp/nginx/files && cd /tmp/nginx/files && \\
        head -c 8M /dev/urandom > large && head -c 2K /dev/urandom > small && sha256sum < large";
    let expected = server.run(files)?.check()?;
    server.put_bytes(NGINX.as_bytes(), "/tmp/nginx/conf", 0o644)?;
    let nginx = server.spawn("exec /host/smc-tool run -- nginx -e stderr -c /tmp/nginx/conf")?;
    fixture.wait_listening(0, WEB)?;

    let url = format!("http://{}:{WEB}", server.addr(1));
    let fetch = format!("/host/smc-tool run -- curl -sS -f -m 60 -o /tmp/large {url}/large && sha256sum < /tmp/large");
    let found = client.run(&fetch)?.check()?;
    assert_eq!(found.text(), expected.text(), "digest of the file");
    let made = fixture.ledger().enter_counted(fixture.testbed(), [0, 1], 1)?;
    assert_eq!(made, 1, "connections for one file");

    let wrk = client.spawn(&format!("exec /host/smc-tool run -- wrk -t 2 -c 16 -d 4 {url}/small"))?;
    thread::sleep(Duration::from_secs(2));
    for (here, there) in [(0, 1), (1, 0)] {
        fixture.assert_connections(here, WEB, &[there], 16)?;
    }
    let out = wrk.wait(fixture.seconds(40))?.check()?;
    assert!(
        !out.stdout.contains("Socket errors") && !out.stdout.contains("Non-2xx"),
        "{out}"
    );
    let rate = out.stdout.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    let rate = rate.and_then(|rate| rate.trim().parse::<f64>().ok()).expect("a rate");
    assert!(rate > 0.0, "{out}");
    let made = fixture.ledger().enter_counted(fixture.testbed(), [0, 1], 16)?;
    eprintln!("wrk: {rate} requests/s over {made} connections");
    stop(fixture, nginx)
}

fn iperf3(fixture: &Fixture) -> Result<()> {
    let server = fixture
        .guest(0)
        .spawn("exec /host/smc-tool run -- iperf3 -s -1 -p 5201")?;
    fixture.wait_listening(0, 5201)?;
    let address = fixture.guest(0).addr(1);
    let client = fixture.guest(1).spawn(&format!(
        "exec /host/smc-tool run -- iperf3 -c {address} -p 5201 -P 2 -t 3 -J"
    ))?;
    thread::sleep(Duration::from_secs(2));
    // One control connection and two data connections.
    for (here, there) in [(0, 1), (1, 0)] {
        fixture.assert_connections(here, 5201, &[there], 3)?;
    }
    let out = client.wait(fixture.seconds(40))?.check()?;
    let report: Value = serde_json::from_str(&out.stdout).expect("iperf3 prints JSON");
    let sum = |side: &str| report["end"][side]["bytes"].as_f64().unwrap_or_default();
    assert!(sum("sum_sent") > 0.0 && sum("sum_received") > 0.0, "{out}");
    eprintln!(
        "iperf3: {:.1} MB/s",
        report["end"]["sum_received"]["bits_per_second"]
            .as_f64()
            .unwrap_or_default()
            / 8e6
    );
    server.wait(fixture.seconds(20))?.check()?;
    let made = fixture.ledger().enter_counted(fixture.testbed(), [0, 1], 3)?;
    assert_eq!(made, 3, "connections of iperf3");
    Ok(())
}

fn qperf(fixture: &Fixture) -> Result<()> {
    let server = fixture.guest(0).spawn("exec /host/smc-tool run -- qperf")?;
    fixture.wait_listening(0, 19765)?;
    let address = fixture.guest(0).addr(1);
    let out = fixture
        .guest(1)
        .run(&format!("/host/smc-tool run -- qperf -t 2 {address} tcp_bw tcp_lat"))?
        .check()?;
    for result in ["tcp_bw", "bw ", "tcp_lat", "latency "] {
        assert!(out.stdout.contains(result), "{out}");
    }
    eprintln!("qperf: {}", out.text().split_whitespace().collect::<Vec<_>>().join(" "));
    // A control connection and a data connection per test.
    fixture.ledger().enter_counted(fixture.testbed(), [0, 1], 4)?;
    stop(fixture, server)
}

/// Stops a server that would run forever.
fn stop(fixture: &Fixture, job: Job) -> Result<()> {
    assert!(!job.is_finished(), "the server has ended: {:?}", job.peek());
    job.kill(TERM);
    job.wait(fixture.seconds(20)).map(drop)
}
