//! Records of a guest: everything that enters its NIC, and everything that the NIC does, in order, in a file.
//!
//! While a guest is recorded, the NICs of the daemon take [turns](vhost_daemon::record::Turns): each entry into a NIC
//! is executed to its end before the next, so that a record has one order. A [`Recorder`] is at all doors of a NIC. The
//! guest's memory is in a record only as far as the NIC reads it.

mod event;
mod order;
mod recorder;
mod setup;

use vhost_daemon::record;

pub use event::{Entry, Event, Failure, Space};
pub use order::Order;
pub use recorder::{Behind, Recorder};
pub use setup::{NicRecord, Setup};

/// Reader of the record of a NIC.
pub type Reader<R> = record::Reader<NicRecord, R>;
/// Writer of the record of a NIC.
pub type Writer<W> = record::Writer<NicRecord, W>;
