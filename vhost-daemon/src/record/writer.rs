//! Writes a record.

use std::fmt;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::format::{self, Format, MAX_EVENT, RecordEvent};

/// Writer of a record, in bounded memory: events are compressed as they come.
pub struct Writer<F, W: Write> {
    events: GzEncoder<W>,
    buffer: Vec<u8>,
    written: u64,
    format: std::marker::PhantomData<fn(F)>,
}

impl<F: Format, W: Write> Writer<F, W> {
    /// Writes the configuration.
    pub fn new(mut output: W, setup: &F::Setup, compression: Compression) -> io::Result<Self> {
        format::write_setup::<F>(setup, &mut output)?;
        Ok(Self {
            events: GzEncoder::new(output, compression),
            buffer: Vec::new(),
            written: 0,
            format: std::marker::PhantomData,
        })
    }

    /// Writes an event.
    pub fn write(&mut self, event: &F::Event) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer = postcard::to_extend(event, buffer).map_err(io::Error::other)?;
        let length = u32::try_from(buffer.len()).ok().filter(|length| *length <= MAX_EVENT);
        let length = length.ok_or_else(|| io::Error::other("an event is too long"))?;
        self.events.write_all(&length.to_le_bytes())?;
        self.events.write_all(&buffer)?;
        self.written += u64::from(length);
        self.buffer = buffer;
        Ok(())
    }

    /// Passes all events so far to the output.
    pub fn flush(&mut self) -> io::Result<()> {
        self.events.flush()
    }

    /// Number of bytes of the events so far, before compression.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes the end of the record, and returns the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.write(&F::Event::END)?;
        self.events.finish()
    }
}

impl<F, W: Write> fmt::Debug for Writer<F, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}
