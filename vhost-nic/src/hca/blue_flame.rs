//! BlueFlame: a driver that has posted a WQE may write all of it to the doorbell register, which saves the hardware from reading it
//! (`mlx5_bf_copy` of libmlx5, `core/wc.c`).
//!
//! The register sees a copy as stores of eight bytes, or of more where the processor or the attachment puts them together. The first eight
//! bytes alone are a doorbell; only what follows tells which it was.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mlx5_prm::wqe::{ControlSegment, SEND_WQE_BB, SEND_WQE_DS};
use parking_lot::Mutex;
use smallvec::SmallVec;
use zerocopy::FromBytes;

/// Bytes of half a register (`log_bf_reg_size` counts both). The halves are used in turns.
pub const BUFFER: usize = 0x100;
/// Bytes that are a doorbell: the beginning of a control segment.
const DOORBELL: usize = 8;

/// A WQE that came through a register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlueFlameWqe {
    /// Its place in the send queue, as it says itself.
    pub index: u16,
    /// Its bytes.
    pub bytes: SmallVec<[u8; SEND_WQE_BB]>,
}

/// Where a queue has the WQE that came last, until somebody looks. If it comes too late it is worth nothing: it is in the ring as well.
#[derive(Debug, Default)]
pub struct Slot(Mutex<Option<BlueFlameWqe>>);

impl Slot {
    /// Puts a WQE there, instead of one that is there.
    pub fn put(&self, wqe: BlueFlameWqe) {
        *self.0.lock() = Some(wqe);
    }

    /// Takes it.
    pub fn take(&self) -> Option<BlueFlameWqe> {
        self.0.lock().take()
    }
}

/// What a write to a register comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// A doorbell for a queue, or the beginning of a WQE.
    Begun {
        /// The queue.
        number: u32,
        /// The driver is known to write whole WQEs here: the rest may follow.
        may_follow: bool,
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
    registers: Mutex<HashMap<(u32, usize), Register>>,
    carried_out: AtomicU64,
}

#[derive(Debug)]
struct Register {
    bytes: [u8; BUFFER],
    /// How many are there, from the first on.
    filled: usize,
    /// Whether ever more than a doorbell was written here.
    copies: bool,
}

impl Default for Register {
    fn default() -> Self {
        Self {
            bytes: [0; BUFFER],
            filled: 0,
            copies: false,
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

    /// Takes what is written at `offset` of half `half` of a UAR page's registers.
    pub fn write(&self, page: u32, half: usize, offset: usize, data: &[u8]) -> Written {
        let mut registers = self.registers.lock();
        registers.entry((page, half)).or_default().write(offset, data)
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
            self.filled = 0;
            return Written::Complete {
                number,
                wqe: BlueFlameWqe {
                    index: control.index(),
                    bytes: SmallVec::from_slice(&self.bytes[..length]),
                },
            };
        }
        if offset == 0 {
            return Written::Begun {
                number,
                may_follow: self.copies && copied <= BUFFER,
            };
        }
        Written::Part
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
            let begun = Written::Begun {
                number: 0x77,
                may_follow: index > 1,
            };
            assert_eq!(written.remove(0), begun);
            assert!(written.iter().all(|written| *written == Written::Part));
        }
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
            let begun = Written::Begun {
                number: 0x77,
                may_follow: false,
            };
            assert_eq!(register.write(0, &bytes[..8]), begun);
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
            let Written::Begun {
                number: 0x77,
                may_follow,
            } = register.write(0, &bytes[..8])
            else {
                panic!("{units}");
            };
            assert_eq!(may_follow, units == 0);
            bytes.resize(BUFFER, 0);
            for at in (8..BUFFER).step_by(8) {
                assert_eq!(register.write(at, &bytes[at..at + 8]), Written::Part);
            }
        }
    }
}
