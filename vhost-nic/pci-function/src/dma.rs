//! Access to guest memory.
//!
//! A device reads and writes guest memory through [`Dma`], giving the purpose of each access, which is counted.
//! Addresses and lengths come from the guest: every access is checked against the regions that the attachment has
//! mapped, and moves nothing if any byte of it is outside of them. Once [`GuestMap::unmap`] has returned, the device no
//! longer reaches the memory.

mod access;
mod door;
mod error;
mod held;
mod mapping;
mod reach;
mod region;
mod region_table;
mod stats;
mod unmapped;

pub use access::{Dma, GuestMap};
pub use door::{MemoryAccess, MemoryDoor, MemoryTape};
pub use error::{DmaError, Result};
pub use held::Held;
pub use mapping::Backing;
pub use region_table::MAX_REGIONS;
pub use stats::{MAX_PURPOSES, Purpose, PurposeStats};

#[cfg(test)]
mod tests;
