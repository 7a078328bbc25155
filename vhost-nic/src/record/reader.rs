//! Reads a record.

use std::io::{self, BufReader, Read};

use flate2::bufread::GzDecoder;

use super::error::RecordError;
use super::event::{Event, MAX_EVENT};
use super::header::Setup;

/// Reader of a record, in bounded memory.
pub struct Reader<R: Read> {
    setup: Setup,
    events: GzDecoder<BufReader<R>>,
    buffer: Vec<u8>,
    /// Number of complete entries from outside, and of entries in progress.
    entries: u64,
    depth: u32,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the configuration.
    pub fn new(input: R) -> Result<Self, RecordError> {
        let mut input = BufReader::new(input);
        Ok(Self {
            setup: Setup::read_from(&mut input)?,
            events: GzDecoder::new(input),
            buffer: Vec::new(),
            entries: 0,
            depth: 0,
            ended: false,
        })
    }

    /// Configuration of the NIC.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Number of complete entries from outside, so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Reads the next event; [`Event::End`] again and again after the last.
    pub fn next_event(&mut self) -> Result<Event, RecordError> {
        if self.ended {
            return Ok(Event::End);
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
        let event = match postcard::take_from_bytes(&self.buffer) {
            Ok((event, [])) => event,
            _ => return Err(RecordError::Corrupt("an event has no known form")),
        };
        match event {
            Event::Enter(_) => self.depth = self.depth.saturating_add(1),
            Event::Leave(_) => {
                self.depth = self.depth.saturating_sub(1);
                self.entries += u64::from(self.depth == 0);
            }
            // The checksum is behind it.
            Event::End => match self.events.read(&mut [0]).map_err(|error| self.failed(error))? {
                0 => self.ended = true,
                _ => return Err(RecordError::Corrupt("it goes on after its end")),
            },
            _ => {}
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
