//! SMC-D beside TCP, in one table.

use anyhow::{Result, ensure};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};

use crate::web::{Web, large_megabytes};
use crate::workload::{Buffers, Counted, Pair, Transport};

/// A table with the header in place and numbers to the right.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header.to_vec());
    for index in 1..header.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// One measurement, of both.
struct Row {
    name: &'static str,
    unit: &'static str,
    values: [f64; 2],
}

/// Runs everything and prints the tables.
pub fn run(pair: &Pair<'_>) -> Result<()> {
    let before = pair.counted()?;
    let mut rows = Vec::new();
    let mut measure = |name, unit, of: &mut dyn FnMut(Transport) -> Result<f64>| -> Result<()> {
        eprintln!("    {name}");
        let values = [of(Transport::Tcp)?, of(Transport::SmcD)?];
        rows.push(Row { name, unit, values });
        Ok(())
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
    measure("64 B messages", "1/s", &mut |t| pair.messages(t, 64, 3))?;
    let web = Web::start(pair)?;
    measure("nginx and wrk, 64 B file", "requests/s", &mut |t| {
        web.measure(t, "small", 4)
    })?;
    measure("nginx and wrk, 256 KiB file", "MB/s", &mut |t| {
        Ok(large_megabytes(web.measure(t, "large", 4)?))
    })?;

    let mut figures = table(&["between two guests", "TCP", "SMC-D", "unit", "SMC-D / TCP"]);
    for row in rows {
        let [tcp, smc] = row.values;
        figures.add_row([
            Cell::new(row.name),
            Cell::new(round(tcp)),
            Cell::new(round(smc)),
            Cell::new(row.unit),
            Cell::new(format!("{:.2}x", smc / tcp)),
        ]);
    }
    println!("{figures}");
    prove(pair, before)
}

/// SMC falls back to TCP without a word, so success proves nothing: ask the kernels.
fn prove(pair: &Pair<'_>, before: [Counted; 2]) -> Result<()> {
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
    let stats = pair.bed.daemon().stats()?;
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

/// Three significant digits.
pub fn round(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
