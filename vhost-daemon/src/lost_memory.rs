//! Guest memory that goes away.
//!
//! A VMM can truncate the file behind its guest's memory, or pass one without pages (huge pages that nobody has
//! reserved). An access then raises SIGBUS, which would end the process and the devices of all guests. Instead the
//! handler maps zeros in place of the memory, and a thread ends the connection of the guest.

#![expect(unsafe_code, reason = "a signal handler that maps memory")]

use std::fmt;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{FileType, fstat, fstatfs};

use crate::panic::isolate;
use crate::sandbox::{ThreadKind, confine};

/// Size of a page in bytes, but for huge pages.
pub const PAGE_SIZE: usize = 4096;
/// Maximum number of guarded mappings; the kernel allows a process 65,530 mappings (vm.max_map_count).
const SLOTS: usize = 1 << 15;
/// `FUSE_SUPER_MAGIC` and `OVERLAYFS_SUPER_MAGIC` of linux/magic.h: file systems on which an unprivileged process
/// decides when a page fault ends.
const UNBOUNDED_FILE_SYSTEMS: [u64; 2] = [0x6573_5546, 0x794c_7630];
/// `HUGETLBFS_MAGIC` of linux/magic.h.
const HUGETLBFS: u64 = 0x9584_58f6;

/// A guarded range of addresses. Both are 0 in a free slot.
struct Slot {
    /// Odd while the range changes.
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        version: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; SLOTS];
impl Slot {
    /// Changes the range. A slot has one writer at a time.
    fn set(&self, start: usize, end: usize) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// Returns the range, unless it is changing. The slot of a thread that faults does not: the thread holds the
    /// mapping.
    fn range(&self) -> Option<(usize, usize)> {
        let version = self.version.load(Ordering::Acquire);
        let range = (self.start.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version).then_some(range)
    }
}

/// Number of slots that were ever in use.
static USED: AtomicUsize = AtomicUsize::new(0);
/// Descriptor of the eventfd that wakes the thread.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// Action that ends the connection of a guest whose memory is lost, or whose device has panicked.
#[derive(Default)]
pub struct Loss(Mutex<Option<Box<End>>>);

type End = dyn Fn(&str) + Send + Sync;

impl fmt::Debug for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loss").finish_non_exhaustive()
    }
}

impl Loss {
    /// Sets the action, in place of any earlier one; it is given the reason. It may run on a thread that serves all
    /// guests, and must not wait.
    pub fn set(&self, end: impl Fn(&str) + Send + Sync + 'static) {
        *self.0.lock() = Some(Box::new(end));
    }

    /// Removes the action: the connection has ended.
    pub fn clear(&self) {
        *self.0.lock() = None;
    }

    /// Ends the connection, if there is one.
    pub fn end(&self, reason: &str) {
        if let Some(end) = &*self.0.lock() {
            end(reason);
        }
    }
}

/// Guard of a mapping of guest memory. It must be dropped before, or with, the mapping.
pub struct Guard {
    slot: usize,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("slot", &self.slot).finish()
    }
}

/// Slots and the guests that they belong to.
#[derive(Default)]
struct Owners {
    free: Vec<usize>,
    losses: Vec<Option<Arc<Loss>>>,
}

impl Guard {
    /// Guards the mapping of `length` bytes at `start`, in which zeros may be mapped from now on. Its loss is reported
    /// once.
    ///
    /// # Errors
    ///
    /// Fails if too many mappings are guarded.
    ///
    /// # Safety
    ///
    /// The range must be a whole mapping, or more than one, that this guard does not outlive.
    pub unsafe fn new(start: usize, length: usize, loss: &Arc<Loss>) -> io::Result<Self> {
        let owners = owners()?;
        let mut owners = owners.lock();
        let slot = match owners.free.pop() {
            Some(slot) => slot,
            None if owners.losses.len() < SLOTS => {
                owners.losses.push(None);
                owners.losses.len() - 1
            }
            None => return Err(io::Error::other("too many mappings of guest memory")),
        };
        owners.losses[slot] = Some(loss.clone());
        TABLE[slot].lost.store(false, Ordering::Relaxed);
        TABLE[slot].set(start, start + length);
        USED.fetch_max(slot + 1, Ordering::Release);
        Ok(Self { slot })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        TABLE[self.slot].set(0, 0);
        if let Ok(owners) = owners() {
            let mut owners = owners.lock();
            owners.losses[self.slot] = None;
            owners.free.push(self.slot);
        }
    }
}

