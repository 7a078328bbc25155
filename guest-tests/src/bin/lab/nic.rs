//! The NIC beside virtio-net between the same two guests: what it does, and how fast.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::Cell;
use guest_tests::{Flow, Job, NIC, NicOptions, NicSetup, Testbed};
use serde::Deserialize;

use crate::demo::{round, table};

const READY: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(180);
const PORT: u16 = 5001;

/// By which of the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    VirtioNet,
    Nic,
}

impl Way {
    const BOTH: [Self; 2] = [Self::VirtioNet, Self::Nic];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VirtioNet => "virtio-net",
            Self::Nic => "NIC",
        })
    }
}

/// Two guests with a virtio-net link and a NIC each, one processor each, because the host may have only two. MTU 1500 on both.
pub fn boot(name: &str) -> Result<Testbed> {
    let begin = Instant::now();
    eprintln!("==> booting two guests");
    let bed = Testbed::builder(name)
        .guests(2)
        .smp(1)
        .mesh()
        .nic(NicOptions::default())
        .start()?;
    for guest in bed.guests() {
        guest.pin(guest.index())?;
    }
    bed.each(|guest| guest.nic_up(&NicSetup::default()))?;
    eprintln!(
        "==> two guests with mlx5_core and mlx5_ib on vhost-nic, {:.1} s after the start",
        begin.elapsed().as_secs_f64()
    );
    Ok(bed)
}

#[derive(Deserialize)]
struct RoundTrips {
    min_us: f64,
    p50_us: f64,
}

#[derive(Deserialize)]
struct Bulk {
    megabytes_per_second: f64,
}

/// Guest 0 as client, guest 1 as server.
struct Pair<'a> {
    bed: &'a Testbed,
    _server: Job,
}

impl<'a> Pair<'a> {
    fn start(bed: &'a Testbed) -> Result<Self> {
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

    fn tool<T: serde::de::DeserializeOwned>(&self, way: Way, workload: &str) -> Result<T> {
        let to = self.address(way);
        let command = format!("/host/smc-tool --json {workload} --to {to}:{PORT} --proto tcp --expect-mode tcp");
        let output = self.bed.guest(0).shell(&command).timeout(TIMEOUT).run()?.check()?;
        serde_json::from_str(output.text())
            .with_context(|| format!("`{workload}` printed something else than a report"))
    }

    /// Minimum and median of TCP round trips of 64 bytes, every byte compared.
    fn round_trips(&self, way: Way, count: u32) -> Result<[f64; 2]> {
        let trips: RoundTrips = self.tool(way, &format!("rtt --size 64 --count {count}"))?;
        Ok([trips.min_us, trips.p50_us])
    }

    fn bulk(&self, way: Way, bytes: &str, check: &str) -> Result<f64> {
        let workload = format!("bulk --bytes {bytes} --write-size 64K --direction to --check {check}");
        Ok(self.tool::<Bulk>(way, &workload)?.megabytes_per_second)
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs everything once and prints the tables.
pub fn demo(bed: &Testbed) -> Result<()> {
    let pair = Pair::start(bed)?;
    let mut figures = table(&["between two guests", "virtio-net", "NIC", "unit", "NIC / virtio-net"]);
    let mut measure = |name: &str, unit: &str, of: &dyn Fn(Way) -> Result<f64>| -> Result<()> {
        eprintln!("    {name}");
        let [virtio, nic] = [of(Way::VirtioNet)?, of(Way::Nic)?];
        figures.add_row([
            Cell::new(name),
            Cell::new(round(virtio)),
            Cell::new(round(nic)),
            Cell::new(unit),
            Cell::new(format!("{:.2}x", nic / virtio)),
        ]);
        Ok(())
    };
    measure("ping, median", "us", &|way| {
        Ok(median(&mut pair.flow(way).ping(100, 56)?))
    })?;
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
    println!("{figures}");
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
    for guest in bed.guests() {
        guest.nic_check_log(&[])?;
    }
    println!("No warning of the drivers in either guest's log.");
    Ok(())
}

/// Measures in turns, `rounds` times, and prints the table.
pub fn bench(bed: &Testbed, rounds: usize) -> Result<()> {
    const SERIES: [(&str, &str); 4] = [
        ("TCP 64 B round trip, minimum", "us"),
        ("TCP 64 B round trip, median", "us"),
        ("TCP, 64 KiB writes", "MB/s"),
        ("TCP, 64 KiB writes, hash compared", "MB/s"),
    ];
    ensure!(rounds > 0, "there is nothing to measure in no rounds");
    let pair = Pair::start(bed)?;
    let mut values: [[Vec<f64>; 2]; SERIES.len()] = Default::default();
    for round in 1..=rounds {
        eprintln!("    round {round} of {rounds}");
        for (index, way) in Way::BOTH.into_iter().enumerate() {
            let [minimum, median] = pair.round_trips(way, 2000)?;
            let figures = [
                minimum,
                median,
                pair.bulk(way, "64M", "none")?,
                pair.bulk(way, "32M", "hash")?,
            ];
            for (series, figure) in values.iter_mut().zip(figures) {
                series[index].push(figure);
            }
        }
    }
    let mut figures = table(&[
        "between two guests",
        "unit",
        "virtio-net min",
        "virtio-net median",
        "NIC min",
        "NIC median",
        "ratio of medians",
    ]);
    for ((name, unit), series) in SERIES.into_iter().zip(&mut values) {
        let [virtio, nic] = series.each_mut().map(|values| {
            let median = median(values);
            (values[0], median)
        });
        figures.add_row([
            Cell::new(name),
            Cell::new(unit),
            Cell::new(round(virtio.0)),
            Cell::new(round(virtio.1)),
            Cell::new(round(nic.0)),
            Cell::new(round(nic.1)),
            Cell::new(format!("{:.2}x", nic.1 / virtio.1)),
        ]);
    }
    println!("{figures}");
    Ok(())
}
