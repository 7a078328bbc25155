//! `smc-tool`: SMC inside a guest. See `smc-tool --help`.
//!
//! Exit codes: 0 success, 1 failure, 2 wrong data, 3 a connection has the wrong mode.

#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser;
use smc_tool::client::WorkloadError;

/// Exit code of a failure.
const FAILED: u8 = 1;
/// Exit code of wrong data.
const WRONG_DATA: u8 = 2;
/// Exit code of a connection with the wrong mode.
const WRONG_MODE: u8 = 3;

fn main() -> ExitCode {
    let arguments = match cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap's exit code for wrong usage means wrong data here.
            let failed = error.use_stderr();
            // There is nothing to do if the terminal is gone.
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
