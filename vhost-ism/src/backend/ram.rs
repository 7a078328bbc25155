//! Selection of the guest memory that this process may access.
//!
//! If a VMM truncates the file behind guest memory, an access kills this process (SIGBUS), which serves other guests as
//! well. A memfd can be sealed against shrinking, and QEMU's memory-backend-memfd is by default.

use std::fs::File;

use vhost_daemon::finding::Object;
use vhost_daemon::vring::Memory;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::ism_finding::Finding;
use crate::slab::is_sealed_against_shrinking;
use crate::stats::GuestStats;

/// Policy for memory that its VMM could truncate at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnsealedRam {
    /// Treat it as absent.
    #[default]
    Ignore,
    /// Use it, and trust the VMM.
    Trust,
}

/// Returns the part of the described memory that may be used.
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
        stats.report(
            Finding::UnsealedMemory,
            Object::new("memory", start.raw_value()),
            &len.to_be_bytes(),
        );
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

/// Returns whether a range of a file cannot be truncated away.
fn stays(file: &File, start: u64, len: u64) -> bool {
    // In this order: a sealed file keeps its length.
    is_sealed_against_shrinking(file)
        && start
            .checked_add(len)
            .is_some_and(|end| file.metadata().is_ok_and(|metadata| end <= metadata.len()))
}

/// Replaces the memory in a shared table.
pub fn replace(table: &Memory, memory: GuestMemoryMmap) {
    match table.lock() {
        Ok(guard) => guard.replace(memory),
        Err(poisoned) => poisoned.into_inner().replace(memory),
    }
}
