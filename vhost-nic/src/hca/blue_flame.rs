//! BlueFlame: a driver may write a posted WQE to the doorbell register as a whole, which saves the hardware from
//! reading it (`mlx5_bf_copy` of libmlx5, `core/wc.c`).
//!
//! The copy arrives as stores of eight bytes, or of wider ones where the processor or the attachment combines them.
//! The first eight bytes alone are a doorbell: only the next store distinguishes it from the beginning of a copy.

mod slot;

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mlx5_prm::wqe::{ControlSegment, SEND_WQE_BB, SEND_WQE_DS};
use parking_lot::Mutex;
use smallvec::SmallVec;
use zerocopy::{FromBytes, IntoBytes};

use super::clock::Clock;

pub use slot::{Arrived, Slot};

/// Bytes of half a register (`log_bf_reg_size` counts both). Drivers alternate between the halves.
pub const BUFFER: usize = 0x100;
/// Bytes of a doorbell: the beginning of a control segment.
const DOORBELL: usize = 8;
/// Default time for the rest of a WQE to arrive: each store of it traps.
pub const COPY_TIMEOUT: Duration = Duration::from_micros(500);

/// Half a register of a UAR page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Half {
    /// UAR page number.
    pub page: u32,
    /// Half register within the page, counted from offset 0x800 on (0 to 7).
    pub index: u8,
}

/// A WQE that arrived through a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlueFlameWqe {
    /// Index in the send queue in basic blocks, from its control segment.
    pub index: u16,
    /// The WQE.
    pub bytes: SmallVec<[u8; SEND_WQE_BB]>,
}

impl BlueFlameWqe {
    /// Whether the index is in the range from `consumer` up to but not including `producer`.
    pub fn is_within(&self, consumer: u16, producer: u16) -> bool {
        self.index.wrapping_sub(consumer) < producer.wrapping_sub(consumer)
    }
}

/// A doorbell: the beginning of the control segment that was posted last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doorbell {
    /// Number of the queue.
    pub number: u32,
    /// End of the posted WQEs in basic blocks.
    pub end: u16,
}

impl From<&ControlSegment> for Doorbell {
    fn from(control: &ControlSegment) -> Self {
        let blocks = (control.ds() * SEND_WQE_DS).div_ceil(SEND_WQE_BB).max(1) as u16;
        Self {
            number: control.qpn_ds.get() >> 8,
            end: control.index().wrapping_add(blocks),
        }
    }
}

impl From<[u8; DOORBELL]> for Doorbell {
    fn from(bytes: [u8; DOORBELL]) -> Self {
        let mut control = ControlSegment::default();
        control.as_mut_bytes()[..DOORBELL].copy_from_slice(&bytes);
        Self::from(&control)
    }
}

/// Result of a write to a register.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// A doorbell for a queue.
    Doorbell(Doorbell),
    /// The beginning of a WQE, or perhaps only a doorbell: the driver is known to write whole WQEs here; see
    /// [`BlueFlame::overdue`].
    Begun {
        /// Deadline of the rest.
        until: Instant,
    },
    /// The end of a WQE for a queue.
    Complete {
        /// Number of the queue.
        number: u32,
        /// The WQE.
        wqe: BlueFlameWqe,
    },
    /// Part of a WQE, or a store out of order.
    Part,
}

/// The doorbell registers of a function.
#[derive(Debug, Default)]
pub struct BlueFlame {
    clock: Clock,
    /// Time for the rest of a WQE to arrive; unset while BlueFlame is off.
    timeout: OnceLock<Duration>,
    registers: Mutex<HashMap<Half, Register>>,
    executed: AtomicU64,
}

#[derive(Debug)]
struct Register {
    bytes: [u8; BUFFER],
    /// Number of valid bytes from the first on.
    filled: usize,
    /// Whether more than a doorbell was written here before.
    copies: bool,
    /// Doorbell that replaces an incomplete WQE, and its deadline.
    waits: Option<(Doorbell, Instant)>,
}

impl Default for Register {
    fn default() -> Self {
        Self {
            bytes: [0; BUFFER],
            filled: 0,
            copies: false,
            waits: None,
        }
    }
}

impl BlueFlame {
    /// Creates registers in which nothing was written, with BlueFlame off.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }

    /// Enables BlueFlame permanently: WQEs are taken from registers if their rest arrives within `timeout` of their
    /// beginning.
    pub fn enable(&self, timeout: Duration) {
        // Enabled once, when the NIC is created.
        let _ = self.timeout.set(timeout);
    }

