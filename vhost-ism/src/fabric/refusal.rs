//! Limits of a fabric, and refusals of requests.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::abi::{SHMID_NOTIFY, SHMID_REGIONS};

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

/// Layout of the shared memory of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Region 1 holds the window and, at its end, the doorbell area.
    #[default]
    OneRegion,
    /// That of the draft: region 1 is the window, region 2 the doorbell area.
    TwoRegions,
}

impl Layout {
    /// Returns region and offset of the doorbell area.
    pub fn doorbell_place(self, window_size: u64) -> (u8, u64) {
        match self {
            Self::OneRegion => (SHMID_REGIONS, window_size),
            Self::TwoRegions => (SHMID_NOTIFY, 0),
        }
    }
}

/// Limits that hold for every guest of a fabric, and its mode.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Layout of the shared memory.
    pub layout: Layout,
    /// Way of the data.
    pub mode: Mode,
    /// Bytes of each guest's window that hold DMBs, a multiple of 2 MiB. One pair of guests that shares memory gets at
    /// most half of it.
    pub window_size: u64,
    /// Largest DMB in bytes, a power of two.
    pub max_dmb_size: u64,
    /// Largest area of a DMB from ALLOC in bytes, a power of two of at least 2 MiB: a larger DMB is a list of areas.
    pub max_area_size: u64,
    /// Maximum number of DMBs a guest owns and attaches together.
    pub max_dmbs: u32,
    /// Maximum number of mapped slabs in a guest's window, or parts of slabs that are not contiguous there. Each is a
    /// memory region of the guest's VMM, which slows down past 100 of them.
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
    /// The move ends beyond the DMB.
    #[error("the move ends beyond the DMB")]
    Outside,
    /// An earlier move of the guest into this DMB was refused.
    #[error("an earlier move into the DMB was refused")]
    Broken,
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
    /// The answer has no room for the areas of the DMB, of which there are this many.
    #[error("the DMB has {0} areas, for which the answer has no room")]
    Areas(u64),
    /// The host refused memory.
    #[error("the host has no memory for a slab")]
    NoMemory,
}
