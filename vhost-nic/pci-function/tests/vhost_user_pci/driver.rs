//! A driver like that of a User Mode Linux kernel: a vhost-user front-end with a split ring for commands and one for
//! interrupts.

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::tempfile::TempFile;

/// Start of guest memory: not 0, and the same offset in its file, as in User Mode Linux.
pub const MEMORY: u64 = 0xa2_f000;
/// Size of guest memory in bytes.
pub const MEMORY_SIZE: u64 = 0x10_0000;
/// Start of free guest memory.
pub const DATA: u64 = MEMORY + 0x1_0000;

pub const COMMAND: usize = 0;
pub const INTERRUPT: usize = 1;
pub const QUEUE_SIZE: u16 = 256;

pub const CFG_READ: u8 = 1;
pub const CFG_WRITE: u8 = 2;
pub const MMIO_READ: u8 = 3;
pub const MMIO_WRITE: u8 = 4;
pub const MMIO_MEMSET: u8 = 5;
pub const MSI: u8 = 7;

const VERSION_1: u64 = 1 << 32;
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
/// Time after which something counts as never happening.
pub const SOON: Duration = Duration::from_secs(5);

/// Descriptor of the table.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    pub address: u64,
    pub length: u32,
    pub flags: u16,
    pub next: u16,
}

/// A connected front-end with enabled queues.
pub struct Driver {
    pub frontend: Frontend,
    pub memory: GuestMemoryMmap,
    pub kicks: Vec<EventFd>,
    pub calls: Vec<EventFd>,
    pub available: [u16; 2],
    used: [u16; 2],
}

impl Driver {
    pub fn connect(path: &Path) -> Self {
        let file = TempFile::new().unwrap().into_file();
        file.set_len(MEMORY + MEMORY_SIZE).unwrap();
        let backing = FileOffset::new(file.try_clone().unwrap(), MEMORY);
        let ranges = [(GuestAddress(MEMORY), MEMORY_SIZE as usize, Some(backing))];
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).unwrap();

        let mut frontend = Frontend::connect(path, 2).unwrap();
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap();
        assert_eq!(features, VERSION_1 | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits());
        let protocol = frontend.get_protocol_features().unwrap();
        let expected = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
        assert_eq!(protocol, expected);
        frontend.set_protocol_features(protocol).unwrap();
        assert_eq!(frontend.get_queue_num().unwrap(), 2);
        frontend.set_features(features).unwrap();
        frontend.set_mem_table(&[region(&memory)]).unwrap();

