//! Bytes become commands: valid ones on existing objects, and the same with bytes changed. Frames and doorbells come
//! between them.

mod templates;

use std::collections::BTreeMap;
use std::sync::Arc;

use mlx5_prm::command::Status;
use mlx5_prm::layout;
use templates::Kind::{self, *};
use templates::TEMPLATES;

use super::Tally;
use super::choices::Choices;
use crate::command::CommandError;
use crate::hca::Hca;
use crate::machine::Machine;
use crate::memory::Block;
use crate::netdev::{Netdev, Options};
use crate::sq::Request;
use crate::tis_tir_rqt::{ALLOW_LOOPBACK, set_self_loopback};

/// Maximum number of commands of a run.
const MAX_COMMANDS: u64 = 400;
/// Pages for queue buffers.
const PAGES: u64 = 16;
/// Bytes of the longest output, without lists.
const OUTPUT: usize = 0x1010;

/// A guest with a network interface, and the numbers of its objects.
struct Guest {
    netdev: Netdev,
    objects: BTreeMap<Kind, Vec<u64>>,
    frame: Block,
    tally: Tally,
}

impl Guest {
    fn new(machine: &Arc<Machine>) -> Self {
        let hca = Arc::new(Hca::boot(machine));
        // The fuzzed commands may break the event queue of command completions.
        drop(hca.commands.use_events(None));
        let netdev = Netdev::open(
            &hca,
            &Options {
                log_rq: 4,
                log_sq: 4,
                ..Options::default()
            },
        );
        let channel = &netdev.channels[0];
        let tirs: Vec<u32> = netdev
            .direct
            .iter()
            .copied()
            .chain(netdev.spread.iter().map(|&(_, tirn)| tirn))
            .collect();
        tirs.iter()
            .for_each(|&tirn| set_self_loopback(&hca, tirn, ALLOW_LOOPBACK).unwrap());
        let pages: Vec<Block> = (0..PAGES).map(|_| machine.memory.allocate(4096)).collect();
        let objects = BTreeMap::from([
            (Uar, vec![u64::from(hca.uar)]),
            (Pd, vec![netdev.pd.into()]),
            (TransportDomain, vec![netdev.transport_domain.into()]),
            (Eq, vec![channel.events.number.into()]),
            (
                Cq,
                vec![channel.send_cq.number.into(), channel.receive_cq.number.into()],
            ),
            (Mkey, vec![u64::from(netdev.key >> 8)]),
            (Tis, vec![netdev.tisn.into()]),
            (Tir, tirs.into_iter().map(u64::from).collect()),
            (Rqt, vec![netdev.rqtn.into()]),
            (Rq, vec![channel.rq.number.into()]),
            (Sq, vec![channel.sq.number.into()]),
            (Counters, vec![netdev.counters.into()]),
            (FlowTable, vec![netdev.l2.id.into()]),
            (Page, pages.iter().map(Block::address).collect()),
            (Record, pages.iter().map(|page| page.address() + 0x800).collect()),
        ]);
        let own = machine.mac;
        let frame = netdev.place(&[&own[..], &own, &[0x08, 0x00, 0x45], &[0x5a; 85]].concat());
        Self {
            netdev,
            objects,
            frame,
            tally: Tally::default(),
        }
    }

    fn number(&self, kind: Kind, choice: u8) -> u64 {
        self.objects
            .get(&kind)
            .and_then(|numbers| numbers.get(usize::from(choice) % numbers.len().max(1)))
            .copied()
            .unwrap_or(0)
    }

    /// Executes the step that the next bytes choose. `None` if too few are left.
    fn step(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let what = choices.byte()?;
        match what {
            0..=215 => self.command(choices),
            216..=245 => {
                self.send(choices.byte()?);
                Some(())
            }
            _ => {
                let mut data = [0; 8];
                data.iter_mut()
                    .try_for_each(|byte| choices.byte().map(|next| *byte = next))?;
                let offset =
                    self.number(Uar, what) * 4096 + [0x20, 0x40, 0x48, 0x800, 0x900, 0x24][usize::from(what) % 6];
                let length = if what & 1 == 0 { 8 } else { 4 };
                self.netdev.hca.machine.device().bar_write(offset, &data[..length]);
                Some(())
            }
        }
    }

    fn send(&mut self, checksums: u8) {
        let channel = &mut self.netdev.channels[0];
        let mss = if checksums & 1 == 0 { 0 } else { 20 };
        channel.sq.send(&Request {
            data: &[(self.frame.address(), 100)],
            checksums,
            mss,
            ..Default::default()
        });
        while channel.send_cq.poll().is_some() {}
        channel.send_cq.release();
    }

    fn command(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let template = &TEMPLATES[choices.index(TEMPLATES.len())?];
        let mut input = vec![0; template.length.next_multiple_of(4)];
        input[..2].copy_from_slice(&template.opcode.0.to_be_bytes());
        input[6..8].copy_from_slice(&template.op_mod.to_be_bytes());
        for &(offset, width, value) in template.fields {
            layout::set(&mut input, offset, width, value);
        }
        for &(kind, offset, width) in template.names {
            let number = self.number(kind, choices.byte()?);
            layout::set(&mut input, offset, width, number);
        }
        for _ in 0..template.pages {
            input.extend(self.number(Page, choices.byte()?).to_be_bytes());
        }
        // Half of the commands stay valid.
        for _ in 0..choices.byte()?.saturating_sub(128) % 5 {
            // The fields soon after the header most often, the header itself less often than the rest.
            let at = choices.index(input.len())?;
            let at = if at & 1 == 0 { at } else { at % 64 };
            input[at] = choices.byte()?;
        }
        if choices.byte()? >= 245 {
            input.truncate(choices.index(input.len())?);
        }
        let room = if choices.byte()? >= 245 {
            choices.index(64)?
        } else {
            OUTPUT
        };
        let result = self.netdev.hca.commands.execute(&input, room);
        self.tally.made += 1;
        match result {
            Ok(output) => {
                self.tally.succeeded += 1;
                if let Some((kind, offset, width)) = template.makes
                    && output.len() >= 16
                {
                    self.objects
                        .entry(kind)
                        .or_default()
                        .push(layout::get(&output, offset, width));
                }
            }
            Err(CommandError::Timeout) => panic!("{} timed out", template.opcode),
            Err(CommandError::Refused(status, syndrome)) => {
                assert!(status != Status::Ok as u8 && syndrome != 0);
                self.tally.refused += 1;
            }
            Err(CommandError::Delivery(_)) => self.tally.refused += 1,
        }
        Some(())
    }
}

/// Runs an input on a machine with a new device, and checks that the device still works after a reset.
pub fn run(machine: Machine, input: &[u8]) -> Tally {
    let machine = Arc::new(machine);
    let mut guest = Guest::new(&machine);
    let mut choices = Choices::new(input);
    while guest.tally.made < MAX_COMMANDS && guest.step(&mut choices).is_some() {}
    let tally = guest.tally;
    machine.device().reset();
    assert_eq!(machine.device().objects(), BTreeMap::new());
    drop(guest);
    machine.enable();
    let mut guest = Guest::new(&machine);
    guest.netdev.channels[0].sq.nop();
    guest.netdev.channels[0].send_cq.wait();
    tally
}
