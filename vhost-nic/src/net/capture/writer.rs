//! The thread that writes a capture.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, PcapError};
use thiserror::Error;

use super::command_block::MAX_BLOCK;
use super::comment;
use super::queue::{About, Entry, Interface, InterfaceKind, Queue, Taken};
use crate::net::switch::MAX_FRAME;

/// Bytes of an interface statistics block with two counters.
const STATISTICS: u64 = 52;

/// End of a capture before its end.
#[derive(Debug, Error)]
enum Failure {
    #[error("its reader is gone")]
    NoReader,
    #[error("cannot write: {0}")]
    Io(#[source] io::Error),
    #[error("cannot write: {0}")]
    Format(#[from] PcapError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::NoReader,
            _ => Self::Io(error),
        }
    }
}

/// Writes what the queue has until the capture ends.
pub(super) fn run(queue: &Queue, output: impl Write, limit: Option<u64>) {
    match write(queue, output, limit) {
        Ok(()) => {}
        Err(Failure::NoReader) => log::info!("the capture has ended: {}", Failure::NoReader),
        Err(failure) => log::warn!("the capture has ended: {failure}"),
    }
    queue.writer_ended();
}

fn write(queue: &Queue, output: impl Write, limit: Option<u64>) -> Result<(), Failure> {
    let mut writer = Writer {
        blocks: PcapNgWriter::new(Vec::new())?,
        output: BufWriter::new(output),
        limit: limit.unwrap_or(u64::MAX),
        written: 0,
        interfaces: 0,
    };
    // The section header.
    writer.pass()?;
    writer.output.flush()?;
    queue.set_bytes(writer.written);
    while let Some(Taken { interfaces, entries }) = queue.take(writer.interfaces) {
        let described = interfaces.iter().try_fold(true, |all, interface| {
            Ok::<_, Failure>(all && writer.describe(interface)?)
        })?;
        for entry in &entries {
            let fits = described && !queue.is_closed() && writer.entry(entry)?;
            if !fits && !queue.is_closed() {
                log::info!("the capture has reached its limit of {} bytes", writer.limit);
                queue.close();
            }
            queue.done(entry, fits);
        }
        writer.output.flush()?;
        queue.set_bytes(writer.written);
    }
    writer.statistics(queue)?;
    writer.output.flush()?;
    queue.set_bytes(writer.written);
    Ok(())
}

struct Writer<W: Write> {
    /// Serializes blocks, one at a time.
    blocks: PcapNgWriter<Vec<u8>>,
    output: BufWriter<W>,
    limit: u64,
    written: u64,
    /// Number of interfaces that are described.
    interfaces: usize,
}

impl<W: Write> Writer<W> {
    /// Writes the serialized block to the output.
    fn pass(&mut self) -> Result<(), Failure> {
        let bytes = self.blocks.get_mut();
        self.output.write_all(bytes)?;
        self.written += bytes.len() as u64;
        bytes.clear();
        Ok(())
    }

    /// Writes a block if it leaves room for the statistics of `interfaces` interfaces. Returns whether it was written.
    fn block<'a>(&mut self, block: impl PcapNgBlock<'a>, interfaces: usize) -> Result<bool, Failure> {
        self.blocks.write_pcapng_block(block)?;
        let rest = interfaces as u64 * STATISTICS;
        if self.written + self.blocks.get_ref().len() as u64 + rest > self.limit {
            self.blocks.get_mut().clear();
            return Ok(false);
        }
        self.pass()?;
        Ok(true)
    }

    fn describe(&mut self, interface: &Interface) -> Result<bool, Failure> {
        let name = &interface.name;
        let (linktype, snaplen, name) = match interface.kind {
            InterfaceKind::Frames => (DataLink::ETHERNET, MAX_FRAME, name.to_string()),
            InterfaceKind::Commands => (DataLink::USER0, MAX_BLOCK, format!("{name} commands")),
        };
        let block = InterfaceDescriptionBlock {
            linktype,
            snaplen: snaplen as u32,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name)),
                // Times in nanoseconds.
                InterfaceDescriptionOption::IfTsResol(9),
            ],
        };
        let written = self.block(block, self.interfaces + 1)?;
        self.interfaces += usize::from(written);
        Ok(written)
    }

    fn entry(&mut self, entry: &Entry) -> Result<bool, Failure> {
        let comment = match &entry.about {
            About::Frame { sender, effects, .. } => comment::of_frame(&entry.port, *sender, &entry.bytes, effects),
            About::Command(comment) => comment.clone(),
        };
        let block = EnhancedPacketBlock {
            interface_id: entry.interface,
            timestamp: entry.time,
            original_len: entry.length,
            data: Cow::Borrowed(&entry.bytes),
            options: vec![EnhancedPacketOption::Comment(Cow::Owned(comment))],
        };
        self.block(block, self.interfaces)
    }

    /// Writes the counters of the interfaces that are described.
    fn statistics(&mut self, queue: &Queue) -> Result<(), Failure> {
        let (now, interfaces) = queue.interfaces();
        let nanoseconds = now.as_nanos() as u64;
        for (number, interface) in (0..).zip(interfaces.iter().take(self.interfaces)) {
            let block = InterfaceStatisticsBlock {
                interface_id: number,
                // The upper half comes first, in either byte order; pcap-file writes it as one number.
                timestamp: if cfg!(target_endian = "little") {
                    nanoseconds.rotate_left(32)
                } else {
                    nanoseconds
                },
                options: vec![
                    InterfaceStatisticsOption::IsbIfRecv(interface.seen),
                    InterfaceStatisticsOption::IsbIfDrop(interface.omitted),
                ],
            };
            self.block(block, 0)?;
        }
        Ok(())
    }
}
