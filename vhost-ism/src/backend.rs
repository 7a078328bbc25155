//! The device as a vhost-user back-end.
//!
//! Two worker threads per connection: one answers control requests and takes new event buffers, the other serves
//! doorbells, so that a request which waits for the VMM to map delays no doorbell.
//!
//! Lock rule: while a map is asked of the VMM, no lock is held that [`VhostUserBackend::update_memory`] or
//! [`VhostUserBackend::stop_vring`] takes. QEMU sends its memory table, or stops the device, before it answers.

mod mapper;
mod ram;
mod virtqueue;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use log::{debug, warn};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserVirtioFeatures};
use vhost::vhost_user::{Backend, Listener};
use vhost_daemon::vring::{Memory, Vring};
use vhost_user_backend::{ShutdownHandle, VhostUserBackend, VhostUserDaemon, VringT};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::QueueT;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};
use zerocopy::IntoBytes;

use crate::abi::{CONTROL_QUEUE, DOORBELL_QUEUE, EVENT_QUEUE, NUM_QUEUES, SHMID_REGIONS, Status};
use crate::control;
use crate::guest::{Guest, Session, Start};
use crate::stats::Finding;
use crate::window::RegionMapper;

use mapper::ChannelMapper;
use virtqueue::{EventQueue, LateAnswer};

pub use ram::UnsealedRam;

const MAX_QUEUE_SIZE: usize = 256;

/// Worker that answers control requests and takes event buffers.
const CONTROL_THREAD: usize = 0;
/// Worker that serves doorbells.
const DOORBELL_THREAD: usize = 1;

/// How long a connection that cannot be taken or served, for want of descriptors or threads, is left waiting.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What a session needs of the VMM and gets.
type Mapper = Arc<dyn RegionMapper>;

/// Who answers control requests.
enum Service {
    /// A session.
    Session(Arc<Session>),
    /// There can be no session: every request is refused.
    Refusal,
    /// Nobody: the device is stopped.
    None,
}

/// One connection of a guest's VMM.
pub struct IsmBackend {
    guest: Arc<Guest>,
    unsealed: UnsealedRam,
    /// What vhost-user-backend translates the addresses of rings with.
    described: Memory,
    /// What may be accessed. Never holds more than that, not even for a moment.
    memory: Memory,
    channel: Mutex<Option<Backend>>,
    /// Made when the device is first started; `None` when the VMM cannot map.
    mapper: OnceLock<Option<Mapper>>,
    /// The VMM has asked for the shared memory regions.
    knows_regions: AtomicBool,
    /// The device is stopped, and has not begun to be started again.
    stopped: AtomicBool,
    /// An answer that the stopped control queue could not take, and whose it is.
    late: Mutex<Option<(Arc<Session>, LateAnswer)>>,
    /// The VMM is gone, whatever its queues look like.
    closed: AtomicBool,
    /// What the workers wait on for their end: vhost-user-backend 0.24 takes these descriptors and never closes them.
    exits: Mutex<Vec<RawFd>>,
}

