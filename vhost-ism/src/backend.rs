//! The device as a vhost-user back-end.
//!
//! Two worker threads per connection: one answers control requests and receives event buffers, the other serves
//! doorbells, so that a request that waits for the VMM to map delays no doorbell.
//!
//! Lock rule: while a map is requested of the VMM, no lock is held that [`VhostUserBackend::update_memory`] or
//! [`VhostUserBackend::stop_vring`] takes. QEMU sends its memory table, or stops the device, before it answers.

mod mapper;
mod virtqueue;

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use log::{debug, warn};
use parking_lot::Mutex;
use vhost::vhost_user::Backend;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserVirtioFeatures};
use vhost_daemon::finding::Object;
use vhost_daemon::vhost_user::{ConnectionError, ExitEvents, Supervisor};
use vhost_daemon::vring::{self, Memory, Vring};
use vhost_daemon::{Current, GuardedRam, Server, Service};
use vhost_user_backend::{VhostUserBackend, VringT};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::QueueT;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventNotifier};
use zerocopy::IntoBytes;

use crate::abi::{CONTROL_QUEUE, DOORBELL_QUEUE, EVENT_QUEUE, NUM_QUEUES, SHMID_REGIONS, Status};
use crate::control;
use crate::guest::{Guest, Session, Start};
use crate::ism_finding::Finding;
use crate::window::RegionMapper;

use mapper::ChannelMapper;
use virtqueue::{EventQueue, LateAnswer};

const MAX_QUEUE_SIZE: usize = 256;

/// Worker that answers control requests and receives event buffers.
const CONTROL_THREAD: usize = 0;
/// Worker that serves doorbells.
const DOORBELL_THREAD: usize = 1;

/// Access to the VMM that a session needs.
type Mapper = Arc<dyn RegionMapper>;

/// Handling of control requests.
enum Handling {
    /// A session executes them.
    Session(Arc<Session>),
    /// No session is possible: every request is refused.
    Refusal,
    /// The device is stopped: they stay in the queue.
    None,
}

/// A connection of a guest's VMM.
pub struct IsmBackend {
    guest: Arc<Guest>,
    ram: Arc<Mutex<GuardedRam>>,
    /// The table with which vhost-user-backend translates the addresses of rings.
    described: Memory,
    /// Memory that this process may access; never holds more, not even temporarily.
    memory: Memory,
    channel: Mutex<Option<Backend>>,
    /// Created when the device is first started; `None` if the VMM cannot map.
    mapper: OnceLock<Option<Mapper>>,
    /// The VMM has queried the shared memory regions.
    knows_regions: AtomicBool,
    /// The device is stopped, and its restart has not begun.
    stopped: AtomicBool,
    /// The answer that could not be written to the stopped control queue, and its session.
    late: Mutex<Option<(Arc<Session>, LateAnswer)>>,
    /// The VMM is gone; requests left in its queues are not served.
    closed: AtomicBool,
    exits: ExitEvents,
}

impl IsmBackend {
    fn new(guest: Arc<Guest>, described: Memory, ram: GuardedRam) -> Self {
        Self {
            guest,
            ram: Arc::new(Mutex::new(ram)),
            described,
            memory: Memory::new(GuestMemoryMmap::new()),
            channel: Mutex::default(),
            mapper: OnceLock::new(),
            knows_regions: AtomicBool::new(false),
            stopped: AtomicBool::new(true),
            late: Mutex::default(),
            closed: AtomicBool::new(false),
            exits: ExitEvents::default(),
        }
    }

    fn set_memory(&self, usable: GuestMemoryMmap) {
        vring::replace(&self.described, usable.clone());
        vring::replace(&self.memory, usable);
    }

    /// Returns the mapper, if the VMM supports one; logs missing features once.
    fn mapper(&self) -> Option<Mapper> {
        let made = self.mapper.get_or_init(|| {
            self.make_mapper()
                .inspect_err(|error| {
                    warn!(
                        "{}: the VMM cannot map memory safely, refusing every request: {error}",
                        self.guest.stats().guest()
                    );
                })
                .ok()
        });
        made.clone()
    }

    fn make_mapper(&self) -> io::Result<Mapper> {
        let channel = self.channel.lock().clone();
        let channel = channel.ok_or_else(|| io::Error::other("it provided no back-end channel (BACKEND_REQ)"))?;
        if !self.knows_regions.load(Ordering::Acquire) {
            return Err(io::Error::other("it did not query the shared memory region (SHMEM)"));
        }
        Ok(Arc::new(ChannelMapper::new(channel)?))
    }

    /// Returns the handling of control requests; begins or resumes a session if the device has just been started.
    /// Called on the control worker only.
    fn handling(&self, vrings: &[Vring]) -> Handling {
        if let Some(session) = self.guest.session() {
            return Handling::Session(session);
        }
        let (control, events) = (&vrings[CONTROL_QUEUE as usize], &vrings[EVENT_QUEUE as usize]);
        let still_up = || !self.closed.load(Ordering::Acquire) && control.get_ref().get_queue().ready();
        if !still_up() {
            return Handling::None;
        }
        let Some(mapper) = self.mapper() else {
            return Handling::Refusal;
        };
        let (memory, ram) = (self.memory.clone(), self.ram.clone());
        let ring = EventQueue::new(events.clone(), memory, ram, self.guest.stats().clone());
        let how = if [control, events].iter().all(|vring| vring.queue_next_avail() == 0) {
            Start::Initial
        } else {
            Start::Resumed
        };
        match self.guest.start(still_up, how, Box::new(ring), mapper) {
            Ok(Some(session)) => {
                // Doorbells that rang while the device was stopped.
                session.serve_doorbells();
                Handling::Session(session)
            }
            Ok(None) => Handling::None,
            Err(error) => {
                warn!("{}: cannot begin a session: {error}", self.guest.stats().guest());
                Handling::Refusal
            }
        }
    }

