//! A vring on which no front-end can block a thread.
//!
//! vhost-user-backend 0.24 reads kicks and writes calls as if they never blocked, but the front-end chooses the
//! descriptors and shares them. A kick can be gone before it is read, as when the device is stopped and restarted in
//! between; a worker would end on that error, or wait. User Mode Linux passes sockets as call descriptors (`os_pipe`,
//! arch/um/os-Linux/file.c), which fill up while the guest is stopped.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::{Arc, RwLockReadGuard, RwLockWriteGuard};

use parking_lot::Mutex;
use rustix::io::{ReadWriteFlags, preadv2};
use rustix::net::sockopt::socket_domain;
use rustix::net::{AddressFamily, SendFlags, send};
use vhost_user_backend::{VringRwLock, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::Error;
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::foreign_eventfd::ForeignEventFd;

/// Guest memory as the front-end currently describes it.
pub type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// Replaces the memory in a shared table.
pub fn replace(table: &Memory, memory: GuestMemoryMmap) {
    match table.lock() {
        Ok(guard) => guard.replace(memory),
        Err(poisoned) => poisoned.into_inner().replace(memory),
    }
}

/// [`VringRwLock`] whose descriptors nobody waits for. A kick descriptor is an eventfd, a call descriptor an eventfd or
/// a Unix socket; others are ignored.
#[derive(Clone)]
pub struct Vring {
    inner: VringRwLock,
    descriptors: Arc<Mutex<Descriptors>>,
}

/// Lock order: after the vring's own lock, and a leaf.
#[derive(Default)]
struct Descriptors {
    kick: Option<ForeignEventFd>,
    call: Option<Call>,
}

/// Descriptor by which the guest is notified.
enum Call {
    EventFd(ForeignEventFd),
    Socket(OwnedFd),
}

impl Call {
    fn new(file: File) -> Option<Self> {
        // Of other families, a message can have to wait for another process.
        match socket_domain(&file) {
            Ok(AddressFamily::UNIX) => Some(Self::Socket(file.into())),
            Ok(_) => None,
            Err(_) => ForeignEventFd::new(file.into()).ok().map(Self::EventFd),
        }
    }

    fn signal(&self) -> io::Result<()> {
        match self {
            Self::EventFd(eventfd) => eventfd.signal(),
            Self::Socket(socket) => {
                // Unlike O_NONBLOCK, the flag is not the front-end's to clear. Fails if earlier calls are not read yet,
                // so that the guest will look at the ring, or if the guest is gone.
                let _ = send(socket, &1_u64.to_ne_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                Ok(())
            }
        }
    }
}

impl<'a> VringStateGuard<'a, Memory> for Vring {
    type G = RwLockReadGuard<'a, VringState<Memory>>;
}

impl<'a> VringStateMutGuard<'a, Memory> for Vring {
    type G = RwLockWriteGuard<'a, VringState<Memory>>;
}

impl VringT<Memory> for Vring {
    fn new(mem: Memory, max_queue_size: u16) -> Result<Self, Error> {
        Ok(Self {
            inner: VringRwLock::new(mem, max_queue_size)?,
            descriptors: Arc::default(),
        })
    }

    fn set_kick(&self, file: Option<File>) {
        let own = file.as_ref().and_then(|file| file.try_clone().ok());
        let kick = own.and_then(|file| ForeignEventFd::new(file.into()).ok());
        // Its worker waits for this one by epoll, and does not read it.
        self.inner.set_kick(file.filter(|_| kick.is_some()));
        self.descriptors.lock().kick = kick;
    }

    fn set_call(&self, file: Option<File>) {
        self.descriptors.lock().call = file.and_then(Call::new);
    }

    fn read_kick(&self) -> io::Result<bool> {
        if let Some(kick) = &self.descriptors.lock().kick {
            let mut count = [0; 8];
            // Unlike O_NONBLOCK, the flag is not the front-end's to clear. Another reader may have taken the kick; an
            // error would end the worker.
            let _ = preadv2(
                kick,
                &mut [IoSliceMut::new(&mut count)],
                u64::MAX,
                ReadWriteFlags::NOWAIT,
            );
        }
        Ok(self.inner.get_ref().is_enabled())
    }

    /// Notifies the guest. Takes no lock of the vring, and does not wait.
    fn signal_used_queue(&self) -> io::Result<()> {
        self.descriptors.lock().call.as_ref().map_or(Ok(()), Call::signal)
    }

    fn set_err(&self, _file: Option<File>) {
        // No error is reported by it.
    }

    // The rest is delegated unchanged.

    fn get_ref(&self) -> <Self as VringStateGuard<'_, Memory>>::G {
        self.inner.get_ref()
    }

    fn get_mut(&self) -> <Self as VringStateMutGuard<'_, Memory>>::G {
        self.inner.get_mut()
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), Error> {
        self.inner.add_used(desc_index, len)
    }

    fn enable_notification(&self) -> Result<bool, Error> {
        self.inner.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), Error> {
        self.inner.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, Error> {
        self.inner.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.inner.set_enabled(enabled);
    }

    fn set_queue_info(&self, desc_table: u64, avail_ring: u64, used_ring: u64) -> Result<(), Error> {
        self.inner.set_queue_info(desc_table, avail_ring, used_ring)
    }

    fn queue_next_avail(&self) -> u16 {
        self.inner.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.inner.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, idx: u16) {
        self.inner.set_queue_next_used(idx);
    }

    fn queue_used_idx(&self) -> Result<u16, Error> {
        self.inner.queue_used_idx()
    }

    fn set_queue_size(&self, num: u16) {
        self.inner.set_queue_size(num);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.inner.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        self.inner.set_queue_ready(ready);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    /// Whether a call is written to a descriptor, whose other end is `reader`.
    fn is_called(writer: OwnedFd, reader: OwnedFd) -> bool {
        let vring = Vring::new(Memory::new(GuestMemoryMmap::new()), 8).unwrap();
        vring.set_call(Some(File::from(writer)));
        vring.signal_used_queue().unwrap();
        let mut count = [0; 8];
        File::from(reader).read_exact(&mut count).is_ok() && count == 1_u64.to_ne_bytes()
    }

    #[test]
    fn nothing_is_written_to_what_is_neither_an_eventfd_nor_a_unix_socket() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(is_called(ours.into(), theirs.into()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        assert!(!is_called(ours.into(), theirs.into()));
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        assert!(!is_called(writer, reader));
    }
}
