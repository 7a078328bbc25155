//! SMC-R over the NIC, beside TCP over the same NIC and over virtio-net, and beside SMC-D over the ISM device in both
//! of its modes, in interleaved runs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::history::History;
use crate::interleaved::{Extreme, Goal, Interleaved, Series};
use crate::web::{Web, large_megabytes};
use crate::workload::{Buffers, Pair, Transport};

const VARIANTS: [&str; 5] = [
    "TCP, virtio-net",
    "TCP, NIC",
    "SMC-R, NIC",
    "SMC-D, mapped",
    "SMC-D, copy mode",
];

/// Pairs of guests with the same kernel.
pub struct Pairs<'a> {
    /// With a NIC each.
    pub nic: Pair<'a>,
    /// With an ISM device in mapped mode, and virtio-net.
    pub mapped: Pair<'a>,
    /// With an ISM device in copy mode.
    pub copying: Pair<'a>,
}

/// Measures `rounds` times, and prints the table and the figures of every round; also writes a table to `markdown`.
pub fn run(pairs: &Pairs<'_>, rounds: usize, markdown: Option<&Path>) -> Result<()> {
    ensure!(rounds > 0, "--rounds must be at least 1");
    let mut history = History::open("smc-r", rounds)?;
    let variants = [
        (&pairs.mapped, Transport::Tcp),
        (&pairs.nic, Transport::Tcp),
        (&pairs.nic, Transport::SmcR),
        (&pairs.mapped, Transport::SmcD),
        (&pairs.copying, Transport::SmcD),
    ];
    let web = [
        Web::start(&pairs.mapped)?,
        Web::start(&pairs.nic)?,
        Web::start(&pairs.copying)?,
    ];
    let web_of = [0, 1, 1, 0, 2].map(|index| &web[index]);
    let before = counted(pairs)?;
    let series = [
        ("64 B round trip, minimum", "us"),
        ("64 B round trip, median", "us"),
        ("4 KiB round trip, median", "us"),
        ("64 KiB writes", "MB/s"),
        ("64 KiB writes, 1 MiB buffers", "MB/s"),
        ("64 B messages", "1/s"),
        ("64 B messages, 1 MiB buffers", "1/s"),
        ("1 KiB messages", "1/s"),
        ("1 KiB messages, 1 MiB buffers", "1/s"),
        ("nginx and wrk, 64 B file", "requests/s"),
        ("nginx and wrk, 256 KiB file", "MB/s"),
    ];
    let series = series.map(|(name, unit)| Series::new(name, unit, Goal::None));
    let mut runs = Interleaved::<5>::new("between two guests", VARIANTS, series.into());
    for round in 1..=rounds {
        eprintln!("    round {round} of {rounds}");
        runs.round(|variant| {
            let (pair, transport) = variants[variant];
            let small = pair.round_trips(transport, 64, 2000)?;
            let bulk = |buffers| pair.bulk(transport, buffers, "64M", "none");
            let messages = |buffers, size| pair.messages(transport, buffers, size, 2);
            Ok(vec![
                small.min_us,
                small.p50_us,
                pair.round_trips(transport, 4096, 500)?.p50_us,
                bulk(Buffers::Default)?.megabytes_per_second,
                bulk(Buffers::Large)?.megabytes_per_second,
                messages(Buffers::Default, 64)?,
                messages(Buffers::Large, 64)?,
                messages(Buffers::Default, 1024)?,
                messages(Buffers::Large, 1024)?,
                web_of[variant].measure(transport, "small", 3)?,
                large_megabytes(web_of[variant].measure(transport, "large", 3)?),
            ])
        })?;
    }
    for (before, after) in before.iter().zip(counted(pairs)?) {
        ensure!(*before == after, "a connection fell back to TCP");
    }
    runs.print_tall(Extreme::Best, &mut history);
    runs.print_rounds();
    if let Some(path) = markdown {
        fs::write(path, runs.markdown()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    history.close()
}

/// Fallbacks to TCP that the kernels counted. `smc-tool` checks the mode of its own connections, but not that of nginx
/// and wrk.
fn counted(pairs: &Pairs<'_>) -> Result<Vec<u64>> {
    let mut fallbacks = Vec::new();
    for pair in [&pairs.nic, &pairs.mapped, &pairs.copying] {
        fallbacks.extend(pair.counted()?.map(|counted| counted.fallbacks));
    }
    Ok(fallbacks)
}
