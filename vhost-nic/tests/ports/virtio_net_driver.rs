//! A driver of a virtio-net device, behind a front-end of vhost-user.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};

use mlx5_test_driver::wait::eventually;
use vhost::vhost_user::message::VhostUserVirtioFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub const VERSION_1: u64 = 1 << 32;
pub const EVENT_IDX: u64 = 1 << 29;
pub const INDIRECT: u64 = 1 << 28;
pub const MERGEABLE: u64 = 1 << 15;
pub const GUEST_CSUM: u64 = 1 << 1;
pub const GUEST_TSO4: u64 = 1 << 7;
pub const GUEST_TSO6: u64 = 1 << 8;

/// Descriptors of a ring.
pub const SIZE: u16 = 64;
/// Guest physical address of the memory.
pub const BASE: u64 = 0x10_0000;
/// Bytes of the memory.
pub const MEMORY: u64 = 32 << 20;
/// Bytes of the memory for a ring.
const FOOTPRINT: u64 = 0x4000;
/// Bytes for each buffer.
pub const BUFFER: u64 = 0x2_0000;

const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT_TABLE: u16 = 4;

/// A part of a chain: address, length, and whether the device writes.
pub type Part = (u64, u32, bool);

/// A virtqueue of the driver.
struct Ring {
    index: usize,
    size: u16,
    available: u16,
    used: u16,
    kick: EventFd,
    call: EventFd,
}

/// A received frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    /// The header of 10 bytes.
    pub header: [u8; 10],
    /// Buffers that it took.
    pub buffers: u16,
    pub frame: Vec<u8>,
}

/// A driver with a device that is started.
pub struct Driver {
    pub frontend: Frontend,
    memory: GuestMemoryMmap,
    rings: Vec<Ring>,
    features: u64,
    /// Address and length of the receive buffer of each descriptor, by queue.
    buffers: Vec<[(u64, u32); SIZE as usize]>,
}

impl Driver {
    /// Connects and starts the rings of `pairs`.
    pub fn start(path: &Path, features: u64, pairs: usize) -> Self {
        let mut driver = Self::connect(path, features);
        (0..2 * pairs).for_each(|index| driver.start_ring(index, SIZE));
        driver
    }

