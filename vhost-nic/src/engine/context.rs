//! The function and its ports: the base of everything else in the data path.

use std::sync::{Arc, OnceLock};

use crate::hca::Hca;
use crate::net::{Burst, Effect, FrameNumber, PortTap, SwitchPort};

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
    /// The port of the switch, once it is connected.
    pub wire: OnceLock<SwitchPort>,
    pub hairpin: Hairpin,
}

impl Context {
    pub fn new(hca: Arc<Hca>, hairpin: Hairpin) -> Self {
        Self {
            hca,
            wire: OnceLock::new(),
            hairpin,
        }
    }

    pub fn link(&self) -> Link {
        let port = self.hca.port.state();
        Link {
            up: port.link_up(),
            longest_frame: usize::from(port.mtu()) + FRAME_OVERHEAD,
        }
    }

    /// The port as the taps of the switch see it, if there are any.
    pub fn tap(&self) -> Option<&PortTap> {
        self.wire.get().map(SwitchPort::tap).filter(|tap| tap.is_on())
    }

    /// Notes an effect of `count` frames from `first` on, if they are observed.
    #[inline]
    pub fn note(&self, first: FrameNumber, count: u32, effect: impl FnOnce() -> Effect) {
        if first.is_observed()
            && let Some(tap) = self.tap()
        {
            tap.effect(first, count, effect());
        }
    }

    /// Whether the driver has initialized the HCA (INIT_HCA).
    pub fn initialized(&self) -> bool {
        self.hca.port.initialized()
    }
}
