//! The common base of the daemons: the conventions of vhost-user back-end programs (QEMU's docs/interop/vhost-user.rst,
//! "Backend program conventions"), applied to sockets of any protocol.
//!
//! A daemon runs in the foreground, logs to standard error, and ends on SIGTERM with its sockets removed. Its main
//! thread runs a [`MainLoop`]; each guest's socket is served by a [`Server`]'s thread. Counters and findings are
//! defined by [`counters!`] and [`findings!`], so that all documents of the stats sockets have one style.

#![deny(unsafe_code)]

mod args;
mod completion;
mod control_client;
mod control_command;
mod control_socket;
mod controlled;
mod counter;
mod display;
mod fail_on;
pub mod fault;
pub mod finding;
mod foreign_eventfd;
mod guarded_ram;
pub mod heartbeat;
mod limited_log;
mod log_queue;
pub mod lost_memory;
mod main_loop;
mod metrics;
mod metrics_socket;
mod output;
mod panic;
mod program;
pub mod record;
pub mod replay;
mod replay_command;
pub mod sandbox;
mod server;
mod service_manager;
mod size;
mod socket_server;
mod sockets;
mod stats_socket;
#[cfg(feature = "testing")]
pub mod testing;
mod top_command;
pub mod trace;
mod trace_command;
mod trace_dump;
pub mod vhost_user;
pub mod vring;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Result;
use env_logger::{Builder, Env, Target};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use limited_log::LimitedLog;
use log_queue::{LogInput, LogQueue};

pub use args::CommonArgs;
pub use completion::{Shell, print_completion};
pub use control_client::{Client, ClientError, CtlArgs};
pub use control_command::{Command, CommonCommand, switch};
pub use controlled::{Answer, Body, Controlled};
pub use counter::Counter;
pub use display::table;
pub use fail_on::{FailOn, FailOnError};
pub use foreign_eventfd::ForeignEventFd;
pub use guarded_ram::GuardedRam;
pub use main_loop::{MainLoop, MainLoopError};
pub use metrics::{Labels, Metrics};
pub use output::{Output, OutputError};
pub use panic::isolate;
pub use program::{Document, Program};
pub use replay_command::{ReplayArgs, ReplayError, ReplayFailure, Replayed};
pub use server::{Current, STOP_TIME, Server, Service, stop_all};
pub use size::{InvalidSize, parse_size};
pub use sockets::{GuestSocket, OwnSockets, SocketAccess, SocketError, inherited};
pub use top_command::{Interval, TopArgs};
pub use trace_command::{TraceArgs, TraceError};
pub use trace_dump::{NamedEvent, TraceDumpError, TraceSource, await_dump_signal};

/// For [`counters!`].
#[doc(hidden)]
pub use serde;

/// Capabilities of a back-end program, as reported to management software.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Capabilities {
    /// Type of the device. Readers ignore types that docs/interop/vhost-user.json does not list.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Optional flags of the program, by their names in vhost-user.json.
    pub features: &'static [&'static str],
    /// Capabilities of the device, in the daemon's own terms; null if there is nothing to report.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub device: Value,
}

/// Longest time that the end of a daemon waits for the reader of its log.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The log of the process.
static LOG: LazyLock<Arc<LogQueue>> = LazyLock::new(Arc::default);

/// Starts logging to standard error: level `info` and above, or the levels in RUST_LOG. A guest has ten lines of a kind
/// per minute.
pub fn log_to_stderr() {
    let logger = Builder::from_env(Env::default().default_filter_or("info"))
        .target(Target::Pipe(Box::new(LogInput(LOG.clone()))))
        .build();
    let level = logger.filter();
    // Fails only if there is a logger already.
    if log::set_boxed_logger(Box::new(LimitedLog::new(logger))).is_ok() {
        log::set_max_level(level);
    }
}

/// Hands the log to a thread, so that no other waits for the reader of standard error: in the sandbox, before any other
/// thread starts.
///
/// # Errors
///
/// Fails when the thread cannot be started.
pub fn log_by_thread() -> io::Result<()> {
    LOG.start()
}

/// Raises the number of descriptors to what the process may have: a guest has more than a dozen, and the usual limit is
/// for programs that wait by `select`.
fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::debug!("the limit of descriptors stays as it is: {error}");
    }
}

/// Runs the body of a daemon's `main` after its options are parsed. If `run` fails, prints the error and its sources in
/// one line and returns exit code 1.
pub fn run(
    args: &CommonArgs,
    capabilities: impl FnOnce() -> Capabilities,
    run: impl FnOnce() -> Result<()>,
) -> ExitCode {
    let result = if args.print_capabilities {
        serde_json::to_string(&capabilities())
            .map(|text| println!("{text}"))
            .map_err(Into::into)
    } else {
        raise_descriptor_limit();
        run()
    };
    if let Err(error) = &result {
        // The exit code says the same where standard error is closed.
        let _ = LogInput(LOG.clone()).write_all(format!("error: {error:#}\n").as_bytes());
    }
    LOG.finish(LAST_LINES);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
