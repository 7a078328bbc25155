//! A client of the control socket, and the `ctl` command of the daemons' programs.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use crate::control_command::{Command, CommonCommand, parse_answer, request_line};
use crate::display::{plain, text};

/// A request that was not answered with a result.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The control socket does not answer.
    #[error("cannot connect to {}", .0.display())]
    Connect(PathBuf, #[source] io::Error),
    /// The connection failed.
    #[error("the connection to the daemon failed")]
    Io(#[from] io::Error),
    /// The result could not be printed.
    #[error("cannot print the result")]
    Print(#[source] io::Error),
    /// The daemon ended the connection before it answered, or in the middle of an answer.
    #[error("the daemon ended the connection")]
    End,
    /// The answer is not one.
    #[error("the daemon sent an invalid answer")]
    Answer(#[from] serde_json::Error),
    /// The daemon refused the request.
    #[error("the daemon refused: {0}")]
    Refused(String),
}

/// A connection to a daemon's control socket.
#[derive(Debug)]
pub struct Client {
    input: BufReader<UnixStream>,
}

impl Client {
    /// Connects to a control socket.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|error| ClientError::Connect(path.to_owned(), error))?;
        Ok(Self {
            input: BufReader::new(stream),
        })
    }

    /// Makes a request and returns the result.
    pub fn request(&mut self, command: &impl Serialize) -> Result<Value, ClientError> {
        // A daemon that refuses the connection has written why before it closes.
        let written = self.input.get_mut().write_all(&request_line(command)?);
        let mut line = Vec::new();
        self.input.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            written?;
            return Err(ClientError::End);
        }
        parse_answer(&line)?.map_err(ClientError::Refused)
    }

    /// Makes no more requests: the daemon ends the connection with the answer to the last.
    pub fn end_requests(&self) -> Result<(), ClientError> {
        Ok(self.input.get_ref().shutdown(Shutdown::Write)?)
    }

    /// The rest of the answer, behind its line.
    pub fn input(&mut self) -> &mut impl BufRead {
        &mut self.input
    }
}

/// Options of the `ctl` command, for a daemon whose own commands are `C`.
#[derive(Args, Clone, Debug)]
pub struct CtlArgs<C: Subcommand> {
    /// Control socket of the daemon.
    #[arg(long, value_name = "PATH")]
    pub control_socket: PathBuf,

    /// Print the result as one line of JSON.
    #[arg(long)]
    pub json: bool,

    #[command(subcommand)]
    command: Command<C>,
}

impl<C: Subcommand + Serialize> CtlArgs<C> {
    /// Makes the request and prints the result: lists of objects as tables, others as trees; nothing if it has no
    /// fields.
    pub fn run(&self) -> Result<(), ClientError> {
        let mut client = Client::connect(&self.control_socket)?;
        let result = client.request(&self.command)?;
        self.print(&result, text)?;
        if let Command::Common(CommonCommand::Findings { follow: true, .. }) = self.command {
            for line in client.input().lines() {
                let line = line?;
                if !line.is_empty() {
                    self.print(&serde_json::from_str(&line)?, finding)?;
                }
            }
            // Findings have no end but that of their reader.
            return Err(ClientError::End);
        }
        Ok(())
    }

    fn print(&self, value: &Value, text: fn(&Value) -> String) -> Result<(), ClientError> {
        let text = match self.json {
            true => format!("{value}\n"),
            false => text(value),
        };
        let mut out = io::stdout();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(ClientError::Print)
    }
}

/// Returns the line of a finding, or of the number of those that were dropped.
fn finding(value: &Value) -> String {
    if let Some(dropped) = value.get("dropped") {
        return format!("{dropped} findings dropped\n");
    }
    let fields = ["guest", "finding", "object", "number", "text", "evidence"];
    let [guest, finding, object, number, text, evidence] = fields.map(|name| plain(&value[name]));
    format!("{guest}: {finding} of {object} {number}: {text} [{evidence}]\n")
}
