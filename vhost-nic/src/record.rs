//! Records of a guest: everything that enters its NIC, and everything that the NIC does, in order, in a file.
//!
//! While a guest is recorded, the NICs of the daemon take turns ([`Turns`]): each entry into a NIC is executed to its
//! end before the next, so that a record has one order. A [`Recorder`] is at all doors of a NIC. The guest's memory is
//! in a record only as far as the NIC reads it.

mod error;
mod event;
mod header;
mod reader;
mod recorder;
mod turns;
mod writer;

pub use error::RecordError;
pub use event::{Entry, Event, Failure, Space};
pub use header::Setup;
pub use reader::Reader;
pub use recorder::Recorder;
pub use turns::Turns;
pub use writer::Writer;
