//! SMC-D against TCP in interleaved runs, with the device in mapped mode and in copy mode.

use anyhow::Result;

use crate::history::History;
use crate::interleaved::{Extreme, Goal, Interleaved, Series, verdict};
use crate::table::round;
use crate::workload::{Buffers, Pair, Transport};

/// SMC-D over QEMU's ivshmem-doorbell, on two cores under software emulation: round-trip time of 64 bytes in
/// microseconds, and megabytes per second. That path has no daemon and no isolation.
const IVSHMEM_ROUND_TRIP: (f64, f64) = (37.0, 46.0);
const IVSHMEM_MEGABYTES: (f64, f64) = (127.0, 170.0);

/// Measures `rounds` times between two guests with a device in mapped mode and two with one in copy mode, and prints
/// the table.
pub fn run(mapped: &Pair<'_>, copying: &Pair<'_>, rounds: usize) -> Result<()> {
    let mut history = History::open("smc", rounds)?;
    let series = vec![
        Series::new("64 B round trip, minimum", "us", Goal::None),
        Series::new("64 B round trip, median", "us", Goal::AtMost(0.25)),
        Series::new("4 KiB round trip, median", "us", Goal::None),
        Series::new("64 KiB writes", "MB/s", Goal::AtLeast(5.0)),
        Series::new("64 KiB writes, 1 MiB buffers", "MB/s", Goal::None),
        Series::new("64 B messages", "1/s", Goal::AtLeast(4.0)),
        Series::new("64 B messages, 1 MiB buffers", "1/s", Goal::None),
        Series::new("1 KiB messages", "1/s", Goal::AtLeast(4.0)),
        Series::new("1 KiB messages, 1 MiB buffers", "1/s", Goal::None),
    ];
    let copy_goals = [
        Goal::None,
        Goal::AtMost(0.5),
        Goal::AtMost(0.5),
        Goal::AtLeast(2.0),
        Goal::AtLeast(2.0),
        Goal::AtLeast(2.0),
        Goal::AtLeast(2.0),
        Goal::AtLeast(2.0),
        Goal::AtLeast(2.0),
    ];
    let series = series
        .into_iter()
        .zip(copy_goals)
        .map(|(series, goal)| series.goal(goal));
    let variants = ["TCP", "SMC-D", "SMC-D copy mode"];
    let mut runs = Interleaved::<3>::new("between two guests", variants, series.collect());
    for round in 1..=rounds {
        eprintln!("    round {round} of {rounds}");
        runs.round(|variant| {
            let (pair, transport) = [
                (mapped, Transport::Tcp),
                (mapped, Transport::SmcD),
                (copying, Transport::SmcD),
            ][variant];
            let small = pair.round_trips(transport, 64, 2000)?;
            let bulk = |buffers| pair.bulk(transport, buffers, "64M", "none");
            Ok(vec![
                small.min_us,
                small.p50_us,
                pair.round_trips(transport, 4096, 500)?.p50_us,
                bulk(Buffers::Default)?.megabytes_per_second,
                bulk(Buffers::Large)?.megabytes_per_second,
                pair.messages(transport, Buffers::Default, 64, 2)?,
                pair.messages(transport, Buffers::Large, 64, 2)?,
                pair.messages(transport, Buffers::Default, 1024, 2)?,
                pair.messages(transport, Buffers::Large, 1024, 2)?,
            ])
        })?;
    }
    runs.print(Extreme::Best, &mut history);
    runs.print_rounds();

    let rtt = runs.series(1).median(1);
    let rate = [3, 4]
        .map(|index| runs.series(index).median(1))
        .into_iter()
        .fold(0.0, f64::max);
    println!(
        "SMC-D over ivshmem-doorbell on such a machine: {:.0} to {:.0} us per 64 B round trip (here {}: {}), \
         {:.0} to {:.0} MB/s (here {}: {})",
        IVSHMEM_ROUND_TRIP.0,
        IVSHMEM_ROUND_TRIP.1,
        round(rtt),
        verdict(rtt <= 1.5 * IVSHMEM_ROUND_TRIP.1, "within 1.5x"),
        IVSHMEM_MEGABYTES.0,
        IVSHMEM_MEGABYTES.1,
        round(rate),
        verdict(rate >= IVSHMEM_MEGABYTES.0, "matched"),
    );
    history.close()
}
