//! Bytes become flow tables of a hostile guest, and frames of a peer that pass through them. What arrives must be what
//! was sent, and the peer must not notice.

use std::collections::BTreeMap;
use std::sync::Arc;

use mlx5_prm::opcode::Opcode;
use mlx5_prm::steering::{CreateFlowGroupIn, CreateFlowGroupOut, FteMatchParam};
use zerocopy::IntoBytes;

use super::Tally;
use super::choices::Choices;
use super::frames::frame;
use crate::hca::Hca;
use crate::machine::Machine;
use crate::netdev::{Netdev, Options};
use crate::steering::{Entry, NIC_RX, Table, To, alloc_counter};

/// Maximum number of steps of a run.
const MAX_STEPS: u64 = 300;
/// Highest level of a table, with some that no table can have.
const LEVELS: usize = 70;
/// Frame length without Ethernet header that the port takes at first.
const MTU: usize = 1500;

/// The guest whose tables these are, and the peer.
struct Guests {
    victim: Netdev,
    peer: Netdev,
    tables: Vec<Table>,
    groups: Vec<(Table, u32)>,
    counters: Vec<u32>,
    tally: Tally,
}

fn boot(machine: &Arc<Machine>) -> Netdev {
    Netdev::open(
        &Arc::new(Hca::boot(machine)),
        &Options {
            channels: 2,
            ..Options::default()
        },
    )
}

impl Guests {
    fn new(machines: &[Arc<Machine>; 2]) -> Self {
        let [victim, peer] = machines.each_ref().map(boot);
        Self {
            tables: vec![victim.l2],
            groups: Vec::new(),
            counters: Vec::new(),
            victim,
            peer,
            tally: Tally::default(),
        }
    }

    fn note<T>(&mut self, result: crate::command::Result<T>) -> Option<T> {
        self.tally.made += 1;
        match result {
            Ok(value) => {
                self.tally.succeeded += 1;
                Some(value)
            }
            Err(_) => {
                self.tally.refused += 1;
                None
            }
        }
    }

    /// Match criteria or a match value with a few bytes that are not zero, most of them in outer headers.
    fn parameters(choices: &mut Choices<'_>) -> Option<FteMatchParam> {
        let mut parameters = FteMatchParam::default();
        let bytes = parameters.as_mut_bytes();
        for _ in 0..choices.byte()? % 4 {
            let within = if choices.byte()? < 200 { 64 } else { bytes.len() };
            let at = choices.index(within)?;
            bytes[at] = choices.byte()?;
        }
        Some(parameters)
    }

    fn group(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let table = choices.one(&self.tables)?;
        let mut input = CreateFlowGroupIn::default();
        input.set_table_type(NIC_RX);
        input.set_table_id(table.id);
        let start = u32::from(choices.byte()?) % 20;
        input.set_start_flow_index(start);
        input.set_end_flow_index(start + u32::from(choices.byte()?) % 8);
        input.set_match_criteria_enable(choices.one(&[0, 1, 1, 1, 2, 3, 8, 0xff])?);
        *input.match_criteria_mut() = Self::parameters(choices)?;
        let commands = &self.victim.hca.commands;
        let result = commands.call::<_, CreateFlowGroupOut>(Opcode::CREATE_FLOW_GROUP, &input);
        if let Some(output) = self.note(result) {
            self.groups.push((table, output.group_id()));
        }
        Some(())
    }