        let mut driver = Self {
            frontend,
            memory,
            kicks: Vec::new(),
            calls: Vec::new(),
            available: [0; 2],
            used: [0; 2],
        };
        for queue in [COMMAND, INTERRUPT] {
            driver.start(queue);
        }
        driver
    }

    fn start(&mut self, queue: usize) {
        let eventfd = || EventFd::new(EFD_NONBLOCK).unwrap();
        let (kick, call) = (eventfd(), eventfd());
        self.frontend.set_vring_call(queue, &call).unwrap();
        self.frontend.set_vring_num(queue, QUEUE_SIZE).unwrap();
        self.frontend.set_vring_base(queue, 0).unwrap();
        let addresses = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: table(queue),
            used_ring_addr: used_ring(queue),
            avail_ring_addr: available_ring(queue),
            log_addr: None,
        };
        self.frontend.set_vring_addr(queue, &addresses).unwrap();
        self.frontend.set_vring_kick(queue, &kick).unwrap();
        self.frontend.set_vring_enable(queue, true).unwrap();
        self.kicks.push(kick);
        self.calls.push(call);
    }

    /// Replaces the call descriptor of a queue.
    pub fn call_by(&mut self, queue: usize, descriptor: &OwnedFd) {
        // SAFETY: the message passes a duplicate on, and the eventfd does not close the descriptor that it borrows.
        let call = unsafe { EventFd::from_raw_fd(descriptor.as_raw_fd()) };
        self.frontend.set_vring_call(queue, &call).unwrap();
        let _ = call.into_raw_fd();
        // The back-end answers in order: it has the descriptor now.
        self.frontend.get_features().unwrap();
    }

    pub fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    pub fn describe(&self, queue: usize, index: u16, descriptor: Descriptor) {
        let at = table(queue) + u64::from(index) * 16;
        self.put(at, &descriptor.address.to_le_bytes());
        self.put(at + 8, &descriptor.length.to_le_bytes());
        self.put(at + 12, &descriptor.flags.to_le_bytes());
        self.put(at + 14, &descriptor.next.to_le_bytes());
    }

    /// Makes the chain at `head` available, without a kick.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let ring = available_ring(queue);
        let slot = u64::from(self.available[queue] % QUEUE_SIZE);
        self.put(ring + 4 + slot * 2, &head.to_le_bytes());
        self.available[queue] = self.available[queue].wrapping_add(1);
        self.memory
            .store(self.available[queue].to_le(), GuestAddress(ring + 2), Ordering::Release)
            .unwrap();
    }

    pub fn kick(&self, queue: usize) {
        self.kicks[queue].write(1).unwrap();
    }

    /// Waits for the next used chain: head and number of bytes written.
    pub fn reap(&mut self, queue: usize) -> (u16, usize) {
        self.try_reap(queue, SOON).expect("the device returns the chain")
    }

    pub fn try_reap(&mut self, queue: usize, timeout: Duration) -> Option<(u16, usize)> {
        let begin = Instant::now();
        let index = GuestAddress(used_ring(queue) + 2);
        while u16::from_le(self.memory.load(index, Ordering::Acquire).unwrap()) == self.used[queue] {
            if begin.elapsed() > timeout {
                return None;
            }
            std::thread::yield_now();
        }
        let element = used_ring(queue) + 4 + u64::from(self.used[queue] % QUEUE_SIZE) * 8;
        self.used[queue] = self.used[queue].wrapping_add(1);
        let head = self.get(element, 4)[..2].try_into().map(u16::from_le_bytes).unwrap();
        let written = self.get(element + 4, 4).try_into().map(u32::from_le_bytes).unwrap();
        Some((head, written as usize))
    }

    /// Sends a command with `data` in a descriptor of its own, if there is any, and room for `room` bytes of answer.
    /// Returns the answer.
    pub fn command(&mut self, header: &[u8], data: &[u8], room: u32) -> Vec<u8> {
        self.put(DATA, header);
        self.put(DATA + 0x1000, data);
        self.put(DATA + 0x8000, &vec![0xee; room as usize]);
        let parts = [
            (DATA, header.len() as u32, 0),
            (DATA + 0x1000, data.len() as u32, 0),
            (DATA + 0x8000, room, WRITE),
        ];
        let parts: Vec<_> = parts.into_iter().filter(|part| part.1 > 0).collect();
        for (index, &(address, length, flags)) in parts.iter().enumerate() {
            let last = index + 1 == parts.len();
            let descriptor = Descriptor {
                address,
                length,
                flags: flags | if last { 0 } else { NEXT },
                next: index as u16 + 1,
            };
            self.describe(COMMAND, index as u16, descriptor);
        }
        self.offer(COMMAND, 0);
        self.kick(COMMAND);
        let (head, written) = self.reap(COMMAND);
        assert_eq!(head, 0);
        self.get(DATA + 0x8000, written)
    }

    pub fn read(&mut self, op: u8, address: u64, size: u32) -> Vec<u8> {
        self.command(&header(op, 0, size, address), &[], size)
    }

    pub fn config(&mut self, offset: u64) -> u32 {
        self.read(CFG_READ, offset, 4)
            .try_into()
            .map(u32::from_le_bytes)
            .unwrap()
    }

    /// Writes configuration space as the driver does: the message always has 8 bytes of data.
    pub fn set_config(&mut self, offset: u64, data: &[u8]) {
        let mut message = header(CFG_WRITE, 0, data.len() as u32, offset);
        message.extend_from_slice(data);
        message.resize(24, 0);
        assert!(self.command(&message, &[], 0).is_empty());
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let header = header(MMIO_WRITE, 0, data.len() as u32, offset);
        assert!(self.command(&header, data, 0).is_empty());
    }

    /// Posts `count` interrupt buffers of `size` bytes, from number `first` on.
    pub fn give_buffers(&mut self, first: u16, count: u16, size: u32) {
        for index in first..first + count {
            let descriptor = Descriptor {
                address: buffer(index),
                length: size,
                flags: WRITE,
                next: 0,
            };
            self.describe(INTERRUPT, index, descriptor);
            self.offer(INTERRUPT, index);
        }
        self.kick(INTERRUPT);
    }

    /// Waits for the next interrupt message.
    pub fn interrupt(&mut self) -> Vec<u8> {
        let (head, written) = self.reap(INTERRUPT);
        self.get(buffer(head), written)
    }
}

/// The memory table of a guest.
pub fn region(memory: &GuestMemoryMmap) -> VhostUserMemoryRegionInfo {
    let part = memory.iter().next().and_then(|region| region.file_offset());
    VhostUserMemoryRegionInfo {
        guest_phys_addr: MEMORY,
        memory_size: MEMORY_SIZE,
        userspace_addr: MEMORY,
        mmap_offset: MEMORY,
        mmap_handle: part.expect("memory of a file").file().as_raw_fd(),
    }
}

pub fn header(op: u8, bar: u8, size: u32, address: u64) -> Vec<u8> {
    let mut header = vec![op, bar, 0, 0];
    header.extend_from_slice(&size.to_ne_bytes());
    header.extend_from_slice(&address.to_ne_bytes());
    header
}

fn buffer(index: u16) -> u64 {
    DATA + 0x2_0000 + u64::from(index) * 64
}

pub fn table(queue: usize) -> u64 {
    MEMORY + queue as u64 * 0x4000
}

pub fn available_ring(queue: usize) -> u64 {
    table(queue) + 0x1000
}

fn used_ring(queue: usize) -> u64 {
    table(queue) + 0x2000
}
