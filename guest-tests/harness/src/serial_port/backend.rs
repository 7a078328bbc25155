//! vhost-user backend of a virtio console device with one named port.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex};

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VringRwLock, VringT};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::QueueOwnedT;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

use crate::sync::lock;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// VIRTIO_CONSOLE_F_MULTIPORT, needed for named ports.
const F_MULTIPORT: u64 = 1 << 1;

/// Queue numbers (virtio specification 5.3.2): port 0, then control messages.
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const CONTROL_RECEIVE: usize = 2;
const CONTROL_TRANSMIT: usize = 3;
const QUEUES: usize = 4;

/// Control message events (virtio specification 5.3.6.2).
const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// Buffer size for data from the harness, in bytes.
const CHUNK: usize = 32 * 1024;

/// The console device.
pub(super) struct Console {
    memory: Memory,
    stream: UnixStream,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Queues, once the guest has enabled one.
    queues: Option<Vec<VringRwLock>>,
    /// Control messages waiting for guest buffers.
    messages: VecDeque<Vec<u8>>,
    /// Whether a program in the guest has the port open; the kernel discards data that arrives while none has.
    open: bool,
    closed: bool,
}

impl Console {
    /// Creates a console whose port is connected to `stream`.
    pub(super) fn new(memory: Memory, stream: UnixStream) -> Self {
        Self {
            memory,
            stream,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Forwards data from the harness to the guest until [`Console::close`].
    pub(super) fn feed(&self) {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match (&self.stream).read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            let mut rest = &buffer[..count];
            let mut state = lock(&self.state);
            while !rest.is_empty() {
                if state.closed {
                    return;
                }
                let put = match &state.queues {
                    Some(queues) if state.open => self.put(&queues[RECEIVE], rest),
                    _ => None,
                };
                match put {
                    Some(count) => rest = &rest[count..],
                    None => state = self.changed.wait(state).unwrap_or_else(|error| error.into_inner()),
                }
            }
        }
    }

    /// Stops forwarding after the guest is gone.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Fills the guest's next buffer and returns the number of bytes; `None` if there is no buffer.
    fn put(&self, vring: &VringRwLock, bytes: &[u8]) -> Option<usize> {
        let memory = self.memory.memory();
        let chain = vring.get_mut().get_queue_mut().iter(memory.clone()).ok()?.next()?;
        let head = chain.head_index();
        let mut writer = chain.writer(&memory).ok()?;
        let count = bytes.len().min(writer.available_bytes());
        writer.write_all(&bytes[..count]).ok()?;
        vring.add_used(head, count as u32).ok()?;
        vring.signal_used_queue().ok()?;
        Some(count)
    }

    /// Reads the guest's next buffer.
    fn take(&self, vring: &VringRwLock) -> Option<Vec<u8>> {
        let memory = self.memory.memory();
        let chain = vring.get_mut().get_queue_mut().iter(memory.clone()).ok()?.next()?;
        let head = chain.head_index();
        let mut bytes = Vec::new();
        chain.reader(&memory).ok()?.read_to_end(&mut bytes).ok()?;
        vring.add_used(head, 0).ok()?;
        vring.signal_used_queue().ok()?;
        Some(bytes)
    }

    fn serve_control(&self, state: &mut State, vrings: &[VringRwLock]) {
        while let Some(message) = self.take(&vrings[CONTROL_TRANSMIT]) {
            let Some(&[_, _, _, _, e0, e1, v0, v1]) = message.first_chunk() else {
                continue;
            };
            match u16::from_le_bytes([e0, e1]) {
                DEVICE_READY => state.messages.push_back(control(PORT_ADD, 1, b"")),
                PORT_READY => {
                    let name = guest_agent::PORT_NAME.as_bytes();
                    state.messages.push_back(control(PORT_NAME, 1, name));
                    state.messages.push_back(control(PORT_OPEN, 1, b""));
                }
                PORT_OPEN => state.open = [v0, v1] != [0, 0],
                _ => {}
            }
        }
        while let Some(message) = state.messages.front() {
            if self.put(&vrings[CONTROL_RECEIVE], message).is_none() {
                break;
            }
            state.messages.pop_front();
        }
    }
}

/// Builds a control message for port 0.
fn control(event: u16, value: u16, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend_from_slice(&event.to_le_bytes());
    message.extend_from_slice(&value.to_le_bytes());
    message.extend_from_slice(rest);
    message
}

impl VhostUserBackend for Console {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        256
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1 | F_MULTIPORT | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK | VhostUserProtocolFeatures::CONFIG
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The feature is not offered.
    }

    /// Reads `struct virtio_console_config`: columns, rows, then the number of ports.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        let bytes = config.into_iter().chain(std::iter::repeat(0));
        bytes.skip(offset as usize).take(size as usize).collect()
    }

    fn update_memory(&self, _memory: Memory) -> io::Result<()> {
        // `memory` is a handle to the same memory map.
        Ok(())
    }

    /// Creates an exit event. The library never closes one end of it, which leaks one descriptor of the test process
    /// per start of a guest.
    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::CLOEXEC).ok()
    }

    fn handle_event(&self, event: u16, _events: EventSet, vrings: &[VringRwLock], _thread: usize) -> io::Result<()> {
        if usize::from(event) == TRANSMIT {
            // The harness reads all the time, so the write does not block for long.
            while let Some(bytes) = self.take(&vrings[TRANSMIT]) {
                let _ = (&self.stream).write_all(&bytes);
            }
            return Ok(());
        }
        let mut state = lock(&self.state);
        state.queues.get_or_insert_with(|| vrings.to_vec());
        self.serve_control(&mut state, vrings);
        self.changed.notify_all();
        Ok(())
    }
}
