//! Bytes become commands: right ones that name objects that exist, and the same with bytes changed. Between them frames are sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use mlx5_prm::command::Status;
use mlx5_prm::layout;
use mlx5_prm::opcode::Opcode;
use vhost_nic::net::Switch;

use super::command::CommandError;
use super::hca::Hca;
use super::machine::Machine;
use super::memory::Block;
use super::netdev::{Netdev, Options};
use super::send_queue::Request;
use super::transport::{ALLOW_LOOPBACK, set_self_loopback};

/// Most commands of a run.
const MAX_COMMANDS: u64 = 400;
/// Pages that queues are made in.
const PAGES: u64 = 16;
/// Bytes of the longest output without lists.
const OUTPUT: usize = 0x1010;

/// What a run did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Commands sent.
    pub commands: u64,
    /// Those that were carried out.
    pub accepted: u64,
}

/// Kinds of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Uar,
    Pd,
    TransportDomain,
    Xrcd,
    Uctx,
    Eq,
    Cq,
    Mkey,
    Tis,
    Tir,
    Rqt,
    Rq,
    Sq,
    Qp,
    Rmp,
    XrcSrq,
    Counters,
    FlowTable,
    FlowGroup,
    FlowCounter,
    Page,
    Record,
}

use Kind::*;

/// A number in a command: its kind, and offset and width in bits.
type Place = (Kind, usize, usize);

/// A command as it should be.
struct Template {
    opcode: Opcode,
    op_mod: u16,
    /// Bytes of the input without lists.
    length: usize,
    /// Numbers of objects.
    names: &'static [Place],
    /// Other fields: offset and width in bits, and value.
    fields: &'static [(usize, usize, u64)],
    /// Pages behind it.
    pages: usize,
    /// What it makes, and where in the output the number is.
    makes: Option<Place>,
}

const fn plain(opcode: Opcode, length: usize, names: &'static [Place]) -> Template {
    Template {
        opcode,
        op_mod: 0,
        length,
        names,
        fields: &[],
        pages: 0,
        makes: None,
    }
}

const fn making(opcode: Opcode, kind: Kind) -> Template {
    Template {
        makes: Some((kind, 0x48, 24)),
        ..plain(opcode, 0x10, &[])
    }
}

/// Where a `wq` begins in the commands on RQ, SQ and RMP, and the offsets in it.
macro_rules! wq {
    ($offset:literal) => {
        0x100 + 0x180 + $offset
    };
}

