//! Limits of a fabric, and refusals of requests.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Way of the data from one guest to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A guest maps the DMBs of its peers.
    #[default]
    Mapped,
    /// No memory is mapped by two guests; the device copies what a guest moves.
    Copy,
}

/// Limits that hold for every guest of a fabric, and its mode.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Way of the data.
    pub mode: Mode,
    /// Bytes of each guest's window that hold DMBs, a multiple of 2 MiB. One pair of guests that shares memory gets at
    /// most half of it.
    pub window_size: u64,
    /// Largest DMB in bytes, a power of two.
    pub max_dmb_size: u64,
    /// Maximum number of DMBs a guest owns and attaches together.
    pub max_dmbs: u32,
    /// Maximum number of slabs in a guest's window. Each is a memory region of the guest's VMM, which slows down past
    /// 100 of them.
    pub max_maps: u32,
}

/// Reason why the fabric refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The token names no live DMB.
    #[error("no live DMB has this token")]
    NoSuchDmb,
    /// The GID or device id names no live session.
    #[error("no guest with a running driver has this GID")]
    NoSuchPeer,
    /// Size zero or over the limit, or a peer that is the guest itself.
    #[error("the request is invalid in this fabric")]
    Invalid,
    /// The guest may not attach this DMB.
    #[error("attach permission was not granted")]
    Attach,
    /// Read access was not requested or not granted.
    #[error("read access was not requested or not granted")]
    Read,
    /// Write access was not requested or not granted.
    #[error("write access was not requested or not granted")]
    Write,
    /// Window, slab budget or DMB table is full.
    #[error("the window, the slab budget or the DMB table is full")]
    Full,
    /// The host refused memory.
    #[error("the host has no memory for a slab")]
    NoMemory,
}
