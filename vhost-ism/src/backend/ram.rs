//! Which of the memory that a VMM describes this process may touch.
//!
//! Memory whose file is made shorter is gone, and an access to it kills the process (SIGBUS), which serves other guests,
//! too. A memfd can be sealed against shrinking, and QEMU's memory-backend-memfd is by default.

use std::fs::File;

use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::slab::is_sealed_against_shrinking;
use crate::stats::{Finding, GuestStats};

use vhost_daemon::vring::Memory;

/// What to do with memory that its VMM could take away at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnsealedRam {
    /// Take it for no memory at all.
    #[default]
    Ignore,
    /// Use it, and trust the VMM.
    Trust,
}

/// What of a guest's memory may be used.
pub fn usable(described: &GuestMemoryMmap, unsealed: UnsealedRam, stats: &GuestStats) -> GuestMemoryMmap {
    let mut usable = described.clone();
    if unsealed == UnsealedRam::Trust {
        return usable;
    }
    for region in described.iter() {
        let (start, len) = (region.start_addr(), region.len());
        let stays = region
            .file_offset()
            .is_some_and(|backing| stays(backing.file(), backing.start(), len));
        if stays {
            continue;
        }
        stats.find(Finding::UnsealedMemory);
        log::debug!(
            "{}: {len:#x} bytes at {:#x} are not used",
            stats.guest(),
            start.raw_value()
        );
        if let Ok((rest, _)) = usable.remove_region(start, len) {
            usable = rest;
        }
    }
    usable
}

/// Whether a range of a file is there for good.
fn stays(file: &File, start: u64, len: u64) -> bool {
    // In this order: what is sealed keeps the length it has.
    is_sealed_against_shrinking(file)
        && start
            .checked_add(len)
            .is_some_and(|end| file.metadata().is_ok_and(|metadata| end <= metadata.len()))
}

/// Makes `memory` what a shared table shows from now on.
pub fn replace(table: &Memory, memory: GuestMemoryMmap) {
    match table.lock() {
        Ok(guard) => guard.replace(memory),
        Err(poisoned) => poisoned.into_inner().replace(memory),
    }
}
