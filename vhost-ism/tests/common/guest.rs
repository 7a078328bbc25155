//! A guest: VMM and driver in one.

use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use vhost::VhostBackend;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{
    Error as VhostUserError, Frontend, FrontendReqHandler, VhostUserFrontend, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use vhost_ism::abi::*;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use zerocopy::{FromBytes, IntoBytes};

use super::PATIENCE;
use super::host::Seat;
use super::memory::{HIGH, LOW, Ram};
use super::ring::{INDIRECT, NEXT, Ring, WRITE, descriptor};
use super::window::Window;

/// The device's answer when it is no.
pub type Refused = Status;

/// How a guest differs from the ordinary.
#[derive(Clone, Debug)]
pub struct Options {
    /// Descriptors per queue.
    pub queue_size: u16,
    /// Event buffers the driver keeps posted.
    pub event_buffers: u16,
    /// Their size.
    pub event_size: u32,
    /// Whether the driver negotiates VIRTIO_RING_F_EVENT_IDX.
    pub event_idx: bool,
    /// Vhost-user protocol features the VMM does not have.
    pub without: VhostUserProtocolFeatures,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_size: 64,
            event_buffers: 64,
            event_size: 256,
            event_idx: true,
            without: VhostUserProtocolFeatures::empty(),
        }
    }
}

/// A DMB in a guest's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dmb {
    /// Its name.
    pub token: Token,
    /// Where it is.
    pub offset: u64,
    /// How long it is.
    pub size: u64,
}

/// What came over the event queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These chunks were rung.
    Doorbells(Vec<u32>),
    /// That guest is gone.
    PeerGone(Gid),
    /// Sender, code, info.
    Message(Gid, u32, u64),
    /// A buffer came back without an event: it was too small.
    Nothing,
}

/// A stretch of a control request.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Bytes the device reads.
    Ask(&'a [u8]),
    /// Room the device writes.
    Room(usize),
}

/// What became of a control request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The used length.
    pub used: usize,
    /// All of the room.
    pub room: Vec<u8>,
}

impl Answer {
    /// What was written.
    pub fn written(&self) -> &[u8] {
        &self.room[..self.used]
    }

    /// The status, if one was written.
    pub fn status(&self) -> Option<Status> {
        self.written().first().map(|byte| status(*byte))
    }
}

/// A raw descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Desc {
    /// Guest address.
    pub addr: u64,
    /// Length.
    pub len: u32,
    /// [`NEXT`], [`WRITE`], [`INDIRECT`].
    pub flags: u16,
    /// The next one.
    pub next: u16,
}

/// Decodes a status byte.
#[track_caller]
pub fn status(byte: u8) -> Status {
    [
        Status::Ok,
        Status::NoEnt,
        Status::TooBig,
        Status::NoMem,
        Status::NoSpc,
        Status::PermAttach,
        Status::PermRead,
        Status::PermWrite,
        Status::Err,
    ]
    .into_iter()
    .find(|status| *status as u8 == byte)
    .unwrap_or_else(|| panic!("{byte} is no status"))
}

