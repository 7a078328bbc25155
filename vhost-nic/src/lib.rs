//! A ConnectX-like NIC for QEMU and User Mode Linux guests.
//!
//! An attachment brings a guest's accesses to a PCI function ([`pci`]), behind which a NIC ([`nic`]) is. Commands go to its firmware
//! ([`firmware`]), which keeps the objects the guest makes ([`hca`]). Doorbells go to its engine ([`engine`]), which carries WQEs out: through
//! the door to guest memory ([`dma`]) to the switch ([`net`]) and from there to another NIC's engine.

#![forbid(unsafe_code)]

pub mod attachment;
pub mod dma;
pub mod engine;
pub mod firmware;
pub mod frame;
pub mod hca;
pub mod net;
pub mod nic;
pub mod pci;
pub mod roce;
