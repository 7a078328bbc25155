//! WQEs of a hostile guest: right ones, the same with bytes changed, and garbage, on queues of every kind.

mod other;

use std::sync::Arc;
use std::time::Duration;

use mlx5_prm::layout;
use mlx5_prm::mkey::{CreateMkeyIn, CreateMkeyOut, Mkc};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::rdma_wqe::{UmrControlSegment, mkey_mask as mask};
use mlx5_prm::wqe::{ControlSegment, NextSegment, SEND_WQE_DS, WqeOpcode};
use other::Other;
use vhost_nic::net::Switch;
use zerocopy::IntoBytes;

use super::{Tally, exchange};
use crate::common::choices::Choices;
use crate::common::completion_queue::{CompletionQueue, error_of};
use crate::common::memory::Block;
use crate::common::netdev::{Netdev, Options};
use crate::common::node::{Node, alloc_xrcd, dealloc_xrcd};
use crate::common::queue_pair::{
    Connection, Data, Q_KEY, QueuePair, Request, Scatter, Shape, address, connect, scatter_list, service,
};
use crate::common::region::{Region, Rights};
use crate::common::send_queue;
use crate::common::shared_receive::SharedReceive;
use crate::common::transport::{ALLOW_LOOPBACK, alloc_pd, dealloc_pd, destroy_mkey, set_self_loopback};

/// Most WQEs of a run.
const MAX_WQES: u64 = 400;
/// Bytes of the regions.
const REGION: u64 = 1 << 16;
/// Most bytes of a WQE.
const MAX_WQE: usize = 63 * SEND_WQE_DS;
/// Octwords in the lists of the keys that WQEs change.
const LIST: u32 = 8;
/// Access modes of those (`MLX5_MKC_ACCESS_MODE_*`).
const MTT: u8 = 1;
const KLM: u8 = 2;
/// What a registration changes of a key.
const REGISTERED: u64 = mask::LEN
    | mask::PAGE_SIZE
    | mask::START_ADDR
    | mask::EN_RINVAL
    | (mask::LR | mask::LW | mask::RR | mask::RW | mask::A)
    | mask::FREE;
/// Keys that are not created.
const SPECIAL_KEYS: [u32; 4] = [0x100, 0x200, 0x300, 0x400];

/// A peer of a queue pair.
#[derive(Clone, Copy)]
enum Peer {
    /// Of the guest's own, by index.
    Own(usize),
    /// The other guest's.
    Other(usize),
}

/// Service and peer of each queue pair.
const QUEUE_PAIRS: [(u8, Peer); 13] = [
    (service::RC, Peer::Other(0)),
    (service::RC, Peer::Own(2)),
    (service::RC, Peer::Own(1)),
    (service::RC, Peer::Own(4)),
    (service::RC, Peer::Own(3)),
    (service::UC, Peer::Other(1)),
    (service::UC, Peer::Own(6)),
    (service::UD, Peer::Own(7)),
    (service::XRC, Peer::Own(9)),
    (service::XRC, Peer::Own(8)),
    (service::GSI, Peer::Own(10)),
    (service::RAW_ETHERNET, Peer::Own(11)),
    (service::REG_UMR, Peer::Own(12)),
];
/// Those that take receives from the pool, and that is the target of XRC.
const POOLED: [usize; 2] = [3, 4];
const TARGET: usize = 9;
/// The state of a queue pair in error.
const ERROR: u8 = 6;

/// The guest that is hostile.
struct Guest {
    node: Node,
    queue_pairs: Vec<QueuePair>,
    pool: SharedReceive,
    xrcd: u32,
    xrc_cq: CompletionQueue,
    xrc: SharedReceive,
    netdev: Netdev,
    frame: Block,
    other_pd: u32,
    regions: Vec<Region>,
    changeable: Vec<u32>,
    tally: Tally,
}

/// A key that WQEs may change.
fn changeable_key(node: &Node, mode: u8) -> u32 {
    let mut input = CreateMkeyIn::default();
    let context = input.memory_key_mkey_entry_mut();
    context.set_free(true);
    context.set_umr_en(true);
    context.set_access_mode_1_0(mode);
    context.set_pd(node.pd);
    context.set_qpn(0xff_ffff);
    context.set_log_page_size(12);
    context.set_translations_octword_size(LIST);
    let output: CreateMkeyOut = node.hca.commands.call(Opcode::CREATE_MKEY, &input).unwrap();
    output.mkey_index() << 8
}

