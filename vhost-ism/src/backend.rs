//! The device as a vhost-user back-end.
//!
//! Two worker threads per connection: one answers control requests and receives event buffers, the other serves
//! doorbells, so that a request that waits for the VMM to map delays no doorbell. In copy mode there is one, as a
//! session that resumes executes the moves that its device was stopped with.
//!
//! Lock rule: while a map is requested of the VMM, no lock is held that [`VhostUserBackend::update_memory`] or
//! [`VhostUserBackend::stop_vring`] takes. QEMU sends its memory table, or stops the device, before it answers.

mod mapper;
mod move_queue;
mod virtqueue;
mod virtqueues;

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use log::{debug, warn};
use parking_lot::Mutex;
use vhost::vhost_user::Backend;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserVirtioFeatures};
use vhost_daemon::heartbeat::Heartbeat;
use vhost_daemon::lost_memory::Loss;
use vhost_daemon::sandbox::{ThreadKind, confine};
use vhost_daemon::vhost_user::{ConnectionError, ExitEvents, Supervisor};
use vhost_daemon::vring::{self, Memory, Vring};
use vhost_daemon::{Current, GuardedRam, Server, Service, isolate};
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventNotifier};

use crate::abi::{CONTROL_QUEUE, DOORBELL_QUEUE, EVENT_QUEUE, MOVE_QUEUE, NUM_QUEUES};
use crate::connection::{Connection, FrontendDoor};
use crate::fabric::Mode;
use crate::guest::Guest;
use crate::window::RegionMapper;

use mapper::ChannelMapper;
use virtqueues::Virtqueues;

const MAX_QUEUE_SIZE: usize = 256;

/// Worker that answers control requests, receives event buffers and, in copy mode, executes moves.
const CONTROL_THREAD: usize = 0;
/// Worker that serves doorbells.
const DOORBELL_THREAD: usize = 1;

/// Access to the VMM that a session needs.
type Mapper = Arc<dyn RegionMapper>;

/// The back-end of a connection.
pub struct IsmBackend {
    connection: Connection,
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
    exits: ExitEvents,
    /// Of the control and of the doorbell worker.
    heartbeats: [Arc<Heartbeat>; 2],
    loss: Arc<Loss>,
}

impl IsmBackend {
    fn new(connection: Connection, described: Memory, ram: GuardedRam, loss: Arc<Loss>) -> Self {
        let guest = connection.guest().stats().guest();
        let heartbeats = ["control", "doorbell"].map(|thread| Heartbeat::new(guest, thread));
        Self {
            connection,
            ram: Arc::new(Mutex::new(ram)),
            described,
            memory: Memory::new(GuestMemoryMmap::new()),
            channel: Mutex::default(),
            mapper: OnceLock::new(),
            knows_regions: AtomicBool::new(false),
            exits: ExitEvents::default(),
            heartbeats,
            loss,
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
                        self.guest().stats().guest()
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

    fn guest(&self) -> &Guest {
        self.connection.guest()
    }

    /// Serves a queue of a worker.
    fn serve(&self, thread: usize, event: u16, vrings: &[Vring]) {
        match (thread, event) {
            (CONTROL_THREAD, CONTROL_QUEUE) => {
                self.connection.serve_control(&Virtqueues::new(self, vrings));
                // A request that waited for a map has kept the memory table from before.
                self.ram.lock().release();
            }
            (CONTROL_THREAD, EVENT_QUEUE) => self.connection.serve_events(),
            (CONTROL_THREAD, MOVE_QUEUE) => self.connection.serve_moves(&Virtqueues::new(self, vrings)),
            // Queues are numbered within their thread.
            (DOORBELL_THREAD, 0) => self.connection.serve_doorbells(),
            _ => debug!(
                "{}: unexpected event {event} of worker {thread}",
                self.guest().stats().guest()
            ),
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
        self.connection.config(offset, size)
    }

    /// Marks a start of the device, of which this is the first message.
    fn acked_features(&self, _features: u64) {
        self.connection.start();
    }

    fn update_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        let described = GuestMemoryMmap::clone(&self.described.memory());
        let guarded = self.ram.lock().guard(&described);
        if let Err(error) = &guarded {
            warn!(
                "{}: no memory of the guest is used: {error}",
                self.guest().stats().guest()
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
        let control = 1 << CONTROL_QUEUE | 1 << EVENT_QUEUE;
        match self.guest().mode() {
            Mode::Mapped => vec![control, 1 << DOORBELL_QUEUE],
            Mode::Copy => vec![control | 1 << MOVE_QUEUE],
        }
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exits.create()
    }

    fn stop_vring(&self, index: u32) -> io::Result<()> {
        // A VMM stops all queues or none.
        if index == u32::from(CONTROL_QUEUE) {
            self.connection.stop();
        }
        if index + 1 == NUM_QUEUES as u32 {
            // A restart of the device begins with a new memory table.
            self.set_memory(GuestMemoryMmap::new());
            let ram = self.ram.clone();
            ram.lock().release();
            self.connection.guest().watch_pause(move || ram.lock().release());
        }
        Ok(())
    }

    /// Handles a kick. Never fails: an error would end the worker, and with it the device.
    fn handle_event(&self, event: u16, _events: EventSet, vrings: &[Vring], thread: usize) -> io::Result<()> {
        // The worker is started by vhost-user-backend.
        confine(ThreadKind::VringWorker);
        let guest = self.guest().stats().guest();
        let Some(heartbeat) = self.heartbeats.get(thread) else {
            return Ok(());
        };
        let serve = || heartbeat.work(|| self.serve(thread, event, vrings));
        if isolate(format_args!("{guest}: a worker"), serve).is_none() {
            self.loss.end("its device has failed");
        }
        Ok(())
    }

    fn get_shmem_config(&self) -> io::Result<VhostUserShMemConfig> {
        self.knows_regions.store(true, Ordering::Release);
        let sizes = self.guest().region_sizes();
        let regions = sizes.iter().filter(|size| **size > 0).count();
        Ok(VhostUserShMemConfig::new(regions as u32, &sizes))
    }
}

/// Service of one guest's socket.
struct IsmService {
    guest: Arc<Guest>,
    supervisor: Supervisor,
    max_guest_memory: u64,
    door: Option<Arc<dyn FrontendDoor>>,
}

impl Service for IsmService {
    type Error = ConnectionError;

    fn serve(&self, listener: &UnixListener, current: &Current) -> Result<(), ConnectionError> {
        let described = Memory::new(GuestMemoryMmap::new());
        let ram = GuardedRam::new(self.supervisor.loss().clone(), self.max_guest_memory);
        let connection = Connection::new(self.guest.clone(), self.door.clone());
        let backend = Arc::new(IsmBackend::new(
            connection,
            described.clone(),
            ram,
            self.supervisor.loss().clone(),
        ));
        let disconnected = || backend.connection.close();
        let connected = |_: &_| ();
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
    start_with_door(guest, listener, max_guest_memory, None)
}

/// Does the same with a door before the front-ends of a guest that has a tape.
pub fn start_with_door(
    guest: Arc<Guest>,
    listener: UnixListener,
    max_guest_memory: u64,
    door: Option<Arc<dyn FrontendDoor>>,
) -> io::Result<Server> {
    let name = guest.stats().guest().to_owned();
    let service = IsmService {
        supervisor: Supervisor::new(&name),
        guest,
        max_guest_memory,
        door,
    };
    Server::start(name, listener, service)
}
