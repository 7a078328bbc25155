//! Records of a fabric: everything that its guests and their VMMs give the devices, and everything that the devices do,
//! in order, in a file.
//!
//! All guests of a daemon are in one record, because they share the fabric. Their entries take
//! [turns](vhost_daemon::record::Turns). A [`Recorder`] is the fabric's tape, and between its connections and their
//! front-ends.

mod event;
mod front;
mod order;
mod recorder;
mod setup;

use vhost_daemon::record;

pub use event::{Buffer, Event};
pub use order::Order;
pub use recorder::Recorder;
pub use setup::{IsmRecord, Setup};

/// Reader of the record of a fabric.
pub type Reader<R> = record::Reader<IsmRecord, R>;
/// Writer of the record of a fabric.
pub type Writer<W> = record::Writer<IsmRecord, W>;
