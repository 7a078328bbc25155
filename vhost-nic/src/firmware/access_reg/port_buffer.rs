//! PBMC and PPTB: the receive buffers of the port, and the buffer of each priority. They are kept and have no effect:
//! frames wait nowhere between the switch and the receive queues.
//!
//! The firmware owns the buffers until the driver sets one, and has them follow flow control: a lossy buffer, and one
//! without loss of the same size for the priorities that are paused.

use mlx5_prm::buffer_reg::{BufferxReg, PbmcReg, PptbReg};
use mlx5_prm::layout::Layout;
use zerocopy::{FromBytes, IntoBytes};

use super::{PORT, check_port, register};
use crate::firmware::Firmware;
use crate::firmware::command::{Result, bad_parameter};
use crate::hca::priority::PRIORITIES;

/// Bytes of a cell.
pub(super) const CELL: u16 = 128;
/// Cells of all buffers: 262016 bytes, as on a ConnectX-4 ("HowTo Tune Receive Buffers", Mellanox community).
const TOTAL: u16 = 2047;
/// Cells that lossless traffic needs beyond the threshold of the pause frame: a cable of 7 m at 100 Gb/s, and a frame
/// of 9216 bytes in each direction, by the formula of `calculate_xoff` (core/en/port_buffer.c).
const HEADROOM: u16 = 443;
/// Cells of a frame of 9216 bytes.
const FRAME: u16 = 72;
/// Buffers of priorities; the others are internal.
pub(super) const BUFFERS: usize = 8;
/// Duration of a pause and its refresh, in units of 512 bit times.
const XOFF_TIMER: u16 = 0xffff;
const XOFF_REFRESH: u16 = 0x7fff;

#[derive(Debug, Default, Clone, Copy)]
struct Buffer {
    lossless: bool,
    size: u16,
    xoff: u16,
    xon: u16,
}

impl Buffer {
    fn lossy(size: u16) -> Self {
        Self {
            size,
            ..Self::default()
        }
    }

    /// Returns a buffer whose sender is paused in time.
    fn lossless(size: u16) -> Self {
        Self {
            lossless: true,
            size,
            xoff: size - HEADROOM,
            xon: size - HEADROOM - FRAME,
        }
    }

    fn parse(new: &BufferxReg) -> Result<Self> {
        if new.xon_threshold() > new.xoff_threshold() || new.xoff_threshold() > new.size() {
            return Err(bad_parameter("a threshold of a buffer is above its size"));
        }
        Ok(Self {
            lossless: !new.lossy(),
            size: new.size(),
            xoff: new.xoff_threshold(),
            xon: new.xon_threshold(),
        })
    }

    fn write(&self, to: &mut BufferxReg) {
        to.set_lossy(!self.lossless);
        to.set_size(self.size);
        to.set_xoff_threshold(self.xoff);
        to.set_xon_threshold(self.xon);
    }
}

/// Receive buffers of the port.
#[derive(Debug)]
pub(super) struct PortBuffer {
    /// The driver has set buffers.
    pub(super) owned_by_driver: bool,
    buffers: [Buffer; BUFFERS],
    /// Buffer of each priority.
    of_priority: [u8; PRIORITIES],
    control: u8,
    untagged: u8,
    xoff_timer: u16,
    xoff_refresh: u16,
}

impl Default for PortBuffer {
    fn default() -> Self {
        let mut buffer = Self {
            owned_by_driver: false,
            buffers: Default::default(),
            of_priority: [0; PRIORITIES],
            control: 0,
            untagged: 0,
            xoff_timer: XOFF_TIMER,
            xoff_refresh: XOFF_REFRESH,
        };
        buffer.follow(0);
        buffer
    }
}