/// A request's bytes.
pub fn encode(command: (u8, u8), body: &(impl IntoBytes + zerocopy::Immutable + ?Sized)) -> Vec<u8> {
    let mut bytes = vec![command.0, command.1];
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

/// What a driver writes into room before it asks, to see what the device leaves alone.
const UNTOUCHED: u8 = 0xee;
/// Where requests lie in guest RAM.
pub const SCRATCH: u64 = LOW + 0x4_0000;
/// Event buffers lie this far apart from [`HIGH`].
const EVENT_STRIDE: u64 = 4096;

/// Without one of these nothing can be mapped.
const CHANNEL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::BACKEND_REQ
    .union(VhostUserProtocolFeatures::SHMEM)
    .union(VhostUserProtocolFeatures::SHARED_OBJECT);

/// A guest.
pub struct TestGuest {
    /// Its place in the daemon, when that is in this process.
    pub seat: Option<Arc<Seat>>,
    /// Shared memory region 1.
    pub window: Arc<Window>,
    /// Its RAM.
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
    /// A VMM that has connected and asked what there is to ask; the guest is not running yet.
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
        // No more than that: QEMU does not survive CONFIGURE_MEM_SLOTS.
        assert_eq!(offered, wanted);
        let protocol = wanted & !options.without;
        frontend.set_protocol_features(protocol).unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        frontend.set_owner().unwrap();
        assert_eq!(frontend.get_queue_num().unwrap(), NUM_QUEUES as u64);

        let config = read_config(&mut frontend);
        let mut region = config.window_size.get() + (2 << 20);
        if protocol.contains(VhostUserProtocolFeatures::SHMEM) {
            let shmem = frontend.get_shmem_config().unwrap();
            assert_eq!(shmem.nregions, 1);
            region = shmem.memory_sizes[SHMID_REGIONS as usize];
            let others: u64 = shmem.memory_sizes.iter().sum();
            assert_eq!(others, region, "there is one region");
        }
        let window = Arc::new(Window::new(region, config.doorbell_offset.get()));
        let channel = protocol
            .contains(VhostUserProtocolFeatures::BACKEND_REQ)
            .then(|| channel(&mut frontend, window.clone()));

        let ram = Arc::new(Ram::new());
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

    /// Starts the device, as QEMU does at DRIVER_OK, and asks a first question.
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

    /// Starts the device, and nothing more.
    #[track_caller]
    pub fn start_silently(&mut self) {
        assert!(!self.started);
        self.config = read_config(&mut self.frontend);
        let ring = |index: u16| {
            Ring::new(
                self.ram.clone(),
                index.into(),
                self.options.queue_size,
                self.options.event_idx,
            )
        };
        let rings = [ring(CONTROL_QUEUE), ring(EVENT_QUEUE), ring(DOORBELL_QUEUE)];
        let mut features = 1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        if self.options.event_idx {
            features |= 1 << VIRTIO_RING_F_EVENT_IDX;
        }
        self.frontend.set_features(features).unwrap();
        self.frontend.set_mem_table(&self.ram.regions()).unwrap();
        self.window.set_started(true);
        for (index, ring) in rings.iter().enumerate() {
            self.frontend.set_vring_num(index, ring.size()).unwrap();
            self.frontend.set_vring_base(index, 0).unwrap();
            self.frontend.set_vring_addr(index, &ring.addresses()).unwrap();
            self.frontend.set_vring_kick(index, &ring.kick).unwrap();
            self.frontend.set_vring_call(index, &ring.call).unwrap();
        }
        for index in 0..NUM_QUEUES {
            self.frontend.set_vring_enable(index, true).unwrap();
        }
        [self.control, self.events, self.doorbell] = rings;
        self.event_slots = (0..self.options.queue_size).rev().collect();
        self.started = true;
    }

    /// Stops the device, as QEMU does when the driver resets it.
    #[track_caller]
    pub fn stop(&mut self) {
        stop_device(&mut self.frontend, &self.window);
        self.started = false;
        self.check();
    }

    /// The driver resets the device and probes it again.
    #[track_caller]
    pub fn reset(&mut self) {
        self.stop();
        self.start();
    }

    /// Starts the device again after it was stopped behind this guest's back.
    #[track_caller]
    pub fn restart(&mut self) {
        self.window.take_violations();
        self.started = false;
        self.start();
    }

    /// The VMM's end of the socket.
    pub fn connection(&self) -> UnixStream {
        self.connection.try_clone().unwrap()
    }

    /// The VMM dies without a word.
    pub fn kill(mut self) {
        self.hang_up();
        self.check();
    }

    /// The back-end channel breaks.
    pub fn close_channel(&mut self) {
        if let Some((channel, thread)) = self.channel.take() {
            let _ = channel.shutdown(Shutdown::Both);
            thread.join().unwrap();
        }
    }

    fn hang_up(&mut self) {
        let _ = self.connection.shutdown(Shutdown::Both);
        self.close_channel();
    }

    /// Fails the test if the device did what it must not.
    #[track_caller]
    pub fn check(&self) {
        let violations = self.window.take_violations();
        assert!(violations.is_empty(), "the device did what it must not: {violations:?}");
    }

    /// This session's GID.
    pub fn gid(&self) -> Gid {
        self.config.dmb_gid
    }

    /// This session's device id.
    pub fn devid(&self) -> u64 {
        self.config.devid.get()
    }

    // Control queue.

    /// Asks with the chain whose head is descriptor 0 and waits for the answer.
    #[track_caller]
    pub fn transact(&mut self) -> usize {
        self.window.set_asking(true);
        self.control.publish(0);
        let Some((head, used)) = self.control.wait_used(PATIENCE) else {
            panic!("a control request was never answered");
        };
        self.window.set_asking(false);
        assert_eq!(head, 0);
        self.check();
        used as usize
    }

    /// Lays parts out in guest RAM: their descriptors, and where the room is.
    fn lay_out(&self, parts: &[Part<'_>]) -> (Vec<Desc>, Vec<(u64, usize)>) {
        let mut at = SCRATCH;
        let mut room = Vec::new();
        let mut table = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let (len, flags) = match part {
                Part::Ask(bytes) => {
                    self.ram.write(at, bytes);
                    (bytes.len(), 0)
                }
                Part::Room(len) => {
                    self.ram.write(at, &vec![UNTOUCHED; *len]);
                    room.push((at, *len));
                    (*len, WRITE)
                }
            };
            let more = if index + 1 < parts.len() { NEXT } else { 0 };
            table.push(Desc {
                addr: at,
                len: len as u32,
                flags: flags | more,
                next: index as u16 + 1,
            });
            // A gap, so that a device that runs on is seen.
            at += len as u64 + 3;
        }
        (table, room)
    }

    fn collect(&self, used: usize, room: &[(u64, usize)]) -> Answer {
        let bytes: Vec<u8> = room.iter().flat_map(|&(at, len)| self.ram.read(at, len)).collect();
        assert!(
            used <= bytes.len(),
            "{used} bytes were used where there is room for {}",
            bytes.len()
        );
        assert!(
            bytes[used..].iter().all(|byte| *byte == UNTOUCHED),
            "bytes beyond the used length were written"
        );
        Answer { used, room: bytes }
    }

    /// Asks with these parts, one descriptor each.
    #[track_caller]
    pub fn submit(&mut self, parts: &[Part<'_>]) -> Answer {
        let (table, room) = self.lay_out(parts);
        let used = self.submit_table(&table);
        self.collect(used, &room)
    }

    /// Asks with these parts in an indirect table.
    #[track_caller]
    pub fn submit_indirect(&mut self, parts: &[Part<'_>]) -> Answer {
        const TABLE: u64 = SCRATCH + 0x2_0000;
        let (table, room) = self.lay_out(parts);
        for (index, desc) in table.iter().enumerate() {
            self.ram.write(
                TABLE + 16 * index as u64,
                &descriptor(desc.addr, desc.len, desc.flags, desc.next),
            );
        }
        let used = self.submit_table(&[Desc {
            addr: TABLE,
            len: 16 * table.len() as u32,
            flags: INDIRECT,
            next: 0,
        }]);
        self.collect(used, &room)
    }

    /// Asks with exactly these descriptors; returns the used length.
    #[track_caller]
    pub fn submit_table(&mut self, table: &[Desc]) -> usize {
        for (index, desc) in table.iter().enumerate() {
            self.control
                .describe(index as u16, desc.addr, desc.len, desc.flags, desc.next);
        }
        self.transact()
    }

    /// Posts a request with a readable and a writable descriptor, and does not wait for the answer.
    pub fn post_request(&mut self, request: &[u8], room: usize) {
        let (table, _) = self.lay_out(&[Part::Ask(request), Part::Room(room)]);
        for (index, desc) in table.iter().enumerate() {
            self.control
                .describe(index as u16, desc.addr, desc.len, desc.flags, desc.next);
        }
        self.window.set_asking(true);
        self.control.publish(0);
    }

    /// Asks with a readable and a writable descriptor.
    #[track_caller]
    pub fn request(&mut self, request: &[u8], room: usize) -> Answer {
        self.submit(&[Part::Ask(request), Part::Room(room)])
    }

    #[track_caller]
    fn command(
        &mut self,
        command: (u8, u8),
        body: &(impl IntoBytes + zerocopy::Immutable + ?Sized),
        reply: usize,
    ) -> Result<Vec<u8>, Refused> {
        let answer = self.request(&encode(command, body), 1 + reply);
        match answer.status() {
            Some(Status::Ok) => {
                assert_eq!(answer.used, 1 + reply);
                Ok(answer.room[1..].to_vec())
            }
            Some(refused) => {
                assert_eq!(answer.used, 1);
                Err(refused)
            }
            None => panic!("no status was written"),
        }
    }

    #[track_caller]
    fn allocated(&self, reply: &[u8], size: u64) -> Dmb {
        let reply = AllocReply::read_from_bytes(reply).unwrap();
        assert_eq!(reply.num.get(), 1);
        assert_ne!(reply.token.0.get(), 0);
        assert_eq!(reply.area.size.get(), size);
        let offset = reply.area.offset.get();
        assert!(offset.is_multiple_of(size.next_power_of_two().max(CHUNK_SIZE)));
        assert!(offset + size <= self.config.window_size.get());
        Dmb {
            token: reply.token,
            offset,
            size,
        }
    }

    /// ALLOC_FOR_PEER.
    #[track_caller]
    pub fn alloc_for_peer(&mut self, peer: Gid, size: u64) -> Result<Dmb, Refused> {
        let body = AllocForPeer {
            size: size.into(),
            peer_gid: peer,
        };
        let reply = self.command(CMD_ALLOC_FOR_PEER, &body, size_of::<AllocReply>())?;
        Ok(self.allocated(&reply, size))
    }

    /// ALLOC.
    #[track_caller]
    pub fn alloc(&mut self, size: u64) -> Result<Dmb, Refused> {
        let body = Alloc { size: size.into() };
        let reply = self.command(CMD_ALLOC, &body, size_of::<AllocReply>())?;
        Ok(self.allocated(&reply, size))
    }

    /// ATTACH for reading and writing.
    #[track_caller]
    pub fn attach(&mut self, token: Token) -> Result<Dmb, Refused> {
        self.attach_as(token, PERM_READ | PERM_WRITE)
    }

    /// ATTACH with any access.
    #[track_caller]
    pub fn attach_as(&mut self, token: Token, rw_perm: u32) -> Result<Dmb, Refused> {
        let body = Attach {
            token,
            rw_perm: rw_perm.into(),
        };
        let reply = self.command(CMD_ATTACH, &body, size_of::<AttachReply>())?;
        let reply = AttachReply::read_from_bytes(&reply).unwrap();
        assert_eq!(reply.num.get(), 1);
        Ok(Dmb {
            token,
            offset: reply.area.offset.get(),
            size: reply.area.size.get(),
        })
    }

    /// DETACH.
    #[track_caller]
    pub fn detach(&mut self, token: Token) -> Result<(), Refused> {
        self.command(CMD_DETACH, &Detach { token }, 0).map(drop)
    }

    /// GRANT for all, or for one device.
    #[track_caller]
    pub fn grant(&mut self, token: Token, devid: Option<u64>, permissions: u64) -> Result<(), Refused> {
        let permissions = permissions.into();
        match devid {
            None => self.command(CMD_GRANT_DEFAULT, &GrantDefault { token, permissions }, 0),
            Some(devid) => {
                let body = GrantDevice {
                    token,
                    permissions,
                    peer_devid: devid.into(),
                };
                self.command(CMD_GRANT_DEVICE, &body, 0)
            }
        }
        .map(drop)
    }

    /// QUERY_GID.
    #[track_caller]
    pub fn query_gid(&mut self, gid: Gid) -> Result<(), Refused> {
        self.command(CMD_QUERY_GID, &QueryGid { gid }, 0).map(drop)
    }

    /// QUERY_SLAB: offset and length of the slab, and this guest's side.
    #[track_caller]
    pub fn query_slab(&mut self, token: Token) -> Result<(u64, u64, u32), Refused> {
        let reply = self.command(CMD_QUERY_SLAB, &QuerySlab { token }, size_of::<SlabReply>())?;
        let reply = SlabReply::read_from_bytes(&reply).unwrap();
        assert_eq!(reply.reserved.get(), 0);
        Ok((reply.area.offset.get(), reply.area.size.get(), reply.side.get()))
    }

    /// SEND_MESSAGE.
    #[track_caller]
    pub fn send_message(&mut self, peer: Gid, code: u32, info: u64) -> Result<(), Refused> {
        let body = SendMessage {
            peer_gid: peer,
            code: code.into(),
            reserved: 0.into(),
            info: info.into(),
        };
        self.command(CMD_SEND_MESSAGE, &body, 0).map(drop)
    }

    /// The device answers a good request.
    #[track_caller]
    pub fn ping(&mut self) {
        let gid = self.gid();
        assert_eq!(self.query_gid(gid), Ok(()));
    }

    // Doorbell and events.

    /// Rings the DMB at an offset. Returns whether that took a kick.
    #[track_caller]
    pub fn ring(&self, offset: u64) -> bool {
        let kick = self.window.bell(offset).ring();
        if kick {
            self.doorbell.notify();
        }
        kick
    }

    /// Posts one event buffer.
    pub fn post_event(&mut self, size: u32) {
        let slot = self
            .event_slots
            .pop()
            .expect("not more buffers than the queue has descriptors");
        self.post_event_at(slot, size);
    }

    fn post_event_at(&mut self, slot: u16, size: u32) {
        assert!(u64::from(size) <= EVENT_STRIDE);
        let at = HIGH + EVENT_STRIDE * u64::from(slot);
        self.events.describe(slot, at, size, WRITE, 0);
        self.events.publish(slot);
    }

    /// The next event, whose buffer is posted again.
    #[track_caller]
    pub fn next_event(&mut self, timeout: Duration) -> Option<Event> {
        let (slot, event) = self.take_event(timeout)?;
        self.post_event_at(slot, self.options.event_size);
        Some(event)
    }

    /// The next event, whose buffer is not posted again.
    #[track_caller]
    pub fn last_event(&mut self, timeout: Duration) -> Option<Event> {
        let (slot, event) = self.take_event(timeout)?;
        self.event_slots.push(slot);
        Some(event)
    }

    #[track_caller]
    fn take_event(&mut self, timeout: Duration) -> Option<(u16, Event)> {
        let (slot, used) = self.events.wait_used(timeout)?;
        let bytes = self.ram.read(HIGH + EVENT_STRIDE * u64::from(slot), used as usize);
        Some((slot as u16, parse_event(&bytes)))
    }

    /// The next event, which must come.
    #[track_caller]
    pub fn expect_event(&mut self) -> Event {
        self.next_event(PATIENCE).expect("an event")
    }

    /// Fails if an event comes.
    #[track_caller]
    pub fn expect_silence(&mut self) {
        let event = self.next_event(super::BRIEF);
        assert_eq!(event, None);
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

/// Decodes an event.
#[track_caller]
pub fn parse_event(bytes: &[u8]) -> Event {
    let Some(ev_type) = bytes.first_chunk::<8>() else {
        assert!(bytes.is_empty(), "an event of {} bytes", bytes.len());
        return Event::Nothing;
    };
    match u64::from_le_bytes(*ev_type) {
        EV_DOORBELLS => {
            let (head, rest) = DoorbellsEvent::read_from_prefix(bytes).unwrap();
            assert_eq!(rest.len(), 4 * head.count.get() as usize);
            assert_eq!(head.reserved.get(), 0);
            let chunk = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
            Event::Doorbells(rest.chunks(4).map(chunk).collect())
        }
        EV_PEER_GONE => Event::PeerGone(PeerGoneEvent::read_from_bytes(bytes).unwrap().gid),
        EV_MESSAGE => {
            let message = MessageEvent::read_from_bytes(bytes).unwrap();
            assert_eq!(message.reserved.get(), 0);
            Event::Message(message.gid, message.code.get(), message.info.get())
        }
        other => panic!("an event of type {other:#x}"),
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

/// What QEMU does when the driver resets the device.
pub fn stop_device(frontend: &mut Frontend, window: &Window) {
    for index in 0..NUM_QUEUES {
        frontend.set_vring_enable(index, false).unwrap();
    }
    for index in 0..NUM_QUEUES {
        frontend.get_vring_base(index).unwrap();
    }
    window.set_started(false);
}

/// The back-end channel, and a thread that serves it until it is shut down.
fn channel(frontend: &mut Frontend, window: Arc<Window>) -> (UnixStream, JoinHandle<()>) {
    let mut handler = FrontendReqHandler::new(window).unwrap();
    handler.set_reply_ack_flag(true);
    frontend.set_backend_request_fd(&handler.get_tx_raw_fd()).unwrap();
    // SAFETY: the handler owns the descriptor and outlives this borrow.
    let socket = unsafe { BorrowedFd::borrow_raw(handler.as_raw_fd()) };
    let socket = UnixStream::from(socket.try_clone_to_owned().unwrap());
    let thread = std::thread::spawn(move || {
        loop {
            match handler.handle_request() {
                Ok(_) | Err(VhostUserError::ReqHandlerError(_)) => {}
                Err(_) => break,
            }
        }
    });
    (socket, thread)
}
