//! SBPR and SBCM: the pools that the port's buffers borrow from, and their shares. They are kept and have no effect, as
//! the buffers are ([`port_buffer`](super::port_buffer)).

use mlx5_prm::buffer_reg::{SbcmReg, SbprReg};
use zerocopy::IntoBytes;

use super::port_buffer::BUFFERS;
use super::{PORT, check_port, register};
use crate::firmware::Firmware;
use crate::firmware::command::{Result, bad_parameter};

/// Pools of a direction: lossy, lossless (core/en/port_buffer.c).
pub(super) const POOLS: usize = 2;
/// Directions: ingress, egress.
const DIRECTIONS: usize = 2;
/// Cells that pools and port buffers share.
pub(super) const TOTAL: u32 = 4095;
/// Cells of the lossy pool of frames to the wire, and of the lossless one of frames from it: three to one, the ratio of
/// `port_update_shared_buffer`.
const LOSSY: u32 = 1536;
const LOSSLESS: u32 = 512;
/// Modes of a pool: shares in cells, or in parts of the free space.
const MODES: u8 = 2;

#[derive(Debug, Default, Clone, Copy)]
struct Pool {
    unlimited: bool,
    size: u32,
    mode: u8,
}

/// Share of a port buffer.
#[derive(Debug, Default, Clone, Copy)]
struct Share {
    pool: u8,
    unlimited: bool,
    least: u32,
    most: u32,
    exclusive: bool,
}

/// Pools, and shares of the port's buffers, by direction.
#[derive(Debug)]
pub(super) struct SharedBuffer {
    pools: [[Pool; POOLS]; DIRECTIONS],
    shares: [[Share; BUFFERS]; DIRECTIONS],
}

impl Default for SharedBuffer {
    fn default() -> Self {
        let pool = |size| Pool {
            size,
            mode: 1,
            ..Pool::default()
        };
        Self {
            pools: [[pool(0), pool(LOSSLESS)], [pool(LOSSY), pool(0)]],
            shares: Default::default(),
        }
    }
}

fn check_size(cells: u32) -> Result<u32> {
    match cells <= TOTAL {
        true => Ok(cells),
        false => Err(bad_parameter("the shared buffer is not that large")),
    }
}

/// Finds a pool or share by direction and number. There are none of descriptors.
fn find<T, const N: usize>(of: &mut [[T; N]; DIRECTIONS], desc: bool, dir: u8, number: u8) -> Result<&mut T> {
    let entry = of
        .get_mut(usize::from(dir))
        .and_then(|of| of.get_mut(usize::from(number)));
    entry
        .filter(|_| !desc)
        .ok_or(bad_parameter("there is no such pool or buffer"))
}

pub(super) fn sbpr(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: SbprReg = register(data);
    let shared = &mut firmware.registers.lock().shared_buffer;
    let pool = find(&mut shared.pools, requested.desc(), requested.dir(), requested.pool())?;
    if write {
        if requested.mode() >= MODES {
            return Err(bad_parameter("a pool has no such mode"));
        }
        *pool = Pool {
            unlimited: requested.infi_size(),
            size: check_size(requested.size())?,
            mode: requested.mode(),
        };
    }
    let mut reply = SbprReg::default();
    reply.set_dir(requested.dir());
    reply.set_pool(requested.pool());
    reply.set_infi_size(pool.unlimited);
    reply.set_size(pool.size);
    reply.set_mode(pool.mode);
    Ok(reply.as_bytes().to_vec())
}

pub(super) fn sbcm(firmware: &Firmware, data: &[u8], write: bool) -> Result<Vec<u8>> {
    let requested: SbcmReg = register(data);
    check_port(requested.local_port())?;
    let shared = &mut firmware.registers.lock().shared_buffer;
    let share = find(
        &mut shared.shares,
        requested.desc(),
        requested.dir(),
        requested.pg_buff(),
    )?;
    if write {
        if usize::from(requested.pool()) >= POOLS {
            return Err(bad_parameter("there is no such pool"));
        }
        *share = Share {
            pool: requested.pool(),
            unlimited: requested.infi_max(),
            least: check_size(requested.min_buff())?,
            most: check_size(requested.max_buff())?,
            exclusive: requested.exc(),
        };
    }
    let mut reply = SbcmReg::default();
    reply.set_local_port(PORT);
    reply.set_dir(requested.dir());
    reply.set_pg_buff(requested.pg_buff());
    reply.set_exc(share.exclusive);
    reply.set_min_buff(share.least);
    reply.set_infi_max(share.unlimited);
    reply.set_max_buff(share.most);
    reply.set_pool(share.pool);
    Ok(reply.as_bytes().to_vec())
}
