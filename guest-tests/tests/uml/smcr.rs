//! SMC-R: the kernel's sockets over reliable connections of the NIC.
//!
//! SMC falls back to TCP silently, so the mode of each connection and the counters at the end are taken from the
//! kernel.

use std::net::Ipv4Addr;
use std::time::Duration;

use guest_harness::{Guest, Job, NicOptions, Result, Testbed};
use serde_json::Value;

use crate::fixture::{finish, nic_testbed};

const PORT: u16 = 5000;
const SOON: Duration = Duration::from_secs(20);
/// SIGTERM.
const TERM: i32 = 15;
/// Limit on a workload. One that hangs fails earlier, as each wait in it has a limit.
const LONG: Duration = Duration::from_secs(600);

/// Boots two guests with a common enterprise id and a server of workloads in each.
fn start(name: &str) -> Result<(Testbed, [Job; 2])> {
    let testbed = nic_testbed(name, 2)?;
    let serve = |guest: &Guest| {
        guest.smc_r_up(1 - guest.index())?;
        let job = guest.spawn(&format!("exec /host/smc-tool --json serve --port {PORT}"))?;
        job.wait_line("ready", SOON)?;
        Ok(job)
    };
    let servers = [serve(testbed.guest(0))?, serve(testbed.guest(1))?];
    Ok((testbed, servers))
}

/// Parses the last output line as JSON.
fn last_value(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_default()
}

/// Runs a workload from one guest to another over SMC-R, and returns its report.
fn call(testbed: &Testbed, from: usize, to: usize, workload: &str) -> Result<Value> {
    let address: Ipv4Addr = NicOptions::address(to);
    let command = format!("/host/smc-tool --json {workload} --to {address}:{PORT} --expect-mode smcr --timeout 60");
    let out = testbed.guest(from).shell(&command).timeout(LONG).run()?.check()?;
    Ok(last_value(&out.stdout))
}

fn assert_smcr(socket: &Value) {
    assert_eq!(socket["mode"], "smcr", "{socket}");
    assert_eq!(socket["has_smcr_link"], true, "{socket}");
}

fn bulk(testbed: &Testbed, bytes: &str) -> Result<()> {
    for (from, to, direction) in [(0, 1, "to"), (1, 0, "to"), (0, 1, "both")] {
        let workload = format!(
            "bulk --bytes {bytes} --direction {direction} --check hash --seed {}",
            from + 10
        );
        let report = call(testbed, from, to, &workload)?;
        assert_smcr(&report["connection"]["socket"]);
        assert!(report["digest_to"].is_string(), "{report}");
        assert_eq!(report["digest_from"].is_string(), direction == "both", "{report}");
        eprintln!(
            "SMC-R, {bytes} from {from} to {to}, {direction}: {:.1} MB/s",
            report["megabytes_per_second"].as_f64().unwrap_or_default()
        );
    }
    Ok(())
}

fn many_connections(testbed: &Testbed, count: u64) -> Result<()> {
    let report = call(
        testbed,
        0,
        1,
        &format!("connections --count {count} --bytes-each 64K --each"),
    )?;
    assert_eq!(report["modes"]["smcr"], count, "{report}");
    assert_eq!(report["fallbacks"], 0, "{report}");
    report["sockets"]
        .as_array()
        .expect("the sockets")
        .iter()
        .for_each(assert_smcr);
    eprintln!(
        "{count} connections: {:.1} s to open, {:.1} s to exchange",
        report["open_seconds"].as_f64().unwrap_or_default(),
        report["exchange_seconds"].as_f64().unwrap_or_default()
    );
    Ok(())
}

/// Asserts that both kernels counted exactly these connections, all SMC-R version 2.
fn assert_counted(testbed: &Testbed, connections: u64) -> Result<()> {
    for guest in testbed.guests() {
        let out = guest.run("/host/smc-tool --json stats")?.check()?;
        let stats = last_value(&out.stdout);
        let summary = &stats["summary"];
        assert_eq!(summary["smcr"], connections, "{stats}");
        for name in ["smcd_v1", "smcd_v2", "fallbacks", "handshake_errors"] {
            assert_eq!(summary[name], 0, "{name} in {stats}");
        }
        let version_2 = ["client_v2", "server_v2"].map(|side| stats["smcr"][side].as_u64().unwrap_or(0));
        assert_eq!(version_2.iter().sum::<u64>(), connections, "{stats}");
    }
    Ok(())
}

fn end((testbed, servers): (Testbed, [Job; 2])) -> Result<()> {
    for server in servers {
        server.kill(TERM);
        let report = last_value(&server.wait(SOON)?.check()?.stdout);
        assert_eq!(report["mismatches"], 0, "{report}");
    }
    finish(testbed)
}

#[test]
fn two_guests_talk_smc_r() -> Result<()> {
    let fixture = start("uml-smcr")?;
    bulk(&fixture.0, "16M")?;
    let report = call(&fixture.0, 0, 1, "rtt --count 300")?;
    assert_smcr(&report["connection"]["socket"]);
    eprintln!("round trip: p50 {} us, p99 {} us", report["p50_us"], report["p99_us"]);
    many_connections(&fixture.0, 20)?;
    assert_counted(&fixture.0, 3 + 1 + 20)?;
    end(fixture)
}

#[test]
#[ignore = "long: 256 MiB each way"]
fn two_guests_talk_smc_r_for_long() -> Result<()> {
    let fixture = start("uml-smcr-long")?;
    bulk(&fixture.0, "256M")?;
    many_connections(&fixture.0, 200)?;
    assert_counted(&fixture.0, 3 + 200)?;
    end(fixture)
}
