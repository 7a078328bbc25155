//! SMC-R compared with TCP over the NIC, in User Mode Linux guests.
//!
//! User space cannot map the NIC's doorbells there, so only kernel verbs work.

use anyhow::{Result, ensure};
use comfy_table::Cell;
use guest_harness::{Guest, Testbed};
use serde::Deserialize;

use crate::comparison::Comparison;
use crate::table::table;
use crate::workload::{Buffers, Counted, Pair, Transport};

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

/// Measures everything once and prints the tables.
pub fn show(testbed: &Testbed, [client, server]: [usize; 2]) -> Result<()> {
    let pair = Pair::over_nic([client, server].map(|index| testbed.guest(index)))?;
    let before = pair.counted()?;
    let mut figures = Comparison::new("between two User Mode Linux guests", ["TCP", "SMC-R"]);
    figures.measure("64 B round trip, median", "us", pair.transports(), |transport| {
        Ok(pair.round_trips(transport, 64, 1000)?.p50_us)
    })?;
    let mut digests = Vec::new();
    figures.measure("64 KiB writes, hash compared", "MB/s", pair.transports(), |transport| {
        let bulk = pair.bulk(transport, Buffers::Default, "64M", "hash")?;
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
    let after = pair.counted()?;
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
    let Connected { connection, .. } = pair.run(Transport::SmcR, Buffers::Default, "rtt --size 64 --count 10")?;
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
