//! The `vhost-ism` daemon.

mod args;
mod daemon;
mod sockets;

use std::process::ExitCode;

use clap::Parser;
use log::error;

use args::Args;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let args = Args::parse();
    if args.print_capabilities {
        // The back-end type is not among QEMU's (docs/interop/vhost-user.json); management software ignores unknown ones.
        println!("{}", serde_json::json!({ "type": "ism", "features": [] }));
        return ExitCode::SUCCESS;
    }
    match daemon::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
