//! The door to guest memory: what is between the device and its accesses.

/// A door that accesses to guest memory pass.
pub trait MemoryDoor: Send + Sync {
    /// Lets an access of a purpose (by its name in the statistics) pass, perhaps after a while. Returns false if the
    /// access fails as one to memory that is not mapped.
    fn access(&self, purpose: &'static str, write: bool) -> bool;
}
