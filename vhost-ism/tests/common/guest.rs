//! A guest: the VMM here, the driver in `driver`.

mod driver;
mod mover;
mod wire;

use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use vhost::VhostBackend;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{
    Error as VhostUserError, Frontend, FrontendReqHandler, VhostUserFrontend, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use vhost_ism::abi::*;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use zerocopy::FromBytes;

use super::host::Seat;
use super::memory::Ram;
use super::ring::Ring;
use super::window::Window;

pub use driver::SCRATCH;
pub use mover::{Piece, SOURCE};
pub use wire::{Answer, Desc, Dmb, Event, Part, Refused, encode, parse_event, status};

/// Options of a guest.
#[derive(Clone, Debug)]
pub struct Options {
    /// Descriptors per queue.
    pub queue_size: u16,
    /// Event buffers the driver keeps posted.
    pub event_buffers: u16,
    /// Size of an event buffer in bytes.
    pub event_size: u32,
    /// Whether the driver negotiates VIRTIO_RING_F_EVENT_IDX.
    pub event_idx: bool,
    /// Vhost-user protocol features the VMM does not have.
    pub without: VhostUserProtocolFeatures,
    /// Whether the guest's RAM can be truncated.
    pub unsealed: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_size: 64,
            event_buffers: 64,
            event_size: 256,
            event_idx: true,
            without: VhostUserProtocolFeatures::empty(),
            unsealed: false,
        }
    }
}

/// Features without which no memory can be mapped.
const CHANNEL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::BACKEND_REQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::SHMEM)
    .union(VhostUserProtocolFeatures::SHARED_OBJECT);

/// A guest.
pub struct TestGuest {
    /// Seat in the daemon, if that is in this process.
    pub seat: Option<Arc<Seat>>,
    /// Shared memory region 1.
    pub window: Arc<Window>,
    /// RAM of the guest.
    pub ram: Arc<Ram>,
    /// The VMM's end of the vhost-user connection.
    pub frontend: Frontend,
    /// The control queue.
    pub control: Ring,
    /// The event queue.
    pub events: Ring,
    /// The doorbell queue.
    pub doorbell: Ring,
    /// The configuration space as read at the last start.
    pub config: Config,
    options: Options,
    connection: UnixStream,
    channel: Option<(UnixStream, JoinHandle<()>)>,
    event_slots: Vec<u16>,
    started: bool,
}

impl TestGuest {
    /// Connects a VMM and negotiates; the guest is not running yet.
    #[track_caller]
    pub fn connect(path: &Path, options: Options) -> Self {
        let connection = UnixStream::connect(path).unwrap();
        let mut frontend = Frontend::from_stream(connection.try_clone().unwrap(), NUM_QUEUES as u64);
        frontend.get_features().unwrap();
        let offered = frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::BACKEND_SEND_FD
            | VhostUserProtocolFeatures::SHMEM
            | VhostUserProtocolFeatures::SHARED_OBJECT;
        // No others: QEMU crashes with CONFIGURE_MEM_SLOTS.
        assert_eq!(offered, wanted);
        let protocol = wanted & !options.without;
        frontend.set_protocol_features(protocol).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_owner().unwrap();
        assert_eq!(frontend.get_queue_num().unwrap(), NUM_QUEUES as u64);

        let config = read_config(&mut frontend);
        let mut regions = [config.window_size.get() + (2 << 20), 0];
        if protocol.contains(VhostUserProtocolFeatures::SHMEM) {
            let shmem = frontend.get_shmem_config().unwrap();
            regions = [SHMID_REGIONS, SHMID_NOTIFY].map(|shmid| shmem.memory_sizes[shmid as usize]);
            let number = regions.iter().filter(|size| **size > 0).count();
            assert_eq!(shmem.nregions as usize, number);
            let all: u64 = shmem.memory_sizes.iter().sum();
            assert_eq!(all, regions.iter().sum::<u64>(), "there are no others");
            assert!(all.is_power_of_two(), "they share a PCI BAR");
        }
        let window = Arc::new(Window::new(regions, &config));
        let channel = protocol
            .contains(VhostUserProtocolFeatures::BACKEND_REQ)
            .then(|| channel(&mut frontend, window.clone(), protocol));

        let ram = Arc::new(if options.unsealed { Ram::unsealed() } else { Ram::new() });
        window.on_commit({
            let (frontend, ram) = (frontend.clone(), ram.clone());
            // The connection may be gone by now.
            move || drop(frontend.set_mem_table(&ram.regions()))
        });
        let ring = |index: u16| Ring::new(ram.clone(), index.into(), options.queue_size, options.event_idx);
        Self {
            seat: None,
            window,
            control: ring(CONTROL_QUEUE),
            events: ring(EVENT_QUEUE),
            doorbell: ring(DOORBELL_QUEUE),
            ram,
            frontend,
            config,
            options,
            connection,
            channel,
            event_slots: Vec::new(),
            started: false,
        }
    }

