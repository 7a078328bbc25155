//! SMC-R of an unmodified SMC stack between QEMU guests over the NIC.

use std::env;
use std::time::{Duration, Instant};

use guest_harness::{DaemonControl, Guest, Job, NicOptions, NicSetup, Result, Testbed};
use serde_json::Value;

use crate::fixture::{Fixture, Setup, step};
use crate::workloads::{
    TERM, assert_all_counted, assert_counted, assert_smcr, bulk, call, command, last_value, many_connections, serve,
    stop,
};

/// Limit on the wait for a link of a link group.
const LINK: Duration = Duration::from_secs(60);
/// `SMC_LGR_SYMMETRIC` (`enum smc_lgr_type`, net/smc/smc_core.h).
const SYMMETRIC: u64 = 2;

/// Loads SMC in all guests and starts a server of workloads in each.
fn servers(testbed: &Testbed) -> Result<Vec<Job>> {
    testbed.each(Guest::smc_load)?;
    testbed.guests().iter().map(serve).collect()
}

#[test]
fn guests_of_one_subnet_talk_smc_r_of_both_versions() -> Result<()> {
    let fixture = Setup::new("nic-smcr", 2).start()?;
    let servers = servers(fixture.testbed())?;
    let [a, b] = [0, 1].map(|index| (fixture.guest(index), NicOptions::address(index)));
    // Without a common enterprise id.
    step("version 1", || {
        bulk(a.0, b.1, "8M", "both")?;
        bulk(b.0, a.1, "8M", "to")?;
        many_connections(a.0, b.1, 20)
    })?;
    fixture.testbed().each(Guest::smc_r_v2)?;
    step("version 2", || {
        bulk(a.0, b.1, "8M", "both")?;
        let report = call(b.0, a.1, "rtt --count 100")?;
        assert_smcr(&report["connection"]["socket"]);
        Ok(())
    })?;
    assert_all_counted(fixture.testbed(), [1 + 1 + 20, 1 + 1])?;
    stop(servers)?;
    fixture.finish()
}

#[test]
#[ignore = "long: three guests, 1,000 connections, programs"]
fn three_guests_talk_smc_r_with_a_thousand_connections() -> Result<()> {
    const CONNECTIONS: u64 = 1000;
    let fixture = Setup::new("nic-smcr-three", 3).memory_mib(1024).start()?;
    let servers = servers(fixture.testbed())?;
    let mut counted = [0; 3];
    for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
        bulk(fixture.guest(from), NicOptions::address(to), "16M", "both")?;
        counted[from] += 1;
        counted[to] += 1;
    }
    step("1,000 connections", || {
        many_connections(fixture.guest(0), NicOptions::address(1), CONNECTIONS)
    })?;
    counted[0] += CONNECTIONS;
    counted[1] += CONNECTIONS;
    step("iperf3", || iperf(&fixture))?;
    // Two streams and the control connection.
    counted[0] += 3;
    counted[2] += 3;
    for guest in fixture.testbed().guests() {
        assert_counted(guest, [counted[guest.index()], 0])?;
    }
    stop(servers)?;
    fixture.finish()
}

/// Two streams of iperf3 from guest 2 to guest 0.
fn iperf(fixture: &Fixture) -> Result<()> {
    let run = "exec /host/smc-tool run -- iperf3 -p 5201";
    let address = NicOptions::address(0);
    let server = fixture.guest(0).spawn(&format!("{run} -s -1"))?;
    let client = format!("sleep 3; {run} -c {address} -P 2 -t 3 -J");
    let client = fixture.guest(2).shell(&client).timeout(Duration::from_secs(90));
    let said = client.run()?.check()?;
    let report: Value = serde_json::from_str(&said.stdout).expect("iperf3 prints JSON");
    let received = &report["end"]["sum_received"];
    assert!(received["bytes"].as_u64() > Some(0), "{said}");
    let rate = received["bits_per_second"].as_f64().unwrap_or_default() / 8e6;
    eprintln!("iperf3: {rate:.1} MB/s");
    server.wait(LINK)?.check().map(drop)
}

#[test]
#[ignore = "long: three guests"]
fn smc_r_passes_a_gateway() -> Result<()> {
    const ROUTER: usize = 2;
    let fixture = Setup::new("nic-smcr-gateway", 3).boot()?;
    let router = fixture.guest(ROUTER);
    // The router's NIC has no RoCE, so that its kernel forwards the packets.
    fixture.testbed().each(|guest| {
        let rdma = guest.index() != ROUTER;
        let setup = NicSetup {
            rdma,
            ..NicSetup::default()
        };
        guest.nic_up(&setup)
    })?;
    router
        .run("sysctl -q net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.nic0.send_redirects=0")?
        .check()?;
    for (guest, peer) in [(0, 1), (1, 0)] {
        let (peer, gateway) = (NicOptions::address(peer), NicOptions::address(ROUTER));
        let route = format!("ip route replace {peer}/32 via {gateway} dev nic0");
        fixture.guest(guest).run(&route)?.check()?;
        fixture.guest(guest).smc_r_up()?;
    }
    let forwarded = || -> Result<u64> {
        let text = router
            .run("awk '/^Ip:/ {n=$7} END {print n}' /proc/net/snmp")?
            .check()?;
        Ok(text.text().parse().expect("a number"))
    };
    let servers = [serve(fixture.guest(0))?, serve(fixture.guest(1))?];
    let before = forwarded()?;
    bulk(fixture.guest(0), NicOptions::address(1), "8M", "both")?;
    // Packets of 1024 bytes, in both directions.
    let packets = forwarded()? - before;
    assert!(packets >= 16 << 10, "{packets} packets by the router");
    many_connections(fixture.guest(1), NicOptions::address(0), 20)?;
    for guest in [0, 1] {
        assert_counted(fixture.guest(guest), [0, 1 + 20])?;
    }
    stop(servers)?;
    fixture.finish()
}

