//! The shared memory of a VMM: a reserved address range as the PCI BAR, in which region 2 follows region 1, and the
//! mappings that the device requested in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, OnceLock};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use vhost::vhost_user::VhostUserFrontendReqHandler;
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags, VhostUserSharedMsg};
use vhost_ism::abi::{
    CHUNK_SIZE, Config, DOORBELL_AWAKE, DOORBELL_BYTES, DOORBELL_PAGE, F_NOTIFY, SHMID_NOTIFY, SHMID_REGIONS,
};

/// Behaviour of the VMM on requests of the back-end channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Executes them.
    #[default]
    Comply,
    /// Refuses maps.
    RefuseMap,
    /// Refuses unmaps.
    RefuseUnmap,
    /// Refuses maps of a file beyond its start.
    RefuseParts,
}

/// A mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Length in bytes.
    pub len: u64,
    /// Inode of the memfd.
    pub inode: u64,
}

enum Change {
    /// Offset, length, file and offset in the file.
    Map(u64, u64, File, u64),
    Unmap(u64, u64),
}

/// Called while the device waits for a map to be answered.
type Hook = Box<dyn FnMut() + Send>;

#[derive(Default)]
struct State {
    maps: BTreeMap<u64, Map>,
    /// Acknowledged but not in effect yet.
    pending: Vec<Change>,
    violations: Vec<String>,
    /// Inodes of every memfd that this VMM has received.
    inodes: Vec<u64>,
    policy: Policy,
    requests: u64,
}

/// A doorbell as the guest rings it.
#[derive(Clone, Copy)]
pub struct Bell<'a> {
    byte: &'a AtomicU8,
    awake: &'a AtomicU32,
}

impl Bell<'_> {
    /// Rings; returns whether the device must be kicked.
    pub fn ring(&self) -> bool {
        self.byte.store(1, Ordering::Release);
        fence(Ordering::SeqCst);
        self.awake.load(Ordering::Relaxed) == 0
    }

    /// Returns whether the device has taken the ring.
    pub fn is_silent(&self) -> bool {
        self.byte.load(Ordering::SeqCst) == 0
    }
}

/// The window.
pub struct Window {
    base: NonNull<u8>,
    len: u64,
    /// Length of region 1.
    first: u64,
    doorbell: u64,
    /// Offset of the doorbell bytes.
    bytes: u64,
    /// Offset of the awake word.
    awake: u64,
    state: Mutex<State>,
    hook: Mutex<Option<Hook>>,
    commit: OnceLock<Box<dyn Fn() + Send + Sync>>,
    started: AtomicBool,
    /// A control request is being answered.
    asking: AtomicBool,
}

