//! SMC-D compared with TCP in one table, with proof of the mode.

use anyhow::{Result, ensure};
use comfy_table::Cell;
use guest_harness::Testbed;

use crate::comparison::Comparison;
use crate::table::table;
use crate::web::{Web, large_megabytes};
use crate::workload::{Buffers, Counted, Pair, Transport};

/// Runs everything and prints the tables.
pub fn run(testbed: &Testbed) -> Result<()> {
    let pair = &Pair::over_ism(testbed)?;
    let before = pair.counted()?;
    let mut figures = Comparison::new("between two guests", ["TCP", "SMC-D"]);
    let mut measure = |name: &str, unit: &str, of: &mut dyn FnMut(Transport) -> Result<f64>| {
        figures.measure(name, unit, pair.transports(), of)
    };
    measure("64 B round trip, median", "us", &mut |t| {
        Ok(pair.round_trips(t, 64, 2000)?.p50_us)
    })?;
    measure("64 KiB writes", "MB/s", &mut |t| {
        Ok(pair.bulk(t, Buffers::Default, "64M", "none")?.megabytes_per_second)
    })?;
    measure("64 KiB writes, 1 MiB buffers", "MB/s", &mut |t| {
        Ok(pair.bulk(t, Buffers::Large, "64M", "none")?.megabytes_per_second)
    })?;
    let mut digests = Vec::new();
    measure("64 KiB writes, hash compared", "MB/s", &mut |t| {
        let bulk = pair.bulk(t, Buffers::Default, "32M", "hash")?;
        digests.push(bulk.digest_to);
        Ok(bulk.megabytes_per_second)
    })?;
    ensure!(
        digests[0].is_some() && digests[0] == digests[1],
        "the hashes over TCP and SMC-D differ"
    );
    measure("64 B messages", "1/s", &mut |t| {
        pair.messages(t, Buffers::Default, 64, 3)
    })?;
    let web = Web::start(pair)?;
    measure("nginx and wrk, 64 B file", "requests/s", &mut |t| {
        web.measure(t, "small", 4)
    })?;
    measure("nginx and wrk, 256 KiB file", "MB/s", &mut |t| {
        Ok(large_megabytes(web.measure(t, "large", 4)?))
    })?;

    figures.print();
    prove(testbed, pair, before)
}

/// Checks the mode with the kernels: SMC falls back to TCP silently, so data that arrived prove nothing.
fn prove(testbed: &Testbed, pair: &Pair<'_>, before: [Counted; 2]) -> Result<()> {
    let opened = pair.connections(20)?;
    let after = pair.counted()?;
    let mut proof = table(&["proof of mode", "guest a", "guest b"]);
    let mut row = |name: &str, of: &dyn Fn(usize) -> u64| {
        proof.add_row([Cell::new(name), Cell::new(of(0)), Cell::new(of(1))]);
    };
    row("SMC-D connections (v2 handshakes)", &|i| {
        after[i].smcd_v2 - before[i].smcd_v2
    });
    row("fallbacks to TCP", &|i| after[i].fallbacks - before[i].fallbacks);
    row("handshake errors", &|i| {
        after[i].handshake_errors - before[i].handshake_errors
    });
    println!("{proof}");
    let modes = opened.modes;
    println!(
        "{} sockets open at once: {} SMCD, {} SMCR, {} TCP, {} unknown",
        opened.connections, modes.smcd, modes.smcr, modes.tcp, modes.unknown
    );
    let stats = testbed.daemon().stats()?;
    for guest in stats["guests"].as_array().into_iter().flatten() {
        println!(
            "vhost-ism, {}: {} attaches, {} doorbells, {} interrupts, {} requests",
            guest["guest"].as_str().unwrap_or_default(),
            guest["attaches"],
            guest["doorbells"],
            guest["interrupts"],
            guest["requests"]
        );
    }
    ensure!(modes.smcd == opened.connections, "not every socket is in mode SMCD");
    for i in 0..2 {
        ensure!(
            after[i].fallbacks == before[i].fallbacks,
            "a connection fell back to TCP"
        );
    }
    Ok(())
}
