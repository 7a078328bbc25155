//! The `trace` command of the daemons' programs: records a trace of a running daemon, and writes it to a file.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use thiserror::Error;

use crate::control_client::{Client, ClientError};
use crate::control_command::CommonCommand;
use crate::trace::{EventInfo, Header, StreamError, Timeline, Trace, write_json, write_perfetto};

/// Options of the `trace` command.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// Control socket of the daemon.
    #[arg(long, value_name = "PATH")]
    pub control_socket: PathBuf,

    /// Duration of the trace.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,

    /// Begin with what the flight recorder has of the past; needs a daemon with --flight-recorder.
    #[arg(long)]
    pub recent: bool,

    /// Print the times of what this guest caused only.
    #[arg(long, value_name = "NAME")]
    pub guest: Option<String>,

    /// File to write. Without it, only the summary is printed.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Format of the file.
    #[arg(long, value_enum, default_value_t = Format::Perfetto)]
    pub format: Format,
}

/// Format of a trace file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Perfetto's protobuf, for https://ui.perfetto.dev and its trace processor.
    Perfetto,
    /// A JSON object per event and line.
    Json,
}

/// A trace that could not be recorded or written.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The daemon does not record one.
    #[error("cannot record a trace")]
    Request(#[from] ClientError),
    /// The daemon has no such guest.
    #[error("there is no guest {name:?}; the guests are {guests}")]
    UnknownGuest {
        /// Name that was asked for.
        name: String,
        /// Names of the daemon's guests.
        guests: String,
    },
    /// The trace could not be read.
    #[error("cannot read the trace")]
    Record(#[from] StreamError),
    /// The file could not be written.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

impl TraceArgs {
    /// Records a trace of a daemon whose events are `events`. Shows progress on a terminal.
    pub fn record(&self, events: &[EventInfo]) -> Result<Trace, TraceError> {
        let mut client = Client::connect(&self.control_socket)?;
        let header = client.request(&CommonCommand::Trace {
            seconds: self.seconds,
            recent: self.recent,
        })?;
        let header = serde_json::from_value(header).map_err(StreamError::from)?;
        self.guest(&header)?;
        let terminal = io::stderr().is_terminal();
        let trace = Trace::read(client.input(), header, events, |count| {
            if terminal {
                eprint!("\r{count} events");
            }
        })?;
        if terminal {
            eprintln!();
        }
        Ok(trace)
    }

    /// Returns the number of the guest whose times are wanted, or None for all.
    pub fn guest(&self, header: &Header) -> Result<Option<u16>, TraceError> {
        let Some(name) = &self.guest else { return Ok(None) };
        match header.guests.iter().position(|guest| guest == name) {
            Some(number) => Ok(u16::try_from(number).ok()),
            None => Err(TraceError::UnknownGuest {
                name: name.clone(),
                guests: header.guests.join(", "),
            }),
        }
    }

    /// Writes a trace to the file, if there is one.
    pub fn write(&self, trace: &Trace, timeline: &impl Timeline) -> Result<(), TraceError> {
        let Some(path) = &self.output else { return Ok(()) };
        let write = || {
            let mut out = BufWriter::new(File::create(path)?);
            match self.format {
                Format::Perfetto => write_perfetto(&mut out, trace, timeline),
                Format::Json => write_json(&mut out, trace, timeline),
            }
        };
        write().map_err(|error| TraceError::Write(path.clone(), error))
    }
}