// SAFETY: the range is shared memory that any thread may access through the methods, which are atomic or under a lock.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// Reserves regions of these sizes without mappings, with the doorbell area that the configuration describes.
    pub fn new([first, second]: [u64; 2], config: &Config) -> Self {
        let len = first + second;
        let (doorbell, bytes, awake) = match config.features.get() & F_NOTIFY {
            0 => (config.doorbell_offset.get(), DOORBELL_BYTES, DOORBELL_AWAKE),
            _ => (
                first + config.doorbell_offset.get(),
                0,
                config.doorbell_size.get() - DOORBELL_PAGE,
            ),
        };
        // SAFETY: a new mapping, wherever there is room.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len as usize,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        };
        Self {
            base: NonNull::new(base.unwrap().cast()).unwrap(),
            len,
            first,
            doorbell,
            bytes: doorbell + bytes,
            awake: doorbell + awake,
            state: Mutex::default(),
            hook: Mutex::default(),
            commit: OnceLock::new(),
            started: AtomicBool::new(false),
            asking: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Records that the device is started, or stopped.
    pub fn set_started(&self, started: bool) {
        self.started.store(started, Ordering::SeqCst);
    }

    /// Unmaps everything, as a reset of the device does.
    pub fn unmap_all(&self) {
        let mut state = self.state();
        state.pending.clear();
        state.maps.clear();
        self.replace_by_nothing(0, self.len);
    }

    /// Marks the begin or the end of a control request.
    pub fn set_asking(&self, asking: bool) {
        self.asking.store(asking, Ordering::SeqCst);
    }

    /// Sets the behaviour on further requests.
    pub fn set_policy(&self, policy: Policy) {
        self.state().policy = policy;
    }

    /// Sets an action to run before the next map is answered.
    pub fn before_next_map(&self, hook: impl FnMut() + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    /// Sets an action to run whenever a change comes into effect. QEMU sends its memory table.
    pub fn on_commit(&self, commit: impl Fn() + Send + Sync + 'static) {
        let _ = self.commit.set(Box::new(commit));
    }

    /// Returns the mappings in effect, without the doorbell area.
    pub fn maps(&self) -> BTreeMap<u64, Map> {
        let mut maps = self.state().maps.clone();
        maps.remove(&self.doorbell);
        maps
    }

    /// Returns whether the doorbell area is mapped.
    pub fn has_doorbell(&self) -> bool {
        self.state().maps.contains_key(&self.doorbell)
    }

    /// Returns the inodes of all memory that this VMM has received.
    pub fn inodes(&self) -> Vec<u64> {
        self.state().inodes.clone()
    }

    /// Returns the number of requests on the back-end channel.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// Takes the first violation by the device.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state().violations)
    }

    fn covers(maps: &BTreeMap<u64, Map>, offset: u64, len: u64) -> bool {
        maps.range(..=offset)
            .next_back()
            .is_some_and(|(start, map)| offset + len <= start + map.len)
    }

    /// Returns whether the guest could access this range.
    pub fn is_mapped(&self, offset: u64, len: u64) -> bool {
        Self::covers(&self.state().maps, offset, len)
    }

    #[track_caller]
    fn at(&self, state: &State, offset: u64, len: u64) -> *mut u8 {
        assert!(
            Self::covers(&state.maps, offset, len),
            "the guest accesses {len} bytes at {offset:#x}, where nothing is mapped"
        );
        // SAFETY: inside of the reserved range.
        unsafe { self.base.as_ptr().add(offset as usize) }
    }

    /// Writes bytes as the guest would.
    #[track_caller]
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let state = self.state();
        let to = self.at(&state, offset, bytes.len() as u64);
        // SAFETY: the range is mapped, and stays so while the lock is held.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Reads bytes as the guest would.
    #[track_caller]
    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let state = self.state();
        let from = self.at(&state, offset, len);
        let mut bytes = vec![0; len as usize];
        // SAFETY: the range is mapped, and stays so while the lock is held.
        unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        bytes
    }

    /// Returns a word of mapped memory that two guests share.
    #[track_caller]
    pub fn word(&self, offset: u64) -> &AtomicU64 {
        let at = self.at(&self.state(), offset, 8).cast();
        // SAFETY: mapped and aligned; the caller keeps it mapped while it uses the word.
        unsafe { AtomicU64::from_ptr(at) }
    }

    /// Returns the doorbell of the DMB at an offset, to be used while the area stays mapped.
    #[track_caller]
    pub fn bell(&self, offset: u64) -> Bell<'_> {
        let state = self.state();
        let byte = self.at(&state, self.bytes + offset / CHUNK_SIZE, 1);
        let awake = self.at(&state, self.awake, 4).cast();
        Bell {
            // SAFETY: mapped, and the caller keeps it so.
            byte: unsafe { AtomicU8::from_ptr(byte) },
            // SAFETY: mapped and aligned to a page; the caller keeps it mapped.
            awake: unsafe { AtomicU32::from_ptr(awake) },
        }
    }

    /// Returns the awake word.
    pub fn awake(&self) -> u32 {
        self.bell(0).awake.load(Ordering::SeqCst)
    }

    fn replace_by_nothing(&self, offset: u64, len: u64) {
        // SAFETY: inside of the reserved range.
        let at = unsafe { self.base.as_ptr().add(offset as usize) };
        // SAFETY: replaces pages of the reserved range, which nothing else uses.
        let replaced = unsafe {
            mmap_anonymous(
                at.cast(),
                len as usize,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
            )
        };
        replaced.unwrap();
    }

    /// Checks that a request may arrive now.
    fn arrive(&self, what: &str) {
        let mut state = self.state();
        state.requests += 1;
        if !self.started.load(Ordering::SeqCst) {
            state.violations.push(format!("{what} while the device is stopped"));
        } else if !self.asking.load(Ordering::SeqCst) {
            state
                .violations
                .push(format!("{what} while no request is being answered"));
        }
    }

    /// Handles the next request: earlier acknowledged changes come into effect.
    fn take_up(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        let changes = std::mem::take(&mut state.pending);
        let committed = !changes.is_empty();
        for change in changes {
            match change {
                Change::Map(offset, len, file, from) => {
                    // SAFETY: inside of the reserved range.
                    let at = unsafe { self.base.as_ptr().add(offset as usize) };
                    let protection = ProtFlags::READ | ProtFlags::WRITE;
                    let flags = MapFlags::SHARED | MapFlags::FIXED;
                    // SAFETY: replaces pages of the reserved range, which nothing else uses.
                    let mapped = unsafe { mmap(at.cast(), len as usize, protection, flags, &file, from) };
                    mapped.unwrap();
                    let inode = file.metadata().unwrap().ino();
                    state.maps.insert(offset, Map { len, inode });
                }
                Change::Unmap(offset, len) => {
                    self.replace_by_nothing(offset, len);
                    state.maps.remove(&offset);
                }
            }
        }
        if committed && let Some(commit) = self.commit.get() {
            drop(state);
            commit();
            state = self.state();
        }
        state
    }

    /// Returns the place of a region in the address range, and its length.
    fn region(&self, shmid: u8) -> Option<(u64, u64)> {
        match shmid {
            SHMID_REGIONS => Some((0, self.first)),
            SHMID_NOTIFY if self.first < self.len => Some((self.first, self.len - self.first)),
            _ => None,
        }
    }

    /// Returns the offset of a valid map in the address range.
    fn check_map(&self, state: &State, request: &VhostUserMMap, file: &File) -> Result<u64, String> {
        let (offset, len, flags) = (request.shm_offset, request.len, request.flags);
        let Some((start, region)) = self.region(request.shmid) else {
            return Err(format!("a map in region {}", request.shmid));
        };
        if !offset.is_multiple_of(4096) || !len.is_multiple_of(4096) || offset + len > region {
            return Err(format!("a map of {len:#x} bytes at {offset:#x}"));
        }
        if VhostUserMMapFlags::from_bits(flags) != Some(VhostUserMMapFlags::WRITABLE) {
            return Err(format!("a map with flags {flags:#x}"));
        }
        let end = request.fd_offset + len;
        if !request.fd_offset.is_multiple_of(4096) || file.metadata().unwrap().len() < end {
            return Err("a map beyond its file".to_owned());
        }
        let offset = start + offset;
        let overlaps = state
            .maps
            .iter()
            .any(|(start, map)| offset < start + map.len && *start < offset + len);
        if overlaps {
            return Err(format!("a map of {len:#x} bytes at {offset:#x} over another one"));
        }
        Ok(offset)
    }
}

