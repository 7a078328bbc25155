//! The format of a device's records, and the beginning of the file.

use std::fmt::{Debug, Display};
use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::RecordError;

/// Maximum size of the configuration in bytes.
const MAX_SETUP: u32 = 1 << 16;
/// Maximum size of a serialized event in bytes.
pub(super) const MAX_EVENT: u32 = 1 << 23;

/// A format of records: that of a device.
pub trait Format: Debug + 'static {
    /// First bytes of a record.
    const MAGIC: [u8; 8];
    /// Version of the format: of `Setup` and `Event`.
    const VERSION: u32;
    /// The device, with its article.
    const DEVICE: &'static str;
    /// Configuration of the device, as far as a guest can see it.
    type Setup: Clone + Debug + Serialize + DeserializeOwned + Send;
    /// Events.
    type Event: RecordEvent;
}

/// An event of a record.
pub trait RecordEvent: Clone + Debug + Display + PartialEq + Serialize + DeserializeOwned + Send {
    /// End of a record.
    const END: Self;

    /// Returns the place of the event among the entries.
    fn level(&self) -> Level;
}

/// Place of an event among the entries of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Begin of an entry.
    Enter,
    /// End of an entry.
    Leave,
    /// Neither.
    Inside,
}

/// Fixed part of the header. The configuration follows, in JSON, then the compressed events.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Preamble {
    magic: [u8; 8],
    version: U32,
    setup_length: U32,
}

pub(super) fn write_setup<F: Format>(setup: &F::Setup, out: &mut impl Write) -> io::Result<()> {
    let setup = serde_json::to_vec(setup)?;
    let preamble = Preamble {
        magic: F::MAGIC,
        version: F::VERSION.into(),
        setup_length: (setup.len() as u32).into(),
    };
    out.write_all(preamble.as_bytes())?;
    out.write_all(&setup)
}

pub(super) fn read_setup<F: Format>(input: &mut impl Read) -> Result<F::Setup, RecordError> {
    let mut preamble = Preamble::new_zeroed();
    input
        .read_exact(preamble.as_mut_bytes())
        .map_err(|_| RecordError::NoRecord(F::DEVICE))?;
    if preamble.magic != F::MAGIC {
        return Err(RecordError::NoRecord(F::DEVICE));
    }
    let found = preamble.version.get();
    if found != F::VERSION {
        let known = F::VERSION;
        return Err(RecordError::Version { found, known });
    }
    let length = preamble.setup_length.get();
    if length > MAX_SETUP {
        return Err(RecordError::Setup("it is too long".into()));
    }
    let mut setup = vec![0; length as usize];
    input
        .read_exact(&mut setup)
        .map_err(|_| RecordError::Truncated { entries: 0 })?;
    serde_json::from_slice(&setup).map_err(|error| RecordError::Setup(error.into()))
}
