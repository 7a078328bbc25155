//! Transports between a VMM and a [`PciFunction`].

pub mod vfio_user;
pub mod vhost_user_pci;

use crate::function::PciFunction;

/// Resets a function after a connection and drops everything that the VMM set up, even if the reset panics.
fn release(name: &str, function: &PciFunction) {
    function.dma().loss().clear();
    function.disconnect();
    vhost_daemon::isolate(format_args!("{name}: the reset of the device"), || {
        function.power_cycle()
    });
    function.dma().unmap_all();
}
