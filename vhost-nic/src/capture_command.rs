//! The `capture` command: captures on a running daemon.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use vhost_daemon::{Client, Output};

use crate::args::CaptureArgs;
use crate::control_command::NicCommand;

/// Bytes that are copied at a time.
const BUFFER: usize = 1 << 16;

/// Writes a capture to the output until it ends, or until the output's reader is gone. The end of the daemon is an
/// error: a capture ends with its time, or with its reader.
pub fn run(args: &CaptureArgs) -> Result<()> {
    let begun = Instant::now();
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
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match client.input().read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("the connection to the daemon failed"),
        };
        match output.file.write_all(&buffer[..length]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot write the capture to {target}")),
        }
    }
    // The daemon's clock for it began later.
    let elapsed = begun.elapsed();
    match args.seconds.map(Duration::try_from_secs_f64) {
        Some(Ok(time)) if elapsed >= time => Ok(()),
        Some(_) => bail!(
            "the daemon ended the capture early, after {:.1} s",
            elapsed.as_secs_f64()
        ),
        None => bail!("the daemon ended the capture"),
    }
}
