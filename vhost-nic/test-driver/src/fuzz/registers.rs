//! Bytes become accesses to the BAR and to the configuration space, of every width and at every offset, beside RDMA of
//! the same guest: doorbells and halves of BlueFlame WQEs, the initialization segment, the MSI-X table.

use std::collections::BTreeMap;
use std::sync::Arc;

use mlx5_prm::wqe::WqeOpcode;

use super::choices::Choices;
use super::{Tally, exchange};
use crate::hca::{Hca, alloc_uar};
use crate::machine::Machine;
use crate::node::Node;
use crate::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use crate::region::Region;

/// Maximum number of accesses of a run.
const MAX_ACCESSES: u64 = 500;
const PAGE: u64 = 4096;
/// Bytes of the window of offsets that are drawn anywhere: the BAR, and what follows it.
const ANYWHERE: u32 = 1 << 26;
/// Registers of the initialization segment (`struct mlx5_init_seg`, `include/linux/mlx5/device.h`): command queue
/// address and doorbell, `initializing`, health, internal timer, `clear_int`, `health_syndrome`.
const INIT_SEGMENT: [u64; 8] = [0x10, 0x14, 0x18, 0x1c, 0x1fc, 0x200, 0x1000, 0x1010];
/// Registers of a UAR page: CQ doorbell, EQ doorbells, BlueFlame buffers and their second halves.
const UAR: [u64; 8] = [0x20, 0x40, 0x48, 0x800, 0x900, 0xa00, 0xb00, 0x808];
const WIDTHS: [usize; 12] = [8, 8, 8, 4, 4, 64, 64, 16, 32, 1, 2, 3];

struct Guest {
    node: Node,
    qp: QueuePair,
    region: Region,
    uars: Vec<u32>,
    tally: Tally,
}

impl Guest {
    fn offset(&self, choices: &mut Choices<'_>) -> Option<u64> {
        Some(match choices.byte()? {
            0..=179 => u64::from(choices.one(&self.uars)?) * PAGE + choices.one(&UAR)?,
            180..=219 => u64::from(choices.one(&self.uars)?) * PAGE + choices.index(PAGE as usize)? as u64,
            220..=249 => u64::from(choices.word()? % ANYWHERE),
            // Seldom: what is written there may be the end of the interface.
            250..=252 => choices.index(2 * PAGE as usize)? as u64,
            _ => choices.one(&INIT_SEGMENT)?,
        })
    }

    fn data(&self, choices: &mut Choices<'_>, length: usize) -> Option<Vec<u8>> {
        let (number, index) = (self.qp.number, self.qp.posted_sends());
        let mut data = match choices.byte()? {
            // A WQE, or the head of one, which is the value of a doorbell.
            0..=127 => {
                let data = Data::Inline(vec![0x5a; 24]);
                let request = Request::remote(WqeOpcode::RdmaWrite, vec![data], self.region.at(0), self.region.key);
                request.wqe(number, index)
            }
            // The doorbell of a CQ or EQ.
            128..=159 => {
                let mut doorbell = choices.word()?.to_be_bytes().to_vec();
                doorbell.extend((number & 0xff).to_be_bytes());
                doorbell
            }
            _ => vec![choices.byte()?, choices.byte()?, choices.byte()?, choices.byte()?],
        };
        data.resize(length, 0);
        choices.damage(&mut data)?;
        Some(data)
    }

    fn step(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let machine = &self.node.hca.machine;
        match choices.byte()? {
            0..=129 => {
                let (offset, length) = (self.offset(choices)?, choices.one(&WIDTHS)?);
                let data = self.data(choices, length)?;
                machine.device().bar_write(offset, &data);
            }
            130..=179 => {
                let (offset, length) = (self.offset(choices)?, choices.one(&WIDTHS)?);
                machine.device().bar_read(offset, &mut vec![0; length]);
            }
            180..=194 => {
                let (offset, length) = (choices.index(PAGE as usize)? as u64, choices.one(&[1, 2, 4, 8])?);
                machine.device().config_read(offset, &mut vec![0; length]);
            }
            195..=197 => {
                let (offset, length) = (choices.index(PAGE as usize)? as u64, choices.one(&[1, 2, 4, 8])?);
                let data = self.data(choices, length)?;
                machine.device().config_write(offset, &data);
            }
            _ => {
                let (length, from) = (u32::from(choices.byte()?) + 1, self.region.at(1024));
                let data = Data::Memory((from, length, self.region.key));
                let request = Request::remote(WqeOpcode::RdmaWrite, vec![data], self.region.at(0), self.region.key);
                self.qp.put(&request);
                if choices.byte()? < 128 {
                    self.qp.ring();
                }
            }
        }
        self.tally.made += 1;
        while let Some(cqe) = self.qp.send_cq.poll() {
            match crate::cq::error_of(&cqe) {
                None => self.tally.succeeded += 1,
                Some(_) => self.tally.refused += 1,
            }
        }
        self.qp.send_cq.release();
        Some(())
    }
}

/// Runs an input on the first of two new guests of one network. The other is not harmed, and the device works after a
/// reset of its function, whatever the configuration space has become.
pub fn run([node, other]: [Node; 2], input: &[u8]) -> Tally {
    let ends = [(); 2].map(|()| QueuePair::create(&node, Shape::new(service::RC)).unwrap());
    connect((&node, &ends[0]), (&node, &ends[1]), &Connection::default());
    let [qp, _] = ends;
    let second = alloc_uar(&node.hca.commands).unwrap();
    let mut guest = Guest {
        region: node.region(1 << 14),
        uars: vec![node.hca.uar, node.hca.uar, node.hca.uar, second, 0, 1, 0xff],
        node,
        qp,
        tally: Tally::default(),
    };
    let mut choices = Choices::new(input);
    while guest.tally.made < MAX_ACCESSES && guest.step(&mut choices).is_some() {}
    exchange(&other, &other);
    other.close();
    let machine: Arc<Machine> = Arc::clone(&guest.node.hca.machine);
    machine.device().power_cycle();
    assert_eq!(machine.device().objects(), BTreeMap::new());
    let tally = guest.tally;
    drop(guest);
    machine.map();
    machine.enable();
    Hca::boot(&machine).shutdown();
    tally
}
