//! Bytes become keys over ranges of other keys, and RDMA through them. A model of the keys says which bytes each
//! request may touch: those have to arrive, and no others may change.

mod model;

use std::collections::HashMap;
use std::fmt;

use mlx5_prm::mkey::{CreateMkeyIn, CreateMkeyOut};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::wqe::WqeOpcode;
use model::{Entry, Key, Outcome, Piece, Translation, translate};

use super::choices::Choices;
use super::{Tally, exchange};
use crate::cq::error_of;
use crate::mkey::{ANY_QP, destroy_mkey};
use crate::node::Node;
use crate::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use crate::region::Region;

/// Maximum number of requests and keys of a run.
const MAX_STEPS: u64 = 200;
/// Regions below the keys, and bytes of each.
const REGIONS: usize = 3;
const REGION: u64 = 1 << 14;
/// Bytes of the longest request.
const LONGEST: usize = 6000;
/// Access modes (`MLX5_MKC_ACCESS_MODE_*`), and log2 of the bytes of a block of the second.
const KLM: u8 = 2;
const KSM: u8 = 3;
const LOG_BLOCK: u8 = 12;
/// First addresses of keys; beyond the last, addresses end within the key.
const STARTS: [u64; 5] = [0, 0, 0x1000, 0x7f00_0000_0123, u64::MAX - 0xfff];
/// Bytes of an entry of a list.
const LENGTHS: [u64; 8] = [0, 1, 7, 64, 1000, 4096, 5000, REGION];

/// A request by one of the two guests.
#[derive(Clone, Copy)]
struct Kind {
    opcode: WqeOpcode,
    /// Whether the key under test is that of the requester's own memory.
    own: bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        opcode: WqeOpcode::RdmaWrite,
        own: false,
    },
    Kind {
        opcode: WqeOpcode::RdmaRead,
        own: false,
    },
    Kind {
        opcode: WqeOpcode::RdmaWrite,
        own: true,
    },
    Kind {
        opcode: WqeOpcode::RdmaRead,
        own: true,
    },
];

/// The guest with the keys, and the one at the other end of its queue pair.
struct Guests {
    owner: Node,
    peer: Node,
    ends: [QueuePair; 2],
    regions: Vec<Region>,
    /// Contents of the regions, as they have to be.
    expected: Vec<Vec<u8>>,
    plain: Region,
    keys: HashMap<u32, Key>,
    /// Keys that exist, keys that did, and some that never have.
    names: Vec<u32>,
    /// Bytes of a packet.
    mtu: usize,
    seed: u8,
    tally: Tally,
}

fn pair(nodes: [&Node; 2]) -> [QueuePair; 2] {
    let ends = nodes.map(|node| QueuePair::create(node, Shape::new(service::RC)).unwrap());
    connect((nodes[0], &ends[0]), (nodes[1], &ends[1]), &Connection::default());
    ends
}

impl Guests {
    fn new([owner, peer]: [Node; 2]) -> Self {
        let regions: Vec<Region> = (0..REGIONS).map(|_| owner.region(REGION)).collect();
        let keys = regions.iter().enumerate().map(|(index, region)| {
            let key = Key {
                start: region.start,
                length: region.length,
                translation: Translation::Region(index),
            };
            (region.key, key)
        });
        let mut guests = Self {
            ends: pair([&owner, &peer]),
            plain: peer.region(LONGEST as u64),
            names: regions.iter().map(|region| region.key).chain([0x55_5500, 0]).collect(),
            keys: keys.collect(),
            expected: Vec::new(),
            owner,
            peer,
            regions,
            mtu: Connection::default().mtu(),
            seed: 0,
            tally: Tally::default(),
        };
        for index in 0..REGIONS {
            let data = guests.pattern(REGION as usize);
            guests.regions[index].write(0, &data);
            guests.expected.push(data);
        }
        guests
    }

    fn pattern(&mut self, length: usize) -> Vec<u8> {
        self.seed = self.seed.wrapping_add(1);
        (0..length)
            .map(|at| (at as u8).wrapping_mul(7).wrapping_add((at >> 8) as u8) ^ self.seed.wrapping_mul(29))
            .collect()
    }

