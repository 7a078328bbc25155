//! An idle connection, and how it ends.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::WorkloadError;
use super::exchange::begin;
use crate::data::Check;
use crate::monotonic;
use crate::stream::{ConnectOptions, ConnectionReport, connect, read_exact};
use crate::wire::{HELD, Request, WireError, Workload};

/// What to hold.
#[derive(Debug, Clone, clap::Args)]
pub struct HoldOptions {
    /// How to connect. The time-out is for connecting only
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// Longest time to hold, in seconds; 0 is for ever. Reaching it is an error
    #[arg(long, default_value_t = 0)]
    pub limit: u32,
}

/// How the connection ended.
#[derive(Debug, Clone, Serialize)]
pub struct HoldReport {
    /// `eof`, `error` or `timeout`.
    pub end: &'static str,
    /// The errno.
    pub errno: Option<i32>,
    /// What the errno means.
    pub error: Option<String>,
    /// CLOCK_MONOTONIC when it ended, in seconds.
    pub monotonic: f64,
    /// Seconds since it was established.
    pub seconds: f64,
    /// The connection as it was at its start.
    pub connection: ConnectionReport,
}

/// Holds an idle connection in a blocking read until it ends. `ready` is called once it does so.
///
/// # Errors
///
/// Fails when there is no connection. Its end is no failure.
pub fn hold(options: &HoldOptions, ready: impl FnOnce(&ConnectionReport)) -> Result<HoldReport, WorkloadError> {
    let connected = connect(&options.connect)?;
    let stream = &connected.stream;
    let request = Request {
        workload: Workload::Hold,
        check: Check::None,
        block: 1,
        total: u64::MAX,
        seed: options.connect.seed,
        timeout_ms: 0,
    };
    begin(stream, &request)?;
    let mut answer = [0];
    read_exact(stream, &mut answer, 0)?;
    if answer != [HELD] {
        return Err(WireError::Magic.into());
    }
    let limit = (options.limit > 0).then(|| Duration::from_secs(options.limit.into()));
    stream
        .set_read_timeout(limit)
        .map_err(WorkloadError::system("set the time-out"))?;
    let start = Instant::now();
    ready(&connected.report);
    let error = loop {
        match (&mut &*stream).read(&mut [0; 256]) {
            Ok(0) => break None,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Some(error),
        }
    };
    let monotonic = monotonic::seconds();
    let seconds = start.elapsed().as_secs_f64();
    Ok(HoldReport {
        end: match &error {
            None => "eof",
            Some(error) if error.kind() == io::ErrorKind::WouldBlock => "timeout",
            Some(_) => "error",
        },
        errno: error.as_ref().and_then(io::Error::raw_os_error),
        error: error.map(|error| error.to_string()),
        monotonic,
        seconds,
        connection: connected.report,
    })
}
