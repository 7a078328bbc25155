//! Memory keys: access rights and address translation for queues and their peers.

mod context;
mod error;
mod page_list;
mod retired;
mod translation;
mod umr;
mod walk;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use mlx5_prm::mkey::Mkc;
use parking_lot::RwLock;
use serde::Serialize;

use super::inspect;
use super::memory_budget::Budget;
pub use context::{AccessMode, access_mode};
pub use error::{InvalidMkey, MkeyError};
pub use retired::RetiredKeys;
use translation::Translations;
pub use umr::{UmrControl, UmrError, UmrPoster, invalidate, umr};
pub use walk::{MAX_INDIRECTION, Recent, check, translate};

/// Lowest index the device assigns; lower ones are reserved (`MLX5_INVALID_LKEY` is index 1).
pub const FIRST_INDEX: u32 = 0x10;
/// Bits of a key below its index; the driver chooses them.
pub const VARIANT_BITS: u32 = 8;
/// Null key: reads as zeros, discards writes.
pub const NULL_MKEY: u32 = 0x200;
/// Dump-fill key; behaves as the null key.
pub const DUMP_FILL_MKEY: u32 = 0x300;
/// Reserved lkey: all of memory, for queues whose context allows it (`rlky` of a QPC).
pub const RESERVED_LKEY: u32 = 0x400;
/// Queue number of a key that is bound to no queue.
pub const ANY_QUEUE: u32 = 0xff_ffff;
/// Bytes of the unit of translation lists (`MLX5_OCTWORD`, infiniband/hw/mlx5/mlx5_ib.h).
pub const OCTWORD: usize = 16;

/// Kind of access to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read by the guest's own queue.
    LocalRead,
    /// Write by the guest's own queue.
    LocalWrite,
    /// Read by the peer of a queue.
    RemoteRead,
    /// Write by the peer of a queue.
    RemoteWrite,
    /// Atomic operation by the peer of a queue.
    RemoteAtomic,
}

/// Queue that uses a key, for itself or for its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accessor {
    /// Protection domain of the queue.
    pub pd: u32,
    /// Queue number (24 bits).
    pub qpn: u32,
    /// Whether it may use [`RESERVED_LKEY`] (`rlky` of a QPC).
    pub reserved_lkey: bool,
}

/// Contiguous segment of a range of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// Guest memory: address and length in bytes.
    Memory(u64, usize),
    /// Bytes that read as zeros and discard writes: their number.
    Null(usize),
}

impl Segment {
    /// Length in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Memory(_, length) | Self::Null(length) => length,
        }
    }
}

/// A memory key.
///
/// A translation holds the read lock until it has accessed guest memory. A change waits for translations in progress,
/// and is in effect when it returns. A payload by reference keeps addresses only, and is read after its keys are
/// unlocked: see [`Hca::revoke`](super::Hca::revoke).
#[derive(Debug, Serialize)]
pub struct Mkey {
    /// Index of the key.
    pub index: u32,
    state: Arc<RwLock<State>>,
}

#[derive(Debug, Serialize)]
struct State {
    #[serde(serialize_with = "inspect::mkc")]
    context: Mkc,
    #[serde(skip)]
    translations: Translations,
}

impl Mkey {
    /// Checks context and translation list of CREATE_MKEY; returns a function that creates the key with its index.
    /// The list is charged to `budget`.
    pub fn prepare(
        context: Mkc,
        translations: &[u8],
        budget: &Arc<Budget>,
    ) -> Result<impl FnOnce(u32) -> Self + use<>, InvalidMkey> {
        let translations = Translations::new(&context, translations, budget)?;
        Ok(|index| Self {
            index,
            state: Arc::new(RwLock::new(State { context, translations })),
        })
    }

    /// Returns the key as used in WQEs: index and variant.
    pub fn key(&self) -> u32 {
        let variant = self.state.read().context.mkey_7_0();
        self.index << VARIANT_BITS | u32::from(variant)
    }

    /// Whether the key is free, or has another variant than this one.
    pub fn is_invalid(&self, key: u32) -> bool {
        let context = &self.state.read().context;
        context.free() || context.mkey_7_0() != key as u8
    }

    /// Returns the current context.
    pub fn context(&self) -> Mkc {
        self.state.read().context.clone()
    }

    /// Returns the first bytes of the translation list, at most `limit`, in the format of CREATE_MKEY.
    pub fn translations(&self, limit: usize) -> Vec<u8> {
        self.state.read().translations.bytes(limit)
    }

    /// Invalidates the key, and waits for translations in progress.
    pub fn revoke(&self) {
        self.state.write().context.set_free(true);
    }
}
