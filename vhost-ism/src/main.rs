//! The `vhost-ism` daemon.

#![forbid(unsafe_code)]

mod args;
mod daemon;

use std::process::ExitCode;

use clap::Parser;
use vhost_daemon::Capabilities;

use args::Args;

fn main() -> ExitCode {
    vhost_daemon::log_to_stderr();
    let args = Args::parse();
    vhost_daemon::run(&args.common, capabilities, || daemon::run(&args))
}

fn capabilities() -> Capabilities {
    Capabilities {
        kind: "ism",
        ..Capabilities::default()
    }
}