/// Link groups of a guest: that as a client and that as a server.
fn groups(guest: &Guest) -> Result<Vec<Value>> {
    let groups = last_value(&guest.run("/host/smc-tool --json linkgroups")?.check()?.stdout);
    Ok(groups["smcr"].as_array().expect("link groups").clone())
}

/// Whether a link group has a link over each NIC, and no other that is about to be removed.
fn is_symmetric(group: &Value) -> bool {
    group["type"] == SYMMETRIC && group["links"].as_array().is_some_and(|links| links.len() == 2)
}

/// Waits until both link groups of both guests have a link over each NIC, or no longer have.
fn await_links(testbed: &Testbed, symmetric: bool) -> Result<()> {
    let begin = Instant::now();
    for guest in testbed.guests() {
        loop {
            let groups = groups(guest)?;
            assert_eq!(groups.len(), 2, "{}: {groups:?}", guest.name());
            let settled = match symmetric {
                true => groups.iter().all(is_symmetric),
                false => groups.iter().all(|group| group["type"] != SYMMETRIC),
            };
            if settled {
                break;
            }
            assert!(begin.elapsed() < LINK, "{}: {groups:?}", guest.name());
        }
    }
    Ok(())
}

#[test]
#[ignore = "long: two NICs per guest"]
fn a_second_nic_of_both_guests_becomes_a_second_link() -> Result<()> {
    let options = NicOptions::default().second();
    let fixture = Setup::new("nic-smcr-links", 2).options(options).start()?;
    fixture.testbed().each(|guest| {
        guest.smc_load()?;
        guest.smc_r_pair_nics()
    })?;
    let servers = [serve(fixture.guest(0))?, serve(fixture.guest(1))?];
    let loads: Vec<Job> = [(0, 1), (1, 0)]
        .into_iter()
        .map(|(from, to)| {
            let load = command(NicOptions::address(to), "load");
            let job = fixture.guest(from).spawn(&format!("exec {load}"))?;
            job.wait_line("ready smcr", LINK)?;
            Ok(job)
        })
        .collect::<Result<_>>()?;
    step("a second link", || await_links(fixture.testbed(), true))?;
    // Later connections are spread over both links.
    bulk(fixture.guest(0), NicOptions::address(1), "8M", "both")?;
    many_connections(fixture.guest(1), NicOptions::address(0), 20)?;
    for load in loads {
        load.kill(TERM);
        let report = last_value(&load.wait(LINK)?.check()?.stdout);
        assert_smcr(&report["connection"]["socket"]);
        assert_eq!(report["end"], "signal", "{report}");
    }
    stop(servers)?;
    assert_all_counted(fixture.testbed(), [2 + 1 + 20, 0])?;
    fixture.finish()
}

#[test]
#[ignore = "long: pulls four cables"]
fn connections_survive_the_loss_of_either_nic() -> Result<()> {
    const MESSAGES: u64 = 300;
    let socket = env::temp_dir().join(format!("nic-smcr-{}", std::process::id()));
    let control = DaemonControl::new(NicOptions::program()?, &socket);
    let options = NicOptions::default()
        .second()
        .args(["--control-socket".to_owned(), socket.display().to_string()]);
    let fixture = Setup::new("nic-smcr-failover", 2).options(options).start()?;
    fixture.testbed().each(|guest| {
        guest.smc_load()?;
        guest.smc_r_pair_nics()
    })?;
    let servers = servers(fixture.testbed())?;
    // One message at a time, each compared with its echo, over the same connections from the first cable to the last:
    // docs/smc-r.md has what Linux 7.3.4 does otherwise.
    let echoes: Vec<Job> = [(0, 1), (1, 0)]
        .into_iter()
        .map(|(from, to)| {
            let echoes = command(NicOptions::address(to), "rtt --count 10000000");
            fixture.guest(from).spawn(&format!("exec {echoes}"))
        })
        .collect::<Result<_>>()?;
    let flow = || -> Result<()> {
        await_messages(fixture.testbed(), MESSAGES)?;
        for job in &echoes {
            assert!(!job.is_finished(), "{:?}", job.peek());
        }
        Ok(())
    };
    flow()?;
    step("a second link", || await_links(fixture.testbed(), true))?;
    for name in ["nic-0", "nic-0-second", "nic-1", "nic-1-second"] {
        flow()?;
        control.ctl(&["cable", name, "out"])?;
        step(&format!("{name} is out"), || await_links(fixture.testbed(), false))?;
        flow()?;
        control.ctl(&["cable", name, "in"])?;
        step(&format!("{name} is in"), || await_links(fixture.testbed(), true))?;
    }
    flow()?;
    for job in echoes {
        job.kill(TERM);
        job.wait(LINK)?;
    }
    stop(servers)?;
    assert_all_counted(fixture.testbed(), [2, 0])?;
    fixture.finish()
}

/// Waits until both guests have received `count` more messages.
fn await_messages(testbed: &Testbed, count: u64) -> Result<()> {
    let begin = Instant::now();
    for guest in testbed.guests() {
        let arrived = || -> Result<u64> {
            let stats = last_value(&guest.run("/host/smc-tool --json stats")?.check()?.stdout);
            Ok(stats["smcr"]["receive_calls"].as_u64().expect("a counter"))
        };
        let before = arrived()?;
        while arrived()? < before + count {
            assert!(begin.elapsed() < LINK, "{} receives no messages", guest.name());
        }
    }
    Ok(())
}