/// All commands of the device, and some that it does not know.
const TEMPLATES: &[Template] = &[
    making(Opcode::ALLOC_UAR, Uar),
    making(Opcode::ALLOC_PD, Pd),
    making(Opcode::ALLOC_TRANSPORT_DOMAIN, TransportDomain),
    making(Opcode::ALLOC_XRCD, Xrcd),
    Template {
        makes: Some((Uctx, 0x50, 16)),
        ..plain(Opcode::CREATE_UCTX, 0x40, &[])
    },
    Template {
        makes: Some((Counters, 0x58, 8)),
        ..plain(Opcode::ALLOC_Q_COUNTER, 0x10, &[])
    },
    Template {
        makes: Some((FlowCounter, 0x40, 32)),
        ..plain(Opcode::ALLOC_FLOW_COUNTER, 0x10, &[])
    },
    Template {
        fields: &[(0x80 + 0x63, 5, 4)],
        pages: 1,
        makes: Some((Eq, 0x58, 8)),
        ..plain(Opcode::CREATE_EQ, 0x110, &[(Uar, 0x80 + 0x68, 24)])
    },
    Template {
        fields: &[(0x80 + 0x63, 5, 5)],
        pages: 1,
        makes: Some((Cq, 0x48, 24)),
        ..plain(
            Opcode::CREATE_CQ,
            0x110,
            &[
                (Uar, 0x80 + 0x68, 24),
                (Eq, 0x80 + 0xa0, 32),
                (Record, 0x80 + 0x1c0, 64),
            ],
        )
    },
    Template {
        op_mod: 1,
        fields: &[(0x80 + 0x63, 5, 4)],
        pages: 1,
        ..plain(Opcode::MODIFY_CQ, 0x110, &[(Cq, 0x48, 24)])
    },
    Template {
        fields: &[(0x60, 32, 0x17)],
        ..plain(Opcode::MODIFY_CQ, 0x110, &[(Cq, 0x48, 24)])
    },
    Template {
        fields: &[(0x80 + 0x14, 2, 3), (0x80 + 0x60, 1, 1)],
        makes: Some((Mkey, 0x48, 24)),
        ..plain(Opcode::CREATE_MKEY, 0x110, &[(Pd, 0x80 + 0x68, 24)])
    },
    Template {
        fields: &[
            (0x80 + 0x14, 2, 3),
            (0x80 + 0x16, 2, 1),
            (0x80 + 0xc0, 64, 0x2000),
            (0x80 + 0x1da, 6, 12),
            (0x300, 32, 2),
        ],
        pages: 4,
        makes: Some((Mkey, 0x48, 24)),
        ..plain(Opcode::CREATE_MKEY, 0x110, &[(Pd, 0x80 + 0x68, 24)])
    },
    Template {
        makes: Some((Tis, 0x48, 24)),
        ..plain(Opcode::CREATE_TIS, 0xc0, &[(TransportDomain, 0x100 + 0x128, 24)])
    },
    Template {
        fields: &[(0x100, 4, 0), (wq!(0), 4, 1), (wq!(0x10c), 4, 6), (wq!(0x11b), 5, 4)],
        pages: 1,
        makes: Some((Rq, 0x48, 24)),
        ..plain(
            Opcode::CREATE_RQ,
            0x110,
            &[(Cq, 0x100 + 0x48, 24), (Pd, wq!(0x48), 24), (Record, wq!(0x80), 64)],
        )
    },
    Template {
        fields: &[
            (0x100 + 0x100, 16, 1),
            (wq!(0), 4, 1),
            (wq!(0x10c), 4, 6),
            (wq!(0x11b), 5, 4),
        ],
        pages: 1,
        makes: Some((Sq, 0x48, 24)),
        ..plain(
            Opcode::CREATE_SQ,
            0x110,
            &[
                (Cq, 0x100 + 0x48, 24),
                (Tis, 0x100 + 0x168, 24),
                (Pd, wq!(0x48), 24),
                (Uar, wq!(0x68), 24),
                (Record, wq!(0x80), 64),
            ],
        )
    },
    Template {
        fields: &[(0x108, 4, 1)],
        ..plain(Opcode::MODIFY_RQ, 0x110, &[(Rq, 0x48, 24)])
    },
    Template {
        fields: &[(0x108, 4, 1)],
        ..plain(Opcode::MODIFY_SQ, 0x110, &[(Sq, 0x48, 24)])
    },
    Template {
        fields: &[(0x40, 4, 1), (0x108, 4, 3)],
        ..plain(Opcode::MODIFY_RQ, 0x110, &[(Rq, 0x48, 24)])
    },
    Template {
        fields: &[(0x40, 4, 3), (0x108, 4, 0)],
        ..plain(Opcode::MODIFY_SQ, 0x110, &[(Sq, 0x48, 24)])
    },
    Template {
        fields: &[(0x108, 4, 1), (wq!(0x10c), 4, 6), (wq!(0x11b), 5, 4)],
        pages: 1,
        makes: Some((Rmp, 0x48, 24)),
        ..plain(
            Opcode::CREATE_RMP,
            0x110,
            &[(Pd, wq!(0x48), 24), (Record, wq!(0x80), 64)],
        )
    },
    Template {
        fields: &[(0x40, 4, 1), (0x108, 4, 1)],
        ..plain(Opcode::MODIFY_RMP, 0x110, &[(Rmp, 0x48, 24)])
    },
    Template {
        fields: &[(0x84, 4, 4), (0xa5, 3, 1)],
        pages: 1,
        makes: Some((XrcSrq, 0x48, 24)),
        ..plain(
            Opcode::CREATE_XRC_SRQ,
            0x110,
            &[(Xrcd, 0x80 + 0x28, 24), (Cq, 0x80 + 0x48, 24), (Pd, 0x80 + 0xc8, 24)],
        )
    },
    plain(Opcode::ARM_XRC_SRQ, 0x10, &[(XrcSrq, 0x48, 24)]),
    Template {
        fields: &[(0x100 + 0xb0, 16, 1), (0x100 + 0xd0, 16, 1)],
        makes: Some((Rqt, 0x48, 24)),
        ..plain(Opcode::CREATE_RQT, 0x114, &[(Rq, 0x110 * 8, 32)])
    },
    Template {
        fields: &[(0xbf, 1, 1), (0x100 + 0xd0, 16, 1)],
        ..plain(Opcode::MODIFY_RQT, 0x114, &[(Rqt, 0x48, 24), (Rq, 0x110 * 8, 32)])
    },
    Template {
        makes: Some((Tir, 0x48, 24)),
        ..plain(
            Opcode::CREATE_TIR,
            0x110,
            &[(Rq, 0x100 + 0xe8, 24), (TransportDomain, 0x100 + 0x128, 24)],
        )
    },
    Template {
        fields: &[(0x120, 4, 1), (0x220, 4, 2), (0x100 + 0x282, 30, 0xf)],
        makes: Some((Tir, 0x48, 24)),
        ..plain(
            Opcode::CREATE_TIR,
            0x110,
            &[(Rqt, 0x100 + 0x108, 24), (TransportDomain, 0x100 + 0x128, 24)],
        )
    },
    Template {
        fields: &[(0xbb, 1, 1), (0xbd, 1, 1)],
        ..plain(Opcode::MODIFY_TIR, 0x110, &[(Tir, 0x48, 24)])
    },
    Template {
        fields: &[(0xbf, 1, 1)],
        ..plain(Opcode::MODIFY_TIS, 0xc0, &[(Tis, 0x48, 24)])
    },
    Template {
        fields: &[(0xc0 + 0x8, 8, 58), (0xc0 + 0x18, 8, 4)],
        makes: Some((FlowTable, 0x48, 24)),
        ..plain(Opcode::CREATE_FLOW_TABLE, 0x40, &[])
    },
    Template {
        fields: &[(0x70, 16, 1)],
        ..plain(Opcode::MODIFY_FLOW_TABLE, 0x40, &[(FlowTable, 0xa8, 24)])
    },
    plain(Opcode::SET_FLOW_TABLE_ROOT, 0x40, &[(FlowTable, 0xa8, 24)]),
    Template {
        fields: &[(0x120, 32, 3)],
        makes: Some((FlowGroup, 0x48, 24)),
        ..plain(Opcode::CREATE_FLOW_GROUP, 0x400, &[(FlowTable, 0xa8, 24)])
    },
    Template {
        fields: &[(0x200 + 0x70, 16, 4), (0x200 + 0x88, 24, 1), (0x340 * 8, 8, 2)],
        ..plain(
            Opcode::SET_FLOW_TABLE_ENTRY,
            0x348,
            &[
                (FlowTable, 0xa8, 24),
                (FlowGroup, 0x200 + 0x20, 32),
                (Tir, 0x340 * 8 + 8, 24),
            ],
        )
    },
    plain(Opcode::DELETE_FLOW_TABLE_ENTRY, 0x40, &[(FlowTable, 0xa8, 24)]),
    plain(
        Opcode::DESTROY_FLOW_GROUP,
        0x40,
        &[(FlowTable, 0xa8, 24), (FlowGroup, 0xc0, 32)],
    ),
    plain(Opcode::DESTROY_FLOW_TABLE, 0x40, &[(FlowTable, 0xa8, 24)]),
    plain(Opcode::QUERY_FLOW_COUNTER, 0x20, &[(FlowCounter, 0xe0, 32)]),
    plain(Opcode::DEALLOC_FLOW_COUNTER, 0x10, &[(FlowCounter, 0x40, 32)]),
    Template {
        fields: &[(0xc0 + 0x49, 4, 4), (0xc0 + 0x4d, 3, 1), (0xc0 + 0x51, 4, 4)],
        pages: 2,
        makes: Some((Qp, 0x48, 24)),
        ..plain(
            Opcode::CREATE_QP,
            0x110,
            &[
                (Pd, 0xc0 + 0x28, 24),
                (Uar, 0xc0 + 0x68, 24),
                (Cq, 0xc0 + 0x3e8, 24),
                (Cq, 0xc0 + 0x4e8, 24),
                (Record, 0xc0 + 0x500, 64),
            ],
        )
    },
    plain(Opcode::RST2INIT_QP, 0x110, &[(Qp, 0x48, 24), (Pd, 0xc0 + 0x28, 24)]),
    plain(Opcode::INIT2RTR_QP, 0x110, &[(Qp, 0x48, 24)]),
    plain(Opcode::RTR2RTS_QP, 0x110, &[(Qp, 0x48, 24)]),
    plain(Opcode::RTS2RTS_QP, 0x110, &[(Qp, 0x48, 24)]),
    plain(Opcode::QP_2ERR, 0x10, &[(Qp, 0x48, 24)]),
    plain(Opcode::QP_2RST, 0x10, &[(Qp, 0x48, 24)]),
    plain(Opcode::ATTACH_TO_MCG, 0x20, &[(Qp, 0x48, 24)]),
    plain(Opcode::DETACH_FROM_MCG, 0x20, &[(Qp, 0x48, 24)]),
    plain(Opcode::QUERY_EQ, 0x10, &[(Eq, 0x58, 8)]),
    plain(Opcode::QUERY_CQ, 0x10, &[(Cq, 0x48, 24)]),
    plain(Opcode::QUERY_MKEY, 0x10, &[(Mkey, 0x48, 24)]),
    plain(Opcode::QUERY_TIS, 0x10, &[(Tis, 0x48, 24)]),
    plain(Opcode::QUERY_TIR, 0x10, &[(Tir, 0x48, 24)]),
    plain(Opcode::QUERY_RQT, 0x10, &[(Rqt, 0x48, 24)]),
    plain(Opcode::QUERY_RQ, 0x10, &[(Rq, 0x48, 24)]),
    plain(Opcode::QUERY_SQ, 0x10, &[(Sq, 0x48, 24)]),
    plain(Opcode::QUERY_QP, 0x10, &[(Qp, 0x48, 24)]),
    plain(Opcode::QUERY_RMP, 0x10, &[(Rmp, 0x48, 24)]),
    plain(Opcode::QUERY_XRC_SRQ, 0x10, &[(XrcSrq, 0x48, 24)]),
    plain(Opcode::QUERY_Q_COUNTER, 0x20, &[(Counters, 0xf8, 8)]),
    plain(Opcode::DESTROY_EQ, 0x10, &[(Eq, 0x58, 8)]),
    plain(Opcode::DESTROY_CQ, 0x10, &[(Cq, 0x48, 24)]),
    plain(Opcode::DESTROY_MKEY, 0x10, &[(Mkey, 0x48, 24)]),
    plain(Opcode::DESTROY_TIS, 0x10, &[(Tis, 0x48, 24)]),
    plain(Opcode::DESTROY_TIR, 0x10, &[(Tir, 0x48, 24)]),
    plain(Opcode::DESTROY_RQT, 0x10, &[(Rqt, 0x48, 24)]),
    plain(Opcode::DESTROY_RQ, 0x10, &[(Rq, 0x48, 24)]),
    plain(Opcode::DESTROY_SQ, 0x10, &[(Sq, 0x48, 24)]),
    plain(Opcode::DESTROY_QP, 0x10, &[(Qp, 0x48, 24)]),
    plain(Opcode::DESTROY_RMP, 0x10, &[(Rmp, 0x48, 24)]),
    plain(Opcode::DESTROY_XRC_SRQ, 0x10, &[(XrcSrq, 0x48, 24)]),
    plain(Opcode::DEALLOC_PD, 0x10, &[(Pd, 0x48, 24)]),
    plain(Opcode::DEALLOC_UAR, 0x10, &[(Uar, 0x48, 24)]),
    plain(Opcode::DEALLOC_XRCD, 0x10, &[(Xrcd, 0x48, 24)]),
    plain(Opcode::DEALLOC_TRANSPORT_DOMAIN, 0x10, &[(TransportDomain, 0x48, 24)]),
    plain(Opcode::DEALLOC_Q_COUNTER, 0x10, &[(Counters, 0x58, 8)]),
    plain(Opcode::DESTROY_UCTX, 0x10, &[(Uctx, 0x50, 16)]),
    plain(Opcode::QUERY_ISSI, 0x10, &[]),
    Template {
        fields: &[(0x50, 16, 1)],
        ..plain(Opcode::SET_ISSI, 0x10, &[])
    },
    Template {
        op_mod: 3,
        ..plain(Opcode::QUERY_PAGES, 0x10, &[])
    },
    Template {
        op_mod: 1,
        fields: &[(0x60, 32, 2)],
        pages: 2,
        ..plain(Opcode::MANAGE_PAGES, 0x10, &[])
    },
    Template {
        op_mod: 2,
        fields: &[(0x60, 32, 3)],
        ..plain(Opcode::MANAGE_PAGES, 0x10, &[])
    },
    plain(Opcode::QUERY_HCA_CAP, 0x10, &[]),
    plain(Opcode::SET_HCA_CAP, 0x1010, &[]),
    plain(Opcode::QUERY_ADAPTER, 0x10, &[]),
    plain(Opcode::QUERY_SPECIAL_CONTEXTS, 0x10, &[]),
    plain(Opcode::SET_DRIVER_VERSION, 0x50, &[]),
    plain(Opcode::QUERY_NIC_VPORT_CONTEXT, 0x10, &[]),
    plain(Opcode::MODIFY_NIC_VPORT_CONTEXT, 0x210, &[]),
    plain(Opcode::QUERY_VPORT_STATE, 0x10, &[]),
    plain(Opcode::QUERY_VPORT_COUNTER, 0x20, &[]),
    plain(Opcode::QUERY_HCA_VPORT_PKEY, 0x10, &[]),
    plain(Opcode::QUERY_HCA_VPORT_CONTEXT, 0x10, &[]),
    plain(Opcode::SET_ROCE_ADDRESS, 0x30, &[]),
    plain(Opcode::QUERY_ROCE_ADDRESS, 0x10, &[]),
    Template {
        op_mod: 1,
        fields: &[(0x50, 16, 0x5004)],
        ..plain(Opcode::ACCESS_REG, 0x50, &[])
    },
    Template {
        fields: &[(0x50, 16, 0x5003), (0xc0, 16, 9000)],
        ..plain(Opcode::ACCESS_REG, 0x20, &[])
    },
    Template {
        op_mod: 1,
        fields: &[(0x50, 16, 0x5008)],
        ..plain(Opcode::ACCESS_REG, 0x110, &[])
    },
    plain(Opcode::CREATE_DCT, 0x110, &[]),
    plain(Opcode::CREATE_GENERAL_OBJECT, 0x40, &[]),
];

