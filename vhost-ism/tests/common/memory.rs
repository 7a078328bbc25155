//! The RAM of a test guest: two regions of one memfd with a hole between them.

use std::fs::File;

use vhost::VhostUserMemoryRegionInfo;
use vhost_ism::slab::sealed_memfd;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Guest physical address of the lower region.
pub const LOW: u64 = 0x10_0000;
/// Guest physical address of the upper region.
pub const HIGH: u64 = 0x1_0000_0000;
/// Length of each region in bytes.
pub const REGION: u64 = 1 << 20;

/// Guest RAM.
pub struct Ram(GuestMemoryMmap<()>);

impl Ram {
    /// Creates zeroed RAM.
    pub fn new() -> Self {
        Self::of(File::from(sealed_memfd("test-guest-ram", 2 * REGION).unwrap()))
    }

    /// Creates zeroed RAM in a file that can be truncated.
    pub fn unsealed() -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * REGION).unwrap();
        Self::of(file)
    }

    fn of(file: File) -> Self {
        let at = |gpa, offset| {
            let file = FileOffset::new(file.try_clone().unwrap(), offset);
            (GuestAddress(gpa), REGION as usize, Some(file))
        };
        Self(GuestMemoryMmap::from_ranges_with_files([at(LOW, 0), at(HIGH, REGION)]).unwrap())
    }

    /// Returns the regions as the front-end describes them.
    pub fn regions(&self) -> Vec<VhostUserMemoryRegionInfo> {
        self.0
            .iter()
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).unwrap())
            .collect()
    }

    /// Truncates the file.
    pub fn truncate(&self) {
        let region = self.0.iter().next().unwrap();
        region.file_offset().unwrap().file().set_len(0).unwrap();
    }

    /// Returns the front-end's address for a guest address.
    pub fn user_address(&self, gpa: u64) -> u64 {
        self.0.get_host_address(GuestAddress(gpa)).unwrap() as u64
    }

    /// Writes bytes.
    pub fn write(&self, gpa: u64, bytes: &[u8]) {
        self.0.write_slice(bytes, GuestAddress(gpa)).unwrap();
    }

    /// Reads bytes.
    pub fn read(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }
}
