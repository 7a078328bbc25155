//! SMC-R over the NIC, SMC-D over virtio-ism, and TCP over the NIC and over virtio-net, in interleaved runs.

use anyhow::Result;
use guest_harness::{Guest, Job, NicOptions, Testbed};

use crate::history::History;
use crate::interleaved::{Extreme, Goal, Interleaved, Series};
use crate::workload::{Bulk, Call, Messages, READY, RoundTrips};

const VARIANTS: [&str; 4] = ["TCP, virtio-net", "TCP, NIC", "SMC-R, NIC", "SMC-D, ISM"];
const TCP_PORT: u16 = 5001;
const SMC_PORT: u16 = 5000;

/// Guest 0 as client, guest 1 as server.
struct Pair<'a> {
    client: &'a Guest,
    /// Address of the server.
    to: String,
    /// Mode of its SMC connections.
    mode: &'static str,
    _servers: [Job; 2],
}

impl<'a> Pair<'a> {
    fn start(testbed: &'a Testbed, to: String, mode: &'static str) -> Result<Self> {
        let server = testbed.guest(1);
        let serve = |port: u16, proto: &str| -> Result<Job> {
            let job = server.spawn(&format!("exec /host/smc-tool serve --port {port} --proto {proto}"))?;
            job.wait_line("ready", READY)?;
            Ok(job)
        };
        Ok(Self {
            client: testbed.guest(0),
            to,
            mode,
            _servers: [serve(TCP_PORT, "tcp")?, serve(SMC_PORT, "smc")?],
        })
    }

    fn measure(&self, smc: bool) -> Result<Vec<f64>> {
        let (port, proto, mode) = match smc {
            true => (SMC_PORT, "smc", self.mode),
            false => (TCP_PORT, "tcp", "tcp"),
        };
        let call = Call {
            client: self.client,
            to: format!("{}:{port}", self.to),
            proto,
            mode,
        };
        let small: RoundTrips = call.run("rtt --size 64 --count 2000")?;
        let page: RoundTrips = call.run("rtt --size 4096 --count 500")?;
        let bulk: Bulk = call.run("bulk --bytes 64M --write-size 64K --direction to --check none")?;
        let tiny: Messages = call.run("messages --size 64 --seconds 2")?;
        let longer: Messages = call.run("messages --size 1024 --seconds 2")?;
        Ok(vec![
            small.min_us,
            small.p50_us,
            page.p50_us,
            bulk.megabytes_per_second,
            tiny.messages_per_second,
            longer.messages_per_second,
        ])
    }
}

/// Measures `rounds` times, between two guests with the NIC and two with virtio-ism and virtio-net, and prints the
/// table.
pub fn run(nic: &Testbed, ism: &Testbed, rounds: usize) -> Result<()> {
    let mut history = History::open("smcr", rounds)?;
    let over_nic = Pair::start(nic, NicOptions::address(1).to_string(), "smcr")?;
    let over_ism = Pair::start(ism, ism.guest(1).addr(0).to_string(), "smcd")?;
    let series = [
        ("64 B round trip, minimum", "us"),
        ("64 B round trip, median", "us"),
        ("4 KiB round trip, median", "us"),
        ("64 KiB writes", "MB/s"),
        ("64 B messages", "1/s"),
        ("1 KiB messages", "1/s"),
    ];
    let series = series.map(|(name, unit)| Series::new(name, unit, Goal::None));
    let mut runs = Interleaved::<4>::new("between two guests", VARIANTS, series.into());
    for round in 1..=rounds {
        eprintln!("    round {round} of {rounds}");
        runs.round(|variant| match variant {
            0 => over_ism.measure(false),
            1 => over_nic.measure(false),
            2 => over_nic.measure(true),
            _ => over_ism.measure(true),
        })?;
    }
    runs.print(Extreme::Best, &mut history);
    runs.print_rounds();
    history.close()
}
