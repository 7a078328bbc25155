//! Settings and counters of the interface by `ethtool` and `ip`.

use guest_harness::{Guest, NIC, Result};
use serde_json::Value;

use crate::ethernet::counter;
use crate::fixture::{Fixture, Setup, step};
use crate::link_settings;

#[test]
fn the_settings_of_the_interface_are_shown_and_changed() -> Result<()> {
    let fixture = Setup::new("nic-ethtool", 2).ethernet_only().start()?;
    let run = |name: &str, test: fn(&Fixture) -> Result<()>| step(name, || test(&fixture));
    run("self test", self_test)?;
    run("link settings", link_settings::link)?;
    run("FEC", link_settings::fec)?;
    run("module", link_settings::module)?;
    run("pause", link_settings::pause)?;
    run("devlink", link_settings::devlink)?;
    run("rings", rings)?;
    run("coalescing", coalescing)?;
    run("channels", channels)?;
    run("indirection", indirection)?;
    run("offloads", offloads)?;
    run("counters", counters)?;
    run("promiscuous", promiscuous)?;
    run("steering", steering)?;
    fixture.finish()
}

pub fn ethtool(guest: &Guest, arguments: &str) -> Result<String> {
    let mut words = arguments.splitn(2, ' ');
    let (flag, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    Ok(guest.run(&format!("ethtool {flag} {NIC} {rest}"))?.check()?.stdout)
}

/// Returns the value of `name` in the last block printed by `ethtool`, which has the current settings.
fn setting(text: &str, name: &str) -> u64 {
    let value = text.lines().rev().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().parse().ok())?
    });
    value.unwrap_or_else(|| panic!("{name} in {text}"))
}

fn self_test(fixture: &Fixture) -> Result<()> {
    let report = ethtool(fixture.guest(0), "-t")?;
    assert!(report.contains("result is PASS"), "{report}");
    for test in ["Link Test", "Speed Test", "Health Test", "Loopback Test"] {
        let line = report.lines().find(|line| line.starts_with(test));
        assert!(
            line.is_some_and(|line| line.trim_end().ends_with('0')),
            "{test} in {report}"
        );
    }
    fixture.flow(0, 1).ping(3, 56).map(drop)
}

fn rings(fixture: &Fixture) -> Result<()> {
    for (rx, tx) in [(256, 128), (2048, 2048), (1024, 1024)] {
        ethtool(fixture.guest(0), &format!("-G rx {rx} tx {tx}"))?;
        let rings = ethtool(fixture.guest(0), "-g")?;
        assert_eq!((setting(&rings, "RX"), setting(&rings, "TX")), (rx, tx), "{rings}");
        fixture.flow(0, 1).ping(3, 1472)?;
        fixture.flow(1, 0).compare_digests(1)?;
    }
    Ok(())
}

fn coalescing(fixture: &Fixture) -> Result<()> {
    let guest = fixture.guest(0);
    // In two steps, as a change of mode resets the driver to its defaults.
    ethtool(guest, "-C adaptive-rx off adaptive-tx off")?;
    ethtool(guest, "-C rx-usecs 16 rx-frames 8 tx-usecs 32 tx-frames 16")?;
    let shown = ethtool(guest, "-c")?;
    for (name, value) in [("rx-usecs", 16), ("rx-frames", 8), ("tx-usecs", 32), ("tx-frames", 16)] {
        assert_eq!(setting(&shown, name), value, "{shown}");
    }
    fixture.flow(0, 1).ping(5, 56)?;
    ethtool(guest, "-C adaptive-rx on adaptive-tx on").map(drop)
}

fn channels(fixture: &Fixture) -> Result<()> {
    for count in [1, 2] {
        ethtool(fixture.guest(0), &format!("-L combined {count}"))?;
        assert_eq!(setting(&ethtool(fixture.guest(0), "-l")?, "Combined"), count);
        fixture.flow(1, 0).iperf(1, "--parallel 4")?;
    }
    Ok(())
}

/// Returns the number of packets received by a channel.
fn received(fixture: &Fixture, channel: u32) -> Result<u64> {
    counter(fixture, 0, &format!("rx{channel}_packets"))
}

/// The indirection table decides which channel receives.
fn indirection(fixture: &Fixture) -> Result<()> {
    for channel in [1, 0] {
        let weight = if channel == 1 { "0 1" } else { "1 0" };
        ethtool(fixture.guest(0), &format!("-X weight {weight}"))?;
        let before = [received(fixture, 0)?, received(fixture, 1)?];
        fixture.flow(1, 0).iperf(1, "--parallel 4")?;
        let grown = [received(fixture, 0)? - before[0], received(fixture, 1)? - before[1]];
        let (chosen, other) = (grown[channel], grown[1 - channel]);
        assert!(chosen > 100 && other < chosen / 10, "to channel {channel}: {grown:?}");
    }
    ethtool(fixture.guest(0), "-X equal 2")?;
    let before = [received(fixture, 0)?, received(fixture, 1)?];
    fixture.flow(1, 0).iperf(2, "--parallel 16")?;
    let grown = [received(fixture, 0)? - before[0], received(fixture, 1)? - before[1]];
    // Sixteen hashed connections are all on one channel with a probability of 1 in 32768.
    assert!(
        grown.iter().all(|count| *count > 0),
        "spread over both channels: {grown:?}"
    );
    Ok(())
}

