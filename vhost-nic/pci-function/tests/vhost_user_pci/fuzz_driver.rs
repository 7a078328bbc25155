//! Fuzz driver: bytes become descriptors, indices and kicks of a guest's two virtqueues, messages of its front-end, and
//! interrupts meanwhile. Afterwards the next guest on the socket is served as ever.
//!
//! Shared by the fuzz target and a test that needs no fuzzer.

use std::sync::{Mutex, OnceLock, PoisonError};

use vhost::vhost_user::VhostUserFrontend;
use vhost::{VhostBackend, VringConfigData};

use crate::driver::{
    CFG_READ, CFG_WRITE, COMMAND, DATA, Descriptor, Driver, INTERRUPT, MEMORY, MEMORY_SIZE, MMIO_MEMSET, MMIO_READ,
    MMIO_WRITE, MSI, NEXT, QUEUE_SIZE, WRITE, available_ring, header, region, table,
};
use crate::host::{Host, assert_works};

/// Steps of a run.
const MAX_STEPS: u64 = 300;
/// Flag of a table of descriptors, which is not negotiated.
const INDIRECT: u16 = 4;
/// Room for an answer.
const ROOM: u64 = DATA + 0x8000;
/// Addresses of buffers and rings: in memory, at its ends, and outside.
const ADDRESSES: [u64; 12] = [
    DATA,
    DATA,
    DATA,
    ROOM,
    ROOM,
    ROOM,
    MEMORY,
    MEMORY + MEMORY_SIZE - 8,
    MEMORY + MEMORY_SIZE,
    MEMORY - 8,
    0,
    u64::MAX - 7,
];
const LENGTHS: [u32; 12] = [16, 16, 24, 24, 8, 4, 64, 20, 0, 1, 0x2_0000, u32::MAX];
const FLAGS: [u16; 8] = [NEXT, NEXT, WRITE, WRITE, 0, WRITE | NEXT, INDIRECT, u16::MAX];
const OPERATIONS: [u8; 9] = [
    CFG_READ,
    CFG_WRITE,
    MMIO_READ,
    MMIO_READ,
    MMIO_WRITE,
    MMIO_WRITE,
    MMIO_MEMSET,
    MSI,
    0xff,
];
/// Places in configuration space and in the BAR: at and beside the table of interrupts, and at the ends.
const PLACES: [u64; 12] = [
    0,
    4,
    0x10,
    0x34,
    0x40,
    0xfff,
    0x2000,
    0x21f8,
    0x3000,
    0x8000,
    (16 << 20) - 4,
    u64::MAX - 3,
];
const SIZES: [u32; 10] = [1, 2, 4, 4, 8, 0, 3, 4096, 65_537, u32::MAX];

/// Results of a run.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Steps made.
    pub steps: u64,
    /// Chains of the command queue that the device returned.
    pub returned: u64,
    /// Whether the device ended the connection at a message of the front-end.
    pub refused: bool,
}

/// Reads choices off the input.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let index = usize::from(self.byte()?) % of.len();
        Some(of[index])
    }

    fn index(&mut self) -> Option<u16> {
        let byte = self.byte()?;
        Some(if byte < 240 {
            u16::from(byte % 8)
        } else {
            u16::from(byte) << 4
        })
    }

    fn queue(&mut self) -> Option<usize> {
        Some(if self.byte()? < 180 { COMMAND } else { INTERRUPT })
    }
}

