//! Faults of BAR 0.

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mlx5_prm::init_segment::{HealthBuffer, InitSegment};
use zerocopy::IntoBytes;
use zerocopy::byteorder::big_endian::U32;

use super::kind::Door;
use super::{Doors, NicFault, Occasion};
use crate::pci::Device;

const HEALTH: u64 = offset_of!(InitSegment, health) as u64;
const HEALTH_COUNTER: u64 = offset_of!(InitSegment, health_counter) as u64;
const CMDQ_ADDR_L_SZ: u64 = offset_of!(InitSegment, cmdq_addr_l_sz) as u64;
const CMD_EXEC_TO: u64 = offset_of!(InitSegment, cmd_exec_to) as u64;
const CMD_Q_INIT_TO: u64 = offset_of!(InitSegment, cmd_q_init_to) as u64;

/// A device behind the door.
pub(super) struct Bar {
    doors: Doors,
    device: Arc<dyn Device>,
    /// The driver has read of a fatal error, and has not set the interface up since.
    failed: AtomicBool,
}

impl Bar {
    pub(super) fn new(doors: Doors, device: Arc<dyn Device>) -> Self {
        Self {
            doors,
            device,
            failed: AtomicBool::new(false),
        }
    }

    /// Whether an access hits a dead BAR.
    fn is_dead(&self, offset: u64) -> bool {
        let select = |fault: &NicFault| matches!(fault, NicFault::BarDead).then_some(());
        self.doors.strike(Door::Bar, object(offset), select).is_some()
    }

    /// Puts the health buffer of a sick device into what was read of it.
    fn read_health(&self, offset: u64, data: &mut [u8]) {
        let select = |fault: &NicFault| match fault {
            NicFault::Health { syndrome, fatal } => Some((*syndrome, *fatal)),
            _ => None,
        };
        if overlaps(offset, data.len(), HEALTH, size_of::<HealthBuffer>())
            && let Some(((syndrome, fatal), _)) = self.doors.strike(Door::Bar, object(HEALTH), select)
        {
            let mut health = HealthBuffer::default();
            health.synd = syndrome;
            if fatal {
                health.rfr_severity = HealthBuffer::REQUEST_FOR_RESET;
                self.fail_firmware(syndrome);
            }
            overlay(offset, data, HEALTH, health.as_bytes());
        }
        let select = |fault: &NicFault| matches!(fault, NicFault::HealthStuck).then_some(());
        if overlaps(offset, data.len(), HEALTH_COUNTER, 4)
            && self.doors.strike(Door::Bar, object(HEALTH_COUNTER), select).is_some()
        {
            overlay(offset, data, HEALTH_COUNTER, &[0, 0, 0, 1]);
        }
    }

    /// Ends the firmware once the driver has read that it ended.
    fn fail_firmware(&self, syndrome: u8) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            let (doors, fault) = (self.doors.clone(), NicFault::Health { syndrome, fatal: true });
            // On another thread, as all actions.
            self.doors.0.faults.after(Duration::ZERO, move || doors.take(&fault));
        }
    }

    /// Puts the time limit of commands into what was read of it. A driver reads both words or none.
    fn read_timeouts(&self, offset: u64, data: &mut [u8]) {
        let select = |fault: &NicFault| match fault {
            NicFault::CommandTimeout { limit } => Some(InitSegment::timeout(limit.0.as_millis())),
            _ => None,
        };
        for at in [CMD_EXEC_TO, CMD_Q_INIT_TO] {
            if overlaps(offset, data.len(), at, size_of::<U32>())
                && let Some((timeout, _)) = self.doors.strike(Door::Bar, object(at), select)
            {
                overlay(offset, data, at, timeout.as_bytes());
            }
        }
    }
}

impl Device for Bar {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if !self.doors.armed(Door::Bar) {
            return self.device.read(offset, data);
        }
        self.doors.act(Occasion::Register, object(offset));
        if self.is_dead(offset) {
            return data.fill(0xff);
        }
        self.device.read(offset, data);
        self.read_health(offset, data);
        self.read_timeouts(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if overlaps(offset, data.len(), CMDQ_ADDR_L_SZ, size_of::<U32>()) {
            self.failed.store(false, Ordering::Relaxed);
        }
        if !self.doors.armed(Door::Bar) {
            return self.device.write(offset, data);
        }
        self.doors.act(Occasion::Register, object(offset));
        if !self.is_dead(offset) {
            self.device.write(offset, data);
        }
    }

    fn reset(&self) {
        self.failed.store(false, Ordering::Relaxed);
        self.device.reset();
    }

    fn power_cycle(&self) {
        self.device.power_cycle();
    }
}

/// The object of a fault: an offset in the BAR, which is below 4 GiB.
fn object(offset: u64) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

fn overlaps(offset: u64, length: usize, at: u64, size: usize) -> bool {
    offset < at + size as u64 && at < offset + length as u64
}

/// Copies the part of `field`, at `at`, that an access at `offset` covers.
fn overlay(offset: u64, data: &mut [u8], at: u64, field: &[u8]) {
    for (position, byte) in (at..).zip(field) {
        if let Some(index) = position.checked_sub(offset)
            && let Some(target) = data.get_mut(index as usize)
        {
            *target = *byte;
        }
    }
}
