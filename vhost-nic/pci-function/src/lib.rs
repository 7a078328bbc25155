#![doc = include_str!("../README.md")]

pub mod attachment;
mod bus_master;
mod config_layout;
mod config_space;
mod device;
pub mod dma;
mod function;
mod msix;
mod spec;
mod stats;
mod turn;

pub use bus_master::BusMaster;
pub use config_layout::CONFIG_SPACE_SIZE;
pub use device::Device;
pub use function::{FunctionParts, PciFunction};
pub use msix::{Delivery, InterruptDoor, InterruptLines, MAX_VECTORS, Masking, Msix, MsixMessage, MsixStats};
pub use spec::{BarLayout, FunctionSpec, VendorCapability};
pub use stats::FunctionSnapshot;
pub use turn::{Change, FunctionDoor, Space};
