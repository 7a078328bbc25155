//! BlueFlame: a driver that has posted a WQE may write all of it to the doorbell register, which saves the hardware from reading it
//! (`mlx5_bf_copy` of libmlx5, `core/wc.c`).
//!
//! The register sees a copy as stores of eight bytes, or of more where the processor or the attachment puts them together. The first eight
//! bytes alone are a doorbell; only what follows tells which it was.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mlx5_prm::wqe::{ControlSegment, SEND_WQE_BB, SEND_WQE_DS};
use parking_lot::Mutex;
use smallvec::SmallVec;
use zerocopy::FromBytes;

/// Bytes of half a register (`log_bf_reg_size` counts both). The halves are used in turns.
pub const BUFFER: usize = 0x100;
/// Bytes that are a doorbell: the beginning of a control segment.
const DOORBELL: usize = 8;
/// How long the rest of a WQE may take to come: each store of it traps.
const PATIENCE: Duration = Duration::from_micros(500);

/// Half a register of a UAR page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Half {
    /// The page.
    pub page: u32,
    /// Which of its halves.
    pub index: u8,
}

/// A WQE that came through a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlueFlameWqe {
    /// Its place in the send queue, as it says itself.
    pub index: u16,
    /// Its bytes.
    pub bytes: SmallVec<[u8; SEND_WQE_BB]>,
}

/// What a queue has of its doorbell registers. The doorbell record is ahead of them: a WQE whose copy is still on its way is posted already.
#[derive(Debug, Default)]
pub struct Slot(Mutex<Arrived>);

/// See [`Slot`].
#[derive(Debug, Clone, Default)]
pub struct Arrived {
    /// The WQE that came last, until somebody looks. If it comes too late it is worth nothing: it is in the ring as well.
    pub wqe: Option<BlueFlameWqe>,
    /// Up to where WQEs are, or have been, in registers; none if all that is posted is to be carried out from the ring.
    end: Option<u16>,
}

impl Slot {
    /// A WQE has come, and nothing behind it.
    pub fn put(&self, wqe: BlueFlameWqe) {
        let blocks = wqe.bytes.len().div_ceil(SEND_WQE_BB) as u16;
        *self.0.lock() = Arrived {
            end: Some(wqe.index.wrapping_add(blocks)),
            wqe: Some(wqe),
        };
    }

    /// A doorbell has come: all that is posted is to be carried out.
    pub fn open(&self) {
        self.0.lock().end = None;
    }

    /// The queue begins anew.
    pub fn clear(&self) {
        *self.0.lock() = Arrived::default();
    }

    /// What has come; the WQE only once.
    pub fn take(&self) -> Arrived {
        let mut slot = self.0.lock();
        Arrived {
            wqe: slot.wqe.take(),
            end: slot.end,
        }
    }
}

impl Arrived {
    /// How far of what is posted, from `consumer` to `producer`, may be carried out.
    pub fn limit(&self, consumer: u16, producer: u16) -> u16 {
        let Some(end) = self.end else { return producer };
        let (posted, arrived) = (producer.wrapping_sub(consumer), end.wrapping_sub(consumer));
        // One that lies behind is more than half around the ring ahead.
        match arrived {
            ..=0x7fff => consumer.wrapping_add(arrived.min(posted)),
            _ => consumer,
        }
    }
}

/// What a write to a register comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// A doorbell for a queue.
    Doorbell(u32),
    /// The beginning of a WQE for a queue, or a doorbell: the driver is known to write whole WQEs here. Which it was is known then, see
    /// [`BlueFlame::overdue`].
    Begun {
        /// The queue.
        number: u32,
        /// When to look again.
        until: Instant,
    },
    /// The end of a WQE for a queue.
    Complete {
        /// The queue.
        number: u32,
        /// The WQE.
        wqe: BlueFlameWqe,
    },
    /// A part of a WQE, or of nothing.
    Part,
}

/// The registers of a function.
#[derive(Debug, Default)]
pub struct BlueFlame {
    enabled: AtomicBool,
    registers: Mutex<HashMap<Half, Register>>,
    carried_out: AtomicU64,
}

#[derive(Debug)]
struct Register {
    bytes: [u8; BUFFER],
    /// How many are there, from the first on.
    filled: usize,
    /// Whether ever more than a doorbell was written here.
    copies: bool,
    /// The queue whose WQE is not complete, and when that is long enough.
    waits: Option<(u32, Instant)>,
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
    /// Switches it on, for good: WQEs are taken from registers.
    pub fn enable(&self) {
        self.enabled.store(true, Ordering::Relaxed);
    }

    /// Whether WQEs are taken from registers. Then nothing is carried out before its doorbell, for it may come with it.
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Takes what is written at `offset` of a register.
    pub fn write(&self, half: Half, offset: usize, data: &[u8]) -> Written {
        let mut registers = self.registers.lock();
        registers.entry(half).or_default().write(offset, data)
    }

