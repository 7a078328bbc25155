//! Ethernet between NICs: frames, ports and the switch.

mod burst;
pub mod capture;
mod inline_bytes;
mod mac_table;
mod payload;
mod permission;
mod port;
mod readers;
mod stats;
mod super_packet;
mod switch;
mod tap;
mod wire_frame;
mod work;

pub use burst::Burst;
pub use inline_bytes::InlineBytes;
pub use payload::{Cursor, Payload, Sources};
pub use permission::{Origin, Permissions};
pub use port::Port;
pub use readers::Readers;
pub use stats::{DropStats, PortStats, StationInfo, SwitchStats, TrafficStats};
pub use super_packet::SuperPacket;
pub use switch::{Cable, Direction, End, Limits, MAX_FRAME, MIN_FRAME, OwnedEnd, Switch, SwitchPort};
pub use tap::{CommandRecord, Destination, PortTap, Tap};
pub use wire_frame::{EthernetAddresses, Frame};
pub use work::{CqePlace, Effect, FrameNumber, QueueKind, Sender, WqeId};