/// The bytes of the run, used up one after the other.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn index(&mut self, below: usize) -> Option<usize> {
        let [high, low] = [self.byte()?, self.byte()?];
        Some(usize::from(u16::from_be_bytes([high, low])) % below.max(1))
    }
}

/// A guest with an interface, and what it knows of its objects.
struct Guest {
    netdev: Netdev,
    objects: BTreeMap<Kind, Vec<u64>>,
    frame: Block,
    tally: Tally,
}

impl Guest {
    fn new(machine: &Arc<Machine>) -> Self {
        let hca = Arc::new(Hca::boot(machine));
        // The command queue's own events are not safe from what comes.
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

    /// Does what the next bytes say; none are left otherwise.
    fn step(&mut self, source: &mut Source<'_>) -> Option<()> {
        let what = source.byte()?;
        match what {
            0..=215 => self.command(source),
            216..=245 => {
                self.send(source.byte()?);
                Some(())
            }
            _ => {
                let mut data = [0; 8];
                data.iter_mut()
                    .try_for_each(|byte| source.byte().map(|next| *byte = next))?;
                let offset =
                    self.number(Uar, what) * 4096 + [0x20, 0x40, 0x48, 0x800, 0x900, 0x24][usize::from(what) % 6];
                let length = if what & 1 == 0 { 8 } else { 4 };
                self.netdev.hca.machine.function.bar_write(0, offset, &data[..length]);
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
        while channel.send_cq.next().is_some() {}
        channel.send_cq.release();
    }

    fn command(&mut self, source: &mut Source<'_>) -> Option<()> {
        let template = &TEMPLATES[source.index(TEMPLATES.len())?];
        let mut input = vec![0; template.length.next_multiple_of(4)];
        input[..2].copy_from_slice(&template.opcode.0.to_be_bytes());
        input[6..8].copy_from_slice(&template.op_mod.to_be_bytes());
        for &(offset, width, value) in template.fields {
            layout::set(&mut input, offset, width, value);
        }
        for &(kind, offset, width) in template.names {
            let number = self.number(kind, source.byte()?);
            layout::set(&mut input, offset, width, number);
        }
        for _ in 0..template.pages {
            input.extend(self.number(Page, source.byte()?).to_be_bytes());
        }
        // Half of the commands stay right.
        for _ in 0..source.byte()?.saturating_sub(128) % 5 {
            // The header less often than the rest, and most often what comes soon behind it.
            let at = source.index(input.len())?;
            let at = if at & 1 == 0 { at } else { at % 64 };
            input[at] = source.byte()?;
        }
        if source.byte()? >= 245 {
            input.truncate(source.index(input.len())?);
        }
        let room = if source.byte()? >= 245 {
            source.index(64)?
        } else {
            OUTPUT
        };
        let result = self.netdev.hca.commands.execute(&input, room);
        self.tally.commands += 1;
        match result {
            Ok(output) => {
                self.tally.accepted += 1;
                if let Some((kind, offset, width)) = template.makes
                    && output.len() >= 16
                {
                    self.objects
                        .entry(kind)
                        .or_default()
                        .push(layout::get(&output, offset, width));
                }
            }
            Err(CommandError::Timeout) => panic!("{} is not answered", template.opcode),
            Err(CommandError::Refused(status, syndrome)) => {
                assert!(status != Status::Ok as u8 && syndrome != 0);
            }
            Err(CommandError::Delivery(_)) => {}
        }
        Some(())
    }
}

/// Does what the bytes say to a fresh device, and checks that it still works after a reset.
pub fn run(input: &[u8]) -> Tally {
    let machine = Arc::new(Machine::new(&Switch::new(), 1));
    let mut guest = Guest::new(&machine);
    let mut source = Source(input);
    while guest.tally.commands < MAX_COMMANDS && guest.step(&mut source).is_some() {}
    let tally = guest.tally;
    machine.function.reset();
    assert!(machine.nic.snapshot().objects.is_empty());
    drop(guest);
    machine.switch_on();
    let mut guest = Guest::new(&machine);
    guest.netdev.channels[0].sq.nop();
    guest.netdev.channels[0].send_cq.wait();
    tally
}
