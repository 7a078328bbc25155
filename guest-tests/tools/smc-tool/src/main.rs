//! `smc-tool`: SMC inside a guest. See `smc-tool --help`.
//!
//! Exit codes: 0 all is well, 1 something failed, 2 data was wrong, 3 a connection has the wrong mode.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser;
use smc_tool::client::WorkloadError;

/// Something failed.
const FAILED: u8 = 1;
/// Data was wrong.
const WRONG_DATA: u8 = 2;
/// A connection has the wrong mode.
const WRONG_MODE: u8 = 3;

fn main() -> ExitCode {
    let arguments = match cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // The exit code of clap for wrong usage is the one for wrong data here.
            let failed = error.use_stderr();
            // Nothing is left to do when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(if failed { FAILED } else { 0 });
        }
    };
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smc-tool: {error:#}");
            ExitCode::from(code(&error))
        }
    }
}

fn code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<WorkloadError>() {
        Some(error) if error.is_wrong_data() => WRONG_DATA,
        Some(error) if error.is_wrong_mode() => WRONG_MODE,
        _ => FAILED,
    }
}
