//! Transfer between a connection and a file without a copy in user space.
//!
//! On the receiving side the kernel passes on the pages of the receive buffer themselves (`smc_rx_splice` in
//! net/smc/smc_rx.c): one pipe buffer whose offset counts from the first page of the whole receive buffer. So the
//! workload splices many sizes at many offsets, with ordinary reads of odd sizes in between to shift the position in
//! the ring.

use std::fs::File;
use std::io::Read;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, pipe, splice as splice_call};
use serde::Serialize;

use super::WorkloadError;
use super::exchange::{begin, finish};
use crate::data::{Check, Pattern};
use crate::stream::{ConnectOptions, ConnectionReport, End, TransferError, connect, read_some};
use crate::wire::{Request, Workload};

/// Sizes of the fragments, used cyclically.
const SIZES: [usize; 14] = [
    4096,
    1,
    65504,
    4095,
    4097,
    32,
    16352,
    100_000,
    7,
    8192,
    1 << 20,
    12_345,
    65536,
    2048,
];

/// Size of one ordinary read or write of the file in bytes.
const COPY: usize = 64 * 1024;

/// Pipe capacity in bytes: that of the largest receive buffer, and the limit without privilege
/// (`/proc/sys/fs/pipe-max-size`).
const PIPE: usize = 1 << 20;

/// Use of spliced data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Drain {
    /// Spliced on into the file.
    File,
    /// Read from the pipe, then written to the file.
    Read,
    /// Both in turn.
    Alternate,
}

/// Options of the transfer.
#[derive(Debug, Clone, clap::Args)]
pub struct SpliceOptions {
    /// Connection
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// Bytes in each direction (K, M, G)
    #[arg(long, default_value = "8M", value_parser = crate::byte_size::parse)]
    pub bytes: u64,
    /// File for the data; overwritten
    #[arg(long)]
    pub file: PathBuf,
    /// Offset of the data in the file
    #[arg(long, default_value_t = 13)]
    pub file_offset: u64,
    /// Use of spliced data
    #[arg(long, value_enum, default_value_t = Drain::Alternate)]
    pub drain: Drain,
    /// Every Nth fragment by an ordinary read of an odd size; 0: none
    #[arg(long, default_value_t = 5)]
    pub read_every: u64,
    /// Milliseconds to keep spliced data in the pipe
    #[arg(long, default_value_t = 0)]
    pub pipe_delay: u64,
}

/// Result of the transfer.
#[derive(Debug, Clone, Serialize)]
pub struct SpliceReport {
    /// Bytes in each direction.
    pub bytes: u64,
    /// Number of splices from the connection.
    pub splices: u64,
    /// Size of the largest splice in bytes.
    pub largest_splice: usize,
    /// Bytes received by ordinary reads.
    pub read_bytes: u64,
    /// Number of sendfile calls.
    pub sendfiles: u64,
    /// Number of splices to the connection.
    pub splices_to: u64,
    /// Seconds of receiving, without verification of the file.
    pub receive_seconds: f64,
    /// Seconds of sending.
    pub send_seconds: f64,
    /// State of the connection.
    pub connection: ConnectionReport,
}

/// Receives into the file by splice, verifies the file, then sends it by sendfile and splice.
///
/// # Errors
///
/// Fails when the connection or the file fails, or data differs.
pub fn splice(options: &SpliceOptions) -> Result<SpliceReport, WorkloadError> {
    let connected = connect(&options.connect)?;
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&options.file)
        .map_err(WorkloadError::system("open the file"))?;
    let (output, input) = pipe().map_err(WorkloadError::system("create a pipe"))?;
    fcntl_setpipe_size(&input, PIPE).map_err(WorkloadError::system("resize the pipe"))?;
    let mut run = Run {
        options,
        stream: &connected.stream,
        file: &file,
        output,
        input,
        request: Request {
            workload: Workload::Source,
            check: Check::Pattern,
            block: COPY,
            total: options.bytes,
            seed: options.connect.seed,
            timeout_ms: options.connect.timeout_ms(),
        },
        report: SpliceReport {
            bytes: options.bytes,
            splices: 0,
            largest_splice: 0,
            read_bytes: 0,
            sendfiles: 0,
            splices_to: 0,
            receive_seconds: 0.0,
            send_seconds: 0.0,
            connection: connected.report.clone(),
        },
    };
    run.receive()?;
    run.check_file(run.request.downward())?;
    run.fill_file(run.request.upward())?;
    run.send()?;
    Ok(run.report)
}

struct Run<'a> {
    options: &'a SpliceOptions,
    stream: &'a TcpStream,
    file: &'a File,
    output: OwnedFd,
    input: OwnedFd,
    request: Request,
    report: SpliceReport,
}

