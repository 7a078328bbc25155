//! A ConnectX-like NIC for QEMU and User Mode Linux guests.
//!
//! An attachment ([`pci_function::attachment`]) forwards a guest's accesses to a PCI function ([`pci`]) with a NIC ([`nic`]) behind it.
//! Commands go to the firmware ([`firmware`]), which keeps the guest's objects ([`hca`]). Doorbells go to the engine ([`engine`]), which
//! executes WQEs: from guest memory ([`dma`]) to the switch ([`net`]), and from there to another NIC's engine.

pub mod dma;
pub mod engine;
pub mod firmware;
pub mod frame;
pub mod hca;
pub mod net;
pub mod nic;
pub mod pci;
pub mod roce;
