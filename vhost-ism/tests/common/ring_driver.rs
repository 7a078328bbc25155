//! Fuzz driver: bytes become descriptors, indices and notifications of the three virtqueues of a guest, and messages of
//! its VMM between them. Afterwards its peer, and the guest that follows on its socket, are served as ever.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use vhost::VringConfigData;
use vhost::vhost_user::VhostUserFrontend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vhost_ism::abi::*;

use super::guest::{SCRATCH, encode};
use super::host::Seat;
use super::memory::{HIGH, LOW, REGION};
use super::ring::{INDIRECT, NEXT, Ring, WRITE, descriptor};
use super::{Host, TestGuest};

/// Steps of a run.
const MAX_STEPS: u64 = 300;
/// A request, room for an answer, and a table of descriptors.
const ASK: u64 = SCRATCH;
const ROOM: u64 = SCRATCH + 0x1000;
const TABLE: u64 = SCRATCH + 0x2000;
/// Addresses of buffers and rings: in RAM, at its ends, and outside.
const ADDRESSES: [u64; 14] = [
    ASK,
    ASK,
    ROOM,
    ROOM,
    TABLE,
    TABLE,
    LOW,
    LOW + REGION - 8,
    LOW + REGION,
    HIGH,
    HIGH + REGION - 1,
    0,
    u64::MAX - 7,
    HIGH + 0x3000,
];
const LENGTHS: [u32; 12] = [18, 18, 64, 64, 26, 32, 0, 1, 256, 4096, 1 << 20, u32::MAX];
const FLAGS: [u16; 10] = [
    NEXT,
    NEXT,
    NEXT,
    WRITE,
    WRITE,
    0,
    WRITE | NEXT,
    INDIRECT,
    INDIRECT | NEXT,
    u16::MAX,
];

/// A daemon for all runs of the process: the guest under test, and its peer.
struct Scene {
    _host: Host,
    seat: Arc<Seat>,
    peer: TestGuest,
}

impl Scene {
    fn new() -> Self {
        let host = Host::default();
        Self {
            seat: host.seat("hostile"),
            peer: host.boot("peer"),
            _host: host,
        }
    }
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
}

/// Results of runs.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Steps made.
    pub steps: u64,
    /// Requests that the device has answered on this socket, in all runs.
    pub requests: u64,
    /// Messages of the VMM that the device refused; each ends the run.
    pub refused: u64,
}

fn request(guest: &TestGuest, choices: &mut Choices<'_>) -> Option<Vec<u8>> {
    let mut request = match choices.byte()? % 4 {
        0 => encode(CMD_QUERY_GID, &QueryGid { gid: guest.gid() }),
        1 => encode(CMD_ALLOC, &Alloc { size: 4096.into() }),
        2 => encode(CMD_SUBSCRIBE, &Subscribe { events: 0xff.into() }),
        _ => (0..choices.byte()? % 64)
            .map(|_| choices.byte())
            .collect::<Option<_>>()?,
    };
    if choices.byte()? > 200 && !request.is_empty() {
        let at = usize::from(choices.byte()?) % request.len();
        request[at] = choices.byte()?;
    }
    Some(request)
}

fn ring<'a>(guest: &'a mut TestGuest, choices: &mut Choices<'_>) -> Option<&'a mut Ring> {
    Some(match choices.byte()? {
        0..=127 => &mut guest.control,
        128..=199 => &mut guest.events,
        _ => &mut guest.doorbell,
    })
}

