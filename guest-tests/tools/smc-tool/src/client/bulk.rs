//! Bulk transfer in one direction or both.

use std::time::Instant;

use clap::ValueEnum;
use serde::Serialize;

use super::WorkloadError;
use super::exchange::{begin, both_ways, downward, finish, upward};
use crate::data::{Check, Digest, hexadecimal};
use crate::stream::{ConnectOptions, ConnectionReport, Stop, connect, receive, send};
use crate::wire::{Request, Workload};

/// Stack size of the sending thread.
const STACK: usize = 256 * 1024;

/// Direction of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the server.
    To,
    /// From the server.
    From,
    /// Both ways simultaneously.
    Both,
}

/// Options of a bulk transfer.
#[derive(Debug, Clone, clap::Args)]
pub struct BulkOptions {
    /// Connection
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// Bytes in each direction (K, M, G)
    #[arg(long, default_value = "100M", value_parser = crate::byte_size::parse)]
    pub bytes: u64,
    /// Size of one write, and maximum size of one read
    #[arg(long, default_value = "64K", value_parser = crate::byte_size::parse_block)]
    pub write_size: usize,
    /// Direction of the data
    #[arg(long, value_enum, default_value_t = Direction::To)]
    pub direction: Direction,
    /// Verification of the data
    #[arg(long, value_enum, default_value_t = Check::Pattern)]
    pub check: Check,
}

/// Result of a bulk transfer.
#[derive(Debug, Clone, Serialize)]
pub struct BulkReport {
    /// Direction of the data.
    pub direction: Direction,
    /// Bytes in each direction.
    pub bytes: u64,
    /// Size of one write in bytes.
    pub write_size: usize,
    /// Verification of the data.
    pub check: Check,
    /// Time until the receiver had all data.
    pub seconds: f64,
    /// 10^6 bytes per second, sum of both directions.
    pub megabytes_per_second: f64,
    /// Digest of the data to the server, equal at both ends.
    pub digest_to: Option<String>,
    /// Digest of the data from the server, equal at both ends.
    pub digest_from: Option<String>,
    /// State of the connection.
    pub connection: ConnectionReport,
}

/// Transfers the data and verifies it.
///
/// # Errors
///
/// Fails when the connection fails or data differs.
pub fn bulk(options: &BulkOptions) -> Result<BulkReport, WorkloadError> {
    if options.bytes == u64::MAX {
        return Err(WorkloadError::Options("--bytes is too large"));
    }
    let connected = connect(&options.connect)?;
    let stream = &connected.stream;
    let request = Request {
        workload: match options.direction {
            Direction::To => Workload::Sink,
            Direction::From => Workload::Source,
            Direction::Both => Workload::Duplex,
        },
        check: options.check,
        block: options.write_size,
        total: options.bytes,
        seed: options.connect.seed,
        timeout_ms: options.connect.timeout_ms(),
    };
    let stop = Stop::default();
    let start = Instant::now();
    begin(stream, &request)?;
    let mut sent = None;
    let mut received = None;
    match options.direction {
        Direction::To => sent = Some(send(stream, &upward(&request), &stop)?),
        Direction::From => {
            let receipt = receive(stream, &downward(&request), &stop)?;
            if let Some(mismatch) = receipt.mismatch {
                return Err(WorkloadError::Received(mismatch));
            }
            received = Some(receipt.digest);
        }
        Direction::Both => {
            let (digest, receipt) = both_ways(stream, &request, [&stop, &Stop::default()], STACK)?;
            sent = Some(digest);
            received = Some(receipt.digest);
        }
    }
    let reply = finish(stream, options.bytes)?;
    let seconds = start.elapsed().as_secs_f64();
    if sent.is_some_and(|digest| digest != reply.received) {
        return Err(WorkloadError::Digest("to the server"));
    }
    if received.is_some_and(|digest| digest != reply.sent) {
        return Err(WorkloadError::Digest("from the server"));
    }
    let directions = [sent, received].iter().flatten().count() as u64;
    Ok(BulkReport {
        direction: options.direction,
        bytes: options.bytes,
        write_size: options.write_size,
        check: options.check,
        seconds,
        megabytes_per_second: (options.bytes * directions) as f64 / 1e6 / seconds,
        digest_to: sent.and_then(|digest| shown(options.check, digest)),
        digest_from: received.and_then(|digest| shown(options.check, digest)),
        connection: connected.report,
    })
}

fn shown(check: Check, digest: Digest) -> Option<String> {
    (check == Check::Hash).then(|| hexadecimal(&digest))
}
