//! The `vhost-ism` daemon.

#![forbid(unsafe_code)]

mod args;
mod control_command;
mod daemon;
mod replay_command;
mod top_command;
mod trace_command;

use std::process::ExitCode;

use clap::Parser;
use vhost_daemon::{Capabilities, print_completion};

use args::{Args, Command};

fn main() -> ExitCode {
    vhost_daemon::log_to_stderr();
    let args = Args::parse();
    vhost_daemon::run(&args.common, capabilities, || match &args.command {
        Some(Command::Trace { common, dmb }) => trace_command::run(common, *dmb),
        Some(Command::Replay(args)) => Ok(args.run(daemon::PROGRAM, &replay_command::IsmReplay)?),
        Some(Command::Ctl(ctl)) => Ok(ctl.run()?),
        Some(Command::Top(top)) => Ok(top.run(top_command::tables)?),
        Some(Command::Completion { shell }) => Ok(print_completion::<Args>(*shell)?),
        None => daemon::run(&args),
    })
}

fn capabilities() -> Capabilities {
    Capabilities {
        kind: "ism",
        ..Capabilities::default()
    }
}
