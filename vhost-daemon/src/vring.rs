//! A vring on which no front-end can block a thread.
//!
//! vhost-user-backend 0.24 reads kicks and writes calls as if they never blocked, but the front-end chooses the
//! descriptors and shares them. A kick can be gone before it is read, as when the device is stopped and restarted in
//! between; a worker would end on that error. User Mode Linux passes pipes as call descriptors, which fill up while the
//! guest is stopped.

use std::fs::File;
use std::io;
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use vhost_user_backend::{VringRwLock, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::Error;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

/// Guest memory as the front-end currently describes it.
pub type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// [`VringRwLock`] with non-blocking descriptors.
#[derive(Clone)]
pub struct Vring(VringRwLock);

fn nonblocking(file: File) -> Option<File> {
    let set = fcntl_getfl(&file).and_then(|flags| fcntl_setfl(&file, flags | OFlags::NONBLOCK));
    set.is_ok().then_some(file)
}

impl<'a> VringStateGuard<'a, Memory> for Vring {
    type G = RwLockReadGuard<'a, VringState<Memory>>;
}

impl<'a> VringStateMutGuard<'a, Memory> for Vring {
    type G = RwLockWriteGuard<'a, VringState<Memory>>;
}

impl VringT<Memory> for Vring {
    fn set_kick(&self, file: Option<File>) {
        self.0.set_kick(file.and_then(nonblocking));
    }

    fn set_call(&self, file: Option<File>) {
        self.0.set_call(file.and_then(nonblocking));
    }

    fn read_kick(&self) -> io::Result<bool> {
        match self.0.read_kick() {
            // Another reader has taken the kick; an error would end the worker.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(self.0.get_ref().is_enabled()),
            result => result,
        }
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        match self.0.signal_used_queue() {
            // Earlier calls are still pending, so the guest will look at the ring.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }

    // The rest is delegated unchanged.

    fn new(mem: Memory, max_queue_size: u16) -> Result<Self, Error> {
        VringRwLock::new(mem, max_queue_size).map(Self)
    }

    fn get_ref(&self) -> <Self as VringStateGuard<'_, Memory>>::G {
        self.0.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, Memory>>::G {
        self.0.get_mut()
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), Error> {
        self.0.add_used(desc_index, len)
    }

    fn enable_notification(&self) -> Result<bool, Error> {
        self.0.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), Error> {
        self.0.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, Error> {
        self.0.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.0.set_enabled(enabled);
    }

    fn set_queue_info(&self, desc_table: u64, avail_ring: u64, used_ring: u64) -> Result<(), Error> {
        self.0.set_queue_info(desc_table, avail_ring, used_ring)
    }

    fn queue_next_avail(&self) -> u16 {
        self.0.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.0.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, idx: u16) {
        self.0.set_queue_next_used(idx);
    }

    fn queue_used_idx(&self) -> Result<u16, Error> {
        self.0.queue_used_idx()
    }

    fn set_queue_size(&self, num: u16) {
        self.0.set_queue_size(num);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.0.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.0.set_queue_ready(ready);
    }

    fn set_err(&self, file: Option<File>) {
        self.0.set_err(file);
    }
}
