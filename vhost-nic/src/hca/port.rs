//! The physical port: cable, administrative state, MTU, and whether the HCA passes traffic at all.
//!
//! There are two MTUs. The port's (PMTU register) is enforced: longer frames are neither sent nor accepted. The MTU of
//! the NIC vport context is only stored: the driver reads it back, no frame is measured against it, and neither of the
//! two follows the other. Drivers set both (`mlx5e_set_mtu`, core/en_main.c).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

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

/// Speeds of the port in Gb/s and the link mode of each (`enum mlx5e_link_mode`, port.h), slowest first: 1000BASE-KX,
/// 10GBASE-KR, 25GBASE-KR, 40GBASE-KR4, 50GBASE-KR2, 100GBASE-KR4.
pub const SPEEDS: [(u32, u8); 6] = [(1, 1), (10, 4), (25, 28), (40, 7), (50, 31), (100, 22)];

/// Link modes of the port, a bit each, as in the PTYS register.
pub const LINK_MODES: u32 = {
    let (mut modes, mut index) = (0, 0);
    while index < SPEEDS.len() {
        modes |= 1 << SPEEDS[index].1;
        index += 1;
    }
    modes
};

/// The port's settings and state at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PortState {
    /// Value of the PMTU register in bytes.
    pub pmtu: u16,
    /// Whether the port is administratively up (PAOS).
    pub admin_up: bool,
    /// Whether the cable is plugged in.
    pub cable: bool,
    /// Link modes that the guest allows, a bit each (PTYS).
    pub admin_modes: u32,
    /// Link modes that the other end of the cable has, a bit each.
    pub partner_modes: u32,
}

impl Default for PortState {
    fn default() -> Self {
        Self {
            pmtu: DEFAULT_PMTU,
            admin_up: true,
            cable: true,
            admin_modes: LINK_MODES,
            partner_modes: LINK_MODES,
        }
    }
}

impl PortState {
    /// Speed in Gb/s of the other end of the cable, `None` if it has all.
    pub fn partner_speed(&self) -> Option<u32> {
        let speed = SPEEDS.iter().find(|(_, mode)| self.partner_modes == 1 << mode);
        speed.map(|(gbps, _)| *gbps)
    }

    /// Whether the link is up: the port is administratively up, the cable is plugged in, and its ends have a link mode
    /// in common.
    pub fn link_up(&self) -> bool {
        self.admin_up && self.cable && self.admin_modes & self.partner_modes != 0
    }

    /// Link mode in operation, as a bit: the fastest that both ends have; 0 without a link.
    pub fn oper_mode(&self) -> u32 {
        let common = match self.link_up() {
            true => self.admin_modes & self.partner_modes,
            false => 0,
        };
        let modes = SPEEDS.iter().rev().map(|(_, mode)| 1 << mode);
        modes.into_iter().find(|mode| common & mode != 0).unwrap_or(0)
    }

