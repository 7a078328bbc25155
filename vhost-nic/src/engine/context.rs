//! The function and its ports: the base of everything else in the data path.

use std::sync::{Arc, OnceLock};

use crate::firmware::Firmware;
use crate::hca::Hca;
use crate::net::{Burst, SwitchPort};

/// Bytes of a frame beyond the MTU: Ethernet header and two VLAN tags.
const FRAME_OVERHEAD: usize = 14 + 8;

/// Origin of a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The switch.
    Wire,
    /// The function itself. Raw frames carry the transport domain of their send queue; RDMA has none.
    Loopback { transport_domain: Option<u32> },
}

/// The port that loopback frames are sent to: the function's own ingress, wired by the engine. `egress` calls it as it
/// calls the wire.
pub(super) type Hairpin = fn(&Context, &Burst<'_>, Origin);

/// State of the link, read at once.
pub(super) struct Link {
    pub up: bool,
    /// Bytes of the longest frame that may pass.
    pub longest_frame: usize,
}

/// One function, its wire and its hairpin.
#[derive(Debug)]
pub(super) struct Context {
    pub hca: Arc<Hca>,
    firmware: Arc<Firmware>,
    /// The port of the switch, once it is connected.
    pub wire: OnceLock<SwitchPort>,
    pub hairpin: Hairpin,
}

impl Context {
    pub fn new(hca: Arc<Hca>, firmware: Arc<Firmware>, hairpin: Hairpin) -> Self {
        Self {
            hca,
            firmware,
            wire: OnceLock::new(),
            hairpin,
        }
    }

    pub fn link(&self) -> Link {
        let port = self.firmware.port();
        Link {
            up: port.link_up,
            longest_frame: usize::from(port.mtu) + FRAME_OVERHEAD,
        }
    }

    /// Whether the driver has initialized the HCA (INIT_HCA).
    pub fn initialized(&self) -> bool {
        self.firmware.initialized()
    }
}
