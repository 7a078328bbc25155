//! NICs at whose doors faults strike.

use std::sync::Arc;

use mlx5_test_driver::machine::Machine;
use vhost_daemon::fault::{Faults, GuestFaults};
use vhost_daemon::trace::Tracer;
use vhost_nic::fault::{Doors, NicFault};
use vhost_nic::net::Switch;

use crate::nic::build;

/// A machine as [`machine`](crate::nic::machine) makes it, at whose doors the faults of guest `nic<number>` strike.
pub fn faulty_machine(switch: &Arc<Switch>, number: u8, faults: &Arc<Faults<NicFault>>) -> (Machine, Doors) {
    let guest = GuestFaults::new(faults, &format!("nic{number}"));
    let doors = Doors::new(guest, Tracer::new(number.into()));
    (build(switch, number, Some(doors.clone()), |_| {}), doors)
}