    /// Starts the device, as QEMU does at DRIVER_OK, and makes a first request.
    #[track_caller]
    pub fn start(&mut self) {
        self.start_silently();
        for _ in 0..self.options.event_buffers {
            self.post_event(self.options.event_size);
        }
        if !self.options.without.intersects(CHANNEL_FEATURES) {
            self.query_gid(self.gid()).unwrap();
            assert!(
                self.window.has_doorbell(),
                "the doorbell area is there with the first answer"
            );
        }
    }

    /// Starts the device without a request.
    #[track_caller]
    pub fn start_silently(&mut self) {
        assert!(!self.started);
        self.config = read_config(&mut self.frontend);
        self.start_unread();
    }

    /// Starts the device with new rings, without reading the configuration space.
    pub fn start_unread(&mut self) {
        let ring = |index: u16| {
            Ring::new(
                self.ram.clone(),
                index.into(),
                self.options.queue_size,
                self.options.event_idx,
            )
        };
        let rings = [ring(CONTROL_QUEUE), ring(EVENT_QUEUE), ring(DOORBELL_QUEUE)];
        [self.control, self.events, self.doorbell] = rings;
        self.event_slots = (0..self.options.queue_size).rev().collect();
        self.launch([0; NUM_QUEUES]);
    }

    /// Starts the device with the rings as they are.
    #[track_caller]
    fn launch(&mut self, bases: [u16; NUM_QUEUES]) {
        self.try_launch(bases).unwrap();
    }

    /// Starts the device with the rings as they are, or returns the message that the device refused.
    pub fn try_launch(&mut self, bases: [u16; NUM_QUEUES]) -> vhost::Result<()> {
        let mut features = 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        if self.options.event_idx {
            features |= 1 << VIRTIO_RING_F_EVENT_IDX;
        }
        self.frontend.set_features(features)?;
        self.frontend.set_mem_table(&self.ram.regions())?;
        self.window.set_started(true);
        for (index, ring) in [&self.control, &self.events, &self.doorbell].into_iter().enumerate() {
            self.frontend.set_vring_num(index, ring.size())?;
            self.frontend.set_vring_base(index, bases[index])?;
            self.frontend.set_vring_addr(index, &ring.addresses())?;
            self.frontend.set_vring_kick(index, &ring.kick)?;
            self.frontend.set_vring_call(index, &ring.call)?;
        }
        for index in 0..NUM_QUEUES {
            self.frontend.set_vring_enable(index, true)?;
        }
        self.started = true;
        Ok(())
    }

    /// Stops the device, as QEMU does when the driver resets it.
    #[track_caller]
    pub fn stop(&mut self) {
        stop_device(&mut self.frontend, &self.window);
        self.started = false;
        self.check();
    }

    /// Pauses the machine. Returns the position of the device in each ring.
    #[track_caller]
    pub fn pause(&mut self) -> [u16; NUM_QUEUES] {
        self.started = false;
        pause_device(&mut self.frontend, &self.window)
    }

