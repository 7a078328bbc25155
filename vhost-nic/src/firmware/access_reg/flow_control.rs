//! PFCC: flow control of the port. Pause frames are neither sent nor obeyed: the switch behind the port keeps what it
//! cannot deliver from nobody.

use mlx5_prm::access_reg::PfccReg;
use zerocopy::IntoBytes;

use super::{PORT, register};
use crate::firmware::Firmware;
use crate::firmware::command::Result;

/// Flow control as written.
#[derive(Debug, Default)]
pub(super) struct FlowControl(PfccReg);

/// Values of `buf_ownership` (mlx5_ifc.h): the firmware or the driver lays out the receive buffers.
const FIRMWARE: u8 = 1;
const DRIVER: u8 = 2;

impl FlowControl {
    /// Returns the priorities whose senders are paused, a bit each.
    fn paused(&self) -> u8 {
        let Self(current) = self;
        if current.pptx() || current.pprx() {
            u8::MAX
        } else {
            current.pfctx()
        }
    }

    /// Writes the fields that the masks of `new` select (`pfcc_mask` in PCAM). A mask whose name ends in `_n` protects
    /// its fields where it is set.
    fn write(&mut self, new: &PfccReg) {
        let Self(current) = self;
        if !new.pptx_mask_n() {
            current.set_pptx(new.pptx());
            current.set_aptx(new.aptx());
        }
        if !new.pprx_mask_n() {
            current.set_pprx(new.pprx());
            current.set_aprx(new.aprx());
        }
        if !new.ppan_mask_n() {
            current.set_ppan(new.ppan());
        }
        let merge = |old: u8, new: u8, mask: u8| old & !mask | new & mask;
        current.set_pfctx(merge(current.pfctx(), new.pfctx(), new.prio_mask_tx()));
        current.set_pfcrx(merge(current.pfcrx(), new.pfcrx(), new.prio_mask_rx()));
        if new.critical_stall_mask() {
            current.set_device_stall_critical_watermark(new.device_stall_critical_watermark());
        }
        if new.minor_stall_mask() {
            current.set_device_stall_minor_watermark(new.device_stall_minor_watermark());
        }
    }
}

pub(super) fn pfcc(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let registers = &mut *firmware.registers.lock();
    let (current, buffer) = (&mut registers.flow_control, &mut registers.port_buffer);
    if write {
        current.write(&register(data));
        buffer.follow(current.paused());
    }
    let mut reply = current.0.clone();
    reply.set_local_port(PORT);
    reply.set_buf_ownership(if buffer.owned_by_driver { DRIVER } else { FIRMWARE });
    Ok(reply.as_bytes().to_vec())
}
