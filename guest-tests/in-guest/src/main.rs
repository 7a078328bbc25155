//! `in-guest`: runs a command in guests with our devices, and reports its results.
//!
//! `scripts/in-guest` prepares images and programs, then runs this.

mod args;
mod devices;
mod environment;
mod evidence;
mod junit;
mod kernel;
mod module;
mod program;
mod report;
mod results;
mod session;
mod share;
mod sweep;

use std::process::ExitCode;

use clap::Parser;

/// Status of a run that failed before the command, as of docker(1).
const NOT_RUN: u8 = 125;

fn main() -> ExitCode {
    match session::run(&args::Arguments::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(NOT_RUN)
        }
    }
}