/// A message of the VMM. `Err` if the device ended the connection.
fn message(guest: &mut TestGuest, choices: &mut Choices<'_>) -> Option<vhost::Result<()>> {
    let queue = usize::from(choices.byte()?) % (NUM_QUEUES + 1);
    let at = guest.ram.user_address(choices.one(&[LOW, HIGH, ASK])?);
    let frontend = &mut guest.frontend;
    Some(match choices.byte()? % 8 {
        0 => frontend.set_vring_num(queue, choices.one(&[0, 1, 3, 64, 256, u16::MAX])?),
        1 => frontend.set_vring_base(queue, choices.one(&[0, 1, 64, u16::MAX])?),
        2 => {
            let offset = choices.one(&[0, 1, 8, 0x1000, u64::MAX / 2])?;
            let addresses = VringConfigData {
                queue_max_size: 64,
                queue_size: 64,
                flags: 0,
                desc_table_addr: at.wrapping_add(offset),
                used_ring_addr: at.wrapping_add(0x2000),
                avail_ring_addr: at.wrapping_add(0x1000),
                log_addr: None,
            };
            frontend.set_vring_addr(queue, &addresses)
        }
        3 => frontend.set_vring_enable(queue, choices.byte()? & 1 == 0),
        4 => frontend.get_vring_base(queue).map(drop),
        5 => {
            let mut regions: Vec<VhostUserMemoryRegionInfo> = guest.ram.regions();
            let region = usize::from(choices.byte()?) % regions.len();
            match choices.byte()? % 5 {
                0 => regions[region].memory_size = choices.one(&[0, 1, 4096, 1 << 30, u64::MAX])?,
                1 => regions[region].guest_phys_addr = choices.one(&[0, LOW, u64::MAX - 4095])?,
                2 => regions[region].mmap_offset = choices.one(&[0, 1, 1 << 20, u64::MAX])?,
                3 => drop(regions.remove(region)),
                _ => {}
            }
            frontend.set_mem_table(&regions).map(drop)
        }
        6 => frontend.set_features(u64::from_le_bytes([choices.byte()?; 8])),
        _ => frontend.get_features().map(drop),
    })
}

fn step(guest: &mut TestGuest, choices: &mut Choices<'_>, tally: &mut Tally) -> Option<()> {
    match choices.byte()? {
        0..=99 => {
            let (address, length) = (choices.one(&ADDRESSES)?, choices.one(&LENGTHS)?);
            let (flags, next) = (choices.one(&FLAGS)?, choices.index()?);
            if choices.byte()? < 60 {
                let slot = u64::from(choices.byte()? % 16);
                guest
                    .ram
                    .write(TABLE + 16 * slot, &descriptor(address, length, flags, next));
            } else {
                let index = choices.byte()? % 8;
                ring(guest, choices)?.describe(index.into(), address, length, flags, next);
            }
        }
        100..=119 => {
            let request = request(guest, choices)?;
            guest.ram.write(ASK, &request);
        }
        120..=199 => {
            let head = choices.index()?;
            ring(guest, choices)?.publish(head);
        }
        200..=209 => {
            let by = choices.one(&[0, 1, 2, 64, 65, u16::MAX])?;
            ring(guest, choices)?.jump(by);
        }
        210..=224 => ring(guest, choices)?.notify(),
        225..=239 => {
            // Rings and RAM that change under the device.
            let (address, value) = (choices.one(&ADDRESSES[..8])?, choices.byte()?);
            guest.ram.write(address & !7, &[value; 8]);
        }
        _ => {
            if message(guest, choices)?.is_err() {
                tally.refused += 1;
                return None;
            }
        }
    }
    tally.steps += 1;
    Some(())
}

/// Runs an input.
pub fn run(input: &[u8]) -> Tally {
    static SCENE: OnceLock<Mutex<Scene>> = OnceLock::new();
    let scene = SCENE.get_or_init(|| Mutex::new(Scene::new()));
    let mut scene = scene.lock().unwrap_or_else(PoisonError::into_inner);
    let mut guest = scene.seat.boot();
    // Requests overlap here, so that the VMM cannot tell which of them maps.
    guest.window.set_asking(true);
    let (mut tally, mut choices) = (Tally::default(), Choices(input));
    while tally.steps < MAX_STEPS && step(&mut guest, &mut choices, &mut tally).is_some() {}
    guest.window.take_violations();
    guest.kill();
    let gid = scene.peer.gid();
    scene.peer.query_gid(gid).unwrap();
    let mut next = scene.seat.boot();
    let gid = next.gid();
    next.query_gid(gid).unwrap();
    next.kill();
    tally.requests = scene.seat.counters().requests;
    tally
}
