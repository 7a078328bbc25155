//! An idle connection and its end.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::WorkloadError;
use super::exchange::begin;
use crate::data::Check;
use crate::monotonic;
use crate::stream::{ConnectOptions, ConnectionReport, connect, read_exact};
use crate::wire::{HELD, Request, WireError, Workload};

/// Options of an idle connection.
#[derive(Debug, Clone, clap::Args)]
pub struct HoldOptions {
    /// Connection; the time-out applies to connecting only
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// Seconds after which a connection that is still open is an error; 0 is unlimited
    #[arg(long, default_value_t = 0)]
    pub limit: u32,
}

/// End of the connection.
#[derive(Debug, Clone, Serialize)]
pub struct HoldReport {
    /// `eof`, `error` or `timeout`.
    pub end: &'static str,
    /// errno of the read.
    pub errno: Option<i32>,
    /// Description of the errno.
    pub error: Option<String>,
    /// CLOCK_MONOTONIC at the end, in seconds.
    pub monotonic: f64,
    /// Seconds since the connection was established.
    pub seconds: f64,
    /// State of the connection at its start.
    pub connection: ConnectionReport,
}

/// Holds an idle connection in a blocking read until it ends; calls `ready` before that.
///
/// # Errors
///
/// Fails when the connection cannot be established. Its end is not an error.
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
