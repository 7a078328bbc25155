//! The `vhost-nic` daemon.

#![forbid(unsafe_code)]

mod args;
mod capture_command;
mod control_command;
mod daemon;
mod replay_command;
mod top_command;
mod trace_command;

use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use vhost_daemon::{Capabilities, print_completion};
use vhost_nic::firmware;

use args::{Args, Command};

fn main() -> ExitCode {
    vhost_daemon::log_to_stderr();
    let args = Args::parse();
    vhost_daemon::run(&args.common, capabilities, || match &args.command {
        Some(Command::Trace { common, queue }) => trace_command::run(common, *queue),
        Some(Command::Capture(args)) => capture_command::run(args),
        Some(Command::Replay(args)) => Ok(args.run(daemon::PROGRAM, &replay_command::NicReplay)?),
        Some(Command::Ctl(ctl)) => Ok(ctl.run()?),
        Some(Command::Top(top)) => Ok(top.run(top_command::tables)?),
        Some(Command::Completion { shell }) => Ok(print_completion::<Args>(*shell)?),
        None => daemon::run(&args),
    })
}

/// vhost-user.json has no type for either attachment: one is another protocol, the other a device of User Mode Linux
/// only.
fn capabilities() -> Capabilities {
    let table = firmware::Capabilities::table().iter();
    let advertised: Vec<&str> = table
        .filter(|entry| entry.value != 0)
        .map(|entry| entry.field)
        .collect();
    Capabilities {
        kind: "nic",
        device: json!({ "capabilities": advertised }),
        ..Capabilities::default()
    }
}