/// Fails unless the file is one whose page faults end without its owner's doing.
pub fn check_memory_file(file: &File) -> io::Result<()> {
    let is_regular = FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::RegularFile;
    let magic = fstatfs(file)?.f_type as u64;
    if is_regular && !UNBOUNDED_FILE_SYSTEMS.contains(&magic) {
        return Ok(());
    }
    Err(io::Error::other(
        "guest memory must be a memfd, or a regular file that is not on FUSE or overlayfs",
    ))
}

/// Returns the length of a mapping of `length` bytes of a file, which the kernel rounds up to whole pages.
pub fn mapped_length(file: &File, length: usize) -> io::Result<usize> {
    let file_system = fstatfs(file)?;
    let page = match file_system.f_type as u64 {
        HUGETLBFS => file_system.f_bsize as usize,
        _ => PAGE_SIZE,
    };
    Ok(length.next_multiple_of(page))
}

/// Returns the owners of the slots; the first call installs the handler and starts the thread.
fn owners() -> io::Result<&'static Mutex<Owners>> {
    static OWNERS: OnceLock<Result<Mutex<Owners>, i32>> = OnceLock::new();
    let owners = OWNERS.get_or_init(|| {
        let started = start().map(|()| Mutex::default());
        started.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
    });
    owners.as_ref().map_err(|errno| io::Error::from_raw_os_error(*errno))
}

fn start() -> io::Result<()> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC)?;
    WAKE.store(wake.as_raw_fd(), Ordering::Release);
    thread::Builder::new()
        .name("lost memory".to_owned())
        .spawn(move || report_losses(&wake))?;
    install()
}

fn report_losses(wake: &OwnedFd) {
    confine(ThreadKind::LostMemory);
    loop {
        // Fails only if a signal interrupts it.
        let _ = rustix::io::read(wake, &mut [0; 8]);
        let Ok(owners) = owners() else { return };
        let lost: Vec<_> = {
            let owners = owners.lock();
            let slots = TABLE.iter().zip(&owners.losses);
            slots
                .filter(|(slot, _)| slot.lost.swap(false, Ordering::AcqRel))
                .filter_map(|(_, loss)| loss.clone())
                .collect()
        };
        // One action that panics leaves those of the others.
        for loss in lost {
            isolate("the end of a connection", || loss.end("memory of the guest is gone"));
        }
    }
}