    /// Speed of the link in Gb/s; 0 without a link.
    pub fn speed(&self) -> u32 {
        let mode = self.oper_mode();
        let speed = SPEEDS.iter().find(|(_, bit)| mode == 1 << bit);
        speed.map_or(0, |(gbps, _)| *gbps)
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
    link_down_events: AtomicU32,
    #[serde(skip)]
    eqs: Arc<Eqs>,
}

impl PhysicalPort {
    /// Creates a port in its state after reset. Changes of the link go to `eqs`.
    pub fn new(eqs: Arc<Eqs>) -> Self {
        Self {
            state: Mutex::default(),
            initialized: AtomicBool::new(false),
            link_down_events: AtomicU32::new(0),
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

    /// Number of times that the link went down since power-on.
    pub fn link_down_events(&self) -> u32 {
        self.link_down_events.load(Ordering::Relaxed)
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

    /// Sets the link modes that the guest allows and reports a change of the link to the guest. Returns whether the
    /// port supports them all.
    #[must_use]
    pub fn set_admin_modes(&self, modes: u32) -> bool {
        let supported = modes & !LINK_MODES == 0;
        if supported {
            self.change(|state| state.admin_modes = modes);
        }
        supported
    }

    /// Sets the speed in Gb/s that the other end of the cable has, `None` for all, and reports a change of the link to
    /// the guest. Returns whether there is such a speed.
    #[must_use]
    pub fn set_partner_speed(&self, gbps: Option<u32>) -> bool {
        let modes = match gbps {
            Some(gbps) => SPEEDS
                .iter()
                .find(|(speed, _)| *speed == gbps)
                .map(|(_, mode)| 1 << mode),
            None => Some(LINK_MODES),
        };
        if let Some(modes) = modes {
            self.change(|state| state.partner_modes = modes);
        }
        modes.is_some()
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

    /// Returns the port to its state after reset, without an event. The cable and its other end stay as they are.
    pub fn reset(&self) {
        self.set_initialized(false);
        let mut state = self.state.lock();
        *state = PortState {
            cable: state.cable,
            partner_modes: state.partner_modes,
            ..PortState::default()
        };
    }

    /// Sets the counter of lost links to zero.
    pub fn power_cycle(&self) {
        self.link_down_events.store(0, Ordering::Relaxed);
    }

    fn change(&self, change: impl FnOnce(&mut PortState)) {
        let (before, after) = {
            let mut state = self.state.lock();
            let before = state.oper_mode();
            change(&mut state);
            (before, state.oper_mode())
        };
        if before == after {
            return;
        }
        if before != 0 {
            self.link_down_events.fetch_add(1, Ordering::Relaxed);
        }
        // A link that changes its speed goes down and comes up.
        for (mode, sub_type) in [(before, SUBTYPE_DOWN), (after, SUBTYPE_ACTIVE)] {
            if mode != 0 {
                // The port number is in bits 7:4 of data[8] (core/events.c).
                let mut data = [0; 28];
                data[8] = 1 << 4;
                self.eqs.announce(EventType::PortChange, sub_type, &data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_takes_both_the_cable_and_the_guest() {
        let port = PhysicalPort::new(Arc::new(Eqs::new(&Arc::default())));
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
    fn the_fastest_mode_of_both_ends_is_in_operation() {
        let port = PhysicalPort::new(Arc::new(Eqs::new(&Arc::default())));
        let oper = || (port.state().speed(), port.state().oper_mode());
        assert_eq!(oper(), (100, 1 << 22));
        for (gbps, mode) in SPEEDS {
            assert!(port.set_partner_speed(Some(gbps)));
            assert_eq!(oper(), (gbps, 1 << mode));
        }
        assert!(!port.set_partner_speed(Some(200)) && !port.set_partner_speed(Some(0)));
        assert_eq!(port.state().speed(), 100);
        assert!(port.set_partner_speed(None) && port.set_admin_modes(1 << 28 | 1 << 4));
        assert_eq!(oper(), (25, 1 << 28));
        assert!(!port.set_admin_modes(1 << 23));
        assert!(port.set_partner_speed(Some(40)));
        assert_eq!((oper(), port.link_up()), ((0, 0), false));
    }

    #[test]
    fn a_reset_leaves_the_cable_alone() {
        let port = PhysicalPort::new(Arc::new(Eqs::new(&Arc::default())));
        port.set_cable(false);
        assert!(port.set_partner_speed(Some(10)) && port.set_admin_modes(1 << 22));
        port.reset();
        assert!(!port.link_up());
        port.set_cable(true);
        assert_eq!(port.state().speed(), 10);
    }

    #[test]
    fn an_mtu_the_port_does_not_support_changes_nothing() {
        let port = PhysicalPort::new(Arc::new(Eqs::new(&Arc::default())));
        assert!(port.set_pmtu(9000 + HARD_MTU));
        assert!(!port.set_pmtu(HARD_MTU - 1) && !port.set_pmtu(MAX_PMTU + 1));
        assert_eq!(port.state().mtu(), 9000);
        port.set_initialized(true);
        port.reset();
        assert_eq!((port.state().mtu(), port.initialized()), (1500, false));
    }
}
