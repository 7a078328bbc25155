//! Replays of a record: the device again, without its guests, each of its doings compared with the record.
//!
//! A device takes the events of a record from a [`Script`], which notes the first difference. The result is a
//! [`Report`].

mod prefix;
mod report;
mod script;

pub use prefix::{Prefix, copy_prefix, shortest_prefix};
pub use report::{Difference, Found, Report};
pub use script::Script;
