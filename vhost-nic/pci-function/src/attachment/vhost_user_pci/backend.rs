//! One connection of a guest: the back-end that vhost-user-backend drives.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use log::warn;
use parking_lot::Mutex;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::{GuestAddressSpace, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventNotifier};

use crate::dma::Backing;
use crate::function::PciFunction;
use crate::msix::Masking;

use super::commands;
use super::interrupts::InterruptQueue;
use super::message::{COMMAND_QUEUE, INTERRUPT_QUEUE, NUM_QUEUES};
use super::stats::VhostUserPciStats;
use vhost_daemon::heartbeat::Heartbeat;
use vhost_daemon::lost_memory::Loss;
use vhost_daemon::sandbox::{ThreadKind, confine};
use vhost_daemon::vhost_user::ExitEvents;
use vhost_daemon::vring::{Memory, Vring, replace};
use vhost_daemon::{GuardedRam, isolate};

/// Largest queue that arch/um/drivers/virtio_uml.c requests.
const MAX_QUEUE_SIZE: usize = 256;

/// Worker that serves commands.
const COMMAND_THREAD: usize = 0;
/// Worker that sends pending interrupts, also while a command is in progress.
const INTERRUPT_THREAD: usize = 1;

/// One connection of a guest.
pub struct VhostUserPciBackend {
    function: Arc<PciFunction>,
    /// Memory that this process may access.
    memory: Memory,
    ram: Arc<Mutex<GuardedRam>>,
    stats: Arc<VhostUserPciStats>,
    /// The guest has disconnected: its queues are no longer served.
    closed: AtomicBool,
    /// Whether the function's interrupts are connected.
    connected: AtomicBool,
    exits: ExitEvents,
    /// Of the workers for commands and for interrupts.
    heartbeats: [Arc<Heartbeat>; NUM_QUEUES],
    loss: Arc<Loss>,
}

impl VhostUserPciBackend {
    /// Creates a connection before its first message.
    pub fn new(function: Arc<PciFunction>, ram: GuardedRam, stats: Arc<VhostUserPciStats>, loss: Arc<Loss>) -> Self {
        let heartbeats = ["command", "interrupt"].map(|thread| Heartbeat::new(stats.guest(), thread));
        Self {
            function,
            memory: Memory::new(GuestMemoryMmap::new()),
            ram: Arc::new(Mutex::new(ram)),
            stats,
            closed: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            exits: ExitEvents::default(),
            heartbeats,
            loss,
        }
    }

    /// Stops serving the queues: the guest may have died at any point.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Serves the queue of a worker.
    fn serve(&self, thread: usize, vring: &Vring) {
        match thread {
            COMMAND_THREAD => commands::serve(&self.function, vring, &self.memory, &self.stats, || self.is_open()),
            INTERRUPT_THREAD if self.is_open() => {
                if !self.connected.swap(true, Ordering::AcqRel) {
                    let queue =
                        InterruptQueue::new(vring.clone(), self.memory.clone(), self.ram.clone(), self.stats.clone());
                    self.function.connect(Arc::new(queue), Masking::Function);
                }
                self.function.retry_interrupts(0, self.function.msix().vectors());
            }
            _ => {}
        }
    }

    fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// Replaces the mappings by the front-end's memory table.
    fn map(&self, memory: &GuestMemoryMmap) -> io::Result<()> {
        let dma = self.function.dma();
        dma.unmap_all();
        for region in memory.iter() {
            let backing = match region.file_offset() {
                Some(part) => Some(Backing {
                    file: part.file().try_clone()?,
                    offset: part.start(),
                    writable: true,
                }),
                None => None,
            };
            dma.map(region.start_addr().0, region.len(), backing)
                .map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl VhostUserBackend for VhostUserPciBackend {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        NUM_QUEUES
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        // Not BACKEND_REQ: the device asks nothing of the front-end.
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&self, _enabled: bool) {
        // Not offered.
    }

    fn update_memory(&self, described: Memory) -> io::Result<()> {
        let memory = GuestMemoryMmap::clone(&described.memory());
        let mapped = self.ram.lock().guard(&memory).and_then(|()| self.map(&memory));
        let memory = match &mapped {
            Ok(()) => memory,
            Err(error) => {
                warn!("{}: no memory of the guest is used: {error}", self.stats.guest());
                replace(&described, GuestMemoryMmap::new());
                GuestMemoryMmap::new()
            }
        };
        replace(&self.memory, memory);
        self.ram.lock().release();
        mapped
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        vec![1 << COMMAND_QUEUE, 1 << INTERRUPT_QUEUE]
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exits.create()
    }

    /// Serves a queue. Never fails: an error would end the worker, and with it the device.
    fn handle_event(&self, _event: u16, _events: EventSet, vrings: &[Vring], thread: usize) -> io::Result<()> {
        // The worker is started by vhost-user-backend.
        confine(ThreadKind::VringWorker);
        let Some(heartbeat) = self.heartbeats.get(thread) else {
            return Ok(());
        };
        // Each worker has one queue, at index 0.
        let serve = || heartbeat.work(|| self.serve(thread, &vrings[0]));
        if isolate(format_args!("{}: a worker", self.stats.guest()), serve).is_none() {
            self.loss.end("its device has failed");
        }
        Ok(())
    }
}
