//! Guest memory as a vhost-user front-end describes it, within the limits and guarded against its loss.

#![expect(unsafe_code, reason = "the guard needs a promise about the mapping")]

use std::io;
use std::sync::Arc;

use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};

use crate::lost_memory::{Guard, Loss, check_memory_file, mapped_length};

/// Guards of the memory of one connection.
#[derive(Debug)]
pub struct GuardedRam {
    loss: Arc<Loss>,
    max_bytes: u64,
    /// Guards are dropped before their regions, and regions kept for as long as a thread may use them.
    regions: Vec<(Guard, Arc<GuestRegionMmap>)>,
}

impl GuardedRam {
    /// Creates the guards of a guest that may map `max_bytes`.
    pub fn new(loss: Arc<Loss>, max_bytes: u64) -> Self {
        Self {
            loss,
            max_bytes,
            regions: Vec::new(),
        }
    }

    /// Guards memory before its first use, and unmaps memory that is no longer in use.
    ///
    /// # Errors
    ///
    /// Fails if the memory is larger than the guest may map, or of a kind on which a thread could wait without end. The
    /// memory must not be used then.
    pub fn guard(&mut self, memory: &GuestMemoryMmap) -> io::Result<()> {
        self.release();
        let bytes: u64 = memory.iter().map(GuestMemoryRegion::len).sum();
        if bytes > self.max_bytes {
            let limit = self.max_bytes;
            return Err(io::Error::other(format!(
                "the guest has {bytes} bytes of memory, and the limit is {limit} (--max-guest-memory)"
            )));
        }
        let mut rest = memory.clone();
        for described in memory.iter() {
            let (start, length) = (described.start_addr(), described.len());
            let file = described.file_offset().ok_or(io::ErrorKind::InvalidInput)?;
            check_memory_file(file.file())?;
            let (without, region) = rest.remove_region(start, length).map_err(io::Error::other)?;
            rest = without;
            if self.regions.iter().any(|(_, known)| Arc::ptr_eq(known, &region)) {
                continue;
            }
            let size = mapped_length(file.file(), region.size())?;
            // SAFETY: a region is a whole mapping, and kept as long as the guard.
            let guard = unsafe { Guard::new(region.as_ptr() as usize, size, &self.loss)? };
            self.regions.push((guard, region));
        }
        Ok(())
    }

    /// Unmaps memory that is no longer in use.
    pub fn release(&mut self) {
        self.regions.retain(|(_, region)| Arc::strong_count(region) > 1);
    }
}