impl PortBuffer {
    /// Lays out the buffers for flow control of some priorities, a bit each, unless the driver owns them.
    pub(super) fn follow(&mut self, paused: u8) {
        if self.owned_by_driver {
            return;
        }
        self.buffers = [Buffer::lossy(0); BUFFERS];
        self.of_priority = [0; PRIORITIES];
        match paused {
            0 => self.buffers[0] = Buffer::lossy(TOTAL),
            u8::MAX => self.buffers[0] = Buffer::lossless(TOTAL),
            _ => {
                self.buffers[0] = Buffer::lossy(TOTAL / 2);
                self.buffers[1] = Buffer::lossless(TOTAL / 2);
                for (priority, buffer) in self.of_priority.iter_mut().enumerate() {
                    *buffer = paused >> priority & 1;
                }
            }
        }
    }

    /// Sets the buffers of priorities. Fails without effect if they do not fit.
    fn set(&mut self, new: &PbmcReg) -> Result<()> {
        let mut buffers = self.buffers;
        for (buffer, new) in buffers.iter_mut().zip(new.buffer().chunks_exact(BufferxReg::SIZE)) {
            let Ok(new) = BufferxReg::ref_from_bytes(new) else {
                break;
            };
            *buffer = Buffer::parse(new)?;
        }
        if buffers.iter().map(|buffer| u32::from(buffer.size)).sum::<u32>() > TOTAL.into() {
            return Err(bad_parameter("the buffers are larger than the port's"));
        }
        self.buffers = buffers;
        self.xoff_timer = new.xoff_timer_value();
        self.xoff_refresh = new.xoff_refresh();
        self.owned_by_driver = true;
        Ok(())
    }

    /// Sets the buffers of the priorities that the masks of `new` select. Fails without effect if there is no such
    /// buffer.
    fn map(&mut self, new: &PptbReg) -> Result<()> {
        let check = |buffer: u8| match usize::from(buffer) < BUFFERS {
            true => Ok(buffer),
            false => Err(bad_parameter("there is no such buffer")),
        };
        let mut of_priority = self.of_priority;
        for (priority, buffer) in of_priority.iter_mut().enumerate() {
            if new.pm() >> priority & 1 != 0 {
                *buffer = check((new.prio_x_buff() >> (4 * priority) & 0xf) as u8)?;
            }
        }
        let control = if new.cm() {
            check(new.ctrl_buff())?
        } else {
            self.control
        };
        let untagged = if new.um() {
            check(new.untagged_buff())?
        } else {
            self.untagged
        };
        (self.of_priority, self.control, self.untagged) = (of_priority, control, untagged);
        self.owned_by_driver = true;
        Ok(())
    }
}

pub(super) fn pbmc(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: PbmcReg = register(data);
    check_port(requested.local_port())?;
    let port = &mut firmware.registers.lock().port_buffer;
    if write {
        port.set(&requested)?;
    }
    let mut reply = PbmcReg::default();
    reply.set_local_port(PORT);
    reply.set_xoff_timer_value(port.xoff_timer);
    reply.set_xoff_refresh(port.xoff_refresh);
    reply.set_port_buffer_size(TOTAL);
    for (to, buffer) in reply.buffer_mut().chunks_exact_mut(BufferxReg::SIZE).zip(&port.buffers) {
        let Ok(to) = BufferxReg::mut_from_bytes(to) else { break };
        buffer.write(to);
    }
    Ok(reply.as_bytes().to_vec())
}

pub(super) fn pptb(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: PptbReg = register(data);
    check_port(requested.local_port())?;
    if requested.mm() != 0 {
        return Err(bad_parameter("unicast and multicast share their buffers"));
    }
    let port = &mut firmware.registers.lock().port_buffer;
    if write {
        port.map(&requested)?;
    }
    let mut reply = PptbReg::default();
    reply.set_local_port(PORT);
    let buffers = (0..).step_by(4).zip(port.of_priority);
    reply.set_prio_x_buff(buffers.fold(0, |all, (shift, buffer)| all | u32::from(buffer) << shift));
    reply.set_ctrl_buff(port.control);
    reply.set_untagged_buff(port.untagged);
    Ok(reply.as_bytes().to_vec())
}
