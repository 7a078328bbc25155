//! The door to guest memory: what is between the device and its accesses.

use super::error::{DmaError, Result};

/// An access to guest memory, before it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryAccess {
    /// Index of the purpose, in the order of [`Purpose::NAMES`](super::Purpose::NAMES).
    pub purpose: usize,
    /// Guest address.
    pub address: u64,
    /// Number of bytes.
    pub length: usize,
    /// Whether the device writes.
    pub write: bool,
}

/// A door that accesses to guest memory pass.
pub trait MemoryDoor: Send + Sync {
    /// Lets an access pass, perhaps after a while. Returns false if the access fails as one to memory that is not
    /// mapped.
    fn access(&self, access: &MemoryAccess) -> bool;

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

/// The way of accesses of one purpose through a door.
pub(super) struct Passage<'a> {
    door: &'a dyn MemoryDoor,
    /// Index of the purpose.
    purpose: usize,
}

impl<'a> Passage<'a> {
    #[cold]
    pub(super) fn new(door: &'a dyn MemoryDoor, purpose: usize) -> Self {
        Self { door, purpose }
    }

    /// Passes the door, where there is no tape.
    pub(super) fn enter(&self, address: u64, length: usize, write: bool) -> Result<()> {
        let access = MemoryAccess {
            purpose: self.purpose,
            address,
            length,
            write,
        };
        match self.door.access(&access) {
            true => Ok(()),
            false => Err(DmaError::Unmapped {
                address,
                length: length as u64,
            }),
        }
    }

    /// Whether accesses are recorded or replayed.
    pub(super) fn has_tape(&self) -> bool {
        self.door.tape().is_some()
    }

    /// Reads `data`, which `live` does from memory.
    #[cold]
    pub(super) fn read(
        &self,
        address: u64,
        data: &mut [u8],
        live: &mut dyn FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let mut live = |data: &mut [u8]| {
            self.enter(address, data.len(), false)?;
            live(data)
        };
        match self.door.tape() {
            None => live(data),
            Some(tape) => tape.read(address, data, &mut live),
        }
    }

    /// Writes `data`, which `live` does to memory.
    #[cold]
    pub(super) fn write(&self, address: u64, data: &[u8], live: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let mut live = || {
            self.enter(address, data.len(), true)?;
            live()
        };
        match self.door.tape() {
            None => live(),
            Some(tape) => tape.write(address, data, &mut live),
        }
    }

    /// Replaces a 64-bit integer by the result of `change`, which `live` does in memory.
    #[cold]
    pub(super) fn update(
        &self,
        address: u64,
        change: &dyn Fn(u64) -> Option<u64>,
        live: &mut dyn FnMut() -> Result<u64>,
    ) -> Result<u64> {
        let mut live = || {
            self.enter(address, size_of::<u64>(), true)?;
            live()
        };
        match self.door.tape() {
            None => live(),
            Some(tape) => tape.update(address, change, &mut live),
        }
    }
}