impl Guest {
    fn new(switch: &Arc<Switch>) -> Self {
        let node = Node::open(switch, 1);
        let hca = &node.hca;
        let xrcd = alloc_xrcd(hca).unwrap();
        let xrc_cq = node.completion_queue(6, false);
        let xrc = SharedReceive::xrc(hca, node.pd, xrcd, &xrc_cq, 4).unwrap();
        let pool = SharedReceive::pool(hca, node.pd, 4).unwrap();
        let queue_pairs = QUEUE_PAIRS
            .iter()
            .enumerate()
            .map(|(index, &(service, _))| QueuePair::create(&node, shape(index, service, pool.number, xrcd)).unwrap())
            .collect();
        let other_pd = alloc_pd(hca).unwrap();
        let regions = [
            (node.pd, Rights::ALL),
            (node.pd, Rights::READ_ONLY),
            (other_pd, Rights::ALL),
        ]
        .map(|(pd, rights)| Region::create(hca, pd, REGION, rights).unwrap())
        .into();
        let changeable = [MTT, MTT, KLM, KLM].map(|mode| changeable_key(&node, mode)).into();
        let netdev = Netdev::open(
            hca,
            &Options {
                log_rq: 4,
                log_sq: 6,
                ..Options::default()
            },
        );
        set_self_loopback(hca, netdev.direct[0], ALLOW_LOOPBACK).unwrap();
        let frame = netdev.place(&[&node.mac[..], &node.mac, &[0x08, 0x00, 0x45], &[0x5a; 1000]].concat());
        Self {
            node,
            queue_pairs,
            pool,
            xrcd,
            xrc_cq,
            xrc,
            netdev,
            frame,
            other_pd,
            regions,
            changeable,
            tally: Tally::default(),
        }
    }

    /// Makes a queue pair anew, with its completion queues, which may have overrun, and its peer.
    fn renew(&mut self, index: usize, other: &mut Other) {
        let ends = match QUEUE_PAIRS[index].1 {
            Peer::Own(peer) if peer != index => vec![index, peer],
            Peer::Own(_) => vec![index],
            Peer::Other(peer) => {
                other.queue_pairs[peer].reset(&other.node).unwrap();
                vec![index]
            }
        };
        for &end in &ends {
            self.queue_pairs[end].destroy(&self.node).unwrap();
            let shape = shape(end, QUEUE_PAIRS[end].0, self.pool.number, self.xrcd);
            self.queue_pairs[end] = QueuePair::create(&self.node, shape).unwrap();
        }
        ends.iter().for_each(|&end| self.connect(end, other));
        // So that not all that is sent meets an empty queue.
        let list = [(self.regions[0].at(64), 2000, self.regions[0].key)];
        ends.iter().filter(|&&end| end != TARGET).for_each(|&end| {
            self.queue_pairs[end].receive(&list);
        });
    }

    fn connect(&self, index: usize, other: &Other) {
        let how = Connection {
            retry_count: 1,
            rnr_retry: 1,
            ..Connection::default()
        };
        let qp = &self.queue_pairs[index];
        let result = match QUEUE_PAIRS[index].1 {
            Peer::Own(peer) => qp.connect(&self.node, &self.node, self.queue_pairs[peer].number, &mirrored(how)),
            Peer::Other(peer) => {
                let theirs = &other.queue_pairs[peer];
                return connect((&self.node, qp), (&other.node, theirs), &how);
            }
        };
        result.unwrap();
    }

    fn key(&self, choices: &mut Choices<'_>, other: &Other) -> Option<u32> {
        let regions = self.regions.iter().map(|region| region.key);
        let all: Vec<u32> = regions
            .chain(self.changeable.iter().copied())
            .chain([other.open.key, other.closed.key])
            .chain(SPECIAL_KEYS)
            .collect();
        match choices.byte()? {
            // Most often one that works.
            0..=219 => Some(self.regions[0].key),
            220..=250 => choices.one(&all),
            _ => choices.word(),
        }
    }

    fn part(&self, choices: &mut Choices<'_>, other: &Other) -> Option<Scatter> {
        let inside = choices.byte()? < 220;
        let (offset, length) = if inside {
            let length = choices.one(&[0, 1, 8, 8, 16, 63, 64, 65, 500, 1023, 1024, 1025, 5000])?;
            (choices.one(&[0, 1, 63, 4095, 4096, 8192])?, length)
        } else {
            let length = choices.one(&[0, 1, 64, 65, 1 << 16, 1 << 30, u32::MAX])?;
            (choices.one(&[0, REGION - 64, REGION - 1, REGION])?, length)
        };
        Some((self.regions[0].start + offset, length, self.key(choices, other)?))
    }

