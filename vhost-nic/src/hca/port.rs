//! The physical port: cable, administrative state, MTU, and whether the HCA passes traffic at all.
//!
//! There are two MTUs. The port's (PMTU register) is enforced: longer frames are neither sent nor accepted. The MTU of
//! the NIC vport context is only stored: the driver reads it back, no frame is measured against it, and neither of the
//! two follows the other. Drivers set both (`mlx5e_set_mtu`, core/en_main.c).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlx5_prm::queue_entry::EventType;
use parking_lot::Mutex;
use serde::Serialize;

use super::eq::Eqs;

/// Bytes of a frame that the PMTU register counts beyond the MTU (`MLX5E_HW2SW_MTU`, core/en.h): Ethernet header,
/// VLAN tag and frame check sequence.
const HARD_MTU: u16 = 14 + 4 + 4;
/// Largest value of the PMTU register in bytes, as on ConnectX.
pub const MAX_PMTU: u16 = 9978;
/// Values of the PMTU register after reset: an MTU of 1500 bytes.
const DEFAULT_PMTU: u16 = 1500 + HARD_MTU;
/// `MLX5_PORT_CHANGE_SUBTYPE_*` (device.h).
const SUBTYPE_DOWN: u8 = 1;
const SUBTYPE_ACTIVE: u8 = 4;

/// The port's settings and state at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PortState {
    /// Value of the PMTU register in bytes.
    pub pmtu: u16,
    /// Whether the port is administratively up (PAOS).
    pub admin_up: bool,
    /// Whether the cable is plugged in.
    pub cable: bool,
}

impl Default for PortState {
    fn default() -> Self {
        Self {
            pmtu: DEFAULT_PMTU,
            admin_up: true,
            cable: true,
        }
    }
}

impl PortState {
    /// Whether the link is up: the port is administratively up, and the cable is plugged in.
    pub fn link_up(&self) -> bool {
        self.admin_up && self.cable
    }

    /// MTU in bytes, without the Ethernet header.
    pub fn mtu(&self) -> u16 {
        self.pmtu - HARD_MTU
    }
}

/// The function's physical port.
#[derive(Debug, Serialize)]
pub struct PhysicalPort {
    state: Mutex<PortState>,
    initialized: AtomicBool,
    #[serde(skip)]
    eqs: Arc<Eqs>,
}

impl PhysicalPort {
    /// Creates a port in its state after reset. Changes of the link go to `eqs`.
    pub fn new(eqs: Arc<Eqs>) -> Self {
        Self {
            state: Mutex::default(),
            initialized: AtomicBool::new(false),
            eqs,
        }
    }

    /// Returns all of the port's settings.
    pub fn state(&self) -> PortState {
        *self.state.lock()
    }

    /// Whether the link is up.
    pub fn link_up(&self) -> bool {
        self.state().link_up()
    }

    /// Whether the guest's driver has started the HCA (INIT_HCA). Until then, frames from the wire are refused.
    pub fn initialized(&self) -> bool {
        self.initialized.load(Ordering::Acquire)
    }

    /// Lets traffic in (INIT_HCA), or keeps it out (TEARDOWN_HCA, reset).
    pub fn set_initialized(&self, initialized: bool) {
        self.initialized.store(initialized, Ordering::Release);
    }

    /// Plugs in or pulls the cable and reports a change of the link to the guest.
    pub fn set_cable(&self, plugged: bool) {
        self.change(|state| state.cable = plugged);
    }

    /// Sets the administrative state and reports a change of the link to the guest.
    pub fn set_admin_up(&self, up: bool) {
        self.change(|state| state.admin_up = up);
    }

    /// Sets the PMTU register and returns whether the port supports that value.
    #[must_use]
    pub fn set_pmtu(&self, pmtu: u16) -> bool {
        let supported = (HARD_MTU..=MAX_PMTU).contains(&pmtu);
        if supported {
            self.state.lock().pmtu = pmtu;
        }
        supported
    }

    /// Returns the port to its state after reset, without an event.
    pub fn reset(&self) {
        self.set_initialized(false);
        *self.state.lock() = PortState::default();
    }

    fn change(&self, change: impl FnOnce(&mut PortState)) {
        let (before, after) = {
            let mut state = self.state.lock();
            let before = state.link_up();
            change(&mut state);
            (before, state.link_up())
        };
        if before != after {
            // The port number is in bits 7:4 of data[8] (core/events.c).
            let mut data = [0; 28];
            data[8] = 1 << 4;
            let sub_type = if after { SUBTYPE_ACTIVE } else { SUBTYPE_DOWN };
            self.eqs.announce(EventType::PortChange, sub_type, &data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_takes_both_the_cable_and_the_guest() {
        let port = PhysicalPort::new(Arc::default());
        assert!(port.link_up());
        port.set_cable(false);
        port.set_admin_up(false);
        assert!(!port.link_up());
        port.set_cable(true);
        assert!(!port.link_up());
        port.set_admin_up(true);
        assert!(port.link_up());
    }

    #[test]
    fn an_mtu_the_port_does_not_support_changes_nothing() {
        let port = PhysicalPort::new(Arc::default());
        assert!(port.set_pmtu(9000 + HARD_MTU));
        assert!(!port.set_pmtu(HARD_MTU - 1) && !port.set_pmtu(MAX_PMTU + 1));
        assert_eq!(port.state().mtu(), 9000);
        port.set_initialized(true);
        port.reset();
        assert_eq!((port.state().mtu(), port.initialized()), (1500, false));
    }
}
