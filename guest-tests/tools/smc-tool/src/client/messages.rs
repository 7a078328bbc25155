//! A stream of small messages in one direction.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::WorkloadError;
use super::exchange::{begin, finish};
use crate::data::Check;
use crate::messages::{NUMBER, stamp};
use crate::stream::{ConnectOptions, ConnectionReport, Direct, connect, write_all};
use crate::wire::{Request, Workload};

/// Options of the messages.
#[derive(Debug, Clone, clap::Args)]
pub struct MessagesOptions {
    /// Connection
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// Size of a message, at least 8 bytes
    #[arg(long, default_value = "64", value_parser = crate::byte_size::parse_block)]
    pub size: usize,
    /// Seconds to send
    #[arg(long, default_value_t = 5)]
    pub seconds: u32,
}

/// Result of sending.
#[derive(Debug, Clone, Serialize)]
pub struct MessagesReport {
    /// Size of a message in bytes.
    pub size: usize,
    /// Messages sent and received.
    pub messages: u64,
    /// Time until the last one was received.
    pub seconds: f64,
    /// Messages per second.
    pub messages_per_second: f64,
    /// State of the connection.
    pub connection: ConnectionReport,
}

/// Sends messages for the given time; the server counts them.
///
/// # Errors
///
/// Fails when the connection fails or messages are lost.
pub fn messages(options: &MessagesOptions) -> Result<MessagesReport, WorkloadError> {
    if options.size < NUMBER {
        return Err(WorkloadError::Options("--size must be at least 8"));
    }
    let connected = connect(&options.connect)?;
    let stream = &connected.stream;
    stream
        .set_nodelay(true)
        .map_err(WorkloadError::system("set TCP_NODELAY"))?;
    let request = Request {
        workload: Workload::Messages,
        check: Check::Pattern,
        block: options.size,
        total: 0,
        seed: options.connect.seed,
        timeout_ms: options.connect.timeout_ms(),
    };
    begin(stream, &request)?;
    let mut message = vec![0; options.size];
    request.upward().fill(0, &mut message);
    let start = Instant::now();
    let end = start + Duration::from_secs(options.seconds.into());
    let mut sent = 0_u64;
    while Instant::now() < end {
        // Reading the clock costs as much as a small write.
        for _ in 0..32 {
            stamp(&mut message, Some(sent));
            write_all(Direct(stream), &message, sent * options.size as u64)?;
            sent += 1;
        }
    }
    stamp(&mut message, None);
    write_all(stream, &message, sent * options.size as u64)?;
    sent += 1;
    finish(stream, sent * options.size as u64)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(MessagesReport {
        size: options.size,
        messages: sent,
        seconds,
        messages_per_second: sent as f64 / seconds,
        connection: connected.report,
    })
}
