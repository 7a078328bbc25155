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

use crate::door::Door;
use crate::fabric::Mapping;
use crate::ism_event::{IsmEvent, nanoseconds};
use crate::slab::SlabId;

/// Changes the shared memory region of one guest; a call returns once the change is in effect.
pub trait RegionMapper: Send + Sync {
    /// Maps the first `len` bytes of `memfd` at `offset` in the region.
    fn map(&self, memfd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()>;
    /// Unmaps exactly the range of one earlier map.
    fn unmap(&self, offset: u64, len: u64) -> io::Result<()>;
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

    fn record(
        &self,
        event: IsmEvent,
        (offset, len): (u64, u64),
        change: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let begun = self.tracer.is_on().then(Instant::now);
        let result = change();
        if let (Some(begun), Ok(())) = (begun, &result) {
            let pages = |bytes: u64| (bytes / 4096) as u32;
            let arguments = || [pages(offset), pages(len), nanoseconds(begun.elapsed()), 0];
            self.tracer.record(event, 0, arguments);
        }
        result
    }
}

impl RegionMapper for Traced {
    fn map(&self, memfd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<()> {
        if self.door.as_ref().is_some_and(|door| !door.map()) {
            return Err(io::Error::other("refused by a fault"));
        }
        let map = || self.mapper.map(memfd, offset, len);
        self.record(IsmEvent::Map, (offset, len), map)
    }

    fn unmap(&self, offset: u64, len: u64) -> io::Result<()> {
        let unmap = || self.mapper.unmap(offset, len);
        self.record(IsmEvent::Unmap, (offset, len), unmap)
    }
}

/// The mappings of one guest's window.
#[derive(Debug, Default, Serialize)]
pub struct Window {
    /// Offset and length of each mapped slab.
    #[serde(serialize_with = "ids")]
    slabs: HashMap<SlabId, (u64, u64)>,
    doorbell: bool,
}

fn ids<S: Serializer>(slabs: &HashMap<SlabId, (u64, u64)>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(slabs.keys())
}

impl Window {
    /// Maps a slab unless it is mapped. Returns whether it was mapped by this call.
    pub fn ensure_slab(&mut self, mapper: &dyn RegionMapper, mapping: &Mapping) -> io::Result<bool> {
        let memory = &mapping.memory;
        if self.slabs.contains_key(&memory.id) {
            return Ok(false);
        }
        mapper.map(memory.memfd.as_fd(), mapping.base, memory.len)?;
        self.slabs.insert(memory.id, (mapping.base, memory.len));
        Ok(true)
    }

    /// Maps the doorbell area unless it is mapped. Returns whether it was mapped by this call.
    pub fn ensure_doorbell(
        &mut self,
        mapper: &dyn RegionMapper,
        memfd: BorrowedFd<'_>,
        offset: u64,
        len: u64,
    ) -> io::Result<bool> {
        if self.doorbell {
            return Ok(false);
        }
        mapper.map(memfd, offset, len)?;
        self.doorbell = true;
        Ok(true)
    }

    /// Unmaps a slab if it is mapped. Returns whether it was. After an error the slab still counts as mapped.
    pub fn remove_slab(&mut self, mapper: &dyn RegionMapper, id: SlabId) -> io::Result<bool> {
        let Some(&(offset, len)) = self.slabs.get(&id) else {
            return Ok(false);
        };
        mapper.unmap(offset, len)?;
        self.slabs.remove(&id);
        Ok(true)
    }
}
