//! Permission to read the memory that a payload refers to. It can be revoked while the payload is under way.

use std::fmt;

use super::readers::Readers;

/// Range of a memory key that a payload refers to, as one queue uses it.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// QP number.
    pub queue: u32,
    /// Key.
    pub key: u32,
    /// Address of the first byte.
    pub address: u64,
    /// Length in bytes.
    pub length: usize,
    /// Whether the range is read for the peer of the queue.
    pub remote: bool,
}

/// Permissions of a guest.
pub trait Permissions: fmt::Debug + Sync {
    /// Readers of the guest's payloads.
    fn readers(&self) -> &Readers;

    /// Returns the guest memory that a range still stands for, address and length of each segment; none if the
    /// permission may have ended since there were `since` revocations.
    fn memory_of(&self, origin: &Origin, since: u64) -> Vec<(u64, usize)>;
}
