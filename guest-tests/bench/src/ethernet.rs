//! Ethernet: the NIC beside virtio-net between the same two guests.

use std::net::Ipv4Addr;

use anyhow::Result;
use guest_harness::{Flow, Job, NIC, NicOptions, Testbed};

use crate::beside::Beside;
use crate::table::table;
use crate::turns::{Goal, Series, Turns};
use crate::workload::{Bulk, Call, READY, RoundTrips};

const PORT: u16 = 5001;
const NAMES: [&str; 2] = ["virtio-net", "NIC"];

/// By which of the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    VirtioNet,
    Nic,
}

impl Way {
    const BOTH: [Self; 2] = [Self::VirtioNet, Self::Nic];
}

/// Guest 0 as client, guest 1 as server.
pub struct Pair<'a> {
    bed: &'a Testbed,
    _server: Job,
}

impl<'a> Pair<'a> {
    /// Starts the server.
    pub fn start(bed: &'a Testbed) -> Result<Self> {
        let serve = format!("exec /host/smc-tool serve --port {PORT} --proto tcp");
        let server = bed.guest(1).spawn(&serve)?;
        server.wait_line("ready", READY)?;
        Ok(Self { bed, _server: server })
    }

    fn address(&self, way: Way) -> Ipv4Addr {
        match way {
            Way::VirtioNet => self.bed.guest(1).addr(0),
            Way::Nic => NicOptions::address(1),
        }
    }

    fn flow(&self, way: Way) -> Flow<'a> {
        Flow::new(self.bed.guest(0), self.bed.guest(1), self.address(way))
    }

    fn call(&self, way: Way) -> Call<'a> {
        Call {
            client: self.bed.guest(0),
            to: format!("{}:{PORT}", self.address(way)),
            proto: "tcp",
            mode: "tcp",
        }
    }

    /// Minimum and median of TCP round trips of 64 bytes, every byte compared.
    fn round_trips(&self, way: Way, count: u32) -> Result<[f64; 2]> {
        let trips: RoundTrips = self.call(way).run(&format!("rtt --size 64 --count {count}"))?;
        Ok([trips.min_us, trips.p50_us])
    }

    fn bulk(&self, way: Way, bytes: &str, check: &str) -> Result<f64> {
        let workload = format!("bulk --bytes {bytes} --write-size 64K --direction to --check {check}");
        Ok(self.call(way).run::<Bulk>(&workload)?.megabytes_per_second)
    }

    /// Figures of a round, in the order of [`turns`].
    pub fn figures(&self, way: usize) -> Result<Vec<f64>> {
        let way = Way::BOTH[way];
        let [minimum, median] = self.round_trips(way, 2000)?;
        let unchecked = self.bulk(way, "64M", "none")?;
        let hashed = self.bulk(way, "32M", "hash")?;
        Ok(vec![minimum, median, unchecked, hashed])
    }
}

/// What is measured several times over.
pub fn turns() -> Turns {
    let series = vec![
        Series::new("TCP 64 B round trip, minimum", "us", Goal::None),
        Series::new("TCP 64 B round trip, median", "us", Goal::None),
        Series::new("TCP, 64 KiB writes", "MB/s", Goal::None),
        Series::new("TCP, 64 KiB writes, hash compared", "MB/s", Goal::None),
    ];
    Turns::new("between two guests", NAMES, series)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures everything once and prints the tables.
pub fn show(bed: &Testbed) -> Result<()> {
    let pair = Pair::start(bed)?;
    let mut figures = Beside::new("between two guests", NAMES);
    let mut measure =
        |name: &str, unit: &str, of: &dyn Fn(Way) -> Result<f64>| figures.measure(name, unit, Way::BOTH, of);
    measure("ping, median", "us", &|way| Ok(median(pair.flow(way).ping(100, 56)?)))?;
    measure("TCP 64 B round trip, median", "us", &|way| {
        Ok(pair.round_trips(way, 1000)?[1])
    })?;
    measure("iperf3, TCP", "Mbit/s", &|way| {
        Ok(pair.flow(way).iperf(3, "")?.bits_per_second / 1e6)
    })?;
    measure("iperf3, TCP, 4 connections", "Mbit/s", &|way| {
        Ok(pair.flow(way).iperf(3, "--parallel 4")?.bits_per_second / 1e6)
    })?;
    measure("iperf3, UDP, 1400 B, as fast as it goes", "Mbit/s", &|way| {
        let udp = pair.flow(way).iperf(3, "--udp --bitrate 0 --length 1400")?;
        Ok(udp.bits_per_second / 1e6)
    })?;
    measure("TCP, 64 KiB writes, hash compared", "MB/s", &|way| {
        pair.bulk(way, "32M", "hash")
    })?;
    figures.print();
    ethtool(bed)
}

/// What the driver in each guest says of its NIC.
fn ethtool(bed: &Testbed) -> Result<()> {
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
        let output = bed.guest(guest).run(&format!("ethtool {what} {NIC}"))?.check()?;
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
