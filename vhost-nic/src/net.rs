//! The Ethernet between NICs: ports and what connects them.

mod port;

pub use port::{Frame, Port, PortStats};
