//! Measurements in turns: TCP, SMC-D, TCP, SMC-D, ... so that what else the host does meets both.

use anyhow::Result;
use comfy_table::Cell;

use crate::demo::{round, table};
use crate::workload::{Buffers, Pair, Transport};

/// SMC-D over QEMU's ivshmem-doorbell on two cores of software emulation: microseconds for 64 bytes there and back, and
/// megabytes per second. No daemon is in that path, and no isolation.
const IVSHMEM_ROUND_TRIP: (f64, f64) = (37.0, 46.0);
const IVSHMEM_MEGABYTES: (f64, f64) = (127.0, 170.0);

/// What is to be reached.
enum Goal {
    /// SMC-D takes at most this much of what TCP takes.
    AtMost(f64),
    /// SMC-D makes at least this many times what TCP makes.
    AtLeast(f64),
    None,
}

struct Series {
    name: &'static str,
    unit: &'static str,
    goal: Goal,
    lower_is_better: bool,
    values: [Vec<f64>; 2],
}

/// Measures `rounds` times and prints the table.
pub fn run(pair: &Pair<'_>, rounds: usize) -> Result<()> {
    let series = |name, unit, goal| {
        let lower_is_better = unit == "us";
        Series {
            name,
            unit,
            goal,
            lower_is_better,
            values: Default::default(),
        }
    };
    let mut all = [
        series("64 B round trip, minimum", "us", Goal::None),
        series("64 B round trip, median", "us", Goal::AtMost(0.25)),
        series("4 KiB round trip, median", "us", Goal::None),
        series("64 KiB writes", "MB/s", Goal::AtLeast(5.0)),
        series("64 KiB writes, 1 MiB buffers", "MB/s", Goal::None),
        series("64 B messages", "1/s", Goal::AtLeast(4.0)),
        series("1 KiB messages", "1/s", Goal::AtLeast(4.0)),
    ];
    for round in 1..=rounds {
        eprintln!("    round {round} of {rounds}");
        for (index, transport) in Transport::BOTH.into_iter().enumerate() {
            let small = pair.round_trips(transport, 64, 2000)?;
            let figures = [
                small.min_us,
                small.p50_us,
                pair.round_trips(transport, 4096, 500)?.p50_us,
                pair.bulk(transport, Buffers::Default, "64M", "none")?
                    .megabytes_per_second,
                pair.bulk(transport, Buffers::Large, "64M", "none")?
                    .megabytes_per_second,
                pair.messages(transport, 64, 2)?,
                pair.messages(transport, 1024, 2)?,
            ];
            for (series, figure) in all.iter_mut().zip(figures) {
                series.values[index].push(figure);
            }
        }
    }

    let mut figures = table(&[
        "between two guests",
        "unit",
        "TCP best",
        "TCP median",
        "SMC-D best",
        "SMC-D median",
        "ratio of medians",
        "goal",
    ]);
    for series in &mut all {
        let [tcp, smc] = &mut series.values;
        let (tcp, smc) = (
            summary(tcp, series.lower_is_better),
            summary(smc, series.lower_is_better),
        );
        let ratio = smc.1 / tcp.1;
        let goal = match series.goal {
            Goal::AtMost(limit) => verdict(ratio <= limit, format!("<= {limit}x")),
            Goal::AtLeast(limit) => verdict(ratio >= limit, format!(">= {limit}x")),
            Goal::None => String::new(),
        };
        figures.add_row([
            Cell::new(series.name),
            Cell::new(series.unit),
            Cell::new(round(tcp.0)),
            Cell::new(round(tcp.1)),
            Cell::new(round(smc.0)),
            Cell::new(round(smc.1)),
            Cell::new(format!("{ratio:.3}x")),
            Cell::new(goal),
        ]);
    }
    println!("{figures}");
    let rtt = summary(&mut all[1].values[1], true).1;
    let rate = all[3..5]
        .iter_mut()
        .map(|s| summary(&mut s.values[1], false).1)
        .fold(0.0, f64::max);
    println!(
        "SMC-D over ivshmem-doorbell on such a machine: {:.0} to {:.0} us per 64 B round trip (here {}: {}), \
         {:.0} to {:.0} MB/s (here {}: {})",
        IVSHMEM_ROUND_TRIP.0,
        IVSHMEM_ROUND_TRIP.1,
        round(rtt),
        verdict(rtt <= 1.5 * IVSHMEM_ROUND_TRIP.1, "within 1.5x".into()),
        IVSHMEM_MEGABYTES.0,
        IVSHMEM_MEGABYTES.1,
        round(rate),
        verdict(rate >= IVSHMEM_MEGABYTES.0, "matched".into()),
    );
    Ok(())
}

fn verdict(reached: bool, goal: String) -> String {
    if reached {
        format!("{goal}, reached")
    } else {
        format!("{goal}, MISSED")
    }
}

/// Best and median.
fn summary(values: &mut [f64], lower_is_better: bool) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let best = if lower_is_better { values.first() } else { values.last() };
    (
        best.copied().unwrap_or(f64::NAN),
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN),
    )
}
