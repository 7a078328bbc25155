//! Verbs: the NIC compared with the kernel's software RoCE (rdma_rxe) over virtio-net, between the same two guests.

mod device;
mod perftest;

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guest_harness::{Flow, Guest, NicOptions, Testbed};

use crate::comparison::Comparison;
use crate::history::History;
use crate::interleaved::{Extreme, Interleaved, Series};
use crate::table::table;

use device::Device;
use perftest::{PERFTESTS, Perftest};

const NAMES: [&str; 2] = ["rxe", "NIC"];
/// Explanation printed below the figures.
const LEGEND: &str = "\
    Iterations: on rxe, which is slow under emulation, and on the NIC. Latency is half a round trip, the median of\n\
    a run. A guest has one processor. perftest polls for completions and so starves rxe, which runs on the same\n\
    processor, until the scheduler preempts it; the NIC runs on the host.";
/// Limit on the run time of a program.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Iterations of `rping`.
const PINGS: u32 = 100;

/// Guest 0 as client, guest 1 as server, with both devices each.
pub struct Verbs<'a> {
    testbed: &'a Testbed,
    /// GID index of the IPv4 address, by device, for client and server.
    gids: [[u32; 2]; 2],
}

impl<'a> Verbs<'a> {
    /// Adds software RoCE to the guests' virtio-net interfaces.
    pub fn start(testbed: &'a Testbed) -> Result<Self> {
        for (guest, peer) in [(0, 1), (1, 0)] {
            let guest = testbed.guest(guest);
            let link = guest.interface(peer);
            let script = format!(
                "modprobe rdma_rxe && rdma link add {} type rxe netdev {link}",
                Device::Rxe.name()
            );
            guest.run(&script)?.check().context("cannot add software RoCE")?;
        }
        let mut verbs = Self {
            testbed,
            gids: Default::default(),
        };
        for device in Device::BOTH {
            verbs.gids[device as usize] = [verbs.find_gid(device, 0)?, verbs.find_gid(device, 1)?];
        }
        Ok(verbs)
    }

    fn address(&self, device: Device, guest: usize) -> Ipv4Addr {
        match device {
            Device::Rxe => self.testbed.guest(guest).addr(1 - guest),
            Device::Nic => NicOptions::address(guest),
        }
    }

    fn flow(&self, device: Device) -> Flow<'a> {
        Flow::new(self.testbed.guest(0), self.testbed.guest(1), self.address(device, 1))
    }

    /// Waits for the RoCE v2 GID of a guest's address and returns its index.
    fn find_gid(&self, device: Device, guest: usize) -> Result<u32> {
        let segments = self.address(device, guest).to_ipv6_mapped().segments();
        let gid = segments.map(|segment| format!("{segment:04x}")).join(":");
        let script = format!(
            "cd /sys/class/infiniband/{}/ports/1\n\
             for try in $(seq 100); do\n\
             \x20 for gid in gids/*; do\n\
             \x20   [ \"$(<$gid)\" = {gid} ] || continue\n\
             \x20   index=${{gid#gids/}}\n\
             \x20   [ \"$(<gid_attrs/types/$index)\" = 'RoCE v2' ] && echo $index && exit\n\
             \x20 done\n\
             \x20 sleep 0.1\n\
             done\n\
             echo 'there is no GID {gid}' >&2; exit 1\n",
            device.name()
        );
        let output = self
            .testbed
            .guest(guest)
            .shell(&script)
            .called("find the GID")
            .run()?
            .check()?;
        output.text().parse().context("the GID index is not a number")
    }

    /// Runs a perftest program and returns its figure.
    fn measure(&self, perftest: &Perftest, device: Device) -> Result<f64> {
        let flow = self.flow(device);
        let port = Flow::next_port();
        let [client, server] = self.gids[device as usize].map(|gid| perftest.command(device, gid, port));
        // The JSON report goes to a file; standard output is meant for people.
        let report = format!("/tmp/perftest-{port}.json");
        let client = format!(
            "{client} --out_json --out_json_file={report} {} >/tmp/perftest.log 2>&1 || \
             {{ status=$?; cat /tmp/perftest.log >&2; exit $status; }}; cat {report}; rm {report}",
            flow.to
        );
        let both = flow.converse(port, &format!("exec {server}"), &client, TIMEOUT)?;
        perftest
            .read(device, &both.client.stdout)
            .with_context(|| format!("{perftest} on {}", device.name()))
    }

    /// Measures one variant once; returns the figures in the order of [`interleaved`].
    pub fn figures(&self, variant: usize) -> Result<Vec<f64>> {
        let device = Device::BOTH[variant];
        PERFTESTS
            .iter()
            .map(|perftest| self.measure(perftest, device))
            .collect()
    }

    /// Measures `rping`, which compares the data it receives; returns milliseconds, including program start and
    /// connection setup by rdma_cm.
    fn rping(&self, device: Device) -> Result<f64> {
        let flow = self.flow(device);
        let port = Flow::next_port();
        let common = format!("-a {} -p {port} -C {PINGS} -V", flow.to);
        let both = flow.converse(
            port,
            &format!("exec rping -s {common}"),
            &format!("exec rping -c -v {common}"),
            TIMEOUT,
        )?;
        let pings = both
            .client
            .stdout
            .lines()
            .filter(|line| line.starts_with("ping data: "))
            .count();
        ensure!(pings == PINGS as usize, "{pings} of {PINGS} pings: {}", both.client);
        Ok(both.client.elapsed.as_secs_f64() * 1e3)
    }
}

