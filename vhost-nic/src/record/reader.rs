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
            ended: false,
        })
    }

    /// Configuration of the NIC.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Reads the next event; [`Event::End`] again and again after the last.
    pub fn next_event(&mut self) -> Result<Event, RecordError> {
        if self.ended {
            return Ok(Event::End);
        }
        let mut length = [0; 4];
        self.events.read_exact(&mut length).map_err(of_input)?;
        let length = u32::from_le_bytes(length);
        if length > MAX_EVENT {
            return Err(RecordError::Corrupt("an event is too long"));
        }
        self.buffer.clear();
        // Grows with what is there, not with what the length claims.
        let read = (&mut self.events)
            .take(length.into())
            .read_to_end(&mut self.buffer)
            .map_err(of_input)?;
        if read < length as usize {
            return Err(RecordError::Truncated);
        }
        let event = match postcard::take_from_bytes(&self.buffer) {
            Ok((event, [])) => event,
            _ => return Err(RecordError::Corrupt("an event has no known form")),
        };
        if event == Event::End {
            // The checksum is behind it.
            match self.events.read(&mut [0]).map_err(of_input)? {
                0 => self.ended = true,
                _ => return Err(RecordError::Corrupt("it goes on after its end")),
            }
        }
        Ok(event)
    }
}

fn of_input(error: io::Error) -> RecordError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => RecordError::Truncated,
        _ => RecordError::Io(error),
    }
}
