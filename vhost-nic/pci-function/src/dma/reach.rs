//! Access to guest memory while its mappings stay in place.

use std::ptr::NonNull;

use parking_lot::RwLockReadGuard;
use vm_memory::VolatileSlice;

use super::error::Result;
use super::region::Region;
use super::region_table::RegionTable;

/// Read guard on the regions of a guest, and the region accessed last: the next access is most often in the same one.
#[derive(Debug)]
pub(super) struct Reach<'a> {
    regions: RwLockReadGuard<'a, RegionTable>,
    window: Window,
}

/// A region as the host has it, found without a search. Valid while the regions do not change.
#[derive(Debug)]
struct Window {
    address: u64,
    /// Length in bytes; 0 if there is no window.
    length: u64,
    host: NonNull<u8>,
    writable: bool,
}

impl<'a> Reach<'a> {
    #[inline]
    pub(super) fn new(regions: RwLockReadGuard<'a, RegionTable>) -> Self {
        let window = Window {
            address: 0,
            length: 0,
            host: NonNull::dangling(),
            writable: false,
        };
        Self { regions, window }
    }

    /// Returns the bytes of a range if the device may access them so and they are in one region.
    #[inline(always)]
    pub(super) fn whole(&mut self, address: u64, length: usize, write: bool) -> Option<VolatileSlice<'_>> {
        if !self.window.contains(address, length) {
            self.move_window(address, length)?;
        }
        if write && !self.window.writable {
            return None;
        }
        let offset = (address - self.window.address) as usize;
        // SAFETY: inside the window, which is a region of the guarded regions: mapped as long as this object lives.
        let host = unsafe { self.window.host.as_ptr().add(offset) };
        // SAFETY: as above; other processes access the memory as well, which a volatile slice allows for.
        Some(unsafe { VolatileSlice::new(host, length) })
    }

    /// Moves the window to the region that has all of a range, if there is one.
    fn move_window(&mut self, address: u64, length: usize) -> Option<()> {
        let window = Window::of(self.regions.at(address)?)?;
        window.contains(address, length).then(|| self.window = window)
    }

    /// Returns the bytes of a range, in order: a slice for each region that it touches.
    #[cold]
    pub(super) fn parts(&self, address: u64, length: usize, write: bool) -> Result<Vec<VolatileSlice<'_>>> {
        self.regions.slices(address, length, write)
    }

    /// Reads `data`.
    #[inline]
    pub(super) fn read(&mut self, address: u64, data: &mut [u8]) -> Result<()> {
        if let Some(slice) = self.whole(address, data.len(), false) {
            slice.copy_to(data);
            return Ok(());
        }
        let mut rest = data;
        for slice in self.parts(address, rest.len(), false)? {
            let (now, later) = rest.split_at_mut(slice.len());
            slice.copy_to(now);
            rest = later;
        }
        Ok(())
    }

    /// Writes all of `data`.
    #[inline]
    pub(super) fn write(&mut self, address: u64, data: &[u8]) -> Result<()> {
        if let Some(slice) = self.whole(address, data.len(), true) {
            slice.copy_from(data);
            return Ok(());
        }
        let mut rest = data;
        for slice in self.parts(address, rest.len(), true)? {
            let (now, later) = rest.split_at(slice.len());
            slice.copy_from(now);
            rest = later;
        }
        Ok(())
    }
}

impl Window {
    /// Returns the window of a region, if the device can access it.
    fn of(region: &Region) -> Option<Self> {
        let (bytes, writable) = region.bytes()?;
        Some(Self {
            address: region.address,
            length: region.length,
            host: NonNull::new(bytes.ptr_guard_mut().as_ptr())?,
            writable,
        })
    }

    #[inline]
    fn contains(&self, address: u64, length: usize) -> bool {
        let offset = address.wrapping_sub(self.address);
        offset < self.length && length as u64 <= self.length - offset
    }
}
