//! The Ethernet between NICs: ports and what connects them.

mod burst;
pub mod capture;
mod payload;
mod port;
mod stats;
mod switch;
mod table;
mod train;

pub use burst::Burst;
pub use payload::{Cursor, Payload};
pub use port::{Cast, EthernetAddresses, Frame, Port};
pub use stats::{DropStats, PortStats, SwitchStats, TrafficStats};
pub use switch::{Limits, MAX_FRAME, MIN_FRAME, Switch, SwitchPort, Tap};
pub use train::Train;
