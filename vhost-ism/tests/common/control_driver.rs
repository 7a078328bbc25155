//! Turns bytes into control requests, resets and doorbells of three guests, and checks every answer.
//!
//! The fuzz target and the test with random bytes share it. All choices come from the bytes. They
//! select among the tokens and GIDs that a guest can know, so that random bytes get past the first check.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use vhost_ism::abi::*;
use vhost_ism::control;
use vhost_ism::event::{EventRing, Sent};
use vhost_ism::fabric::{Fabric, Layout, Limits, Mode};
use vhost_ism::guest::{Guest, Session, Start};
use vhost_ism::window::{RegionMapper, RegionRange};
use zerocopy::{FromBytes, IntoBytes};

const GUESTS: usize = 3;

/// A VMM that only records what would be mapped.
#[derive(Default)]
struct FakeVmm {
    maps: Mutex<BTreeMap<u64, (u64, u64)>>,
    doorbell: Mutex<Option<File>>,
    window_size: u64,
    refuses: AtomicBool,
}

impl RegionMapper for FakeVmm {
    fn map(&self, memfd: BorrowedFd<'_>, from: u64, to: RegionRange) -> io::Result<()> {
        let RegionRange { shmid, offset, len } = to;
        assert_eq!(shmid, SHMID_REGIONS);
        let file = File::from(memfd.try_clone_to_owned()?);
        let metadata = file.metadata()?;
        let mut maps = self.maps.lock().unwrap();
        assert!(
            maps.iter()
                .all(|(start, (size, _))| offset + len <= *start || start + size <= offset)
        );
        assert!(metadata.len() >= from + len && from.is_multiple_of(4096));
        assert!(offset.is_multiple_of(4096) && len.is_multiple_of(4096));
        if offset == self.window_size {
            *self.doorbell.lock().unwrap() = Some(file);
        } else {
            assert!(offset + len <= self.window_size);
        }
        if self.refuses.load(Ordering::Relaxed) {
            return Err(io::Error::other("refused"));
        }
        maps.insert(offset, (len, metadata.ino()));
        Ok(())
    }

    fn unmap(&self, RegionRange { offset, len, .. }: RegionRange) -> io::Result<()> {
        let mut maps = self.maps.lock().unwrap();
        assert_eq!(maps.get(&offset).expect("only mapped ranges are unmapped").0, len);
        if self.refuses.load(Ordering::Relaxed) {
            return Err(io::Error::other("refused"));
        }
        maps.remove(&offset);
        Ok(())
    }
}

/// An event queue that always has a buffer.
struct FakeRing;

impl EventRing for FakeRing {
    fn send(&mut self, event: &mut dyn FnMut(usize) -> Vec<u8>) -> Sent {
        let event = event(64);
        assert!((20..=64).contains(&event.len()));
        let ev_type = u64::from_le_bytes(event[..8].try_into().unwrap());
        let types = [EV_DOORBELLS, EV_PEER_GONE, EV_MESSAGE, EV_UPDATE, EV_ATTACH, EV_DETACH];
        assert!(types.contains(&ev_type));
        Sent::Filled
    }

    fn signal(&mut self) -> bool {
        true
    }

    fn await_buffers(&mut self) -> bool {
        false
    }
}

struct Slot {
    guest: Guest,
    vmm: Arc<FakeVmm>,
    session: Arc<Session>,
}

impl Slot {
    fn start(guest: &Guest, window_size: u64) -> (Arc<FakeVmm>, Arc<Session>) {
        let vmm = Arc::new(FakeVmm {
            window_size,
            ..FakeVmm::default()
        });
        let session = guest.start(|| true, Start::Initial, Box::new(FakeRing), vmm.clone());
        (vmm, session.unwrap().expect("a session begins"))
    }

    fn new(fabric: &Arc<Fabric>) -> Self {
        let guest = Guest::new("fuzz".into(), Default::default(), fabric.clone());
        let (vmm, session) = Self::start(&guest, fabric.limits().window_size);
        Self { guest, vmm, session }
    }

    fn reset(&mut self, window_size: u64) {
        self.guest.stop();
        (self.vmm, self.session) = Self::start(&self.guest, window_size);
    }
}

/// Reads choices off the input; zero when there are none left.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }

    fn word(&mut self) -> u64 {
        let mut word = [0; 8];
        let bytes = self.bytes(8);
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    }
}

/// Tally of the requests of an input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Requests made.
    pub requests: u64,
    /// Requests answered with OK.
    pub granted: u64,
}