impl Run<'_> {
    fn receive(&mut self) -> Result<(), WorkloadError> {
        let start = Instant::now();
        begin(self.stream, &self.request)?;
        let mut offset = 0;
        for (turn, size) in (1_u64..).zip(SIZES.into_iter().cycle()) {
            if offset >= self.options.bytes {
                break;
            }
            let left = usize::try_from(self.options.bytes - offset).unwrap_or(usize::MAX);
            let every = self.options.read_every;
            if every > 0 && turn.is_multiple_of(every) {
                offset += self.read_piece(offset, left.min(1 + size % 997))?;
            } else {
                offset += self.splice_piece(offset, left.min(size), turn)?;
            }
        }
        finish(self.stream, self.options.bytes)?;
        self.report.receive_seconds = start.elapsed().as_secs_f64();
        Ok(())
    }

    fn read_piece(&mut self, offset: u64, size: usize) -> Result<u64, WorkloadError> {
        let mut piece = vec![0; size];
        let length = read_some(self.stream, &mut piece, offset)?;
        self.write_file(offset, &piece[..length])?;
        self.report.read_bytes += length as u64;
        Ok(length as u64)
    }

    fn splice_piece(&mut self, offset: u64, size: usize, turn: u64) -> Result<u64, WorkloadError> {
        let length = moved("read", offset, || {
            splice_once(self.stream, None, &self.input, None, size)
        })?;
        self.report.splices += 1;
        self.report.largest_splice = self.report.largest_splice.max(length);
        if self.options.pipe_delay > 0 {
            thread::sleep(Duration::from_millis(self.options.pipe_delay));
        }
        let into_file = match self.options.drain {
            Drain::File => true,
            Drain::Read => false,
            Drain::Alternate => turn.is_multiple_of(2),
        };
        if into_file {
            self.drain_into_file(offset, length)?;
        } else {
            self.drain_by_reading(offset, length)?;
        }
        Ok(length as u64)
    }

    fn drain_into_file(&self, offset: u64, length: usize) -> Result<(), WorkloadError> {
        let mut left = length;
        let mut position = self.options.file_offset + offset;
        while left > 0 {
            match splice_once(&self.output, None, self.file, Some(&mut position), left) {
                Ok(0) => return Err(WorkloadError::Options("splice into the file moved nothing")),
                Ok(length) => left -= length,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(WorkloadError::system("splice into the file")(errno)),
            }
        }
        Ok(())
    }

    fn drain_by_reading(&self, offset: u64, length: usize) -> Result<(), WorkloadError> {
        let mut piece = vec![0; length];
        let pipe = self
            .output
            .try_clone()
            .map_err(WorkloadError::system("duplicate a descriptor"))?;
        File::from(pipe)
            .read_exact(&mut piece)
            .map_err(WorkloadError::system("read the pipe"))?;
        self.write_file(offset, &piece)
    }

    fn write_file(&self, offset: u64, bytes: &[u8]) -> Result<(), WorkloadError> {
        self.file
            .write_all_at(bytes, self.options.file_offset + offset)
            .map_err(WorkloadError::system("write the file"))
    }

    /// Calls `step` for each fragment of the data with its offset.
    fn pieces(&self, mut step: impl FnMut(u64, &mut [u8]) -> Result<(), WorkloadError>) -> Result<(), WorkloadError> {
        let mut piece = vec![0; COPY];
        let mut offset = 0;
        while offset < self.options.bytes {
            let left = usize::try_from(self.options.bytes - offset).unwrap_or(usize::MAX);
            let length = left.min(COPY);
            step(offset, &mut piece[..length])?;
            offset += length as u64;
        }
        Ok(())
    }

    fn check_file(&self, pattern: Pattern) -> Result<(), WorkloadError> {
        self.pieces(|offset, piece| {
            self.file
                .read_exact_at(piece, self.options.file_offset + offset)
                .map_err(WorkloadError::system("read the file"))?;
            pattern.verify(offset, piece).map_err(WorkloadError::Received)
        })
    }

    fn fill_file(&self, pattern: Pattern) -> Result<(), WorkloadError> {
        self.pieces(|offset, piece| {
            pattern.fill(offset, piece);
            self.write_file(offset, piece)
        })
    }

    fn send(&mut self) -> Result<(), WorkloadError> {
        let start = Instant::now();
        self.request.workload = Workload::Sink;
        begin(self.stream, &self.request)?;
        let mut offset = 0;
        for (turn, size) in (1_u64..).zip(SIZES.into_iter().cycle()) {
            if offset >= self.options.bytes {
                break;
            }
            let size = size.min(usize::try_from(self.options.bytes - offset).unwrap_or(usize::MAX));
            if turn.is_multiple_of(3) {
                offset += self.splice_out(offset, size)?;
            } else {
                let mut position = self.options.file_offset + offset;
                let send = || sendfile(self.stream, self.file, Some(&mut position), size);
                offset += moved("write", offset, send)? as u64;
                self.report.sendfiles += 1;
            }
        }
        finish(self.stream, self.options.bytes)?;
        self.report.send_seconds = start.elapsed().as_secs_f64();
        Ok(())
    }

    fn splice_out(&mut self, offset: u64, size: usize) -> Result<u64, WorkloadError> {
        let mut position = self.options.file_offset + offset;
        let length = splice_once(self.file, Some(&mut position), &self.input, None, size)
            .map_err(WorkloadError::system("splice from the file"))?;
        let mut left = length;
        while left > 0 {
            let at = offset + (length - left) as u64;
            left -= moved("write", at, || splice_once(&self.output, None, self.stream, None, left))?;
        }
        self.report.splices_to += 1;
        Ok(length as u64)
    }
}

fn splice_once(
    from: impl AsFd,
    from_offset: Option<&mut u64>,
    to: impl AsFd,
    to_offset: Option<&mut u64>,
    length: usize,
) -> Result<usize, Errno> {
    splice_call(from, from_offset, to, to_offset, length, SpliceFlags::empty())
}

/// Retries an interrupted call; treats a result of 0 as the end of the connection.
fn moved(
    operation: &'static str,
    offset: u64,
    mut call: impl FnMut() -> Result<usize, Errno>,
) -> Result<usize, WorkloadError> {
    let end = loop {
        match call() {
            Ok(0) => break End::Eof,
            Ok(length) => return Ok(length),
            Err(Errno::INTR) => {}
            Err(errno) => break End::from(std::io::Error::from(errno)),
        }
    };
    Err(TransferError { operation, offset, end }.into())
}
