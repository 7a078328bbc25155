//! A ConnectX-like NIC.
pub mod attachment;
pub mod dma;
pub mod engine;
pub mod firmware;
pub mod hca;
pub mod net;
pub mod pci;