/// Three guests of a fabric.
pub struct Driver {
    fabric: Arc<Fabric>,
    slots: Vec<Slot>,
    tokens: Vec<Token>,
    gids: Vec<Gid>,
    tally: Tally,
}

impl Default for Driver {
    fn default() -> Self {
        let limits = Limits {
            window_size: 30 << 20,
            max_dmb_size: 4 << 20,
            max_area_size: 2 << 20,
            layout: Layout::OneRegion,
            max_dmbs: 24,
            max_maps: 8,
            mode: Mode::Mapped,
        };
        let fabric = Arc::new(Fabric::new(0xff00, limits));
        let slots: Vec<Slot> = (0..GUESTS).map(|_| Slot::new(&fabric)).collect();
        Self {
            gids: slots.iter().map(|slot| slot.session.gid()).collect(),
            tokens: vec![Token(0.into()), Token(1.into())],
            fabric,
            slots,
            tally: Tally::default(),
        }
    }
}

impl Driver {
    /// Executes the bytes to their end, then ends all sessions and checks that nothing is left.
    pub fn run(input: &[u8]) -> Tally {
        let mut driver = Self::default();
        let mut choices = Choices(input);
        while !choices.0.is_empty() {
            driver.step(&mut choices);
        }
        for slot in &driver.slots {
            slot.guest.stop();
        }
        let stats = driver.fabric.stats();
        assert_eq!(
            (stats.sessions, stats.slabs, stats.dmbs, stats.lost_blocks),
            (0, 0, 0, 0)
        );
        driver.tally
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        let window_size = self.fabric.limits().window_size;
        let index = choices.below(GUESTS);
        match choices.below(32) {
            0 => {
                self.slots[index].reset(window_size);
                self.gids.push(self.slots[index].session.gid());
            }
            1 => {
                self.slots[index].vmm.refuses.fetch_xor(true, Ordering::Relaxed);
            }
            2 | 3 => self.ring(index, choices),
            4..=7 => {
                let len = choices.below(80);
                let request = choices.bytes(len).to_vec();
                self.ask(index, &request, choices);
            }
            _ => {
                let request = self.request(choices);
                self.ask(index, &request, choices);
            }
        }
    }

    fn token(&self, choices: &mut Choices<'_>) -> Token {
        // The latest are most likely to be alive.
        match choices.byte() {
            255 => Token(choices.word().into()),
            byte => self.tokens[self.tokens.len() - 1 - usize::from(byte) % self.tokens.len().min(16)],
        }
    }

    fn gid(&self, choices: &mut Choices<'_>) -> Gid {
        match choices.byte() {
            255 => Gid([choices.byte(); 16]),
            byte if byte >= 240 => self.gids[usize::from(byte) % self.gids.len()],
            byte => self.slots[usize::from(byte) % GUESTS].session.gid(),
        }
    }

    fn size(choices: &mut Choices<'_>) -> u64 {
        match choices.byte() {
            255 => choices.word(),
            byte => (u64::from(byte) << (byte % 13)) + u64::from(byte & 3),
        }
    }

