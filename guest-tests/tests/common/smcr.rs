//! Workloads of `smc-tool` over SMC-R.
//!
//! SMC falls back to TCP silently, so the mode of each connection and the counters at the end are taken from the
//! kernel.

use std::net::Ipv4Addr;
use std::time::Duration;

use guest_harness::{Guest, Job, Result, Testbed};
use serde_json::Value;

/// Port of the server in every guest.
pub const PORT: u16 = 5000;
const SOON: Duration = Duration::from_secs(20);
/// SIGTERM.
pub const TERM: i32 = 15;
/// Limit on a workload. One that hangs fails earlier, as each wait in it has a limit.
const LONG: Duration = Duration::from_secs(600);

/// Starts a server of workloads.
pub fn serve(guest: &Guest) -> Result<Job> {
    let job = guest.spawn(&format!("exec /host/smc-tool --json serve --port {PORT}"))?;
    job.wait_line("ready", SOON)?;
    Ok(job)
}

/// Stops servers; asserts that none received wrong data.
pub fn stop(servers: impl IntoIterator<Item = Job>) -> Result<()> {
    for server in servers {
        server.kill(TERM);
        let report = last_value(&server.wait(SOON)?.check()?.stdout);
        assert_eq!(report["mismatches"], 0, "{report}");
    }
    Ok(())
}

/// Parses the last output line as JSON.
pub fn last_value(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_default()
}

/// Command of a workload over SMC-R.
pub fn command(to: Ipv4Addr, workload: &str) -> String {
    format!("/host/smc-tool --json {workload} --to {to}:{PORT} --expect-mode smcr --timeout 60")
}

/// Runs a workload from a guest to an address over SMC-R, and returns its report.
pub fn call(from: &Guest, to: Ipv4Addr, workload: &str) -> Result<Value> {
    let out = from.shell(&command(to, workload)).timeout(LONG).run()?.check()?;
    Ok(last_value(&out.stdout))
}

pub fn assert_smcr(socket: &Value) {
    assert_eq!(socket["mode"], "smcr", "{socket}");
    assert_eq!(socket["has_smcr_link"], true, "{socket}");
}

/// Transfers data one way or both ways, compared by hashes.
pub fn bulk(from: &Guest, to: Ipv4Addr, bytes: &str, direction: &str) -> Result<()> {
    let seed = from.index() + 10;
    let workload = format!("bulk --bytes {bytes} --direction {direction} --check hash --seed {seed}");
    let report = call(from, to, &workload)?;
    assert_smcr(&report["connection"]["socket"]);
    assert!(report["digest_to"].is_string(), "{report}");
    assert_eq!(report["digest_from"].is_string(), direction == "both", "{report}");
    eprintln!(
        "SMC-R, {bytes} from {} to {to}, {direction}: {:.1} MB/s",
        from.name(),
        report["megabytes_per_second"].as_f64().unwrap_or_default()
    );
    Ok(())
}

/// Opens many connections at once, each with data both ways.
pub fn many_connections(from: &Guest, to: Ipv4Addr, count: u64) -> Result<()> {
    let workload = format!("connections --count {count} --bytes-each 64K --each");
    let report = call(from, to, &workload)?;
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

/// Asserts that a kernel counted exactly these SMC-R connections, of version 1 and of version 2, and nothing else.
pub fn assert_counted(guest: &Guest, versions: [u64; 2]) -> Result<()> {
    let out = guest.run("/host/smc-tool --json stats")?.check()?;
    let stats = last_value(&out.stdout);
    let summary = &stats["summary"];
    for name in ["smcd_v1", "smcd_v2", "fallbacks", "handshake_errors"] {
        assert_eq!(summary[name], 0, "{name} in {stats}");
    }
    let counted = [["client_v1", "server_v1"], ["client_v2", "server_v2"]].map(|sides| {
        let of = |side: &str| stats["smcr"][side].as_u64().expect("a counter");
        sides.into_iter().map(of).sum::<u64>()
    });
    assert_eq!(counted, versions, "connections of versions 1 and 2 in {stats}");
    Ok(())
}

/// Asserts the numbers of connections of all guests.
pub fn assert_all_counted(testbed: &Testbed, versions: [u64; 2]) -> Result<()> {
    testbed
        .guests()
        .iter()
        .try_for_each(|guest| assert_counted(guest, versions))
}