    /// The body of a WQE that changes a key.
    fn key_change(&self, choices: &mut Choices<'_>) -> Option<(Vec<u8>, u32)> {
        let index = usize::from(choices.byte()?) % self.changeable.len();
        let mut control = UmrControlSegment::default();
        control.flags = match choices.byte()? {
            // Register, with the list in the WQE; or not.
            0..=119 => UmrControlSegment::INLINE,
            120..=159 => UmrControlSegment::INLINE | UmrControlSegment::CHECK_NOT_FREE,
            flags => flags,
        };
        control.xlt_octowords.set(choices.one(&[0, 1, 2, 4, 8, 9, u16::MAX])?);
        control.xlt_offset.set(choices.one(&[0, 0, 1, 7, 8, u16::MAX])?);
        let mask = choices.one(&[REGISTERED, REGISTERED, REGISTERED, mask::FREE, u64::MAX, 0])?;
        control.mkey_mask.set(mask);
        let mut context = Mkc::default();
        context.set_free(choices.byte()? >= 200);
        context.set_lr(true);
        context.set_lw(true);
        context.set_rr(true);
        context.set_rw(true);
        context.set_a(true);
        context.set_umr_en(true);
        context.set_en_rinval(true);
        context.set_pd(self.node.pd);
        context.set_qpn(0xff_ffff);
        context.set_log_page_size(12);
        context.set_start_addr(self.regions[0].start);
        context.set_len(choices.one(&[4096, 8192, 1 << 16, u64::MAX])?);
        choices.damage(control.as_mut_bytes())?;
        choices.damage(context.as_mut_bytes())?;
        let mut list = Vec::new();
        if index < 2 {
            // Only pages of its own: what it does to the rest of its memory is its own affair, and the end of this test.
            for page in self.regions[0].pages().iter().take(8) {
                list.extend((page | 3).to_be_bytes());
            }
        } else {
            for _ in 0..4 {
                let key = choices.one(&[
                    self.regions[0].key,
                    self.changeable[0],
                    self.changeable[2],
                    self.changeable[3],
                ])?;
                let length = choices.one(&[4096_u32, 100, 0, u32::MAX])?;
                list.extend(length.to_be_bytes());
                list.extend(key.to_be_bytes());
                list.extend(self.regions[0].start.to_be_bytes());
            }
        }
        let body = [control.as_bytes(), context.as_bytes(), &list].concat();
        Some((body, self.changeable[index]))
    }

    /// A send WQE for a queue pair, as it should be or nearly so.
    fn send_wqe(&self, index: usize, choices: &mut Choices<'_>, other: &Other) -> Option<Vec<u8>> {
        let qp = &self.queue_pairs[index];
        let service = QUEUE_PAIRS[index].0;
        let opcode = match choices.byte()? {
            0..=239 => choices.one(&[
                WqeOpcode::Nop,
                WqeOpcode::Send,
                WqeOpcode::SendImmediate,
                WqeOpcode::SendInvalidate,
                WqeOpcode::RdmaWrite,
                WqeOpcode::RdmaWriteImmediate,
                WqeOpcode::RdmaRead,
                WqeOpcode::AtomicCompareSwap,
                WqeOpcode::AtomicFetchAdd,
                WqeOpcode::Umr,
            ])?,
            _ => choices.one(&[WqeOpcode::AtomicMaskedFetchAdd, WqeOpcode::Lso])?,
        };
        let mut wqe = if opcode == WqeOpcode::Umr {
            let (body, key) = self.key_change(choices)?;
            let mut control = ControlSegment::default();
            control.opmod_idx_opcode.set(opcode as u32);
            let length = SEND_WQE_DS + body.len();
            control.qpn_ds.set(qp.number << 8 | (length / SEND_WQE_DS) as u32);
            control.fm_ce_se = ControlSegment::CQ_UPDATE;
            control.immediate.set(key);
            // Not to be damaged: the list of pages is in it.
            return Some([control.as_bytes(), &body].concat());
        } else {
            let data = match choices.byte()? {
                0..=49 => vec![Data::Inline(vec![0xa5; choices.index(300)?])],
                50..=219 => vec![Data::Memory(self.part(choices, other)?)],
                _ => {
                    let inline = Data::Inline(vec![0x5a; choices.index(30)?]);
                    vec![
                        Data::Memory(self.part(choices, other)?),
                        inline,
                        Data::Memory(self.part(choices, other)?),
                    ]
                }
            };
            let mut request = Request::new(opcode, data);
            let one_sided = !matches!(
                opcode,
                WqeOpcode::Nop | WqeOpcode::Send | WqeOpcode::SendImmediate | WqeOpcode::SendInvalidate
            );
            if one_sided {
                let start = other.open.start;
                let key = match QUEUE_PAIRS[index].1 {
                    Peer::Other(_) if choices.byte()? < 200 => other.open.key,
                    _ => self.key(choices, other)?,
                };
                request.remote = Some((start + choices.one(&[0, 8, 1, 4096, REGION - 8, REGION])?, key));
            }
            if matches!(
                opcode,
                WqeOpcode::AtomicCompareSwap | WqeOpcode::AtomicFetchAdd | WqeOpcode::AtomicMaskedFetchAdd
            ) {
                request.operands = Some((1, 2));
                if choices.byte()? < 220 {
                    request.data = vec![Data::Memory((self.regions[0].at(16), 8, self.regions[0].key))];
                }
            }
            if service == service::XRC {
                request.xrc_srqn = Some(choices.one(&[self.xrc.number, self.xrc.number, self.pool.number, 0])?);
            }
            if matches!(service, service::UD | service::GSI) {
                let target = choices.one(&[qp.number, 1, 0xff_ffff, self.queue_pairs[0].number])?;
                request.to = Some(address(&self.node, target, choices.one(&[Q_KEY, 1 << 31, 0])?));
            }
            request.immediate = self.key(choices, other)?;
            request.flags = choices.one(&[ControlSegment::CQ_UPDATE, ControlSegment::CQ_UPDATE, 0, 0xff, 0x80])?;
            qp.wqe(&request)
        };
        wqe.truncate(MAX_WQE);
        choices.damage(&mut wqe)?;
        Some(wqe)
    }

