//! Clients of the workloads.

mod bulk;
mod connections;
mod error;
mod exchange;
mod hold;
mod load;
mod messages;
mod rtt;
mod splice;

pub use bulk::{BulkOptions, BulkReport, Direction, bulk};
pub use connections::{ConnectionsOptions, ConnectionsReport, connections};
pub use error::WorkloadError;
pub use hold::{HoldOptions, HoldReport, hold};
pub use load::{LoadOptions, LoadReport, load};
pub use messages::{MessagesOptions, MessagesReport, messages};
pub use rtt::{RttOptions, RttReport, rtt};
pub use splice::{SpliceOptions, SpliceReport, splice};
