//! One connection of a front-end: the back-end that vhost-user-backend drives.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use log::{error, info, warn};
use parking_lot::Mutex;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_daemon::heartbeat::{self, Heartbeat};
use vhost_daemon::lost_memory::Loss;
use vhost_daemon::sandbox::{ThreadKind, confine};
use vhost_daemon::vhost_user::ExitEvents;
use vhost_daemon::vring::{Memory, Vring, replace};
use vhost_daemon::{GuardedRam, isolate};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon};
use vm_memory::{GuestAddressSpace, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventNotifier};

use super::features::Features;
use super::receiveq::{Given, give};
use super::ring::Ring;
use super::transmitq::take;
use crate::external_port::arrival::Arrived;
use crate::external_port::entrance::Entrance;
use crate::external_port::medium::DropReason;
use crate::external_port::outlet::Outlet;
use crate::frame::view::{FrameView, Network, Transport};

/// Pairs of a receive and a transmit queue that a front-end may use: a worker of vhost-user-backend has 64 queues.
pub const MAX_QUEUE_PAIRS: usize = 32;
const MAX_QUEUE_SIZE: usize = 1024;
/// Event of the queue of frames to the driver, behind those of virtqueues and of vhost-user-backend itself.
const DEPARTURE_EVENT: u16 = 2 * MAX_QUEUE_PAIRS as u16 + 1;
/// Frames of a queue before those of the next, and before frames in the other direction.
const TURN: usize = 64;

/// The threads of a connection.
pub type Daemon = VhostUserDaemon<Arc<NetBackend>>;

/// One connection of a front-end.
pub struct NetBackend {
    entrance: Arc<Entrance>,
    pairs: usize,
    /// The table with which vhost-user-backend translates the addresses of rings.
    described: Memory,
    /// Memory that this process may access; never holds more, not even temporarily.
    memory: Memory,
    ram: Mutex<GuardedRam>,
    /// Those that the driver has accepted.
    features: AtomicU64,
    worker: Mutex<Worker>,
    /// The front-end is gone; its queues are not served.
    closed: AtomicBool,
    exits: ExitEvents,
    heartbeat: Arc<Heartbeat>,
    loss: Arc<Loss>,
}

/// Frames between queues and switch, in the hands of the worker.
#[derive(Default)]
struct Worker {
    outlet: Outlet,
    /// On their way to the switch.
    frames: VecDeque<Vec<u8>>,
    arrived: Vec<Arrived>,
    buffer: Vec<u8>,
    /// The receive queue of the first pair has been started.
    is_connected: bool,
}

/// Progress of the frames to the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Some were received.
    Some,
    /// There were none.
    None,
    /// The driver must make buffers available.
    NoBuffer,
}

impl NetBackend {
    /// Creates a connection with `pairs` pairs of queues, before its first message. `described` is the memory table of
    /// vhost-user-backend.
    pub fn new(entrance: Arc<Entrance>, pairs: usize, described: Memory, ram: GuardedRam, loss: Arc<Loss>) -> Self {
        Self {
            pairs: pairs.clamp(1, MAX_QUEUE_PAIRS),
            heartbeat: Heartbeat::new(&entrance.shared().name, "vring worker"),
            entrance,
            described,
            memory: Memory::new(GuestMemoryMmap::new()),
            ram: Mutex::new(ram),
            features: AtomicU64::new(0),
            worker: Mutex::default(),
            closed: AtomicBool::new(false),
            exits: ExitEvents::default(),
            loss,
        }
    }

    /// Has the worker woken for frames to the driver.
    pub fn watch_departure(&self, daemon: &Daemon) {
        let waker = self.entrance.shared().departure.waker().as_raw_fd();
        for worker in daemon.get_epoll_handlers() {
            if let Err(error) = worker.register_listener(waker, EventSet::IN, DEPARTURE_EVENT.into()) {
                error!("{}: no frame reaches the front-end: {error}", self.name());
            }
        }
    }