impl VhostUserFrontendReqHandler for Window {
    fn shmem_map(&self, request: &VhostUserMMap, fd: &dyn AsRawFd) -> io::Result<u64> {
        self.arrive("a map");
        let hook = self.hook.lock().unwrap().take();
        if let Some(mut hook) = hook {
            hook();
        }
        let mut state = self.take_up();
        // SAFETY: the caller owns the descriptor and outlives this borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
        let file = File::from(fd.try_clone_to_owned()?);
        state.inodes.push(file.metadata()?.ino());
        let refuses_part = state.policy == Policy::RefuseParts && request.fd_offset > 0;
        if state.policy == Policy::RefuseMap || refuses_part {
            return Err(io::Error::from_raw_os_error(12));
        }
        match self.check_map(&state, request, &file) {
            Ok(offset) => {
                let map = Change::Map(offset, request.len, file, request.fd_offset);
                state.pending.push(map);
                Ok(0)
            }
            Err(violation) => {
                state.violations.push(violation);
                Err(io::Error::from_raw_os_error(22))
            }
        }
    }

    fn shmem_unmap(&self, request: &VhostUserMMap) -> io::Result<u64> {
        self.arrive("an unmap");
        let mut state = self.take_up();
        let (offset, len) = (request.shm_offset, request.len);
        if state.policy == Policy::RefuseUnmap {
            return Err(io::Error::from_raw_os_error(22));
        }
        if request.shmid != SHMID_REGIONS || state.maps.get(&offset).is_none_or(|map| map.len != len) {
            let violation = format!("an unmap of {len:#x} bytes at {offset:#x}, which is no map");
            state.violations.push(violation);
            return Err(io::Error::from_raw_os_error(22));
        }
        state.pending.push(Change::Unmap(offset, len));
        Ok(0)
    }

    fn shared_object_remove(&self, _object: &VhostUserSharedMsg) -> io::Result<u64> {
        // Allowed at any time: QEMU only looks up the object.
        drop(self.take_up());
        // The object does not exist; QEMU refuses without a message.
        Err(io::Error::from_raw_os_error(22))
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the range was mapped in `new`, and no reference to this window is left.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len as usize) };
        unmapped.unwrap();
    }
}
