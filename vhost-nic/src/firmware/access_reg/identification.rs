//! MLCR: the LED by which a port is found (`ethtool -p`).

use mlx5_prm::management_reg::MlcrReg;
use zerocopy::IntoBytes;

use super::{PORT, check_port, register};
use crate::firmware::Firmware;
use crate::firmware::command::Result;

/// Duration without an end (`MLX5_BEACON_DURATION_INF`, port.h).
const ENDLESS: u16 = u16::MAX;
const NANOSECONDS: u64 = 1_000_000_000;

/// State of the LED.
#[derive(Debug, Default)]
pub(super) struct Beacon {
    /// Seconds as written.
    duration: u16,
    /// Time of the write.
    since: u64,
}

impl Beacon {
    /// Returns the seconds for which the LED is still on at a time of the device's clock.
    fn remaining(&self, now: u64) -> u16 {
        if self.duration == ENDLESS {
            return ENDLESS;
        }
        let elapsed = now.saturating_sub(self.since) / NANOSECONDS;
        u16::try_from(elapsed).map_or(0, |elapsed| self.duration.saturating_sub(elapsed))
    }
}

pub(super) fn mlcr(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: MlcrReg = register(data);
    check_port(requested.local_port())?;
    let now = firmware.hca.clock.now();
    let beacon = &mut firmware.registers.lock().beacon;
    if write {
        *beacon = Beacon {
            duration: requested.beacon_duration(),
            since: now,
        };
    }
    let mut reply = MlcrReg::default();
    reply.set_local_port(PORT);
    reply.set_beacon_duration(beacon.duration);
    reply.set_beacon_remain(beacon.remaining(now));
    Ok(reply.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_led_goes_out_in_time() {
        let beacon = |duration| Beacon {
            duration,
            since: 5 * NANOSECONDS,
        };
        assert_eq!(beacon(3).remaining(5 * NANOSECONDS), 3);
        assert_eq!(beacon(3).remaining(7 * NANOSECONDS), 1);
        assert_eq!(beacon(3).remaining(u64::MAX), 0);
        assert_eq!(beacon(ENDLESS).remaining(u64::MAX), ENDLESS);
    }
}
