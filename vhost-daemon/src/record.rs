//! Records of a device: everything that enters it, and everything that it does, in order, in a file.
//!
//! A daemon declares the events of its device as a [`Format`]. While it records, the entries into its devices take
//! turns ([`Turns`]), so that a record has one order. A [`Recording`] writes the events of the turns to a file, which
//! a [`Reader`] reads.

mod error;
mod format;
mod hex;
mod on_demand;
mod reader;
mod recording;
mod turns;
mod writer;

pub use error::RecordError;
pub use format::{Format, Level, RecordEvent};
pub use hex::Hex;
pub use on_demand::{Begun, OnDemand, OrderError};
pub use reader::Reader;
pub use recording::Recording;
pub use turns::{Turn, Turns};
pub use writer::Writer;
