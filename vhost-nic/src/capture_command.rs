//! The `capture` command: captures on a running daemon.

use std::io;

use anyhow::{Context, Result};
use vhost_daemon::{Client, Output};

use crate::args::CaptureArgs;
use crate::control_command::NicCommand;

/// Writes a capture to the output until it ends, or until the output's reader is gone.
pub fn run(args: &CaptureArgs) -> Result<()> {
    let mut client = Client::connect(&args.control_socket)?;
    client
        .request(&NicCommand::Capture {
            port: args.port.clone(),
            commands: args.commands,
            seconds: args.seconds,
        })
        .context("cannot capture")?;
    let target = args.output.display();
    let mut output = Output::open(&args.output).with_context(|| format!("cannot write the capture to {target}"))?;
    // The daemon ends the connection, and so the capture, only if there is no further request.
    client.end_requests()?;
    match io::copy(client.input(), &mut output.file) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).with_context(|| format!("cannot write the capture to {target}"))
        }
        _ => Ok(()),
    }
}
