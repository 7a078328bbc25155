//! What the daemons of this repository have in common: the conventions of vhost-user back-end programs (QEMU's
//! docs/interop/vhost-user.rst, "Backend program conventions"), applied to sockets of any protocol.
//!
//! A daemon stays in the foreground, logs to standard error, and ends on SIGTERM with its sockets removed. Its main thread
//! runs a [`MainLoop`]; guests are served by threads of the daemon's own.

mod args;
mod main_loop;
#[cfg(feature = "manual")]
pub mod manual;
mod sockets;
mod stats;
pub mod vring;

use std::process::ExitCode;

use anyhow::Result;
use env_logger::{Builder, Env};
use log::error;
use serde::Serialize;
use serde_json::Value;

pub use args::{CommonArgs, parse_size};
pub use main_loop::MainLoop;
pub use sockets::{GuestSocket, OwnSockets, inherited};

/// What a back-end program tells management software of itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Capabilities {
    /// The kind of device. Types that docs/interop/vhost-user.json does not list are ignored by their readers.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Optional flags it understands, by their names in vhost-user.json.
    pub features: &'static [&'static str],
    /// What its device can do, in the daemon's own terms; null when there is nothing to tell.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub device: Value,
}

/// Logs to standard error from now on: `info` and above, or what RUST_LOG says.
pub fn log_to_stderr() {
    Builder::from_env(Env::default().default_filter_or("info")).init();
}

/// The body of a daemon's `main`, once its flags are known. Exits with 1, and one line in the log, when `run` fails.
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
        run()
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