/// A flow rule overrides the hash.
pub fn steering(fixture: &Fixture) -> Result<()> {
    for channel in [1, 0_usize] {
        let rule = format!("-N flow-type udp4 dst-port 7777 action {channel} loc 10");
        ethtool(fixture.guest(0), &rule)?;
        assert!(ethtool(fixture.guest(0), "-n")?.contains("Filter: 10"));
        let before = [received(fixture, 0)?, received(fixture, 1)?];
        datagrams(fixture, 200)?;
        let grown = [received(fixture, 0)? - before[0], received(fixture, 1)? - before[1]];
        assert!(
            grown[channel] >= 200 && grown[1 - channel] < 100,
            "to channel {channel}: {grown:?}"
        );
        ethtool(fixture.guest(0), "-N delete 10")?;
    }
    // A rule may also drop.
    ethtool(fixture.guest(0), "-N flow-type udp4 dst-port 7777 action -1 loc 10")?;
    let before = counter(fixture, 0, "rx_packets")?;
    datagrams(fixture, 200)?;
    let passed = counter(fixture, 0, "rx_packets")? - before;
    assert!(passed < 100, "{passed} of 200 got past a rule that drops them");
    ethtool(fixture.guest(0), "-N delete 10").map(drop)
}

/// Sends from many ports to one, which the hash would spread over the channels.
fn datagrams(fixture: &Fixture, count: u32) -> Result<()> {
    let script = "
import socket, sys
for number in range(int(sys.argv[2])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b'x' * 100, (sys.argv[1], 7777))
";
    let to = guest_harness::NicOptions::address(0).to_string();
    let send = fixture
        .guest(1)
        .command(["python3", "-c", script, &to, &count.to_string()]);
    send.run()?.check()?;
    // Waits for datagrams in flight.
    fixture.flow(1, 0).ping(2, 56).map(drop)
}

/// Data are the same with and without each offload.
fn offloads(fixture: &Fixture) -> Result<()> {
    for offload in ["tso", "tx", "rx", "rxhash", "gro", "sg"] {
        ethtool(fixture.guest(0), &format!("-K {offload} off"))?;
        fixture.flow(0, 1).compare_digests(1)?;
        fixture.flow(0, 1).ping(2, 1472)?;
    }
    ethtool(fixture.guest(0), "-K sg on tx on rx on rxhash on gro on tso on")?;
    fixture.flow(0, 1).compare_digests(1)
}

fn counters(fixture: &Fixture) -> Result<()> {
    let names = [
        "rx_packets",
        "tx_packets",
        "rx_bytes",
        "tx_bytes",
        "rx_vport_unicast_packets",
        "tx_vport_unicast_packets",
        "rx_packets_phy",
        "tx_packets_phy",
        "rx_bytes_phy",
        "tx_bytes_phy",
    ];
    let read = || {
        names
            .map(|name| counter(fixture, 0, name))
            .into_iter()
            .collect::<Result<Vec<_>>>()
    };
    let before = read()?;
    fixture.flow(0, 1).ping(100, 1000)?;
    // The driver reads the device counters once a second.
    fixture.guest(0).run("sleep 1.5")?.check()?;
    for ((name, before), after) in names.iter().zip(before).zip(read()?) {
        let least = if name.contains("bytes") { 100 * 1042 } else { 100 };
        let grown = after - before;
        assert!((least..2 * least).contains(&grown), "{name} grew by {grown}");
    }
    let link = fixture.guest(0).run(&format!("ip -s -j link show {NIC}"))?.check()?;
    let link: Value = serde_json::from_str(link.text()).expect("JSON");
    let stats = &link[0]["stats64"];
    for direction in ["rx", "tx"] {
        assert_eq!(stats[direction]["errors"], 0, "{stats}");
        assert!(stats[direction]["packets"].as_u64() >= Some(100), "{stats}");
    }
    Ok(())
}

/// Frames to a foreign address are received in promiscuous mode only.
fn promiscuous(fixture: &Fixture) -> Result<()> {
    let script = format!(
        "
import socket
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
wire.bind(('{NIC}', 0))
for number in range(50):
    addresses = b'\\x02\\x00\\x00\\x00\\x00\\x99' + b'\\x02\\x00\\x00\\x00\\x00\\x01'
    wire.send(addresses + b'\\x88\\xb5' + bytes([number]) * 60)
"
    );
    let stray = || -> Result<u64> {
        let before = counter(fixture, 1, "rx_packets")?;
        fixture.guest(0).command(["python3", "-c", &script]).run()?.check()?;
        fixture.flow(0, 1).ping(1, 56)?;
        Ok(counter(fixture, 1, "rx_packets")? - before)
    };
    let without = stray()?;
    assert!(without < 50, "{without} foreign frames");
    // While VLAN tags are stripped, the driver warns that it cannot receive S-VLAN frames.
    ethtool(fixture.guest(1), "-K rxvlan off")?;
    fixture
        .guest(1)
        .run(&format!("ip link set {NIC} promisc on"))?
        .check()?;
    let with = stray()?;
    assert!(with >= 50, "{with} frames in promiscuous mode");
    fixture
        .guest(1)
        .run(&format!("ip link set {NIC} promisc off"))?
        .check()?;
    ethtool(fixture.guest(1), "-K rxvlan on")?;
    let without = stray()?;
    assert!(without < 50, "{without} foreign frames afterwards");
    Ok(())
}