    /// Whether WQEs are taken from registers. If so, no WQE is executed before its doorbell, which may carry it.
    pub fn enabled(&self) -> bool {
        self.timeout.get().is_some()
    }

    /// Takes a write at `offset` of a register. If it cuts off a WQE that was begun there, perhaps of another queue,
    /// the doorbell of that WQE is returned too.
    pub fn write(&self, half: Half, offset: usize, data: &[u8]) -> (Option<Doorbell>, Written) {
        let mut registers = self.registers.lock();
        let register = registers.entry(half).or_default();
        let cut_off = register.waits.take_if(|_| offset == 0).map(|(doorbell, _)| doorbell);
        let timeout = self.timeout.get().copied().unwrap_or(COPY_TIMEOUT);
        (cut_off, register.write(offset, data, || self.clock.instant() + timeout))
    }

    /// Takes the doorbell of a WQE whose rest has missed its deadline; the WQE is in the ring as well.
    pub fn overdue(&self, half: Half) -> Option<Doorbell> {
        let mut registers = self.registers.lock();
        let waits = &mut registers.get_mut(&half)?.waits;
        waits
            .take_if(|(_, until)| *until <= self.clock.instant())
            .map(|(doorbell, _)| doorbell)
    }

    /// Clears all registers.
    pub fn clear(&self) {
        self.registers.lock().clear();
    }