    /// Resumes the paused machine, unnoticed by the driver.
    #[track_caller]
    pub fn resume(&mut self, bases: [u16; NUM_QUEUES]) {
        self.launch(bases);
    }

    /// Resets the device and probes it again, as the driver does.
    #[track_caller]
    pub fn reset(&mut self) {
        self.stop();
        self.start();
    }

    /// Restarts the device after it was stopped without this guest's knowledge.
    #[track_caller]
    pub fn restart(&mut self) {
        self.window.take_violations();
        self.started = false;
        self.start();
    }

    /// Does the same as [`TestGuest::restart`], without a request.
    #[track_caller]
    pub fn restart_silently(&mut self) {
        self.started = false;
        self.start_silently();
    }

    /// Returns the VMM's end of the socket.
    pub fn connection(&self) -> UnixStream {
        self.connection.try_clone().unwrap()
    }

    /// Ends the VMM without a message.
    pub fn kill(mut self) {
        self.hang_up();
        self.check();
    }

    /// Breaks the back-end channel.
    pub fn close_channel(&mut self) {
        if let Some((channel, thread)) = self.channel.take() {
            let _ = channel.shutdown(Shutdown::Both);
            thread.join().unwrap();
        }
    }

    /// Does the same as [`TestGuest::kill`], for a borrowed guest.
    pub fn hang_up(&mut self) {
        let _ = self.connection.shutdown(Shutdown::Both);
        self.close_channel();
    }

    /// Fails the test on a violation by the device.
    #[track_caller]
    pub fn check(&self) {
        let violations = self.window.take_violations();
        assert!(violations.is_empty(), "violations by the device: {violations:?}");
    }

    /// Returns this session's GID.
    pub fn gid(&self) -> Gid {
        self.config.dmb_gid
    }

    /// Returns this session's device id.
    pub fn devid(&self) -> u64 {
        self.config.devid.get()
    }
}

impl Drop for TestGuest {
    fn drop(&mut self) {
        self.hang_up();
        if !std::thread::panicking() {
            self.check();
        }
    }
}

/// Reads the whole configuration space.
#[track_caller]
pub fn read_config(frontend: &mut Frontend) -> Config {
    let len = size_of::<Config>();
    let (_, bytes) = frontend
        .get_config(0, len as u32, VhostUserConfigFlags::empty(), &vec![0; len])
        .unwrap();
    Config::read_from_bytes(&bytes).unwrap()
}

/// Stops the device as QEMU does on a reset by the driver.
pub fn stop_device(frontend: &mut Frontend, window: &Window) {
    pause_device(frontend, window);
    window.unmap_all();
}

/// Stops the device as QEMU does on a pause. Returns the position of the device in each ring.
pub fn pause_device(frontend: &mut Frontend, window: &Window) -> [u16; NUM_QUEUES] {
    for index in 0..NUM_QUEUES {
        frontend.set_vring_enable(index, false).unwrap();
    }
    let bases = std::array::from_fn(|index| frontend.get_vring_base(index).unwrap() as u16);
    window.set_started(false);
    bases
}

/// Creates the back-end channel, and a thread that serves it until it is shut down.
fn channel(
    frontend: &mut Frontend,
    window: Arc<Window>,
    protocol: VhostUserProtocolFeatures,
) -> (UnixStream, JoinHandle<()>) {
    let mut handler = FrontendReqHandler::new(window).unwrap();
    handler.set_reply_ack_flag(protocol.contains(VhostUserProtocolFeatures::REPLY_ACK));
    frontend.set_backend_request_fd(&handler.get_tx_raw_fd()).unwrap();
    // SAFETY: the handler owns the descriptor and outlives this borrow.
    let socket = unsafe { BorrowedFd::borrow_raw(handler.as_raw_fd()) };
    let socket = UnixStream::from(socket.try_clone_to_owned().unwrap());
    let thread = std::thread::spawn(move || {
        // A refusal is an answer; anything else is the end.
        while let Ok(_) | Err(VhostUserError::ReqHandlerError(_)) = handler.handle_request() {}
    });
    (socket, thread)
}