/// A message of the front-end. `Err` if the device ended the connection.
fn message(driver: &mut Driver, choices: &mut Choices<'_>) -> Option<vhost::Result<()>> {
    let queue = usize::from(choices.byte()?) % 3;
    let regions = [region(&driver.memory)];
    let frontend = &mut driver.frontend;
    Some(match choices.byte()? % 8 {
        0 => frontend.set_vring_num(queue, choices.one(&[0, 1, 3, QUEUE_SIZE, 2 * QUEUE_SIZE, u16::MAX])?),
        1 => frontend.set_vring_base(queue, choices.one(&[0, 1, QUEUE_SIZE, u16::MAX])?),
        2 => {
            let start = choices.one(&[table(COMMAND), table(INTERRUPT), MEMORY + MEMORY_SIZE - 0x1000, 0])?;
            let start = start.wrapping_add(choices.one(&[0, 1, 8, 0x1000, u64::MAX / 2])?);
            let addresses = VringConfigData {
                queue_max_size: QUEUE_SIZE,
                queue_size: QUEUE_SIZE,
                flags: 0,
                desc_table_addr: start,
                used_ring_addr: start.wrapping_add(0x2000),
                avail_ring_addr: start.wrapping_add(0x1000),
                log_addr: None,
            };
            frontend.set_vring_addr(queue, &addresses)
        }
        3 => frontend.set_vring_enable(queue, choices.byte()? & 1 == 0),
        4 => frontend.get_vring_base(queue).map(drop),
        5 => {
            let [mut region] = regions;
            match choices.byte()? % 4 {
                0 => region.memory_size = choices.one(&[0, 1, 4096, 1 << 30, u64::MAX])?,
                1 => region.guest_phys_addr = choices.one(&[0, MEMORY + 4096, u64::MAX - 4095])?,
                2 => region.mmap_offset = choices.one(&[0, 1, 1 << 20, u64::MAX])?,
                _ => {}
            }
            frontend.set_mem_table(&[region]).map(drop)
        }
        6 => frontend.set_features(u64::from_le_bytes([choices.byte()?; 8])),
        _ => frontend.get_features().map(drop),
    })
}

fn step(host: &Host, driver: &mut Driver, choices: &mut Choices<'_>, tally: &mut Tally) -> Option<()> {
    match choices.byte()? {
        0..=89 => {
            let descriptor = Descriptor {
                address: choices.one(&ADDRESSES)?,
                length: choices.one(&LENGTHS)?,
                flags: choices.one(&FLAGS)?,
                next: choices.index()?,
            };
            let index = u16::from(choices.byte()? % 8);
            driver.describe(choices.queue()?, index, descriptor);
        }
        90..=129 => {
            let (operation, bar) = (choices.one(&OPERATIONS)?, choices.one(&[0, 0, 0, 1, 6, 0xff])?);
            let (size, place) = (choices.one(&SIZES)?, choices.one(&PLACES)?);
            let mut command = header(operation, bar, size, place);
            command.extend([choices.byte()?; 8]);
            driver.put(DATA, &command);
        }
        130..=189 => {
            let (queue, head) = (choices.queue()?, choices.index()?);
            driver.offer(queue, head);
            if choices.byte()? < 128 {
                driver.kick(queue);
            }
        }
        190..=199 => {
            let (queue, by) = (choices.queue()?, choices.one(&[0, 1, 2, 255, 256, u16::MAX])?);
            driver.available[queue] = driver.available[queue].wrapping_add(by);
        }
        200..=214 => driver.kick(choices.queue()?),
        215..=229 => host.function.msix().raise(u16::from(choices.byte()? % 40)),
        230..=239 => {
            // Rings and buffers that change under the device.
            let (at, value) = (choices.byte()?, choices.byte()?);
            let ring = available_ring(choices.queue()?);
            driver.put(ring + 2 + u64::from(at & !1), &[value; 2]);
        }
        _ => {
            if message(driver, choices)?.is_err() {
                tally.refused = true;
                return None;
            }
        }
    }
    tally.steps += 1;
    Some(())
}

/// Runs an input.
pub fn run(input: &[u8]) -> Tally {
    static HOST: OnceLock<Mutex<Host>> = OnceLock::new();
    let host = HOST.get_or_init(|| Mutex::new(Host::new()));
    let host = host.lock().unwrap_or_else(PoisonError::into_inner);
    let mut driver = host.driver();
    let (mut tally, mut choices) = (Tally::default(), Choices(input));
    while tally.steps < MAX_STEPS && step(&host, &mut driver, &mut choices, &mut tally).is_some() {}
    while driver.try_reap(COMMAND, std::time::Duration::ZERO).is_some() {
        tally.returned += 1;
    }
    drop(driver);
    assert_works(&mut host.driver());
    tally
}
