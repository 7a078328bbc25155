//! Transports between a VMM and a [`PciFunction`](crate::PciFunction).

pub mod vfio_user;
pub mod vhost_user_pci;
