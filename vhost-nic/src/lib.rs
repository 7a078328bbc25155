//! A ConnectX-like NIC for QEMU and User Mode Linux guests.
//!
//! An attachment ([`pci_function::attachment`]) passes a guest's accesses to a PCI function ([`pci`]) with a NIC
//! ([`nic`]) behind it. Commands go to the NIC's firmware ([`firmware`]), which manages the guest's objects ([`hca`]).
//! Doorbells go to its engine ([`engine`]), which executes WQEs: it moves data between guest memory ([`dma`]) and the
//! switch ([`net`]), and the switch calls another NIC's engine, or a port whose peer is outside the daemon
//! ([`external_port`]). [`timeline`] reads what they record meanwhile.

#![forbid(unsafe_code)]

pub mod dma;
pub mod doors;
pub mod engine;
pub mod external_port;
pub mod fault;
pub mod firmware;
pub mod frame;
pub mod hca;
pub mod net;
pub mod nic;
pub mod pci;
pub mod record;
pub mod replay;
pub mod roce;
pub mod timeline;
