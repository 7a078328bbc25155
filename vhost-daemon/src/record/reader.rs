//! Reads a record.

use std::io::{self, BufReader, Read};

use flate2::bufread::GzDecoder;

use super::error::RecordError;
use super::format::{self, Format, Level, MAX_EVENT, RecordEvent};

/// Reader of a record, in bounded memory.
pub struct Reader<F: Format, R: Read> {
    setup: F::Setup,
    events: GzDecoder<BufReader<R>>,
    buffer: Vec<u8>,
    /// Number of complete entries from outside, and of entries in progress.
    entries: u64,
    depth: u32,
    ended: bool,
}

impl<F: Format, R: Read> Reader<F, R> {
    /// Reads the configuration.
    pub fn new(input: R) -> Result<Self, RecordError> {
        let mut input = BufReader::new(input);
        Ok(Self {
            setup: format::read_setup::<F>(&mut input)?,
            events: GzDecoder::new(input),
            buffer: Vec::new(),
            entries: 0,
            depth: 0,
            ended: false,
        })
    }

    /// Configuration of the device.
    pub fn setup(&self) -> &F::Setup {
        &self.setup
    }

    /// Number of complete entries from outside, so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Reads the next event; [`RecordEvent::END`] again and again after the last.
    pub fn next_event(&mut self) -> Result<F::Event, RecordError> {
        if self.ended {
            return Ok(F::Event::END);
        }
        let mut length = [0; 4];
        self.events
            .read_exact(&mut length)
            .map_err(|error| self.failed(error))?;
        let length = u32::from_le_bytes(length);
        if length > MAX_EVENT {
            return Err(RecordError::Corrupt("an event is too long"));
        }
        self.buffer.clear();
        // Grows with what is there, not with what the length claims.
        let read = (&mut self.events)
            .take(length.into())
            .read_to_end(&mut self.buffer)
            .map_err(|error| self.failed(error))?;
        if read < length as usize {
            return Err(self.truncated());
        }
        let event: F::Event = match postcard::take_from_bytes(&self.buffer) {
            Ok((event, [])) => event,
            _ => return Err(RecordError::Corrupt("an event has no known form")),
        };
        match event.level() {
            Level::Enter => self.depth = self.depth.saturating_add(1),
            Level::Leave => {
                self.depth = self.depth.saturating_sub(1);
                self.entries += u64::from(self.depth == 0);
            }
            // The checksum is behind it.
            Level::Inside if event == F::Event::END => {
                match self.events.read(&mut [0]).map_err(|error| self.failed(error))? {
                    0 => self.ended = true,
                    _ => return Err(RecordError::Corrupt("it goes on after its end")),
                }
            }
            Level::Inside => {}
        }
        Ok(event)
    }

    fn truncated(&self) -> RecordError {
        RecordError::Truncated { entries: self.entries }
    }

    fn failed(&self, error: io::Error) -> RecordError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.truncated(),
            _ => RecordError::Io(error),
        }
    }
}