    fn send(&mut self, choices: &mut Choices<'_>, other: &mut Other) -> Option<()> {
        let index = choices.index(self.queue_pairs.len())?;
        if index == TARGET {
            return Some(());
        }
        let in_error = self.queue_pairs[index].query(&self.node).unwrap().state() == ERROR;
        if in_error && choices.byte()? < 200 {
            self.renew(index, other);
        }
        for _ in 0..=choices.byte()? % 4 {
            let wqe = self.send_wqe(index, choices, other)?;
            self.queue_pairs[index].put_bytes(&wqe);
            self.tally.made += 1;
        }
        self.queue_pairs[index].ring();
        if choices.byte()? < 160 {
            // Time for the device; else it is overtaken by what follows.
            std::thread::sleep(Duration::from_micros(50));
        }
        Some(())
    }

    fn receive(&mut self, choices: &mut Choices<'_>, other: &Other) -> Option<()> {
        let list: Vec<Scatter> = (0..choices.byte()? % 4)
            .map(|_| self.part(choices, other))
            .collect::<Option<_>>()?;
        let mut wqe = scatter_list(&list, 4);
        wqe.resize(64, 0);
        self.tally.made += 1;
        match choices.byte()? {
            0..=99 => {
                choices.damage(&mut wqe)?;
                let own: Vec<usize> = [0, 1, 2, 5, 6, 7, 10].into();
                let index = choices.one(&own)?;
                self.queue_pairs[index].receive_bytes(&wqe);
            }
            which => {
                let list = if which & 1 == 0 { &mut self.pool } else { &mut self.xrc };
                let mut next = NextSegment::default();
                next.next_wqe_index.set(choices.byte()?.into());
                let mut wqe = [next.as_bytes(), &wqe[..48]].concat();
                choices.damage(&mut wqe)?;
                if choices.byte()? < 200 {
                    list.post(&[(self.regions[0].at(64), 2000, self.regions[0].key)]);
                } else {
                    list.post_bytes(&wqe);
                }
            }
        }
        Some(())
    }

    /// A frame on the Ethernet queue.
    fn ethernet(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let queue = &mut self.netdev.channels[0];
        let request = send_queue::Request {
            data: &[(self.frame.address(), u32::from(choices.byte()?) * 4)],
            checksums: choices.byte()?,
            mss: choices.one(&[0, 0, 20, 1, u16::MAX])?,
            vlan: choices.one(&[None, None, Some(7)])?,
            ..send_queue::Request::default()
        };
        let mut wqe = queue.sq.wqe(&request);
        choices.damage(&mut wqe)?;
        queue.sq.post(&wqe);
        self.tally.made += 1;
        Some(())
    }

