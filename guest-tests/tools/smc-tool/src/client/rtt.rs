//! Round-trip time: from sending a message to receiving its echo.

use std::time::Instant;

use serde::Serialize;

use super::WorkloadError;
use super::exchange::{begin, finish};
use crate::data::{Check, Mismatch};
use crate::stream::{ConnectOptions, ConnectionReport, connect, read_exact, write_all};
use crate::wire::{Request, Workload};

/// Options of the measurement.
#[derive(Debug, Clone, clap::Args)]
pub struct RttOptions {
    /// Connection
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// Size of a message
    #[arg(long, default_value = "64", value_parser = crate::byte_size::parse_block)]
    pub size: usize,
    /// Round trips to measure
    #[arg(long, default_value_t = 1000)]
    pub count: u32,
    /// Round trips before the measurement
    #[arg(long, default_value_t = 100)]
    pub warmup: u32,
}

/// Result of the measurement; times in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct RttReport {
    /// Size of a message in bytes.
    pub size: usize,
    /// Round trips measured.
    pub count: u32,
    /// Minimum.
    pub min_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Maximum.
    pub max_us: f64,
    /// Mean.
    pub mean_us: f64,
    /// State of the connection.
    pub connection: ConnectionReport,
}

/// Measures round trips, and compares every byte of every echo.
///
/// # Errors
///
/// Fails when the connection fails or an echo differs.
pub fn rtt(options: &RttOptions) -> Result<RttReport, WorkloadError> {
    if options.count == 0 {
        return Err(WorkloadError::Options("--count must be at least 1"));
    }
    let connected = connect(&options.connect)?;
    let stream = &connected.stream;
    stream
        .set_nodelay(true)
        .map_err(WorkloadError::system("set TCP_NODELAY"))?;
    let rounds = u64::from(options.warmup) + u64::from(options.count);
    let request = Request {
        workload: Workload::Echo,
        check: Check::None,
        block: options.size,
        total: rounds,
        seed: options.connect.seed,
        timeout_ms: options.connect.timeout_ms(),
    };
    begin(stream, &request)?;
    let mut message = vec![0; options.size];
    let mut echo = vec![0; options.size];
    let mut times = Vec::with_capacity(options.count as usize);
    for round in 0..rounds {
        let offset = round * options.size as u64;
        request.upward().fill(offset, &mut message);
        let start = Instant::now();
        write_all(stream, &message, offset)?;
        read_exact(stream, &mut echo, offset)?;
        let time = start.elapsed();
        if round >= u64::from(options.warmup) {
            times.push(time.as_nanos() as u64);
        }
        compare(offset, &message, &echo)?;
    }
    finish(stream, rounds * options.size as u64)?;
    times.sort_unstable();
    let mean = times.iter().sum::<u64>() as f64 / times.len() as f64;
    let us = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    Ok(RttReport {
        size: options.size,
        count: options.count,
        min_us: us(percentile(&times, 0)),
        p50_us: us(percentile(&times, 50)),
        p99_us: us(percentile(&times, 99)),
        max_us: us(percentile(&times, 100)),
        mean_us: mean / 1000.0,
        connection: connected.report,
    })
}

fn compare(offset: u64, sent: &[u8], echo: &[u8]) -> Result<(), WorkloadError> {
    match (offset..)
        .zip(sent.iter().zip(echo))
        .find(|(_, (expected, found))| expected != found)
    {
        Some((offset, (&expected, &found))) => Err(WorkloadError::Received(Mismatch {
            offset,
            expected,
            found,
        })),
        None => Ok(()),
    }
}

/// Returns a percentile by nearest rank. `times` must be sorted and not empty.
fn percentile(times: &[u64], percent: usize) -> u64 {
    let rank = (times.len() * percent).div_ceil(100);
    times[rank.saturating_sub(1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times: Vec<u64> = (1..=200).collect();
        assert_eq!(
            [0, 50, 99, 100].map(|percent| percentile(&times, percent)),
            [1, 100, 198, 200]
        );
        assert_eq!([0, 50, 99, 100].map(|percent| percentile(&[7], percent)), [7; 4]);
    }

    #[test]
    fn echoes_are_compared() {
        compare(0, b"abc", b"abc").unwrap();
        let error = compare(100, b"abc", b"abd").unwrap_err();
        assert!(
            matches!(error, WorkloadError::Received(Mismatch { offset: 102, .. })),
            "{error}"
        );
        assert!(error.is_wrong_data());
    }
}