    fn entry(&self, choices: &mut Choices<'_>) -> Option<Entry> {
        let key = choices.one(&self.names)?;
        let offset = choices.index(REGION as usize / 2)? as u64;
        let start = self.keys.get(&key).map_or(0, |key| key.start);
        // Most often the start of the key, so that long ranges fit.
        let offset = if choices.byte()? < 100 { offset } else { 0 };
        Some(Entry {
            key,
            address: start.wrapping_add(offset),
            length: choices.one(&LENGTHS)?,
        })
    }

    /// Creates an indirect key.
    fn create(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let blocks = choices.byte()? < 80;
        let mut entries: Vec<Entry> = (0..=choices.byte()? % 5)
            .map(|_| self.entry(choices))
            .collect::<Option<_>>()?;
        if blocks {
            entries.iter_mut().for_each(|entry| entry.length = 1 << LOG_BLOCK);
        }
        let variant = choices.byte()?;
        let sum: u64 = entries.iter().map(|entry| entry.length).sum();
        // A key may be shorter or longer than its list.
        let length = match choices.byte()? {
            0..=19 => sum / 2,
            20..=29 => sum + 100,
            _ => sum,
        };
        let start = choices.one(&STARTS)?;
        let list: Vec<u8> = entries
            .iter()
            .flat_map(|entry| {
                let head = (entry.length << 32 | u64::from(entry.key)).to_be_bytes();
                [head, entry.address.to_be_bytes()].concat()
            })
            .collect();
        let mut input = CreateMkeyIn::default();
        input.set_translations_octword_actual_size(entries.len() as u32);
        let context = input.memory_key_mkey_entry_mut();
        context.set_access_mode_1_0(if blocks { KSM } else { KLM });
        context.set_lr(true);
        context.set_lw(true);
        context.set_rr(true);
        context.set_rw(true);
        context.set_pd(self.owner.pd);
        context.set_qpn(ANY_QP);
        context.set_mkey_7_0(variant);
        context.set_start_addr(start);
        context.set_len(length);
        context.set_log_page_size(if blocks { LOG_BLOCK } else { 0 });
        context.set_translations_octword_size(entries.len() as u32);
        let commands = &self.owner.hca.commands;
        let (output, _): (CreateMkeyOut, _) = commands.call_with(Opcode::CREATE_MKEY, 0, &input, &list, 0).unwrap();
        let key = output.mkey_index() << 8 | u32::from(variant);
        let key_of_list = Key {
            start,
            length,
            translation: Translation::List(entries),
        };
        assert!(self.keys.insert(key, key_of_list).is_none(), "the key {key:#x} exists");
        self.names.push(key);
        Some(())
    }

    /// Destroys an indirect key; its name stays.
    fn destroy(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let key = choices.one(&self.names)?;
        if self.regions.iter().all(|region| region.key != key) && self.keys.remove(&key).is_some() {
            destroy_mkey(&self.owner.hca, key).unwrap();
        }
        Some(())
    }

    /// Writes or reads through a key.
    fn access(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let kind = choices.one(&KINDS)?;
        let key = choices.one(&self.names)?;
        let (start, end) = self.keys.get(&key).map_or((0, 0), |key| (key.start, key.length));
        let offset = choices.index(end as usize + 2)? as u64;
        let offset = if choices.byte()? < 128 { offset } else { 0 };
        let fitting = end.saturating_sub(offset).clamp(1, LONGEST as u64) as usize;
        let length = match choices.byte()? {
            0..=199 => 1 + choices.index(fitting)?,
            _ => 1 + choices.index(LONGEST)?,
        };
        let address = start.wrapping_add(offset);
        let (outcome, pieces) = translate(&self.keys, key, address, length as u64);
        let writes = (kind.opcode == WqeOpcode::RdmaWrite) != kind.own;
        let data = self.pattern(length);
        self.plain.write(0, &data);
        let plain = (self.plain.at(0), self.plain.key);
        let request = if kind.own {
            let data = Data::Memory((address, length as u32, key));
            Request::remote(kind.opcode, vec![data], plain.0, plain.1)
        } else {
            let data = Data::Memory((plain.0, length as u32, plain.1));
            Request::remote(kind.opcode, vec![data], address, key)
        };
        let requester = &mut self.ends[usize::from(!kind.own)];
        requester.post(&request);
        let error = error_of(&requester.send_cq.wait());
        requester.send_cq.release();
        self.tally.made += 1;
        match (&outcome, error) {
            (Outcome::Allowed | Outcome::Either, None) => {
                self.tally.succeeded += 1;
                if writes {
                    self.store(&pieces, &data);
                } else {
                    assert!(
                        self.plain.read(0, length) == self.load(&pieces),
                        "the data read is wrong"
                    );
                }
            }
            (Outcome::Refused | Outcome::Either, Some(_)) => {
                self.tally.refused += 1;
                if writes {
                    self.accept(key, address, &data);
                }
                self.renew();
            }
            (outcome, error) => panic!("{key:#x} at {address:#x} + {length}: {outcome:?}, but {error:?}"),
        }
        self.check(format_args!(
            "{:?} of {length} bytes at {address:#x} of {key:#x}, {error:?}: {pieces:?}",
            kind.opcode
        ));
        Some(())
    }

