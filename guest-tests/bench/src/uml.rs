//! SMC-R compared with TCP over the NIC, in User Mode Linux guests.
//!
//! User space cannot map the NIC's doorbells there, so only kernel verbs work.

use anyhow::{Result, ensure};
use comfy_table::Cell;
use guest_harness::{Guest, Job, NicOptions, Testbed};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::comparison::Comparison;
use crate::table::table;
use crate::workload::{Bulk, Call, Counted, READY, RoundTrips, counted};

/// Transport of a connection over the NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    SmcR,
}

impl Transport {
    const BOTH: [Self; 2] = [Self::Tcp, Self::SmcR];

    fn port(self) -> u16 {
        match self {
            Self::Tcp => 5011,
            Self::SmcR => 5010,
        }
    }

    fn proto(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::SmcR => "smc",
        }
    }

    /// Returns the mode the kernel must report.
    fn mode(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::SmcR => "smcr",
        }
    }
}

/// The part of a workload's report that describes the connection.
#[derive(Deserialize)]
struct Connected {
    connection: Connection,
}

#[derive(Deserialize)]
struct Connection {
    socket: Socket,
}

/// A socket as SMC_DIAG reports it.
#[derive(Deserialize)]
struct Socket {
    mode: String,
    has_smcr_link: bool,
}

struct Pair<'a> {
    client: &'a Guest,
    server: &'a Guest,
    _servers: [Job; 2],
}

impl<'a> Pair<'a> {
    fn start(client: &'a Guest, server: &'a Guest) -> Result<Self> {
        client.smc_r_up()?;
        server.smc_r_up()?;
        let serve = |transport: Transport| -> Result<Job> {
            let (port, proto) = (transport.port(), transport.proto());
            let job = server.spawn(&format!("exec /host/smc-tool serve --port {port} --proto {proto}"))?;
            job.wait_line("ready", READY)?;
            Ok(job)
        };
        Ok(Self {
            client,
            server,
            _servers: [serve(Transport::Tcp)?, serve(Transport::SmcR)?],
        })
    }

    fn run<T: DeserializeOwned>(&self, transport: Transport, workload: &str) -> Result<T> {
        let call = Call {
            client: self.client,
            to: format!("{}:{}", NicOptions::address(self.server.index()), transport.port()),
            proto: transport.proto(),
            mode: transport.mode(),
        };
        call.run(workload)
    }
}

/// Measures everything once and prints the tables.
pub fn show(testbed: &Testbed, [client, server]: [usize; 2]) -> Result<()> {
    let pair = Pair::start(testbed.guest(client), testbed.guest(server))?;
    let before = [counted(pair.client)?, counted(pair.server)?];
    let mut figures = Comparison::new("between two User Mode Linux guests", ["TCP", "SMC-R"]);
    figures.measure("64 B round trip, median", "us", Transport::BOTH, |transport| {
        Ok(pair.run::<RoundTrips>(transport, "rtt --size 64 --count 1000")?.p50_us)
    })?;
    let mut digests = Vec::new();
    figures.measure("64 KiB writes, hash compared", "MB/s", Transport::BOTH, |transport| {
        let workload = "bulk --bytes 64M --write-size 64K --direction to --check hash";
        let bulk: Bulk = pair.run(transport, workload)?;
        digests.push(bulk.digest_to);
        Ok(bulk.megabytes_per_second)
    })?;
    ensure!(
        digests[0].is_some() && digests[0] == digests[1],
        "the hashes over TCP and SMC-R differ"
    );
    figures.print();
    prove(&pair, before)
}

/// Checks the mode with the kernels: SMC falls back to TCP silently, so data that arrived prove nothing.
fn prove(pair: &Pair<'_>, before: [Counted; 2]) -> Result<()> {
    let after = [counted(pair.client)?, counted(pair.server)?];
    let name = |guest: &Guest| format!("guest {}", guest.name());
    let mut proof = table(&["proof of mode", &name(pair.client), &name(pair.server)]);
    let mut row = |name: &str, of: &dyn Fn(usize) -> u64| {
        proof.add_row([Cell::new(name), Cell::new(of(0)), Cell::new(of(1))]);
    };
    row("SMC-R connections", &|guest| after[guest].smcr - before[guest].smcr);
    row("fallbacks to TCP", &|guest| {
        after[guest].fallbacks - before[guest].fallbacks
    });
    row("handshake errors", &|guest| {
        after[guest].handshake_errors - before[guest].handshake_errors
    });
    println!("{proof}");
    let Connected { connection, .. } = pair.run(Transport::SmcR, "rtt --size 64 --count 10")?;
    let Socket { mode, has_smcr_link } = connection.socket;
    println!("The client's socket in smc_diag: mode {mode}, with an SMC-R link: {has_smcr_link}");
    ensure!(
        mode == "smcr" && has_smcr_link,
        "the socket has mode {mode}, SMC-R link: {has_smcr_link}"
    );
    for guest in 0..2 {
        ensure!(
            after[guest].fallbacks == before[guest].fallbacks,
            "a connection fell back to TCP"
        );
    }
    Ok(())
}