    fn entry(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let (table, group) = match self.groups.len() {
            0 => return Some(()),
            count => self.groups[choices.index(count)?],
        };
        let tirs: Vec<u32> = self
            .victim
            .direct
            .iter()
            .copied()
            .chain(self.victim.spread.iter().map(|(_, tir)| *tir))
            .collect();
        let to: Vec<To> = (0..choices.byte()? % 6)
            .map(|_| {
                Some(match choices.byte()? {
                    0..=127 => To::Table(choices.one(&self.tables)?.id),
                    128..=249 => To::Tir(choices.one(&tirs)?),
                    _ => To::Tir(choices.word()?),
                })
            })
            .collect::<Option<_>>()?;
        let counters: Vec<u32> = match self.counters.len() {
            0 => Vec::new(),
            _ => vec![choices.one(&self.counters)?; usize::from(choices.byte()? % 3)],
        };
        let value = Self::parameters(choices)?;
        let action = choices.one(&[4, 4, 4, 12, 1, 2, 8, 6, 0xffff])?;
        let entry = Entry {
            group,
            index: u32::from(choices.byte()?) % 28,
            value: &value,
            action,
            to: &to,
            counters: &counters,
            tag: choices.word()?,
        };
        let result = table.set(&self.victim.hca, &entry);
        self.note(result);
        Some(())
    }

    /// Sends a frame of the peer, which is delivered before it is completed.
    fn frame(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let macs = [
            self.peer.hca.machine.mac,
            self.victim.hca.machine.mac,
            [0xff; 6],
            [1, 0, 0x5e, 0, 0, 1],
        ];
        let mut sent = frame(choices, &macs)?;
        sent.resize(sent.len().clamp(60, MTU), 0);
        // From the peer, so that the switch does not look for the guest in its place.
        sent[6..12].copy_from_slice(&macs[0]);
        self.peer.send(&sent);
        while let Some((_, received)) = self.victim.poll() {
            assert!(received.frame == sent, "another frame than the one sent");
        }
        while self.peer.poll().is_some() {}
        Some(())
    }

    fn step(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let hca = Arc::clone(&self.victim.hca);
        match choices.byte()? {
            0..=29 => {
                let (level, log_size) = (choices.index(LEVELS)? as u8, choices.byte()? % 6);
                if let Some(table) = self.note(Table::create(&hca, level, log_size)) {
                    self.tables.push(table);
                }
            }
            30..=69 => self.group(choices)?,
            70..=139 => self.entry(choices)?,
            140..=149 => {
                let table = choices.one(&self.tables)?;
                self.note(table.set_root(&hca));
            }
            150..=159 => {
                let (table, index) = (choices.one(&self.tables)?, choices.byte()?);
                self.note(table.delete(&hca, index.into()));
            }
            160..=164 => {
                let table = choices.one(&self.tables)?;
                if let Some(()) = self.note(table.destroy(&hca)) {
                    self.tables.retain(|other| *other != table);
                    self.groups.retain(|(other, _)| *other != table);
                    if self.tables.is_empty() {
                        self.tables.push(table);
                    }
                }
            }
            165..=169 => {
                if !self.groups.is_empty() {
                    let at = choices.index(self.groups.len())?;
                    let (table, group) = self.groups[at];
                    if let Some(()) = self.note(table.destroy_group(&hca, group)) {
                        self.groups.remove(at);
                    }
                }
            }
            170..=174 => {
                if let Some(counter) = self.note(alloc_counter(&hca)) {
                    self.counters.push(counter);
                }
            }
            _ => self.frame(choices)?,
        }
        Some(())
    }
}

/// Runs an input on two new machines of one network. The first has the tables; it works again after a reset.
pub fn run(machines: [Machine; 2], input: &[u8]) -> Tally {
    let machines = machines.map(Arc::new);
    let mut guests = Guests::new(&machines);
    let mut choices = Choices::new(input);
    for _ in 0..MAX_STEPS {
        if guests.step(&mut choices).is_none() {
            break;
        }
    }
    let tally = guests.tally;
    let Guests { victim, mut peer, .. } = guests;
    machines[0].device().reset();
    assert_eq!(machines[0].device().objects(), BTreeMap::new());
    drop(victim);
    machines[0].enable();
    let mut victim = boot(&machines[0]);
    victim.send_to(&mut peer, 0x11);
    peer.send_to(&mut victim, 0x22);
    victim.shut_down();
    peer.shut_down();
    tally
}
