//! Verified traffic in both directions until something ends it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::WorkloadError;
use super::exchange::{begin, both_ways};
use crate::data::Check;
use crate::monotonic;
use crate::stream::{ConnectOptions, ConnectionReport, End, Stop, TransferError, connect};
use crate::wire::{Request, Workload};

/// Stack size of a thread.
const STACK: usize = 256 * 1024;

/// Polling interval of the end conditions.
const TICK: Duration = Duration::from_millis(50);

/// Options of the traffic.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadOptions {
    /// Connection
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// Size of one write
    #[arg(long, default_value = "16K", value_parser = crate::byte_size::parse_block)]
    pub write_size: usize,
    /// Seconds to run; 0: until a signal or an error
    #[arg(long, default_value_t = 0)]
    pub seconds: u32,
    /// Verification of the data
    #[arg(long, value_enum, default_value_t = Check::Pattern)]
    pub check: Check,
}

/// End of the traffic.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    /// `time`, `signal`, `eof`, `error` or `timeout`.
    pub end: &'static str,
    /// The failed call.
    pub operation: Option<&'static str>,
    /// errno of the call.
    pub errno: Option<i32>,
    /// Description of the error.
    pub error: Option<String>,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received and verified.
    pub received_bytes: u64,
    /// CLOCK_MONOTONIC at the end, in seconds.
    pub monotonic: f64,
    /// Seconds since the start.
    pub seconds: f64,
    /// State of the connection at its start.
    pub connection: ConnectionReport,
}

impl LoadReport {
    /// Returns whether the end was intended.
    pub fn is_planned(&self) -> bool {
        matches!(self.end, "time" | "signal")
    }
}

/// Transfers data both ways until the time is up, a signal arrives, or the connection ends; calls `ready` at the start.
///
/// # Errors
///
/// Fails when the connection cannot be established or data differs. The end of the connection is not an error.
pub fn load(options: &LoadOptions, ready: impl FnOnce(&ConnectionReport)) -> Result<LoadReport, WorkloadError> {
    let signal = Arc::new(AtomicBool::new(false));
    for number in [SIGTERM, SIGINT] {
        signal_hook::flag::register(number, signal.clone()).map_err(WorkloadError::system("catch signals"))?;
    }
    let connected = connect(&options.connect)?;
    let request = Request {
        workload: Workload::Duplex,
        check: options.check,
        block: options.write_size,
        total: u64::MAX,
        seed: options.connect.seed,
        timeout_ms: options.connect.timeout_ms(),
    };
    begin(&connected.stream, &request)?;
    let start = Instant::now();
    ready(&connected.report);
    let limit = (options.seconds > 0).then(|| Duration::from_secs(options.seconds.into()));
    let [stop_send, stop_receive] = [Stop::default(), Stop::default()];
    let (sender, ended) = mpsc::channel();
    let (planned, result, seconds, monotonic) = thread::scope(|scope| {
        thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, || {
                let result = both_ways(&connected.stream, &request, [&stop_send, &stop_receive], STACK);
                // The receiver waits for this.
                let _ = sender.send((result, start.elapsed().as_secs_f64(), monotonic::seconds()));
            })
            .map_err(WorkloadError::system("start a thread"))?;
        let mut planned = None;
        loop {
            if planned.is_none() && signal.load(Ordering::Relaxed) {
                planned = Some("signal");
            } else if planned.is_none() && limit.is_some_and(|limit| start.elapsed() >= limit) {
                planned = Some("time");
            }
            if planned.is_some() && !stop_send.is_asked() {
                stop_send.ask();
                stop_receive.ask();
            }
            match ended.recv_timeout(TICK) {
                Ok((result, seconds, monotonic)) => return Ok((planned, result, seconds, monotonic)),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(WorkloadError::Options("a thread panicked"));
                }
            }
        }
    })?;
    let mut report = LoadReport {
        end: planned.unwrap_or("time"),
        operation: None,
        errno: None,
        error: None,
        sent_bytes: stop_send.bytes(),
        received_bytes: stop_receive.bytes(),
        monotonic,
        seconds,
        connection: connected.report,
    };
    match result {
        Ok(_) => Ok(report),
        Err(WorkloadError::Transfer(error)) => {
            if planned.is_none() {
                describe(&mut report, &error);
            }
            Ok(report)
        }
        Err(error) => Err(error),
    }
}

fn describe(report: &mut LoadReport, error: &TransferError) {
    report.operation = Some(error.operation);
    report.error = Some(error.to_string());
    report.end = match &error.end {
        End::Eof => "eof",
        End::TimedOut => "timeout",
        End::Failed(source) => {
            report.errno = source.raw_os_error();
            "error"
        }
    };
}
