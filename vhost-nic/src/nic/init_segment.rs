//! Registers of the initialization segment. Reads see a whole [`InitSegment`]; three words of it can be written.

use std::mem::offset_of;

use mlx5_prm::init_segment::InitSegment;

use crate::firmware::{LOG_CMDQ_SIZE, LOG_CMDQ_STRIDE, VERSION};

/// Revision of the command interface (`CMD_IF_REV`, core/cmd.c).
const CMD_IF_REVISION: u32 = 5;
/// Interface state that the driver sets before an abrupt stop (`MLX5_INITIAL_SEG_NIC_INTERFACE_DISABLED`, device.h).
const INTERFACE_DISABLED: u32 = 1;
/// Syndrome of a fatal error (`MLX5_INITIAL_SEG_HEALTH_SYNDROME_FW_INTERNAL_ERR`, mlx5_ifc.h).
const FIRMWARE_INTERNAL_ERROR: u8 = 1;
/// Period of the health counter, shorter than the driver's polling interval (`MLX5_HEALTH_POLL_INTERVAL`, 2 s).
const HEALTH_TICK_NS: u64 = 100_000_000;

/// Offsets of the writable words.
const CMDQ_ADDR_H: u64 = offset_of!(InitSegment, cmdq_addr_h) as u64;
const CMDQ_ADDR_L_SZ: u64 = offset_of!(InitSegment, cmdq_addr_l_sz) as u64;
const CMD_DBELL: u64 = offset_of!(InitSegment, cmd_dbell) as u64;

/// Words as the driver has written them.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Registers {
    cmdq_addr_h: u32,
    cmdq_addr_l: u32,
    nic_interface: u32,
    /// Syndrome in the health buffer.
    health: u8,
}

/// Action that a write requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// None: the word is stored.
    Stored,
    /// Begin: the interface is enabled, perhaps by another driver than before.
    Enable,
    /// Execute the commands in these slots of the queue at this guest address.
    Execute { queue: u64, slots: u32 },
    /// Stop at once.
    Disable,
    /// The word cannot be written, or not now.
    NoRegister,
}

impl Registers {
    /// Registers after a function-level reset: the interface is disabled until the driver sets it up. The driver's
    /// health check takes that for a fatal error and begins a recovery (`mlx5_health_check_fatal_sensors`,
    /// core/health.c); without it, a driver whose function was reset behind its back waits for ever.
    pub(super) fn after_reset() -> Self {
        Self {
            nic_interface: INTERFACE_DISABLED,
            ..Self::default()
        }
    }

    /// Registers after a fatal error of the device: those after a reset, with a syndrome until the driver sets the
    /// interface up.
    pub(super) fn after_fatal_error() -> Self {
        Self {
            health: FIRMWARE_INTERNAL_ERROR,
            ..Self::after_reset()
        }
    }

    /// Reports a fatal error in the health buffer, beside the interface as the driver has set it up.
    pub(super) fn fail(&mut self, syndrome: u8) {
        self.health = syndrome;
    }

    /// Whether commands are executed.
    pub(super) fn is_enabled(&self) -> bool {
        self.health == 0 && self.nic_interface != INTERFACE_DISABLED
    }

    /// Returns the segment at a time of the device's clock.
    pub(super) fn segment(&self, nanoseconds: u64) -> InitSegment {
        let mut segment = InitSegment::default();
        segment
            .fw_rev
            .set(u32::from(VERSION.minor) << 16 | u32::from(VERSION.major));
        segment
            .cmdif_rev_fw_sub
            .set(CMD_IF_REVISION << 16 | u32::from(VERSION.subminor));
        segment.cmdq_addr_h.set(self.cmdq_addr_h);
        let sizes = u32::from(LOG_CMDQ_SIZE << 4 | LOG_CMDQ_STRIDE);
        segment
            .cmdq_addr_l_sz
            .set(self.cmdq_addr_l | self.nic_interface << 8 | sizes);
        segment.health.synd = self.health;
        segment.internal_timer_h.set((nanoseconds >> 32) as u32);
        segment.internal_timer_l.set(nanoseconds as u32);
        segment
            .health_counter
            .set((nanoseconds / HEALTH_TICK_NS) as u32 & 0xff_ffff);
        segment
    }

    /// Stores a word and returns the action it requests.
    pub(super) fn write(&mut self, offset: u64, value: u32) -> Action {
        match offset {
            CMDQ_ADDR_H => self.cmdq_addr_h = value,
            CMDQ_ADDR_L_SZ => {
                self.cmdq_addr_l = value & !0xfff;
                self.nic_interface = value >> 8 & 0x7;
                if self.nic_interface == INTERFACE_DISABLED {
                    return Action::Disable;
                }
                self.health = 0;
                return Action::Enable;
            }
            // The driver does not know of the fatal error yet.
            CMD_DBELL if self.health != 0 => {}
            CMD_DBELL if self.nic_interface == INTERFACE_DISABLED => return Action::NoRegister,
            CMD_DBELL => {
                let queue = u64::from(self.cmdq_addr_h) << 32 | u64::from(self.cmdq_addr_l);
                return Action::Execute { queue, slots: value };
            }
            _ => return Action::NoRegister,
        }
        Action::Stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doorbell_names_the_queue_written_before() {
        let mut registers = Registers::default();
        assert_eq!(registers.write(CMDQ_ADDR_H, 0x12), Action::Stored);
        assert_eq!(registers.write(CMDQ_ADDR_L_SZ, 0x3456_7000), Action::Enable);
        let (queue, slots) = (0x12_3456_7000, 5);
        assert_eq!(registers.write(CMD_DBELL, slots), Action::Execute { queue, slots });
        assert_eq!(registers.write(CMD_DBELL + 4, 0), Action::NoRegister);
        assert_eq!(registers.write(CMDQ_ADDR_L_SZ, 0x3456_7100), Action::Disable);
        let word = registers.segment(0).cmdq_addr_l_sz.get();
        assert_eq!(word, 0x3456_7100 | u32::from(LOG_CMDQ_SIZE << 4 | LOG_CMDQ_STRIDE));
        assert_eq!(
            registers.write(CMD_DBELL, slots),
            Action::NoRegister,
            "no interface, no queue"
        );
    }
}