    /// Stops serving the queues: the front-end may have died at any point.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.disconnect();
        self.set_memory(GuestMemoryMmap::new());
    }

    fn name(&self) -> &str {
        &self.entrance.shared().name
    }

    fn features(&self) -> Features {
        Features(self.features.load(Ordering::Acquire))
    }

    fn set_memory(&self, usable: GuestMemoryMmap) {
        replace(&self.described, usable.clone());
        replace(&self.memory, usable);
        self.ram.lock().release();
    }

    fn disconnect(&self) {
        let worker = &mut *self.worker.lock();
        if std::mem::take(&mut worker.is_connected) {
            info!("{}: the driver stopped the device", self.name());
            self.entrance.disconnect(worker.outlet.clear());
        }
    }

    /// Moves frames until there are none, or no buffers for them.
    fn serve(&self, vrings: &[Vring]) {
        if self.closed.load(Ordering::Acquire) {
            // The frames, and what wakes a worker for them, are the next connection's.
            return;
        }
        let departure = &self.entrance.shared().departure;
        departure.awake();
        let worker = &mut *self.worker.lock();
        for vring in vrings {
            if let Some(mut ring) = Ring::lock(vring, &self.memory) {
                ring.silence();
            }
        }
        while !self.closed.load(Ordering::Acquire) {
            heartbeat::progress();
            self.connect(worker, vrings);
            let has_sent = self.transmit(worker, vrings);
            let received = self.receive(worker, vrings);
            if has_sent || received == Progress::Some {
                continue;
            }
            // Counted, as each queue must ask for its kick.
            let is_kicked = |vring| Ring::lock(vring, &self.memory).is_some_and(|mut ring| ring.await_kick());
            let mut more = transmit_queues(vrings).filter(|vring| is_kicked(vring)).count() > 0;
            more |= match received {
                Progress::NoBuffer => receive_queues(vrings).filter(|vring| is_kicked(vring)).count() > 0,
                _ => !departure.fall_asleep(),
            };
            if !more {
                return;
            }
        }
    }

    /// Brings up the link once the driver has started its device.
    fn connect(&self, worker: &mut Worker, vrings: &[Vring]) {
        // Under the lock of the queue, whose stop ends the connection.
        let first = vrings.first().and_then(|vring| Ring::lock(vring, &self.memory));
        if first.is_some() && !worker.is_connected {
            info!("{}: a driver started the device", self.name());
            worker.is_connected = true;
            self.entrance.connect();
        }
    }

    /// Takes frames from all transmit queues. Returns whether there were any.
    fn transmit(&self, worker: &mut Worker, vrings: &[Vring]) -> bool {
        let features = self.features();
        let mut any = false;
        for vring in transmit_queues(vrings) {
            let Some(mut ring) = Ring::lock(vring, &self.memory) else {
                continue;
            };
            for _ in 0..TURN {
                match take(&mut ring, features, &mut worker.buffer, &mut worker.frames) {
                    Some(true) => {}
                    Some(false) => self.entrance.count_dropped(DropReason::Malformed),
                    None => break,
                }
                any = true;
            }
            ring.finish();
            for frame in worker.frames.drain(..) {
                self.entrance.admit(&frame, &mut worker.arrived);
            }
            // Without a lock: receivers take their time.
            self.entrance.deliver(&mut worker.arrived);
        }
        any
    }

    /// Gives frames to the receive queues, all of a flow to the same.
    fn receive(&self, worker: &mut Worker, vrings: &[Vring]) -> Progress {
        let shared = self.entrance.shared();
        let features = self.features();
        let mut rings: Vec<Ring<'_>> = receive_queues(vrings)
            .filter_map(|vring| Ring::lock(vring, &self.memory))
            .collect();
        let mut progress = Progress::None;
        for _ in 0..TURN {
            let Some(outgoing) = worker.outlet.take(&shared.departure, features.offloads()) else {
                break;
            };
            let ring = flow(&outgoing.frame)
                .checked_rem(rings.len())
                .and_then(|index| rings.get_mut(index));
            match ring.map_or(Given::NoBuffer, |ring| give(ring, features, &outgoing)) {
                Given::Received => {}
                Given::TooLong => drop(shared.drops.too_long.add(outgoing.frames as u64)),
                Given::NoBuffer => {
                    worker.outlet.hold(outgoing);
                    if progress == Progress::None {
                        progress = Progress::NoBuffer;
                    }
                    break;
                }
            }
            progress = Progress::Some;
        }
        rings.drain(..).for_each(Ring::finish);
        progress
    }
}

/// Receive queues, of all pairs in order.
fn receive_queues(vrings: &[Vring]) -> impl Iterator<Item = &Vring> {
    vrings.iter().step_by(2)
}

/// Transmit queues, of all pairs in order.
fn transmit_queues(vrings: &[Vring]) -> impl Iterator<Item = &Vring> {
    vrings.iter().skip(1).step_by(2)
}

/// A number that frames of a flow share: addresses and ports.
fn flow(frame: &[u8]) -> usize {
    let mut hash = crc32fast::Hasher::new();
    if let Some(view) = FrameView::new(frame) {
        match view.network {
            Network::Ipv4(header) => {
                hash.update(&header.source);
                hash.update(&header.destination);
            }
            Network::Ipv6(header) => {
                hash.update(&header.source);
                hash.update(&header.destination);
            }
            Network::None => {}
        }
        let ports = match view.transport {
            Transport::Tcp(tcp) => [tcp.source_port, tcp.destination_port],
            Transport::Udp(udp) => [udp.source_port, udp.destination_port],
            Transport::None | Transport::Ipsec { .. } => [0; 2],
        };
        ports.iter().for_each(|port| hash.update(&port.to_be_bytes()));
    }
    hash.finalize() as usize
}

impl VhostUserBackend for NetBackend {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        2 * self.pairs
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        Features::offered(self.pairs).0
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&self, _enabled: bool) {
        // Kept by the vrings.
    }

    fn acked_features(&self, features: u64) {
        self.features.store(features, Ordering::Release);
    }

    fn update_memory(&self, _memory: Memory) -> io::Result<()> {
        let described = GuestMemoryMmap::clone(&self.described.memory());
        let guarded = self.ram.lock().guard(&described);
        let usable = match &guarded {
            Ok(()) => described,
            Err(error) => {
                warn!("{}: no memory of the front-end is used: {error}", self.name());
                GuestMemoryMmap::new()
            }
        };
        self.set_memory(usable);
        guarded
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        vec![u64::MAX]
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exits.create()
    }

    fn stop_vring(&self, index: u32) -> io::Result<()> {
        if index == 0 {
            self.disconnect();
        }
        Ok(())
    }

    /// Handles a kick, or frames to the driver. Never fails: an error would end the worker, and with it the device.
    fn handle_event(&self, _event: u16, _events: EventSet, vrings: &[Vring], _thread: usize) -> io::Result<()> {
        // The worker is started by vhost-user-backend.
        confine(ThreadKind::VringWorker);
        let serve = || self.heartbeat.work(|| self.serve(vrings));
        if isolate(format_args!("{}: the vring worker", self.name()), serve).is_none() {
            self.loss.end("its port has failed");
        }
        Ok(())
    }
}