fn install() -> io::Result<()> {
    // SAFETY: all zero is a valid value: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handle as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler calls only functions that are safe in signal handlers.
    match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Maps zeros over the guarded range of the address, or ends the process if there is none.
extern "C" fn handle(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid structure.
    let info = unsafe { &*info };
    // SAFETY: the location of this thread's errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: a valid pointer to an integer of this thread.
    let before = unsafe { *errno };
    // SAFETY: of SIGBUS the kernel sets the address; from other processes it is some number.
    let address = unsafe { info.si_addr() } as usize;
    let used = USED.load(Ordering::Acquire);
    let found = TABLE[..used].iter().find_map(|slot| {
        let (start, end) = slot.range()?;
        (start..end).contains(&address).then_some((slot, start, end))
    });
    // A signal that another process sends has a code of 0 or less, and its sender where the address would be.
    let replaced = match found {
        Some((slot, start, end)) if info.si_code > 0 => {
            // SAFETY: the range is a mapping of guest memory, which is accessed only as volatile bytes.
            let is_mapped = unsafe { map_zeros(start, end - start) };
            slot.lost.store(true, Ordering::Release);
            is_mapped
        }
        _ => false,
    };
    if !replaced {
        // SAFETY: the default action takes the place of this handler; a fault comes again, another signal does not.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
        // SAFETY: a signal to this thread, blocked until the handler returns.
        unsafe { libc::raise(libc::SIGBUS) };
        return;
    }
    let one = 1_u64;
    // SAFETY: eight bytes of this function's own, to an eventfd of this process that nobody else has.
    unsafe { libc::write(WAKE.load(Ordering::Acquire), (&raw const one).cast(), 8) };
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// Maps zeros at an address, and returns whether there was room for them. Only system calls, as of a signal handler.
///
/// # Safety
///
/// The range is mapped, and nothing depends on what it has.
unsafe fn map_zeros(start: usize, length: usize) -> bool {
    let place = start as *mut libc::c_void;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the caller's.
    if unsafe { libc::mmap(place, length, protection, private, -1, 0) } != libc::MAP_FAILED {
        return true;
    }
    // Where memory is not overcommitted (vm.overcommit_memory of 2), a private mapping counts as a whole, and a shared
    // one of a memfd by its pages.
    // SAFETY: a name that ends with a NUL.
    let memory = unsafe { libc::memfd_create(c"lost memory".as_ptr(), libc::MFD_CLOEXEC) };
    // SAFETY: a descriptor of this function, or -1.
    let has_room = unsafe { libc::ftruncate(memory, length as libc::off_t) } == 0;
    let shared = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the caller's.
    let is_mapped = has_room && unsafe { libc::mmap(place, length, protection, shared, memory, 0) } != libc::MAP_FAILED;
    // SAFETY: as above; the mapping keeps the file.
    unsafe { libc::close(memory) };
    is_mapped
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

    use super::*;

    #[test]
    fn a_range_that_is_changing_is_none() {
        let slot = &TABLE[SLOTS - 1];
        slot.set(0x1000, 0x2000);
        assert_eq!(slot.range(), Some((0x1000, 0x2000)));
        slot.version.fetch_add(1, Ordering::Relaxed);
        assert_eq!(slot.range(), None);
        slot.version.fetch_add(1, Ordering::Relaxed);
        slot.set(0, 0);
        assert_eq!(slot.range(), Some((0, 0)));
    }

    #[test]
    fn zeros_are_mapped_over_a_mapping() {
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, 0x4000).unwrap();
        let map: MmapRegion = MmapRegion::from_file(FileOffset::new(file, 0), 0x4000).unwrap();
        let slice = map.get_slice(0, 0x4000).unwrap();
        slice.write_slice(&[7; 0x4000], 0).unwrap();
        // SAFETY: the mapping of this test.
        assert!(unsafe { map_zeros(map.as_ptr() as usize, map.size()) });
        let mut data = [1; 2];
        slice.read_slice(&mut data, 0x2000).unwrap();
        assert_eq!(data, [0, 0]);
    }

    #[test]
    fn memory_that_goes_away_is_replaced_by_zeros_and_reported_to_its_guest_alone() {
        let maps: Vec<_> = (0..2)
            .map(|_| {
                let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
                ftruncate(&file, 0x4000).unwrap();
                let map: MmapRegion = MmapRegion::from_file(FileOffset::new(file, 0), 0x4000).unwrap();
                (map, Arc::new(Loss::default()))
            })
            .collect();
        let (lost, reports) = mpsc::channel();
        let guards: Vec<_> = maps
            .iter()
            .zip(0..)
            .map(|((map, loss), number)| {
                let lost = lost.clone();
                loss.set(move |_| lost.send(number).unwrap());
                map.get_slice(0, 0x4000).unwrap().write_slice(&[7; 0x4000], 0).unwrap();
                // SAFETY: the mappings are dropped after the guards.
                unsafe { Guard::new(map.as_ptr() as usize, map.size(), loss) }.unwrap()
            })
            .collect();
        let file = maps[1].0.file_offset().unwrap();
        ftruncate(file.file(), 0x1000).unwrap();
        let mut data = [1; 2];
        let slice = maps[1].0.get_slice(0, 0x4000).unwrap();
        slice.read_slice(&mut data, 0x2000).unwrap();
        assert_eq!(data, [0, 0]);
        assert_eq!(reports.recv().unwrap(), 1);
        slice.write_slice(&[1; 0x4000], 0).unwrap();
        let other = maps[0].0.get_slice(0, 0x4000).unwrap();
        other.read_slice(&mut data, 0x2000).unwrap();
        assert_eq!(data, [7, 7]);
        drop(guards);
        assert!(reports.try_recv().is_err());
    }

    #[test]
    fn files_on_which_a_page_fault_may_never_end_are_refused() {
        check_memory_file(&File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap())).unwrap();
        for path in ["/dev/zero", "/proc"] {
            assert!(check_memory_file(&File::open(path).unwrap()).is_err(), "{path}");
        }
    }
}
