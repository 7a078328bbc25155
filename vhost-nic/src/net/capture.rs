//! Capture of the frames that enter a switch, in pcapng format (Wireshark).

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::{DataLink, PcapError};
use thiserror::Error;

use super::switch::{MAX_FRAME, Tap};
use super::wire_frame::Frame;

/// Length of a section header block without options, in bytes.
const SECTION_HEADER: u64 = 28;
/// Maximum bytes of an enhanced packet block besides the packet.
const PACKET_OVERHEAD: u64 = 35;
/// Longest time that a frame stays in the buffer: a running capture can be watched.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Reason why a capture could not be started.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The file cannot be created.
    #[error("cannot create the capture file")]
    Create(#[source] std::io::Error),
    /// The file cannot be written.
    #[error("cannot write the capture file")]
    Write(#[source] PcapError),
}

/// Counters of a capture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CaptureStats {
    /// Frames in the file.
    pub frames: u64,
    /// Frames omitted because the file has reached its limit or cannot be written.
    pub omitted: u64,
    /// Length of the file in bytes.
    pub bytes: u64,
}

/// Tap that writes every frame once, as it enters the switch. The interface is the sending port.
pub struct Capture<W: Write + Send = BufWriter<File>> {
    state: Mutex<State<W>>,
}

impl<W: Write + Send> std::fmt::Debug for Capture<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

struct State<W: Write> {
    writer: PcapNgWriter<W>,
    interfaces: HashMap<u32, u32>,
    limit: u64,
    full: bool,
    flushed: Instant,
    stats: CaptureStats,
}

impl Capture {
    /// Creates a capture to a new file of at most `limit` bytes.
    pub fn create(path: &Path, limit: u64) -> Result<Self, CaptureError> {
        let file = File::create(path).map_err(CaptureError::Create)?;
        Self::new(BufWriter::new(file), limit)
    }
}

impl<W: Write + Send> Capture<W> {
    /// Creates a capture of at most `limit` bytes.
    pub fn new(writer: W, limit: u64) -> Result<Self, CaptureError> {
        let writer = PcapNgWriter::new(writer).map_err(CaptureError::Write)?;
        Ok(Self {
            state: Mutex::new(State {
                writer,
                interfaces: HashMap::new(),
                limit,
                full: false,
                flushed: Instant::now(),
                stats: CaptureStats {
                    bytes: SECTION_HEADER,
                    ..CaptureStats::default()
                },
            }),
        })
    }

    /// Takes a snapshot of the counters.
    pub fn stats(&self) -> CaptureStats {
        self.state.lock().stats
    }

    /// Ends the capture and returns the writer, whose buffer may not be flushed.
    pub fn into_inner(self) -> W {
        self.state.into_inner().writer.into_inner()
    }
}

impl<W: Write + Send> Tap for Capture<W> {
    fn frame(&self, port: u32, name: &str, frame: Frame<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut state = self.state.lock();
        let state = &mut *state;
        if !state.full
            && let Some(bytes) = frame.to_bytes()
            && let Err(error) = state.append(port, name, now, &bytes)
        {
            log::warn!("capture stopped: {error}");
            state.full = true;
        }
        if state.full {
            state.stats.omitted += 1;
        }
    }
}

impl<W: Write> State<W> {
    fn append(&mut self, port: u32, name: &str, now: Duration, bytes: &[u8]) -> Result<(), PcapError> {
        // An interface description block has less than 64 bytes besides the name.
        let needed = bytes.len() as u64 + PACKET_OVERHEAD + name.len() as u64 + 64;
        if self.stats.bytes + needed > self.limit {
            log::info!("capture stopped at its limit of {} bytes", self.limit);
            self.full = true;
            return self.flush();
        }
        let interface_id = match self.interfaces.get(&port) {
            Some(&id) => id,
            None => self.add_interface(port, name)?,
        };
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: now,
            original_len: bytes.len() as u32,
            data: Cow::Borrowed(bytes),
            options: Vec::new(),
        };
        self.stats.bytes += self.writer.write_pcapng_block(block)? as u64;
        self.stats.frames += 1;
        if self.flushed.elapsed() >= FLUSH_INTERVAL {
            self.flush()?;
        }
        Ok(())
    }

    fn add_interface(&mut self, port: u32, name: &str) -> Result<u32, PcapError> {
        let id = self.interfaces.len() as u32;
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: MAX_FRAME as u32,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name.to_owned())),
                // Timestamps in nanoseconds.
                InterfaceDescriptionOption::IfTsResol(9),
            ],
        };
        self.stats.bytes += self.writer.write_pcapng_block(block)? as u64;
        self.interfaces.insert(port, id);
        Ok(id)
    }

    fn flush(&mut self) -> Result<(), PcapError> {
        self.flushed = Instant::now();
        self.writer.get_mut().flush().map_err(PcapError::IoError)
    }
}

#[cfg(test)]
mod tests;
