//! Errors of records.

use std::io;

use thiserror::Error;

/// Reason why a record cannot be read.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file is no record of the device.
    #[error("it is not a record of {0}")]
    NoRecord(&'static str),
    /// The record has another format.
    #[error("it has version {found} of the format, this program reads version {known}")]
    Version {
        /// Version of the record.
        found: u32,
        /// Version that this program reads.
        known: u32,
    },
    /// The configuration of the device is invalid.
    #[error("its configuration is invalid")]
    Setup(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The record ends before its end event.
    #[error("it is truncated after {entries} entries")]
    Truncated {
        /// Number of complete entries from outside.
        entries: u64,
    },
    /// The record is corrupt.
    #[error("it is corrupt: {0}")]
    Corrupt(&'static str),
    /// The file cannot be read, or its compression or checksum is wrong.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
}
