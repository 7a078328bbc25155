//! Packet sequence numbers (IBTA volume 1, section 9.7.1).

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use serde::Serialize;

const MASK: u32 = 0xff_ffff;

/// A packet sequence number: 24 bits that wrap around.
///
/// Comparison is modulo 2^24: of two numbers, the one less than half of the space ahead is later. There is no total
/// order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Psn(u32);

impl Psn {
    /// Takes the low 24 bits of `value`.
    pub const fn new(value: u32) -> Self {
        Self(value & MASK)
    }

    /// The number, 24 bits.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// Distance ahead of `other`, from -2^23 to 2^23 - 1.
    pub const fn distance(self, other: Self) -> i32 {
        (self.0.wrapping_sub(other.0) << 8) as i32 >> 8
    }

    /// Whether this is before `other`.
    pub const fn is_before(self, other: Self) -> bool {
        self.distance(other) < 0
    }

    /// Whether this is after `other`.
    pub const fn is_after(self, other: Self) -> bool {
        self.distance(other) > 0
    }

    /// Whether this is in the range from `first` to `last`, both included.
    pub const fn is_within(self, first: Self, last: Self) -> bool {
        self.0.wrapping_sub(first.0) & MASK <= last.0.wrapping_sub(first.0) & MASK
    }
}

impl Add<u32> for Psn {
    type Output = Self;

    fn add(self, packets: u32) -> Self {
        Self::new(self.0.wrapping_add(packets))
    }
}

impl AddAssign<u32> for Psn {
    fn add_assign(&mut self, packets: u32) {
        *self = *self + packets;
    }
}

impl Sub<u32> for Psn {
    type Output = Self;

    fn sub(self, packets: u32) -> Self {
        Self::new(self.0.wrapping_sub(packets))
    }
}

impl fmt::Debug for Psn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#08x}", self.0)
    }
}

#[cfg(test)]
mod tests;
