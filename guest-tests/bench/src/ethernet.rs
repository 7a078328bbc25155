//! Ethernet: the NIC compared with virtio-net between the same two guests.

use std::net::Ipv4Addr;

use anyhow::Result;
use guest_harness::{Flow, Job, NIC, NicOptions, Testbed};

use crate::comparison::Comparison;
use crate::interleaved::{Goal, Interleaved, Series};
use crate::table::table;
use crate::workload::{Bulk, Call, READY, RoundTrips};

const PORT: u16 = 5001;
const NAMES: [&str; 2] = ["virtio-net", "NIC"];

/// The network a measurement uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    VirtioNet,
    Nic,
}

impl Network {
    const BOTH: [Self; 2] = [Self::VirtioNet, Self::Nic];
}

/// Guest 0 as client, guest 1 as server.
pub struct Pair<'a> {
    testbed: &'a Testbed,
    _server: Job,
}

impl<'a> Pair<'a> {
    /// Starts the server.
    pub fn start(testbed: &'a Testbed) -> Result<Self> {
        let serve = format!("exec /host/smc-tool serve --port {PORT} --proto tcp");
        let server = testbed.guest(1).spawn(&serve)?;
        server.wait_line("ready", READY)?;
        Ok(Self {
            testbed,
            _server: server,
        })
    }

    fn address(&self, network: Network) -> Ipv4Addr {
        match network {
            Network::VirtioNet => self.testbed.guest(1).addr(0),
            Network::Nic => NicOptions::address(1),
        }
    }

    fn flow(&self, network: Network) -> Flow<'a> {
        Flow::new(self.testbed.guest(0), self.testbed.guest(1), self.address(network))
    }

    fn call(&self, network: Network) -> Call<'a> {
        Call {
            client: self.testbed.guest(0),
            to: format!("{}:{PORT}", self.address(network)),
            proto: "tcp",
            mode: "tcp",
        }
    }

    /// Measures TCP round trips of 64 bytes with every byte compared; returns minimum and median in microseconds.
    fn round_trips(&self, network: Network, count: u32) -> Result<[f64; 2]> {
        let trips: RoundTrips = self.call(network).run(&format!("rtt --size 64 --count {count}"))?;
        Ok([trips.min_us, trips.p50_us])
    }

    fn bulk(&self, network: Network, bytes: &str, check: &str) -> Result<f64> {
        let workload = format!("bulk --bytes {bytes} --write-size 64K --direction to --check {check}");
        Ok(self.call(network).run::<Bulk>(&workload)?.megabytes_per_second)
    }

    /// Measures one variant once; returns the figures in the order of [`interleaved`].
    pub fn figures(&self, variant: usize) -> Result<Vec<f64>> {
        let network = Network::BOTH[variant];
        let [minimum, median] = self.round_trips(network, 2000)?;
        let unchecked = self.bulk(network, "64M", "none")?;
        let hashed = self.bulk(network, "32M", "hash")?;
        Ok(vec![minimum, median, unchecked, hashed])
    }
}

/// Creates the series of the benchmark, without any measurement.
pub fn interleaved() -> Interleaved {
    let series = vec![
        Series::new("TCP 64 B round trip, minimum", "us", Goal::None),
        Series::new("TCP 64 B round trip, median", "us", Goal::None),
        Series::new("TCP, 64 KiB writes", "MB/s", Goal::None),
        Series::new("TCP, 64 KiB writes, hash compared", "MB/s", Goal::None),
    ];
    Interleaved::new("between two guests", NAMES, series)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures everything once and prints the tables.
pub fn show(testbed: &Testbed) -> Result<()> {
    let pair = Pair::start(testbed)?;
    let mut figures = Comparison::new("between two guests", NAMES);
    let mut measure =
        |name: &str, unit: &str, of: &dyn Fn(Network) -> Result<f64>| figures.measure(name, unit, Network::BOTH, of);
    measure("ping, median", "us", &|network| {
        Ok(median(pair.flow(network).ping(100, 56)?))
    })?;
    measure("TCP 64 B round trip, median", "us", &|network| {
        Ok(pair.round_trips(network, 1000)?[1])
    })?;
    measure("iperf3, TCP", "Mbit/s", &|network| {
        Ok(pair.flow(network).iperf(3, "")?.bits_per_second / 1e6)
    })?;
    measure("iperf3, TCP, 4 connections", "Mbit/s", &|network| {
        Ok(pair.flow(network).iperf(3, "--parallel 4")?.bits_per_second / 1e6)
    })?;
    measure("iperf3, UDP, 1400 B, as fast as it goes", "Mbit/s", &|network| {
        let udp = pair.flow(network).iperf(3, "--udp --bitrate 0 --length 1400")?;
        Ok(udp.bits_per_second / 1e6)
    })?;
    measure("TCP, 64 KiB writes, hash compared", "MB/s", &|network| {
        pair.bulk(network, "32M", "hash")
    })?;
    figures.print();
    ethtool(testbed)
}

/// Prints what each guest's driver reports about its NIC.
fn ethtool(testbed: &Testbed) -> Result<()> {
    const COUNTERS: [&str; 12] = [
        "rx_packets",
        "tx_packets",
        "rx_bytes",
        "tx_bytes",
        "tx_tso_packets",
        "tx_csum_partial",
        "rx_csum_complete",
        "rx_csum_unnecessary",
        "rx_out_of_buffer",
        "rx_vport_unicast_packets",
        "tx_vport_unicast_packets",
        "rx_packets_phy",
    ];
    let ask = |guest: usize, what: &str| -> Result<String> {
        let output = testbed.guest(guest).run(&format!("ethtool {what} {NIC}"))?.check()?;
        Ok(output.stdout)
    };
    let value = |text: &str, name: &str| -> String {
        let mut lines = text.lines().filter_map(|line| line.trim().split_once(':'));
        let found = lines.find(|(found, _)| *found == name);
        found.map_or("-".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let mut shown = table(&["ethtool", "guest a", "guest b"]);
    let mut row = |name: &str, of: &dyn Fn(usize) -> Result<String>| -> Result<()> {
        shown.add_row([name.to_owned(), of(0)?, of(1)?]);
        Ok(())
    };
    for name in ["driver", "firmware-version", "bus-info"] {
        row(name, &|guest| Ok(value(&ask(guest, "-i")?, name)))?;
    }
    for name in ["Speed", "Link detected"] {
        row(name, &|guest| Ok(value(&ask(guest, "")?, name)))?;
    }
    let statistics = [ask(0, "-S")?, ask(1, "-S")?];
    for name in COUNTERS {
        row(name, &|guest| Ok(value(&statistics[guest], name)))?;
    }
    println!("{shown}");
    Ok(())
}