    fn poll(&mut self) {
        let queues = self
            .queue_pairs
            .iter_mut()
            .flat_map(|qp| [&mut qp.send_cq, &mut qp.receive_cq]);
        let channels = self.netdev.channels.iter_mut();
        let queues = queues
            .chain(channels.flat_map(|channel| [&mut channel.send_cq, &mut channel.receive_cq]))
            .chain([&mut self.xrc_cq]);
        for queue in queues {
            while let Some(cqe) = queue.next() {
                match error_of(&cqe) {
                    Some((syndrome, _)) => {
                        assert_ne!(syndrome, 0, "{cqe:02x?}");
                        self.tally.refused += 1;
                    }
                    None => self.tally.carried_out += 1,
                }
            }
            queue.release();
        }
        let mut events = self.node.hca.events.lock();
        while events.next().is_some() {}
        events.update(true);
    }

    /// Does what the next bytes say; none are left otherwise.
    fn step(&mut self, choices: &mut Choices<'_>, other: &mut Other) -> Option<()> {
        match choices.byte()? {
            0..=119 => self.send(choices, other),
            120..=164 => self.receive(choices, other),
            165..=184 => self.ethernet(choices),
            185..=194 => {
                // What is no WQE at all.
                let index = choices.index(self.queue_pairs.len())?;
                let mut garbage = vec![0; 64];
                garbage.iter_mut().try_for_each(|byte| {
                    *byte = choices.byte()?;
                    Some(())
                })?;
                if index != TARGET {
                    self.queue_pairs[index].put_bytes(&garbage);
                    self.queue_pairs[index].ring();
                }
                self.tally.made += 1;
                Some(())
            }
            195..=209 => {
                // Doorbell records that say anything, and doorbells of any queue.
                let index = choices.index(self.queue_pairs.len())?;
                let (receives, sends) = (choices.word()?, choices.word()?);
                self.queue_pairs[index].set_records(receives, sends);
                let queue = choices.one(&[
                    self.queue_pairs[index].number,
                    0,
                    0xff_ffff,
                    other.queue_pairs[0].number,
                ])?;
                let mut doorbell = [0; 8];
                layout::set(&mut doorbell, 0, 32, u64::from(choices.word()?));
                layout::set(&mut doorbell, 32, 32, u64::from(queue) << 8);
                let offset = u64::from(self.node.hca.uar) * 4096 + 0x800;
                self.node.hca.machine.write_pair(offset, doorbell);
                Some(())
            }
            210..=234 => {
                let index = choices.index(self.queue_pairs.len())?;
                if choices.byte()? < 60 {
                    self.queue_pairs[index].fail(&self.node).unwrap();
                } else {
                    self.renew(index, other);
                }
                Some(())
            }
            _ => {
                std::thread::sleep(Duration::from_micros(200));
                Some(())
            }
        }
    }

    fn close(self) {
        let hca = Arc::clone(&self.node.hca);
        self.queue_pairs.iter().for_each(|qp| qp.destroy(&self.node).unwrap());
        self.pool.destroy(&hca).unwrap();
        self.xrc.destroy(&hca).unwrap();
        self.xrc_cq.destroy(&hca).unwrap();
        dealloc_xrcd(&hca, self.xrcd).unwrap();
        self.regions.iter().for_each(|region| region.destroy(&hca).unwrap());
        self.changeable.iter().for_each(|&key| destroy_mkey(&hca, key).unwrap());
        dealloc_pd(&hca, self.other_pd).unwrap();
        self.netdev.close();
        drop(hca);
        self.node.close();
    }
}

fn shape(index: usize, service: u8, pool: u32, xrcd: u32) -> Shape {
    Shape {
        srq: POOLED.contains(&index).then_some(pool),
        sends: index != TARGET,
        xrcd: if service == service::XRC { xrcd } else { 0 },
        cs_req: index as u8 % 3,
        cs_res: index as u8 % 3,
        large_cqes: index % 2 == 1,
        fast_register: index % 4 != 2,
        ..Shape::new(service)
    }
}

/// The same sequence numbers both ways, for who talks to itself.
fn mirrored(how: Connection) -> Connection {
    Connection {
        psn: (how.psn.0, how.psn.0),
        ..how
    }
}

/// Does what the bytes say, and checks that nobody else is harmed.
pub fn run(input: &[u8]) -> Tally {
    let switch = Switch::new();
    let (mut guest, mut other) = (Guest::new(&switch), Other::new(&switch));
    (0..QUEUE_PAIRS.len()).for_each(|index| guest.connect(index, &other));
    let mut choices = Choices::new(input);
    while guest.tally.made < MAX_WQES && guest.step(&mut choices, &mut other).is_some() {
        guest.poll();
    }
    exchange(&guest.node, &other.node);
    guest.poll();
    other.check();
    let tally = guest.tally;
    guest.close();
    other.check();
    other.close();
    tally
}
