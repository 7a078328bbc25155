//! How a guest's VMM gets at its function: what an attachment hears from it, it does with a [`PciFunction`](crate::pci::PciFunction).

pub mod vfio_user;
pub mod vhost_user_pci;