/// Prints the table of [`interleaved`].
pub fn print(runs: &Interleaved, history: &mut History) {
    runs.print(Extreme::Min, history);
    println!("{LEGEND}");
}

/// Creates the series of the benchmark, without any measurement.
pub fn interleaved() -> Interleaved {
    let series = PERFTESTS
        .iter()
        .map(|perftest| Series::new(perftest.to_string(), perftest.unit(), perftest.goal))
        .collect();
    Interleaved::new("verbs between two guests", NAMES, series)
}

/// Measures everything once and prints the tables.
pub fn show(verbs: &Verbs<'_>) -> Result<()> {
    devinfo(verbs.testbed.guest(0))?;
    let before = Counted::read(verbs)?;
    let mut figures = Comparison::new("verbs between two guests", NAMES);
    for perftest in &PERFTESTS {
        figures.measure(&perftest.to_string(), perftest.unit(), Device::BOTH, |device| {
            verbs.measure(perftest, device)
        })?;
    }
    let name = format!("rping, {PINGS} times 64 B, data compared");
    figures.measure(&name, "ms", Device::BOTH, |device| verbs.rping(device))?;
    figures.print();
    println!("{LEGEND}");
    prove(&before, &Counted::read(verbs)?)
}

/// Prints what `ibv_devinfo` reports about the two devices.
fn devinfo(guest: &Guest) -> Result<()> {
    const FIELDS: [&str; 10] = [
        "transport",
        "fw_ver",
        "vendor_id",
        "vendor_part_id",
        "state",
        "active_mtu",
        "link_layer",
        "max_qp",
        "max_mr_size",
        "max_sge",
    ];
    let reports = Device::BOTH.map(|device| {
        let output = guest.run(&format!("ibv_devinfo -v -d {}", device.name()))?.check()?;
        anyhow::Ok(output.stdout)
    });
    let [rxe, nic] = reports;
    let reports = [rxe?, nic?];
    let mut shown = table(&["ibv_devinfo, guest a", Device::Rxe.name(), Device::Nic.name()]);
    for field in FIELDS {
        let values = reports.each_ref().map(|text| {
            let mut lines = text.lines().filter_map(|line| line.trim().split_once(':'));
            let found = lines.find(|(name, _)| *name == field);
            found.map_or("-", |(_, value)| value.trim()).to_owned()
        });
        shown.add_row([field.to_owned()].into_iter().chain(values));
    }
    println!("{shown}");
    Ok(())
}

/// Counters of both guests at one moment.
struct Counted {
    /// Packets received by software RoCE, from its driver.
    packets: [u64; 2],
    /// Send WQEs fetched by the NIC, from the daemon.
    requests: [u64; 2],
    /// Bytes scattered to guest memory by the NIC, from the daemon.
    scattered: [u64; 2],
}

impl Counted {
    fn read(verbs: &Verbs<'_>) -> Result<Self> {
        let daemon = verbs.testbed.daemon_of("vhost-nic").context("the testbed has no NIC")?;
        let stats = daemon.stats()?;
        let accesses = |guest: usize, purpose: &str, what: &str| -> Result<u64> {
            let mut all = stats["guests"][guest]["dma"].as_array().into_iter().flatten();
            let found = all.find(|accesses| accesses["purpose"] == purpose);
            found
                .and_then(|accesses| accesses[what].as_u64())
                .with_context(|| format!("the daemon does not count {purpose}"))
        };
        let received = |guest: usize| -> Result<u64> {
            let path = format!(
                "/sys/class/infiniband/{}/ports/1/hw_counters/rcvd_pkts",
                Device::Rxe.name()
            );
            verbs
                .testbed
                .guest(guest)
                .read(&path)?
                .parse()
                .context("the counter is not a number")
        };
        Ok(Self {
            packets: [received(0)?, received(1)?],
            requests: [
                accesses(0, "send_wqe", "accesses")?,
                accesses(1, "send_wqe", "accesses")?,
            ],
            scattered: [accesses(0, "scatter", "bytes")?, accesses(1, "scatter", "bytes")?],
        })
    }
}

/// Prints the counters and checks that each device carried its own traffic.
fn prove(before: &Counted, after: &Counted) -> Result<()> {
    let mut proof = table(&["counted meanwhile", "guest a", "guest b"]);
    let mut row = |name: &str, of: &dyn Fn(&Counted) -> [u64; 2]| -> [u64; 2] {
        let [a, b] = [0, 1].map(|guest| of(after)[guest] - of(before)[guest]);
        proof.add_row([name, &a.to_string(), &b.to_string()]);
        [a, b]
    };
    let packets = row("packets to rxe0", &|counted| counted.packets);
    row("reads of send queues by mlx5_0", &|counted| counted.requests);
    let scattered = row("bytes written by mlx5_0", &|counted| counted.scattered);
    println!("{proof}");
    // RDMA writes arrive at the server, reads at the client.
    for (guest, program) in [(1, "ib_write_bw"), (0, "ib_read_bw")] {
        let moved = perftest::bytes(program, Device::Nic);
        ensure!(
            scattered[guest] >= moved,
            "the NIC carried fewer than the {moved} bytes of {program}"
        );
        ensure!(packets[guest] > 0, "software RoCE received no packets");
    }
    Ok(())
}
