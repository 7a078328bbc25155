//! Access to the NIC behind a driver's machine.

use mlx5_test_driver::machine::Machine;
use vhost_nic::nic::Nic;
use vhost_nic::pci::PciFunction;

use crate::nic::NicFunction;

/// The device of a machine made by [`crate::nic`].
pub trait Inspect {
    /// The NIC.
    fn nic(&self) -> &Nic;

    /// The NIC's PCI function.
    fn function(&self) -> &PciFunction;
}

impl Inspect for Machine {
    fn nic(&self) -> &Nic {
        &self.device_as::<NicFunction>().nic
    }

    fn function(&self) -> &PciFunction {
        &self.device_as::<NicFunction>().function
    }
}