    /// Counts a WQE that was executed from a register.
    pub fn count(&self) {
        self.executed.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of WQEs executed from registers.
    pub fn executed(&self) -> u64 {
        self.executed.load(Ordering::Relaxed)
    }
}

impl Register {
    fn write(&mut self, offset: usize, data: &[u8], deadline: impl FnOnce() -> Instant) -> Written {
        let end = offset.saturating_add(data.len());
        let Some(place) = self.bytes.get_mut(offset..end) else {
            self.filled = 0;
            return Written::Part;
        };
        // Either the beginning of another WQE, complete predecessor or not, or the next store in order; other WQEs
        // are read from the ring.
        if offset != 0 && (offset != self.filled || self.filled == 0) {
            self.filled = 0;
            return Written::Part;
        }
        place.copy_from_slice(data);
        self.filled = end;
        self.copies |= end > DOORBELL;
        let Ok((control, _)) = ControlSegment::read_from_prefix(&self.bytes) else {
            return Written::Part;
        };
        let (doorbell, length) = (Doorbell::from(&control), control.ds() * SEND_WQE_DS);
        let number = doorbell.number;
        // Copies are padded to whole basic blocks.
        let copied = length.next_multiple_of(SEND_WQE_BB);
        if self.filled >= copied && length > 0 {
            (self.filled, self.waits) = (0, None);
            return Written::Complete {
                number,
                wqe: BlueFlameWqe {
                    index: control.index(),
                    bytes: SmallVec::from_slice(&self.bytes[..length]),
                },
            };
        }
        if offset != 0 {
            return Written::Part;
        }
        if !self.copies || copied > BUFFER {
            return Written::Doorbell(doorbell);
        }
        let until = deadline();
        self.waits = Some((doorbell, until));
        Written::Begun { until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn deadline() -> Instant {
        Instant::now() + COPY_TIMEOUT
    }

    fn wqe(index: u16, units: u32) -> Vec<u8> {
        let mut control = ControlSegment::default();
        control.opmod_idx_opcode.set(u32::from(index) << 8 | 0xa);
        control.qpn_ds.set(0x77 << 8 | units);
        let mut bytes = control.as_bytes().to_vec();
        bytes.resize(units as usize * SEND_WQE_DS, index as u8);
        bytes
    }

    fn complete(bytes: &[u8], index: u16) -> Written {
        Written::Complete {
            number: 0x77,
            wqe: BlueFlameWqe {
                index,
                bytes: SmallVec::from_slice(bytes),
            },
        }
    }

    /// Copies a WQE in stores of eight bytes.
    fn copy(register: &mut Register, bytes: &[u8]) -> Vec<Written> {
        let mut copied = bytes.to_vec();
        copied.resize(bytes.len().next_multiple_of(SEND_WQE_BB), 0);
        copied
            .chunks(8)
            .enumerate()
            .map(|(at, chunk)| register.write(at * 8, chunk, deadline))
            .collect()
    }

    #[test]
    fn a_copy_is_a_wqe_when_all_of_it_is_there() {
        let mut register = Register::default();
        for (index, units) in [(1, 1), (2, 4), (3, 5), (4, 16)] {
            let bytes = wqe(index, units);
            let mut written = copy(&mut register, &bytes);
            assert_eq!(written.pop(), Some(complete(&bytes, index)));
            let begun = written.remove(0);
            if index == 1 {
                assert_eq!(begun, Written::Doorbell(Doorbell { number: 0x77, end: 2 }));
            } else {
                assert!(matches!(begun, Written::Begun { .. }), "{begun:?}");
            }
            assert_eq!(register.waits, None);
            assert!(written.iter().all(|written| *written == Written::Part));
        }
    }

    #[test]
    fn what_never_ends_is_overdue_once() {
        let (registers, half) = (BlueFlame::default(), Half { page: 16, index: 1 });
        let bytes = wqe(3, 4);
        registers.write(half, 0, &bytes);
        assert_eq!(registers.overdue(half), None);
        let (None, Written::Begun { until, .. }) = registers.write(half, 0, &bytes[..8]) else {
            panic!("it is known to be copied to");
        };
        while Instant::now() < until {
            std::thread::sleep(COPY_TIMEOUT);
        }
        assert_eq!(registers.overdue(half), Some(Doorbell { number: 0x77, end: 4 }));
        assert_eq!(registers.overdue(half), None);
        // The end of it in time.
        registers.write(half, 0, &bytes[..8]);
        assert_eq!(registers.write(half, 8, &bytes[8..]), (None, complete(&bytes, 3)));
        std::thread::sleep(COPY_TIMEOUT);
        assert_eq!(registers.overdue(half), None);
    }

    #[test]
    fn a_doorbell_is_not_lost_to_the_next() {
        let (registers, half) = (BlueFlame::default(), Half { page: 16, index: 0 });
        registers.write(half, 0, &wqe(3, 4));
        registers.write(half, 0, &wqe(4, 4)[..8]);
        let (cut_off, next) = registers.write(half, 0, &wqe(9, 4)[..8]);
        assert_eq!(cut_off, Some(Doorbell { number: 0x77, end: 5 }));
        assert!(matches!(next, Written::Begun { .. }), "{next:?}");
        let (cut_off, next) = registers.write(half, 0, &wqe(10, 4));
        assert_eq!(cut_off, Some(Doorbell { number: 0x77, end: 10 }));
        assert_eq!(next, complete(&wqe(10, 4), 10));
    }

    #[test]
    fn wide_stores_are_as_good() {
        let mut register = Register::default();
        let bytes = wqe(9, 4);
        assert_eq!(register.write(0, &bytes, deadline), complete(&bytes, 9));
    }

    #[test]
    fn doorbells_and_torn_copies_complete_nothing() {
        let mut register = Register::default();
        let bytes = wqe(5, 8);
        for _ in 0..3 {
            assert_eq!(
                register.write(0, &bytes[..8], deadline),
                Written::Doorbell(Doorbell { number: 0x77, end: 7 })
            );
        }
        // One store is missing.
        register.write(8, &bytes[8..16], deadline);
        for at in (24..128).step_by(8) {
            assert_eq!(register.write(at, &bytes[at..at + 8], deadline), Written::Part);
        }
        // Beyond the end, and without a beginning.
        assert_eq!(register.write(0xf8, &[0; 16], deadline), Written::Part);
        assert_eq!(register.write(0x40, &bytes[..64], deadline), Written::Part);
        // None of it spoils the next.
        assert_eq!(copy(&mut register, &bytes).pop(), Some(complete(&bytes, 5)));
    }

    #[test]
    fn a_wqe_larger_than_the_register_or_without_a_size_is_a_doorbell() {
        for units in [0, 17, 63] {
            let mut register = Register {
                copies: true,
                ..Register::default()
            };
            let mut bytes = wqe(5, units.max(1));
            bytes[7] = units as u8;
            match register.write(0, &bytes[..8], deadline) {
                Written::Doorbell(Doorbell { number: 0x77, .. }) => assert_ne!(units, 0),
                Written::Begun { .. } => assert_eq!(units, 0),
                other => panic!("{units}: {other:?}"),
            }
            bytes.resize(BUFFER, 0);
            for at in (8..BUFFER).step_by(8) {
                assert_eq!(register.write(at, &bytes[at..at + 8], deadline), Written::Part);
            }
        }
    }
}
