//! The mappings of one guest's window, and the rules for changing them.
//!
//! A map or unmap may only be requested of the VMM while the guest's driver runs and one of its own requests is being
//! answered: QEMU (hw/virtio/vhost-user.c, 11.1) dereferences a device that is not started, and it acknowledges the
//! request before the change has taken effect. A [`RegionMapper`] therefore returns only once the change is in effect.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use serde::{Serialize, Serializer};
use vhost_daemon::trace::Tracer;

use crate::abi::SHMID_REGIONS;
use crate::door::Door;
use crate::fabric::Mapping;
use crate::ism_event::{IsmEvent, nanoseconds};
use crate::slab::SlabId;

/// A range of a shared memory region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionRange {
    /// Id of the region.
    pub shmid: u8,
    /// Offset in the region in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Changes the shared memory regions of one guest; a call returns once the change is in effect.
pub trait RegionMapper: Send + Sync {
    /// Maps the bytes of `memfd` from `from` to this range.
    fn map(&self, memfd: BorrowedFd<'_>, from: u64, to: RegionRange) -> io::Result<()>;
    /// Unmaps exactly the range of one earlier map.
    fn unmap(&self, range: RegionRange) -> io::Result<()>;
}

/// A mapper behind the door of its guest, whose calls are recorded in the execution trace.
pub struct Traced {
    mapper: Arc<dyn RegionMapper>,
    tracer: Tracer,
    door: Option<Arc<dyn Door>>,
}

impl Traced {
    /// Records the calls of `mapper` that pass `door`.
    pub fn new(mapper: Arc<dyn RegionMapper>, tracer: Tracer, door: Option<Arc<dyn Door>>) -> Self {
        Self { mapper, tracer, door }
    }

    fn record(&self, event: IsmEvent, range: RegionRange, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let begun = self.tracer.is_on().then(Instant::now);
        let result = change();
        if let (Some(begun), Ok(())) = (begun, &result) {
            let pages = |bytes: u64| (bytes / 4096) as u32;
            let arguments = || [pages(range.offset), pages(range.len), nanoseconds(begun.elapsed()), 0];
            self.tracer.record(event, 0, arguments);
        }
        result
    }
}

impl RegionMapper for Traced {
    fn map(&self, memfd: BorrowedFd<'_>, from: u64, to: RegionRange) -> io::Result<()> {
        if self.door.as_ref().is_some_and(|door| !door.map()) {
            return Err(io::Error::other("refused by a fault"));
        }
        self.record(IsmEvent::Map, to, || self.mapper.map(memfd, from, to))
    }

    fn unmap(&self, range: RegionRange) -> io::Result<()> {
        self.record(IsmEvent::Unmap, range, || self.mapper.unmap(range))
    }
}

/// The mappings of one guest's window.
#[derive(Debug, Default, Serialize)]
pub struct Window {
    /// Mapped ranges of each slab, in its order. Fewer than it has parts, if the VMM has refused one.
    #[serde(serialize_with = "ids")]
    slabs: HashMap<SlabId, Vec<RegionRange>>,
    doorbell: bool,
}

fn ids<S: Serializer>(slabs: &HashMap<SlabId, Vec<RegionRange>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(slabs.keys())
}

impl Window {
    /// Maps the parts of a slab that are not mapped. Returns their number.
    pub fn ensure_slab(&mut self, mapper: &dyn RegionMapper, mapping: &Mapping) -> io::Result<u64> {
        let memory = &mapping.memory;
        let mapped = self.slabs.entry(memory.id).or_default();
        let parts = mapping.parts.get(mapped.len()..).unwrap_or_default();
        for part in parts {
            let to = RegionRange {
                shmid: SHMID_REGIONS,
                offset: part.base,
                len: part.len,
            };
            mapper.map(memory.memfd.as_fd(), part.from, to)?;
            mapped.push(to);
        }
        Ok(parts.len() as u64)
    }

    /// Maps the doorbell area unless it is mapped. Returns whether it was mapped by this call.
    pub fn ensure_doorbell(
        &mut self,
        mapper: &dyn RegionMapper,
        memfd: BorrowedFd<'_>,
        to: RegionRange,
    ) -> io::Result<bool> {
        if self.doorbell {
            return Ok(false);
        }
        mapper.map(memfd, 0, to)?;
        self.doorbell = true;
        Ok(true)
    }

    /// Unmaps what is mapped of a slab. Returns the number of its parts. After an error the rest still counts as
    /// mapped.
    pub fn remove_slab(&mut self, mapper: &dyn RegionMapper, id: SlabId) -> io::Result<u64> {
        let mut unmapped = 0;
        if let Some(mapped) = self.slabs.get_mut(&id) {
            while let Some(range) = mapped.last() {
                mapper.unmap(*range)?;
                mapped.pop();
                unmapped += 1;
            }
        }
        self.slabs.remove(&id);
        Ok(unmapped)
    }
}