    fn store(&mut self, pieces: &[Piece], data: &[u8]) {
        let mut rest = data;
        for (region, range) in pieces {
            let (now, later) = rest.split_at((range.end - range.start) as usize);
            self.expected[*region][range.start as usize..range.end as usize].copy_from_slice(now);
            rest = later;
        }
        assert!(rest.is_empty());
    }

    fn load(&self, pieces: &[Piece]) -> Vec<u8> {
        pieces
            .iter()
            .flat_map(|(region, range)| &self.expected[*region][range.start as usize..range.end as usize])
            .copied()
            .collect()
    }

    /// Accepts a write that was refused in the midst: the packets before may have arrived, so that each of their bytes
    /// has its old or its new value.
    fn accept(&mut self, key: u32, address: u64, data: &[u8]) {
        for (index, packet) in data.chunks(self.mtu).enumerate() {
            let at = address.wrapping_add((index * self.mtu) as u64);
            let (outcome, pieces) = translate(&self.keys, key, at, packet.len() as u64);
            let mut new = packet.iter();
            for (region, range) in pieces {
                let present = self.regions[region].read(range.start, (range.end - range.start) as usize);
                let expected = &mut self.expected[region][range.start as usize..range.end as usize];
                for ((expected, present), new) in expected.iter_mut().zip(present).zip(&mut new) {
                    if present == *new {
                        *expected = present;
                    }
                }
            }
            if outcome == Outcome::Refused {
                break;
            }
        }
    }

    /// Panics if bytes have changed that the last request does not name, or if bytes have not that it names.
    fn check(&self, request: fmt::Arguments<'_>) {
        for (index, (region, expected)) in self.regions.iter().zip(&self.expected).enumerate() {
            let present = region.read(0, expected.len());
            let wrong = present
                .iter()
                .zip(expected)
                .position(|(present, expected)| present != expected);
            assert_eq!(wrong, None, "region {index} is wrong from this byte on after {request}");
        }
    }

    /// Replaces the queue pairs, which are in error.
    fn renew(&mut self) {
        self.ends[0].destroy(&self.owner).unwrap();
        self.ends[1].destroy(&self.peer).unwrap();
        self.ends = pair([&self.owner, &self.peer]);
    }

    fn step(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        match choices.byte()? {
            0..=89 => self.create(choices),
            90..=104 => self.destroy(choices),
            _ => self.access(choices),
        }
    }

    fn close(self) {
        self.ends[0].destroy(&self.owner).unwrap();
        self.ends[1].destroy(&self.peer).unwrap();
        let indirect = |key: &&u32| self.regions.iter().all(|region| region.key != **key);
        for key in self.keys.keys().filter(indirect) {
            destroy_mkey(&self.owner.hca, *key).unwrap();
        }
        for region in &self.regions {
            region.destroy(&self.owner.hca).unwrap();
        }
        self.plain.destroy(&self.peer.hca).unwrap();
        self.owner.close();
        self.peer.close();
    }
}

/// Runs an input on two new guests of one network: the first has the keys.
pub fn run(nodes: [Node; 2], input: &[u8]) -> Tally {
    let mut guests = Guests::new(nodes);
    let mut choices = Choices::new(input);
    for _ in 0..MAX_STEPS {
        if guests.step(&mut choices).is_none() {
            break;
        }
    }
    exchange(&guests.owner, &guests.peer);
    guests.check(format_args!("the last request"));
    let tally = guests.tally;
    guests.close();
    tally
}
