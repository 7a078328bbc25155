//! Ethernet between NICs: frames, ports and the switch.

mod burst;
mod cable;
pub mod capture;
mod mac_table;
mod payload;
mod port;
mod stats;
mod super_packet;
mod switch;
mod wire_frame;

pub use burst::Burst;
pub use cable::{Cable, Direction, End, OwnedEnd};
pub use payload::{Cursor, Payload};
pub use port::Port;
pub use stats::{DropStats, PortStats, SwitchStats, TrafficStats};
pub use super_packet::SuperPacket;
pub use switch::{Limits, MAX_FRAME, MIN_FRAME, Switch, SwitchPort, Tap};
pub use wire_frame::{EthernetAddresses, Frame};
