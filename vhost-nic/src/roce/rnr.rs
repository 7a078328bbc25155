//! RNR NAK timer (IBTA volume 1, section 9.7.5.2.8).

use std::time::Duration;

/// Unit of [`DELAYS`].
const UNIT: Duration = Duration::from_micros(10);

/// Delays by timer code.
const DELAYS: [u32; 32] = [
    65536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096,
    6144, 8192, 12288, 16384, 24576, 32768, 49152,
];

/// Code (5 bits) of the delay after which a requester may retry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RnrTimer(u8);

impl RnrTimer {
    /// Takes the low 5 bits of `code`.
    pub const fn new(code: u8) -> Self {
        Self(code & 0x1f)
    }

    /// The code, 5 bits.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// The delay.
    pub fn delay(self) -> Duration {
        UNIT * DELAYS[usize::from(self.0)]
    }
}

#[cfg(test)]
mod tests;