impl Drop for IsmBackend {
    fn drop(&mut self) {
        // The workers' handlers had a share in this backend, so they and their epolls are gone.
        for fd in lock(&self.exits).drain(..) {
            // SAFETY: `exit_event` gave the descriptor away for good, and nothing that knew it is left.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl IsmBackend {
    fn new(guest: Arc<Guest>, described: Memory, unsealed: UnsealedRam) -> Self {
        Self {
            guest,
            unsealed,
            described,
            memory: Memory::new(GuestMemoryMmap::new()),
            channel: Mutex::default(),
            mapper: OnceLock::new(),
            knows_regions: AtomicBool::new(false),
            stopped: AtomicBool::new(true),
            late: Mutex::default(),
            closed: AtomicBool::new(false),
            exits: Mutex::default(),
        }
    }

    fn set_memory(&self, usable: GuestMemoryMmap) {
        ram::replace(&self.described, usable.clone());
        ram::replace(&self.memory, usable);
    }

    /// The means to map, if the VMM has all they need. Says once what is missing.
    fn mapper(&self) -> Option<Mapper> {
        let made = self.mapper.get_or_init(|| {
            self.make_mapper()
                .inspect_err(|error| {
                    warn!(
                        "{}: the VMM cannot map memory safely, so every request is refused: {error}",
                        self.guest.stats().guest()
                    );
                })
                .ok()
        });
        made.clone()
    }

    fn make_mapper(&self) -> io::Result<Mapper> {
        let channel = lock(&self.channel).clone();
        let channel = channel.ok_or_else(|| io::Error::other("it gave no back-end channel (BACKEND_REQ)"))?;
        if !self.knows_regions.load(Ordering::Acquire) {
            return Err(io::Error::other("it did not ask for the region (SHMEM)"));
        }
        Ok(Arc::new(ChannelMapper::new(channel)?))
    }

    /// Who answers control requests; begins or goes on with a session if the device has just been started. Called on the
    /// control worker only.
    fn service(&self, vrings: &[Vring]) -> Service {
        if let Some(session) = self.guest.session() {
            return Service::Session(session);
        }
        let (control, events) = (&vrings[CONTROL_QUEUE as usize], &vrings[EVENT_QUEUE as usize]);
        let still_up = || !self.closed.load(Ordering::Acquire) && control.get_ref().get_queue().ready();
        if !still_up() {
            return Service::None;
        }
        let Some(mapper) = self.mapper() else {
            return Service::Refusal;
        };
        let ring = EventQueue::new(events.clone(), self.memory.clone(), self.guest.stats().clone());
        let how = if [control, events].iter().all(|vring| vring.queue_next_avail() == 0) {
            Start::Anew
        } else {
            Start::Onward
        };
        match self.guest.start(still_up, how, Box::new(ring), mapper) {
            Ok(Some(session)) => {
                // What was rung while the device was stopped.
                session.serve_doorbells();
                Service::Session(session)
            }
            Ok(None) => Service::None,
            Err(error) => {
                warn!("{}: no session: {error}", self.guest.stats().guest());
                Service::Refusal
            }
        }
    }

    /// Answers what a session asked before the machine was paused.
    fn answer_late(&self, session: &Arc<Session>, vring: &Vring) {
        let mut late = lock(&self.late);
        if let Some((asker, answer)) = late.take()
            && Arc::ptr_eq(&asker, session)
        {
            let rest = virtqueue::answer_late(vring, &self.memory, self.guest.stats(), answer);
            *late = rest.map(|answer| (asker, answer));
        }
    }

    fn serve_control(&self, vrings: &[Vring]) {
        let vring = &vrings[CONTROL_QUEUE as usize];
        let stats = self.guest.stats();
        loop {
            let session = match self.service(vrings) {
                Service::Session(session) => Some(session),
                Service::Refusal => None,
                // What is in the queue is for who comes next.
                Service::None => return,
            };
            if let Some(session) = &session {
                self.answer_late(session, vring);
            }
            // The driver may reset the device while its request waits for the VMM, and start it again.
            let current = || session.as_ref().is_none_or(|session| session.is_alive());
            while let Some(request) = virtqueue::next_request(vring, &self.memory, stats, current) {
                let answer = match &session {
                    _ if request.room == 0 => {
                        stats.find(Finding::BadChain);
                        Vec::new()
                    }
                    Some(session) => control::answer(session, request.bytes.as_deref(), request.room),
                    None => vec![Status::Err as u8],
                };
                let rest = virtqueue::answer_request(vring, &self.memory, request, answer, current);
                if let (Some(answer), Some(session)) = (rest, &session) {
                    *lock(&self.late) = Some((session.clone(), answer));
                }
            }
            // Ask for the next kick, and look again for what came before it was asked for.
            if !vring.get_ref().get_queue().ready() || current() && !virtqueue::await_chains(vring, &self.memory) {
                return;
            }
        }
    }
}

impl VhostUserBackend for IsmBackend {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        NUM_QUEUES
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::BACKEND_SEND_FD
            | VhostUserProtocolFeatures::SHMEM
            // The barrier after a map.
            | VhostUserProtocolFeatures::SHARED_OBJECT
        // Not CONFIGURE_MEM_SLOTS: with it QEMU 11.1.3 dies of a null memory region when a driver starts again after a
        // reset that took its mappings. Without it QEMU prints two lines per map past 8 memory regions, to no effect.
    }

    fn set_event_idx(&self, _enabled: bool) {
        // Kept by the vrings.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        if self.stopped.load(Ordering::Acquire) {
            // Nobody reads it while the machine is paused.
            self.guest.stop_if_paused();
        }
        let config = self.guest.config();
        let bytes = config.as_bytes();
        (0..size as usize)
            .map(|i| {
                (offset as usize)
                    .checked_add(i)
                    .and_then(|at| bytes.get(at))
                    .copied()
                    .unwrap_or(0)
            })
            .collect()
    }