    /// Connects, and accepts features that the device must offer.
    pub fn connect(path: &Path, features: u64) -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MEMORY).unwrap();
        let memory = memory_of(&file);
        let mut frontend = Frontend::connect(path, 64).unwrap();
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        let protocol = offered & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        let features = features | protocol;
        assert_eq!(offered & features, features, "{offered:#x}");
        if protocol != 0 {
            let protocol = frontend.get_protocol_features().unwrap();
            frontend.set_protocol_features(protocol).unwrap();
        }
        frontend.set_features(features).unwrap();
        let regions: Vec<_> = memory
            .iter()
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).unwrap())
            .collect();
        frontend.set_mem_table(&regions).unwrap();
        Self {
            frontend,
            memory,
            rings: Vec::new(),
            features,
            buffers: Vec::new(),
        }
    }

    /// Starts the next ring.
    pub fn start_ring(&mut self, index: usize, size: u16) {
        assert_eq!(index, self.rings.len());
        let eventfd = || EventFd::new(EFD_NONBLOCK).unwrap();
        let ring = Ring {
            index,
            size,
            available: 0,
            used: 0,
            kick: eventfd(),
            call: eventfd(),
        };
        self.write(self.at(index, 0), &[0; FOOTPRINT as usize]);
        let user = |at| self.memory.get_host_address(GuestAddress(at)).unwrap() as u64;
        let addresses = VringConfigData {
            queue_max_size: size,
            queue_size: size,
            flags: 0,
            desc_table_addr: user(self.at(index, 0)),
            used_ring_addr: user(self.at(index, USED)),
            avail_ring_addr: user(self.at(index, AVAIL)),
            log_addr: None,
        };
        let frontend = &mut self.frontend;
        frontend.set_vring_call(index, &ring.call).unwrap();
        frontend.set_vring_num(index, size).unwrap();
        frontend.set_vring_base(index, 0).unwrap();
        frontend.set_vring_addr(index, &addresses).unwrap();
        frontend.set_vring_kick(index, &ring.kick).unwrap();
        if self.features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() != 0 {
            frontend.set_vring_enable(index, true).unwrap();
        }
        self.rings.push(ring);
        self.buffers.push([(0, 0); SIZE as usize]);
    }

    /// Stops a ring and returns the number of chains that the device has taken.
    pub fn stop_ring(&mut self, index: usize) -> u32 {
        self.frontend.get_vring_base(index).unwrap()
    }

    fn at(&self, ring: usize, offset: u64) -> u64 {
        BASE + ring as u64 * FOOTPRINT + offset
    }

    /// Address of free memory, `BUFFER` bytes for each number below 200.
    pub fn buffer(number: u64) -> u64 {
        BASE + 0x10_0000 + number * BUFFER
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub fn read(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn load(&self, at: u64) -> u16 {
        u16::from_le(self.memory.load(GuestAddress(at), Ordering::Acquire).unwrap())
    }

    pub fn store(&self, at: u64, value: u16) {
        self.memory
            .store(value.to_le(), GuestAddress(at), Ordering::Release)
            .unwrap();
    }

    /// Writes a table of descriptors from `first` on.
    pub fn describe(&self, table: u64, first: u16, parts: &[Part]) {
        for (index, (address, length, written)) in (first..).zip(parts) {
            let is_last = usize::from(index - first) + 1 == parts.len();
            let flags = if is_last { 0 } else { NEXT } | if *written { WRITE } else { 0 };
            self.write_descriptor(table, index, *address, *length, flags);
        }
    }

    fn write_descriptor(&self, table: u64, index: u16, address: u64, length: u32, flags: u16) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&(index + 1).to_le_bytes());
        self.write(table + u64::from(index) * 16, &bytes);
    }

    /// Makes a chain available whose descriptors begin at `first`.
    pub fn offer(&mut self, ring: usize, first: u16, parts: &[Part]) {
        self.describe(self.at(ring, 0), first, parts);
        self.publish(ring, first);
    }

    /// Does the same with a table of its own, in free memory.
    pub fn offer_indirect(&mut self, ring: usize, first: u16, table: u64, parts: &[Part]) {
        assert_ne!(self.features & INDIRECT, 0);
        self.offer_table(ring, first, table, parts);
    }

    /// Makes a chain available whose descriptors are in a table of its own, whether negotiated or not.
    pub fn offer_table(&mut self, ring: usize, first: u16, table: u64, parts: &[Part]) {
        self.describe(table, 0, parts);
        self.write_descriptor(self.at(ring, 0), first, table, 16 * parts.len() as u32, INDIRECT_TABLE);
        self.publish(ring, first);
    }

    /// Makes a chain available, and kicks if the device asks for it.
    fn publish(&mut self, index: usize, head: u16) {
        let size = self.rings[index].size;
        let old = self.rings[index].available;
        self.store(self.at(index, AVAIL + 4 + 2 * u64::from(old % size)), head);
        self.advance(index, 1);
    }

    /// Advances the index of the available ring, and kicks if the device asks for it.
    pub fn advance(&mut self, index: usize, by: u16) {
        let size = self.rings[index].size;
        let old = self.rings[index].available;
        let new = old.wrapping_add(by);
        self.rings[index].available = new;
        self.store(self.at(index, AVAIL + 2), new);
        fence(Ordering::SeqCst);
        let wanted = match self.features & EVENT_IDX {
            0 => self.load(self.at(index, USED)) & 1 == 0,
            _ => {
                let event = self.load(self.at(index, USED + 4 + 8 * u64::from(size)));
                new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
            }
        };
        if wanted {
            self.kick(index);
        }
    }

    /// Overwrites 16 bits of a ring.
    pub fn scribble(&self, index: usize, at: u8, value: u16) {
        let part = if at & 1 == 0 { AVAIL } else { USED };
        self.store(self.at(index, part + u64::from(at & !1)), value);
    }

    /// Kicks.
    pub fn kick(&self, index: usize) {
        self.rings[index].kick.write(1).unwrap();
    }

    /// Asks for no interrupt of a ring.
    pub fn silence(&self, index: usize) {
        match self.features & EVENT_IDX {
            0 => self.store(self.at(index, AVAIL), 1),
            _ => {
                let size = u64::from(self.rings[index].size);
                let passed = self.rings[index].used.wrapping_sub(1);
                self.store(self.at(index, AVAIL + 4 + 2 * size), passed);
            }
        }
    }

    /// Asks for an interrupt at the next used chain.
    pub fn arm(&self, index: usize) {
        match self.features & EVENT_IDX {
            0 => self.store(self.at(index, AVAIL), 0),
            _ => {
                let size = u64::from(self.rings[index].size);
                self.store(self.at(index, AVAIL + 4 + 2 * size), self.rings[index].used);
            }
        }
    }

    /// Interrupts of a ring since the last call.
    pub fn interrupts(&self, index: usize) -> u64 {
        self.rings[index].call.read().unwrap_or(0)
    }

    /// Whether the device has used a chain.
    pub fn has_used(&self, index: usize) -> bool {
        self.load(self.at(index, USED + 2)) != self.rings[index].used
    }

    /// The next used chain: head and length.
    pub fn take_used(&mut self, index: usize) -> Option<(u16, u32)> {
        let ring = &self.rings[index];
        if self.load(self.at(index, USED + 2)) == ring.used {
            return None;
        }
        let element = self.at(ring.index, USED + 4 + 8 * u64::from(ring.used % ring.size));
        let bytes = self.read(element, 8);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        self.rings[index].used = self.rings[index].used.wrapping_add(1);
        Some((word(0) as u16, word(4)))
    }

    /// Waits for the next used chain.
    #[track_caller]
    pub fn wait_used(&mut self, index: usize) -> (u16, u32) {
        let mut used = None;
        eventually("a used chain", || {
            used = self.take_used(index);
            used.is_some()
        });
        used.unwrap()
    }

    /// Length of the header in front of frames.
    pub fn header_length(&self) -> usize {
        if self.features & (VERSION_1 | MERGEABLE) == 0 {
            10
        } else {
            12
        }
    }

    /// Transmits a frame behind a header of 10 bytes, in a descriptor each, and waits until the device has taken it.
    #[track_caller]
    pub fn transmit(&mut self, pair: usize, header: &[u8; 10], frame: &[u8]) {
        let at = Self::buffer(8 * pair as u64);
        let length = self.header_length();
        self.write(at, header);
        self.write(at + 10, &[0; 2]);
        self.write(at + 0x100, frame);
        let parts = [(at, length as u32, false), (at + 0x100, frame.len() as u32, false)];
        self.offer(2 * pair + 1, 0, &parts);
        assert_eq!(self.wait_used(2 * pair + 1), (0, 0));
    }

    /// Makes a receive buffer of this length available at a descriptor.
    pub fn post(&mut self, pair: usize, descriptor: u16, length: u32) {
        let at = Self::buffer(16 + 64 * pair as u64 + u64::from(descriptor));
        self.write(at, &vec![0xee; length as usize]);
        self.buffers[2 * pair][usize::from(descriptor)] = (at, length);
        self.offer(2 * pair, descriptor, &[(at, length, true)]);
    }

    /// Waits for the next frame of a pair.
    #[track_caller]
    pub fn receive(&mut self, pair: usize) -> Received {
        let (head, length) = self.wait_used(2 * pair);
        let header_length = self.header_length();
        let first = self.contents(pair, head, length);
        let buffers = match header_length {
            10 => 1,
            _ => u16::from_le_bytes(first[10..12].try_into().unwrap()),
        };
        let mut frame = first[header_length..].to_vec();
        for _ in 1..buffers {
            // All are used at once.
            let (head, length) = self.take_used(2 * pair).expect("a buffer of the same frame");
            frame.extend(self.contents(pair, head, length));
        }
        Received {
            header: first[..10].try_into().unwrap(),
            buffers,
            frame,
        }
    }

    fn contents(&self, pair: usize, head: u16, length: u32) -> Vec<u8> {
        let (at, room) = self.buffers[2 * pair][usize::from(head)];
        assert!(length <= room);
        let bytes = self.read(at, room as usize);
        assert!(
            bytes[length as usize..].iter().all(|byte| *byte == 0xee),
            "behind the frame"
        );
        bytes[..length as usize].to_vec()
    }
}

fn memory_of(file: &File) -> GuestMemoryMmap {
    let backing = FileOffset::new(file.try_clone().unwrap(), 0);
    GuestMemoryMmap::from_ranges_with_files([(GuestAddress(BASE), MEMORY as usize, Some(backing))]).unwrap()
}
