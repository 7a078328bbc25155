//! The driver's side of a split virtqueue.

use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};
use std::time::{Duration, Instant};

use vhost::VringConfigData;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::PATIENCE;
use super::memory::{LOW, Ram};

/// Descriptor flag: another one follows.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes.
pub const WRITE: u16 = 2;
/// Descriptor flag: a table of descriptors.
pub const INDIRECT: u16 = 4;

/// Size of a ring in guest RAM, from [`LOW`].
pub const FOOTPRINT: u64 = 0x4000;

/// One virtqueue.
pub struct Ring {
    ram: Arc<Ram>,
    /// Descriptor table, available ring and used ring, in this process.
    memory: NonNull<u8>,
    base: u64,
    size: u16,
    event_idx: bool,
    next_avail: u16,
    last_used: u16,
    /// The driver's notification.
    pub kick: EventFd,
    /// The device's notification.
    pub call: EventFd,
    calls: Epoll,
    /// Notifications the driver saw.
    pub interrupts: u64,
}

// SAFETY: the memory belongs to the RAM that the ring shares in, and is accessed atomically.
unsafe impl Send for Ring {}

/// Offset of the available ring.
const AVAIL: u64 = 0x1000;
/// Offset of the used ring.
const USED: u64 = 0x2000;

impl Ring {
    /// Creates an empty ring for queue `index`.
    pub fn new(ram: Arc<Ram>, index: u64, size: u16, event_idx: bool) -> Self {
        let base = LOW + index * FOOTPRINT;
        ram.write(base, &[0; FOOTPRINT as usize]);
        let eventfd = || EventFd::new(EFD_NONBLOCK).unwrap();
        let call = eventfd();
        let calls = Epoll::new().unwrap();
        let readable = EpollEvent::new(EventSet::IN, 0);
        calls.ctl(ControlOperation::Add, call.as_raw_fd(), readable).unwrap();
        Self {
            memory: NonNull::new(ram.user_address(base) as *mut u8).unwrap(),
            ram,
            base,
            size,
            event_idx,
            next_avail: 0,
            last_used: 0,
            kick: eventfd(),
            call,
            calls,
            interrupts: 0,
        }
    }

    /// Returns a 16-bit field of the rings, to be accessed as a driver does, without a look-up of guest memory.
    fn field(&self, offset: u64) -> &AtomicU16 {
        assert!(offset < FOOTPRINT);
        // SAFETY: inside the rings.
        let at = unsafe { self.memory.as_ptr().add(offset as usize) };
        // SAFETY: mapped as long as the RAM lives, aligned, and accessed only atomically.
        unsafe { AtomicU16::from_ptr(at.cast()) }
    }

    fn store(&self, offset: u64, value: u16) {
        self.field(offset).store(value.to_le(), Ordering::Release);
    }

    fn load(&self, offset: u64) -> u16 {
        u16::from_le(self.field(offset).load(Ordering::Acquire))
    }

    /// Returns the number of descriptors.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Returns the addresses for SET_VRING_ADDR.
    pub fn addresses(&self) -> VringConfigData {
        VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: self.ram.user_address(self.base),
            used_ring_addr: self.ram.user_address(self.base + USED),
            avail_ring_addr: self.ram.user_address(self.base + AVAIL),
            log_addr: None,
        }
    }

    /// Writes one descriptor of the table.
    pub fn describe(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        self.ram
            .write(self.base + u64::from(index) * 16, &descriptor(addr, len, flags, next));
    }

    /// Makes a chain available, and kicks if the device requires it.
    pub fn publish(&mut self, head: u16) {
        self.store(AVAIL + 4 + 2 * u64::from(self.next_avail % self.size), head);
        self.jump(1);
    }

    /// Advances the available index, and kicks if the device requires it.
    pub fn jump(&mut self, by: u16) {
        let old = self.next_avail;
        self.next_avail = old.wrapping_add(by);
        self.store(AVAIL + 2, self.next_avail);
        fence(Ordering::SeqCst);
        let wanted = if self.event_idx {
            let event = self.load(USED + 4 + 8 * u64::from(self.size));
            // vring_need_event() of the virtio specification.
            self.next_avail.wrapping_sub(event).wrapping_sub(1) < self.next_avail.wrapping_sub(old)
        } else {
            self.load(USED) & 1 == 0
        };
        if wanted {
            self.notify();
        }
    }

    /// Kicks.
    pub fn notify(&self) {
        self.kick.write(1).unwrap();
    }

    /// Takes the next used element: head and length.
    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        let index = self.load(USED + 2);
        if index == self.last_used {
            return None;
        }
        assert!(
            index.wrapping_sub(self.last_used) <= self.size,
            "the used index jumped from {} to {index}",
            self.last_used
        );
        let element = USED + 4 + 8 * u64::from(self.last_used % self.size);
        self.last_used = self.last_used.wrapping_add(1);
        let word = |at: u64| u32::from(self.load(element + at)) | u32::from(self.load(element + at + 2)) << 16;
        Some((word(0), word(4)))
    }

    /// Enables the interrupt for the next used element.
    pub fn arm(&self) {
        let used_event = AVAIL + 4 + 2 * u64::from(self.size);
        self.store(used_event, self.last_used);
        fence(Ordering::SeqCst);
    }

    /// Takes the next used element, waiting for the interrupt.
    pub fn wait_used(&mut self, timeout: Duration) -> Option<(u32, u32)> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(used) = self.take_used() {
                return Some(used);
            }
            self.arm();
            if let Some(used) = self.take_used() {
                return Some(used);
            }
            if !self.wait_interrupt(end) {
                let late = self.take_used()?;
                // An element without an interrupt is an error of the device.
                assert!(
                    self.wait_interrupt(Instant::now() + PATIENCE),
                    "the device used a buffer and raised no interrupt"
                );
                return Some(late);
            }
        }
    }

    fn wait_interrupt(&mut self, end: Instant) -> bool {
        loop {
            if self.call.read().is_ok() {
                self.interrupts += 1;
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let mut ready = [EpollEvent::default()];
            // Interrupted or not, the loop checks again.
            let _ = self.calls.wait(left.as_millis() as i32 + 1, &mut ready);
        }
    }
}

/// Encodes a descriptor as it lies in memory.
pub fn descriptor(addr: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&addr.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}