    /// The first thing that is done to start the device.
    fn acked_features(&self, _features: u64) {
        self.stopped.store(false, Ordering::Release);
    }

    fn update_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        let usable = ram::usable(&self.described.memory(), self.unsealed, self.guest.stats());
        self.set_memory(usable);
        Ok(())
    }

    fn set_backend_req_fd(&self, backend: Backend) {
        *lock(&self.channel) = Some(backend);
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        vec![1 << CONTROL_QUEUE | 1 << EVENT_QUEUE, 1 << DOORBELL_QUEUE]
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::CLOEXEC)
            .inspect(|(exit, _)| lock(&self.exits).push(exit.as_raw_fd()))
            .inspect_err(|error| warn!("A worker thread cannot be told to end: {error}"))
            .ok()
    }

    fn stop_vring(&self, index: u32) -> io::Result<()> {
        // The device is never asked to stop some queues and run others.
        if index == u32::from(CONTROL_QUEUE) {
            self.stopped.store(true, Ordering::Release);
            self.guest.pause();
        }
        if index + 1 == NUM_QUEUES as u32 {
            // Whoever starts the device describes its memory again.
            self.set_memory(GuestMemoryMmap::new());
            self.guest.watch_pause();
        }
        Ok(())
    }

    /// Never fails: an error would end the worker, and with it the device.
    fn handle_event(&self, event: u16, _events: EventSet, vrings: &[Vring], thread: usize) -> io::Result<()> {
        match (thread, event) {
            (CONTROL_THREAD, CONTROL_QUEUE) => self.serve_control(vrings),
            (CONTROL_THREAD, EVENT_QUEUE) => {
                if let Some(session) = self.guest.session() {
                    session.events().flush();
                }
            }
            // Queues are numbered within their thread.
            (DOORBELL_THREAD, 0) => {
                if let Some(session) = self.guest.session() {
                    session.serve_doorbells();
                }
            }
            _ => debug!(
                "{}: event {event} of worker {thread} is nobody's",
                self.guest.stats().guest()
            ),
        }
        Ok(())
    }

    fn get_shmem_config(&self) -> io::Result<VhostUserShMemConfig> {
        self.knows_regions.store(true, Ordering::Release);
        let mut sizes = [0; SHMID_REGIONS as usize + 1];
        sizes[SHMID_REGIONS as usize] = self.guest.region_size();
        Ok(VhostUserShMemConfig::new(1, &sizes))
    }
}

/// Serves a guest's VMM on this socket, one connection after the other. `connected` is given the means to end each.
pub fn serve(
    guest: &Arc<Guest>,
    listener: &mut Listener,
    unsealed: UnsealedRam,
    mut connected: impl FnMut(Option<ShutdownHandle>),
) -> ! {
    let mut failing = false;
    loop {
        match serve_one(guest, listener, unsealed, &mut connected) {
            Ok(()) => failing = false,
            // Descriptors or threads have run out. The guests that are served have them, and the VMM waits.
            Err(error) => {
                if !failing {
                    warn!("{}: no VMM can be served for now: {error}", guest.stats().guest());
                }
                failing = true;
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

/// Serves the next VMM that connects, until it is gone.
fn serve_one(
    guest: &Arc<Guest>,
    listener: &mut Listener,
    unsealed: UnsealedRam,
    connected: &mut impl FnMut(Option<ShutdownHandle>),
) -> Result<(), vhost_user_backend::Error> {
    let described = Memory::new(GuestMemoryMmap::new());
    let backend = Arc::new(IsmBackend::new(guest.clone(), described.clone(), unsealed));
    let name = guest.stats().guest().to_owned();
    let mut daemon = VhostUserDaemon::new(name, backend.clone(), described)?;
    let result = daemon.start(listener).map(|()| {
        connected(daemon.shutdown_handle());
        daemon.wait()
    });
    connected(None);
    // The VMM may have died without a word. A worker must not take what it left in its queues for a new session.
    backend.closed.store(true, Ordering::Release);
    guest.stop();
    for handler in daemon.get_epoll_handlers() {
        handler.send_exit_event();
    }
    match result? {
        Ok(()) => debug!("{}: the VMM disconnected", guest.stats().guest()),
        Err(error) => debug!("{}: the VMM's connection ended: {error}", guest.stats().guest()),
    }
    Ok(())
}
