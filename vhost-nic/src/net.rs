//! The Ethernet between NICs: ports and what connects them.

pub mod capture;
mod payload;
mod port;
mod stats;
mod switch;
mod table;

pub use payload::Payload;
pub use port::{EthernetAddresses, Frame, Port, RocePacket};
pub use stats::{DropStats, PortStats, SwitchStats, TrafficStats};
pub use switch::{Limits, MAX_FRAME, MIN_FRAME, Switch, SwitchPort, Tap};