    /// Composes a request that may be valid.
    fn request(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let permissions = |choices: &mut Choices<'_>| match choices.byte() {
            255 => choices.word(),
            byte if byte < 128 => 7,
            byte => u64::from(byte & 31),
        };
        let (command, body) = match choices.below(17) {
            0 => {
                let size = Self::size(choices).into();
                (CMD_ALLOC, Alloc { size }.as_bytes().to_vec())
            }
            1..=4 => {
                let command = AllocForPeer {
                    size: Self::size(choices).into(),
                    peer_gid: self.gid(choices),
                };
                (CMD_ALLOC_FOR_PEER, command.as_bytes().to_vec())
            }
            5..=7 => {
                let command = Attach {
                    token: self.token(choices),
                    rw_perm: match choices.byte() {
                        byte if byte < 200 => 3.into(),
                        byte => u32::from(byte).into(),
                    },
                };
                (CMD_ATTACH, command.as_bytes().to_vec())
            }
            8..=10 => {
                let token = self.token(choices);
                (CMD_DETACH, Detach { token }.as_bytes().to_vec())
            }
            11 => {
                let command = GrantDefault {
                    token: self.token(choices),
                    permissions: permissions(choices).into(),
                };
                (CMD_GRANT_DEFAULT, command.as_bytes().to_vec())
            }
            12 => {
                let command = GrantDevice {
                    token: self.token(choices),
                    permissions: permissions(choices).into(),
                    peer_devid: self.slots[choices.below(GUESTS)].guest.config().devid,
                };
                (CMD_GRANT_DEVICE, command.as_bytes().to_vec())
            }
            13 => {
                let token = self.token(choices);
                (CMD_QUERY_SLAB, QuerySlab { token }.as_bytes().to_vec())
            }
            14 => {
                let gid = self.gid(choices);
                (CMD_QUERY_GID, QueryGid { gid }.as_bytes().to_vec())
            }
            15 => {
                let events = u64::from(choices.byte()).into();
                (CMD_SUBSCRIBE, Subscribe { events }.as_bytes().to_vec())
            }
            _ => {
                let command = SendMessage {
                    peer_gid: self.gid(choices),
                    code: 1.into(),
                    reserved: 0.into(),
                    info: choices.word().into(),
                };
                (CMD_SEND_MESSAGE, command.as_bytes().to_vec())
            }
        };
        let mut request = vec![command.0, command.1];
        request.extend(body);
        // Sometimes it is corrupted.
        match choices.byte() {
            0 => request.truncate(choices.below(request.len())),
            1 => request.extend(choices.bytes(5)),
            2 => {
                let at = choices.below(request.len());
                request[at] ^= choices.byte();
            }
            _ => {}
        }
        request
    }

    fn ask(&mut self, index: usize, request: &[u8], choices: &mut Choices<'_>) {
        let slot = &self.slots[index];
        let room = match choices.byte() {
            byte if byte < 40 => usize::from(byte) + 1,
            _ => 64,
        };
        // As the back-end treats a request that is too long.
        let readable = (request.len() <= control::MAX_REQUEST).then_some(request);
        let answer = control::answer(&slot.session, readable.ok_or(&[]), room);
        self.tally.requests += 1;
        assert!((1..=room).contains(&answer.len()));
        if answer[0] != Status::Ok as u8 {
            // The number of areas of a DMB, if there was room for it.
            let lengths = if answer[0] == Status::TooBig as u8 {
                &[1, 9, 17][..]
            } else {
                &[1]
            };
            assert!(lengths.contains(&answer.len()));
            assert!(
                [2, 7, 12, 28, 100, 101, 102, 255].contains(&answer[0]),
                "status {}",
                answer[0]
            );
            return;
        }
        self.tally.granted += 1;
        let reply = &answer[1..];
        let areas = match (request[0], request[1]) {
            CMD_ALLOC | CMD_ALLOC_FOR_PEER => {
                let (token, areas) = Token::read_from_prefix(reply).unwrap();
                assert!(!self.tokens.contains(&token), "a token comes twice");
                self.tokens.push(token);
                listed(areas)
            }
            CMD_ATTACH => listed(reply),
            CMD_QUERY_SLAB => vec![SlabReply::read_from_bytes(reply).unwrap().area],
            _ => {
                assert!(reply.is_empty());
                Vec::new()
            }
        };
        for area in areas {
            // It lies within a mapping.
            let (start, end) = (area.offset.get(), area.offset.get() + area.size.get());
            let maps = slot.vmm.maps.lock().unwrap();
            let map = maps.range(..=start).next_back().expect("a DMB lies in a slab");
            assert!(start < end && end <= map.0 + map.1.0);
        }
        self.check_isolation();
    }

    /// Checks that no memory lies in three windows unless it was granted: then it is the slab of one DMB, in areas of 2
    /// MiB.
    fn check_isolation(&self) {
        let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
        for slot in &self.slots {
            let maps = slot.vmm.maps.lock().unwrap();
            let slabs: BTreeMap<u64, u64> = maps.values().map(|(len, inode)| (*inode, *len)).collect();
            for (inode, len) in slabs {
                let count = seen.entry(inode).or_default();
                *count += 1;
                assert!(*count <= 2 || len == 2 << 20, "{count} guests see one slab");
            }
        }
    }

    fn ring(&self, index: usize, choices: &mut Choices<'_>) {
        let slot = &self.slots[index];
        let chunk = (choices.word() % (self.fabric.limits().window_size / CHUNK_SIZE)) >> choices.below(12);
        if let Some(doorbell) = &*slot.vmm.doorbell.lock().unwrap() {
            doorbell.write_all_at(&[1], DOORBELL_BYTES + chunk).unwrap();
        }
        slot.session.serve_doorbells();
    }
}

/// Decodes the areas of a DMB.
fn listed(bytes: &[u8]) -> Vec<Area> {
    let (number, areas) = bytes.split_first_chunk::<8>().unwrap();
    assert_eq!(
        areas.len() as u64,
        u64::from_le_bytes(*number) * size_of::<Area>() as u64
    );
    let areas = areas.chunks(size_of::<Area>());
    areas.map(|area| Area::read_from_bytes(area).unwrap()).collect()
}
