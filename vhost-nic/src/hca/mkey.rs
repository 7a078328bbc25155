//! Memory keys: what a queue, or its peer, may reach of the guest's memory, and how it counts it.

mod context;
mod error;
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
pub use context::{AccessMode, access_mode};
pub use error::{InvalidMkey, MkeyError};
use translation::Translations;
pub use umr::{UmrControl, UmrError, UmrPoster, invalidate, umr};
pub use walk::{MAX_INDIRECTION, Recent, translate};

/// Keys from here on are given out; lower indexes are the device's own (`MLX5_INVALID_LKEY` is index 1).
pub const FIRST_INDEX: u32 = 0x10;
/// A key is its index and 8 bits the driver chooses.
pub const VARIANT_BITS: u32 = 8;
/// A key that reads as zeros and takes what is written.
pub const NULL_MKEY: u32 = 0x200;
/// A key for data that is not worth copying; it does what the null key does.
pub const DUMP_FILL_MKEY: u32 = 0x300;
/// A key for all of memory, for queues whose context allows it (`rlky` of a QPC).
pub const RESERVED_LKEY: u32 = 0x400;
/// The queue number of a key that is for all queues.
pub const ANY_QUEUE: u32 = 0xff_ffff;
/// Bytes in the unit that lists of translations are counted in (`MLX5_OCTWORD`, infiniband/hw/mlx5/mlx5_ib.h).
pub const OCTWORD: usize = 16;

/// What is to be done with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it, for the guest's own queue.
    LocalRead,
    /// Write it, for the guest's own queue.
    LocalWrite,
    /// Read it, for the peer of a queue.
    RemoteRead,
    /// Write it, for the peer of a queue.
    RemoteWrite,
    /// Read and write it at once, for the peer of a queue.
    RemoteAtomic,
}

/// The queue that uses a key, locally or for its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accessor {
    /// Its protection domain.
    pub pd: u32,
    /// Its number.
    pub qpn: u32,
    /// Whether it may use [`RESERVED_LKEY`] (`rlky` of a QPC).
    pub reserved_lkey: bool,
}

/// A part of a range of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// Guest memory: address and length in bytes.
    Memory(u64, usize),
    /// So many bytes that read as zeros and take what is written.
    Null(usize),
}

impl Segment {
    /// Its length in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::Memory(_, length) | Self::Null(length) => length,
        }
    }
}

/// A memory key.
///
/// Translations hold it for reading until the guest's memory has been accessed: a change, which waits for them, is in effect when it returns.
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
    /// Makes a key, once it has an index, with its list of translations as it is in the command that creates it.
    pub fn prepare(context: Mkc, translations: &[u8]) -> Result<impl FnOnce(u32) -> Self + use<>, InvalidMkey> {
        let translations = Translations::new(&context, translations)?;
        Ok(|index| Self {
            index,
            state: Arc::new(RwLock::new(State { context, translations })),
        })
    }

    /// The key as a WQE names it.
    pub fn key(&self) -> u32 {
        let variant = self.state.read().context.mkey_7_0();
        self.index << VARIANT_BITS | u32::from(variant)
    }

    /// Its context as it is now.
    pub fn context(&self) -> Mkc {
        self.state.read().context.clone()
    }

    /// The first bytes of its list of translations, in the format of the command that creates it, at most `limit`.
    pub fn translations(&self, limit: usize) -> Vec<u8> {
        self.state.read().translations.bytes(limit)
    }

    /// Makes it a key nobody can use, and waits for those who do.
    pub fn revoke(&self) {
        self.state.write().context.set_free(true);
    }
}
