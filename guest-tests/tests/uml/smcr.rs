//! SMC-R: the kernel's sockets over reliable connections of the NIC.

use guest_harness::{Guest, Job, NicOptions, Result, Testbed};

use crate::fixture::{finish, nic_testbed};
use crate::workloads::{assert_all_counted, assert_smcr, bulk, call, many_connections, serve, stop};

/// Boots two guests with a common enterprise id and a server of workloads in each.
fn start(name: &str) -> Result<(Testbed, [Job; 2])> {
    let testbed = nic_testbed(name, 2)?;
    let server = |guest: &Guest| {
        guest.smc_r_up()?;
        serve(guest)
    };
    let servers = [server(testbed.guest(0))?, server(testbed.guest(1))?];
    Ok((testbed, servers))
}

fn transfers(testbed: &Testbed, bytes: &str) -> Result<()> {
    for (from, to, direction) in [(0, 1, "to"), (1, 0, "to"), (0, 1, "both")] {
        bulk(testbed.guest(from), NicOptions::address(to), bytes, direction)?;
    }
    Ok(())
}

fn end((testbed, servers): (Testbed, [Job; 2])) -> Result<()> {
    stop(servers)?;
    finish(testbed)
}

#[test]
fn two_guests_talk_smc_r() -> Result<()> {
    let fixture = start("uml-smcr")?;
    transfers(&fixture.0, "16M")?;
    let report = call(fixture.0.guest(0), NicOptions::address(1), "rtt --count 300")?;
    assert_smcr(&report["connection"]["socket"]);
    eprintln!("round trip: p50 {} us, p99 {} us", report["p50_us"], report["p99_us"]);
    many_connections(fixture.0.guest(0), NicOptions::address(1), 20)?;
    assert_all_counted(&fixture.0, [0, 3 + 1 + 20])?;
    end(fixture)
}

#[test]
#[ignore = "long: 256 MiB each way"]
fn two_guests_talk_smc_r_for_long() -> Result<()> {
    let fixture = start("uml-smcr-long")?;
    transfers(&fixture.0, "256M")?;
    many_connections(fixture.0.guest(0), NicOptions::address(1), 200)?;
    assert_all_counted(&fixture.0, [0, 3 + 200])?;
    end(fixture)
}
