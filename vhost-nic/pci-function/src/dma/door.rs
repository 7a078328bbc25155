//! The door to guest memory: what is between the device and its accesses.

use super::error::Result;

/// A door that accesses to guest memory pass.
pub trait MemoryDoor: Send + Sync {
    /// Lets an access of a purpose (by its name in the statistics) pass, perhaps after a while. Returns false if the
    /// access fails as one to memory that is not mapped.
    fn access(&self, purpose: &'static str, write: bool) -> bool;

    /// Returns the tape that accesses are recorded on or replayed from, if there is one.
    fn tape(&self) -> Option<&dyn MemoryTape> {
        None
    }
}

/// A tape of accesses to guest memory. Each method calls `live` to access the memory, or answers in its place.
pub trait MemoryTape: Send + Sync {
    /// Reads `data`.
    fn read(&self, address: u64, data: &mut [u8], live: &mut dyn FnMut(&mut [u8]) -> Result<()>) -> Result<()>;

    /// Writes `data`.
    fn write(&self, address: u64, data: &[u8], live: &mut dyn FnMut() -> Result<()>) -> Result<()>;

    /// Replaces a 64-bit integer by the result of `change`, unless that is `None`; returns the previous value.
    fn update(
        &self,
        address: u64,
        change: &dyn Fn(u64) -> Option<u64>,
        live: &mut dyn FnMut() -> Result<u64>,
    ) -> Result<u64>;
}