    /// Answers the request that a session made before the machine was paused.
    fn answer_late(&self, session: &Arc<Session>, vring: &Vring) {
        let mut late = self.late.lock();
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
            let session = match self.handling(vrings) {
                Handling::Session(session) => Some(session),
                Handling::Refusal => None,
                // The requests in the queue are for the next session.
                Handling::None => return,
            };
            if let Some(session) = &session {
                self.answer_late(session, vring);
            }
            // The driver may reset the device while its request waits for the VMM, and start it again.
            let current = || session.as_ref().is_none_or(|session| session.is_alive());
            while let Some(request) = virtqueue::next_request(vring, &self.memory, stats, current) {
                let answer = match &session {
                    _ if request.room == 0 => {
                        let control = Object::new("virtqueue", CONTROL_QUEUE.into());
                        stats.report(Finding::BadChain, control, request.bytes.as_deref().unwrap_or_default());
                        Vec::new()
                    }
                    Some(session) => control::answer(session, request.bytes.as_deref(), request.room),
                    None => vec![Status::Err as u8],
                };
                let rest = virtqueue::answer_request(vring, &self.memory, request, answer, current);
                if let (Some(answer), Some(session)) = (rest, &session) {
                    *self.late.lock() = Some((session.clone(), answer));
                }
            }
            // Enable the next kick, and look again for requests that came before.
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
        // Not CONFIGURE_MEM_SLOTS: with it QEMU 11.1.3 crashes on a null memory region when a driver restarts after a
        // reset that removed its mappings. Without it QEMU prints two lines per map past 8 memory regions, to no
        // effect.
    }

    fn set_event_idx(&self, _enabled: bool) {
        // Kept by the vrings.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        if self.stopped.load(Ordering::Acquire) {
            // A paused machine does not read it.
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

    /// Marks a start of the device, of which this is the first message.
    fn acked_features(&self, _features: u64) {
        self.stopped.store(false, Ordering::Release);
    }

    fn update_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        let described = GuestMemoryMmap::clone(&self.described.memory());
        let guarded = self.ram.lock().guard(&described);
        if let Err(error) = &guarded {
            warn!(
                "{}: no memory of the guest is used: {error}",
                self.guest.stats().guest()
            );
        }
        let usable = guarded.is_ok().then_some(described);
        self.set_memory(usable.unwrap_or_default());
        self.ram.lock().release();
        guarded
    }

    fn set_backend_req_fd(&self, backend: Backend) {
        *self.channel.lock() = Some(backend);
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        vec![1 << CONTROL_QUEUE | 1 << EVENT_QUEUE, 1 << DOORBELL_QUEUE]
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exits.create()
    }

    fn stop_vring(&self, index: u32) -> io::Result<()> {
        // A VMM stops all queues or none.
        if index == u32::from(CONTROL_QUEUE) {
            self.stopped.store(true, Ordering::Release);
            self.guest.pause();
        }
        if index + 1 == NUM_QUEUES as u32 {
            // A restart of the device begins with a new memory table.
            self.set_memory(GuestMemoryMmap::new());
            let ram = self.ram.clone();
            ram.lock().release();
            self.guest.watch_pause(move || ram.lock().release());
        }
        Ok(())
    }

    /// Handles a kick. Never fails: an error would end the worker, and with it the device.
    fn handle_event(&self, event: u16, _events: EventSet, vrings: &[Vring], thread: usize) -> io::Result<()> {
        match (thread, event) {
            (CONTROL_THREAD, CONTROL_QUEUE) => {
                self.serve_control(vrings);
                // A request that waited for a map has kept the memory table from before.
                self.ram.lock().release();
            }
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
                "{}: unexpected event {event} of worker {thread}",
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

/// Service of one guest's socket.
struct IsmService {
    guest: Arc<Guest>,
    supervisor: Supervisor,
    max_guest_memory: u64,
}

impl Service for IsmService {
    type Error = ConnectionError;

    fn serve(&self, listener: &UnixListener, current: &Current) -> Result<(), ConnectionError> {
        let described = Memory::new(GuestMemoryMmap::new());
        let ram = GuardedRam::new(self.supervisor.loss().clone(), self.max_guest_memory);
        let backend = Arc::new(IsmBackend::new(self.guest.clone(), described.clone(), ram));
        let disconnected = || {
            backend.closed.store(true, Ordering::Release);
            self.guest.stop();
        };
        let connected = || ();
        self.supervisor
            .serve(backend.clone(), described, listener, current, connected, disconnected)
    }

    fn reset(&self) {
        self.guest.stop();
    }
}

/// Serves the VMM of a guest on this socket, one connection after the other, on a thread of its own. The guest's memory
/// has at most `max_guest_memory` bytes.
pub fn start(guest: Arc<Guest>, listener: UnixListener, max_guest_memory: u64) -> io::Result<Server> {
    let name = guest.stats().guest().to_owned();
    let service = IsmService {
        supervisor: Supervisor::new(&name),
        guest,
        max_guest_memory,
    };
    Server::start(name, listener, service)
}
