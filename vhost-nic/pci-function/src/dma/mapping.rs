//! Mappings of the files that hold guest memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vhost_daemon::lost_memory::{Guard, Loss, PAGE_SIZE, check_memory_file, mapped_length};
use vm_memory::VolatileSlice;

/// Maximum number of mappings of a guest: of files, not of ranges of guest addresses.
const MAX_MAPPINGS: usize = 128;

/// File behind a range of guest addresses.
#[derive(Debug)]
pub struct Backing {
    /// File that holds the memory. Closed when it is mapped.
    pub file: File,
    /// Offset of the range in the file, in bytes.
    pub offset: u64,
    /// Whether the device may write.
    pub writable: bool,
}

/// A mapping of a part of a file.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    /// Length in bytes.
    length: usize,
    /// Length in whole pages, in bytes.
    size: usize,
    /// Offset in the file, in bytes.
    offset: u64,
    identity: Identity,
    /// `None` only when it is dropped.
    guard: Option<Guard>,
}

// SAFETY: shared memory that any thread may access through volatile slices.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// File and access of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    writable: bool,
}

/// A file that may hold guest memory: the kernel alone answers what is asked of it.
#[derive(Debug)]
pub(super) struct MemoryFile {
    file: File,
    /// Length in bytes.
    length: u64,
    /// Offset of a range in the file, in bytes.
    offset: u64,
    identity: Identity,
}

impl MemoryFile {
    /// Checks a file. The client may decide when its file system answers: the caller must hold no lock.
    pub(super) fn new(backing: Backing) -> io::Result<Self> {
        let Backing { file, offset, writable } = backing;
        check_memory_file(&file)?;
        let metadata = file.metadata()?;
        // As mmap does: also of a file that is mapped already.
        if !offset.is_multiple_of(PAGE_SIZE as u64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let access = fcntl_getfl(&file)? & (OFlags::RWMODE | OFlags::PATH);
        if access != OFlags::RDWR && (writable || access != OFlags::RDONLY) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let identity = Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            writable,
        };
        Ok(Self {
            length: metadata.len(),
            file,
            offset,
            identity,
        })
    }

    /// Whether the device may write.
    pub(super) fn is_writable(&self) -> bool {
        self.identity.writable
    }
}

impl Mapping {
    fn new(file: &File, identity: Identity, offset: u64, length: usize, loss: &Arc<Loss>) -> io::Result<Self> {
        let protection = if identity.writable {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        let size = mapped_length(file, length)?;
        // SAFETY: a new mapping, wherever there is room.
        let start = unsafe { mmap(std::ptr::null_mut(), length, protection, flags, file, offset)? };
        let mut mapping = Self {
            start: NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            length,
            size,
            offset,
            identity,
            guard: None,
        };
        // SAFETY: the whole mapping; the guard is dropped before it.
        let guard = unsafe { Guard::new(start as usize, size, loss) };
        mapping.guard = Some(guard?);
        Ok(mapping)
    }

    /// Returns `length` bytes at an offset; `None` if they are not all inside.
    #[inline]
    pub(super) fn slice(&self, offset: usize, length: usize) -> Option<VolatileSlice<'_>> {
        if offset.checked_add(length)? > self.length {
            return None;
        }
        // SAFETY: inside the mapping.
        let start = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: mapped as long as the slice lives; other processes access the memory as well, which a volatile slice
        // allows for.
        Some(unsafe { VolatileSlice::new(start, length) })
    }

    /// Returns the offset of a part of the file; `None` if it is not all inside.
    fn position(&self, offset: u64, length: usize) -> Option<usize> {
        let within = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        (within.checked_add(length)? <= self.length).then_some(within)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.guard = None;
        // SAFETY: the mapping of this object, to which no slice refers any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.size) };
    }
}

/// The mappings of a guest. A file is mapped once, however many ranges of guest addresses refer to it: behind a virtual
/// IOMMU, each page may be a range of its own.
#[derive(Debug, Default)]
pub(super) struct Mappings(Vec<Weak<Mapping>>);

impl Mappings {
    /// Returns a mapping of `length` bytes of a file, and their offset in it. Maps the whole file if that stays within
    /// `max_bytes` for the guest. The file is not needed any more.
    pub(super) fn map(
        &mut self,
        file: &MemoryFile,
        length: usize,
        max_bytes: u64,
        loss: &Arc<Loss>,
    ) -> io::Result<(Arc<Mapping>, usize)> {
        let (offset, identity) = (file.offset, file.identity);
        // An access past the end of the file would raise SIGBUS.
        if offset.checked_add(length as u64).is_none_or(|end| end > file.length) {
            return Err(io::Error::other("the file is too short"));
        }
        self.0.retain(|mapping| mapping.strong_count() > 0);
        let (mut bytes, mut count) = (0, 0);
        for mapping in self.0.iter().filter_map(Weak::upgrade) {
            let position = mapping.position(offset, length);
            if let (true, Some(position)) = (mapping.identity == identity, position) {
                return Ok((mapping, position));
            }
            bytes += mapping.length as u64;
            count += 1;
        }
        let left = max_bytes.saturating_sub(bytes);
        if count >= MAX_MAPPINGS || length as u64 > left {
            return Err(io::Error::other(
                "the guest has mapped as much as it may (--max-guest-memory)",
            ));
        }
        let whole = usize::try_from(file.length).ok().filter(|whole| *whole as u64 <= left);
        let (mapping, position) = match whole {
            Some(whole) => (Mapping::new(&file.file, identity, 0, whole, loss)?, offset as usize),
            None => (Mapping::new(&file.file, identity, offset, length, loss)?, 0),
        };
        let mapping = Arc::new(mapping);
        self.0.push(Arc::downgrade(&mapping));
        Ok((mapping, position))
    }
}
