//! Guests with a network interface each, on one switch.

use std::sync::Arc;

use mlx5_test_driver::hca::Hca;
use mlx5_test_driver::netdev::{Netdev, Options};
use vhost_nic::net::Switch;

use crate::inspect::Inspect;
use crate::nic::machine;

/// A switch and its guests.
pub struct Lan {
    /// Guests, in the order of their numbers.
    pub guests: Vec<Netdev>,
}

impl Lan {
    /// Starts `guests` guests with the same options.
    pub fn new(guests: u8, options: &Options) -> Self {
        let switch = Switch::new();
        let guests = (1..=guests).map(|number| guest(&switch, number, options)).collect();
        Self { guests }
    }

    /// The first two guests.
    pub fn pair(&mut self) -> (&mut Netdev, &mut Netdev) {
        let [a, b, ..] = &mut self.guests[..] else {
            panic!("fewer than two guests")
        };
        (a, b)
    }

    /// Shuts all guests down. Panics if the device counted a guest error.
    #[track_caller]
    pub fn end(self) {
        for guest in self.guests {
            let machine = Arc::clone(&guest.hca.machine);
            assert_eq!(machine.nic().snapshot().guest_errors, Default::default());
            shut(guest);
            assert_eq!(machine.memory.used(), 0, "the driver has its memory back");
        }
    }
}

/// Starts a guest on a switch.
pub fn guest(switch: &Arc<Switch>, number: u8, options: &Options) -> Netdev {
    let machine = Arc::new(machine(switch, number));
    Netdev::open(&Arc::new(Hca::boot(&machine)), options)
}

/// Shuts a guest down.
#[track_caller]
pub fn shut(guest: Netdev) {
    guest.shut_down();
}

/// Calls `check` with the only guest's driver, and shuts it down.
pub fn with_hca(check: impl FnOnce(&Hca)) {
    let lan = Lan::new(1, &Options::default());
    check(&lan.guests[0].hca);
    lan.guests.into_iter().for_each(shut);
}