    /// The queue whose WQE was begun in a register and is not complete, if that is long enough: it is in the ring as well.
    pub fn overdue(&self, half: Half) -> Option<u32> {
        let mut registers = self.registers.lock();
        let waits = &mut registers.get_mut(&half)?.waits;
        waits
            .take_if(|(_, until)| *until <= Instant::now())
            .map(|(number, _)| number)
    }

    /// Forgets all that is written.
    pub fn clear(&self) {
        self.registers.lock().clear();
    }

    /// A WQE was carried out from what a register got.
    pub fn count(&self) {
        self.carried_out.fetch_add(1, Ordering::Relaxed);
    }

    /// WQEs carried out like that.
    pub fn carried_out(&self) -> u64 {
        self.carried_out.load(Ordering::Relaxed)
    }
}

impl Register {
    fn write(&mut self, offset: usize, data: &[u8]) -> Written {
        let end = offset.saturating_add(data.len());
        let Some(place) = self.bytes.get_mut(offset..end) else {
            self.filled = 0;
            return Written::Part;
        };
        // The beginning of another WQE, whatever became of the one before; or what follows, in order. Else it is in the ring.
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
        let (number, length) = (control.qpn_ds.get() >> 8, control.ds() * SEND_WQE_DS);
        // What is copied is a multiple of basic blocks.
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
            return Written::Doorbell(number);
        }
        let until = Instant::now() + PATIENCE;
        self.waits = Some((number, until));
        Written::Begun { number, until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

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

    /// As a processor without wider stores does it.
    fn copy(register: &mut Register, bytes: &[u8]) -> Vec<Written> {
        let mut copied = bytes.to_vec();
        copied.resize(bytes.len().next_multiple_of(SEND_WQE_BB), 0);
        copied
            .chunks(8)
            .enumerate()
            .map(|(at, chunk)| register.write(at * 8, chunk))
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
                assert_eq!(begun, Written::Doorbell(0x77));
            } else {
                assert!(matches!(begun, Written::Begun { number: 0x77, .. }), "{begun:?}");
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
        let Written::Begun { until, .. } = registers.write(half, 0, &bytes[..8]) else {
            panic!("it is known to be copied to");
        };
        while Instant::now() < until {
            std::thread::sleep(PATIENCE);
        }
        assert_eq!(registers.overdue(half), Some(0x77));
        assert_eq!(registers.overdue(half), None);
        // The end of it in time.
        registers.write(half, 0, &bytes[..8]);
        assert_eq!(registers.write(half, 8, &bytes[8..]), complete(&bytes, 3));
        std::thread::sleep(PATIENCE);
        assert_eq!(registers.overdue(half), None);
    }

    #[test]
    fn nothing_is_carried_out_before_its_copy() {
        let slot = Slot::default();
        assert_eq!(slot.take().limit(3, 9), 9);
        slot.put(BlueFlameWqe {
            index: 0xffff,
            bytes: SmallVec::from_slice(&[0; 80]),
        });
        let arrived = slot.take();
        assert!(arrived.wqe.is_some() && slot.take().wqe.is_none());
        for (consumer, producer, limit) in [
            (0xfffe, 9, 1),
            (0xfffe, 0, 0),
            (1, 9, 1),
            (5, 9, 5),
            (0xfffe, 0xfffe, 0xfffe),
        ] {
            assert_eq!(arrived.limit(consumer, producer), limit);
        }
        slot.open();
        assert_eq!(slot.take().limit(5, 9), 9);
    }

    #[test]
    fn wide_stores_are_as_good() {
        let mut register = Register::default();
        let bytes = wqe(9, 4);
        assert_eq!(register.write(0, &bytes), complete(&bytes, 9));
    }

    #[test]
    fn doorbells_and_torn_copies_complete_nothing() {
        let mut register = Register::default();
        let bytes = wqe(5, 8);
        for _ in 0..3 {
            assert_eq!(register.write(0, &bytes[..8]), Written::Doorbell(0x77));
        }
        // One store is missing.
        register.write(8, &bytes[8..16]);
        for at in (24..128).step_by(8) {
            assert_eq!(register.write(at, &bytes[at..at + 8]), Written::Part);
        }
        // Beyond the end, and without a beginning.
        assert_eq!(register.write(0xf8, &[0; 16]), Written::Part);
        assert_eq!(register.write(0x40, &bytes[..64]), Written::Part);
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
            match register.write(0, &bytes[..8]) {
                Written::Doorbell(0x77) => assert_ne!(units, 0),
                Written::Begun { number: 0x77, .. } => assert_eq!(units, 0),
                other => panic!("{units}: {other:?}"),
            }
            bytes.resize(BUFFER, 0);
            for at in (8..BUFFER).step_by(8) {
                assert_eq!(register.write(at, &bytes[at..at + 8]), Written::Part);
            }
        }
    }
}
