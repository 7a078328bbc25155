//! WQEs of a hostile guest: valid ones, the same with bytes changed, and garbage, on queues of every kind.

mod generate;
mod other;

use std::sync::Arc;
use std::time::Duration;

use mlx5_prm::layout;
use mlx5_prm::mkey::{CreateMkeyIn, CreateMkeyOut};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::Cqe;
use mlx5_prm::wqe::NextSegment;
use other::Other;
use zerocopy::IntoBytes;

use super::choices::Choices;
use super::targets::{Plan, Targets};
use super::{Tally, exchange};
use crate::cq::error_of;
use crate::domain::{alloc_pd, dealloc_pd};
use crate::memory::Block;
use crate::mkey::{ANY_QP, destroy_mkey};
use crate::netdev::{Netdev, Options};
use crate::node::Node;
use crate::qp::{Connection, Scatter, connect, scatter_list, service};
use crate::region::{Region, Rights};
use crate::sq;
use crate::tis_tir_rqt::{ALLOW_LOOPBACK, set_self_loopback};

/// Maximum number of WQEs of a run.
const MAX_WQES: u64 = 400;
/// Bytes of each region.
const REGION: u64 = 1 << 16;
/// Octwords in the translation lists of the keys that UMR WQEs change.
const LIST: u32 = 8;
/// Access modes of these keys (`MLX5_MKC_ACCESS_MODE_*`).
const MTT: u8 = 1;
const KLM: u8 = 2;
/// A peer of a queue pair.
#[derive(Clone, Copy)]
enum Peer {
    /// A queue pair of the hostile guest, by index.
    Own(usize),
    /// A queue pair of the other guest, by index.
    Other(usize),
}

/// Services of the queue pairs.
const SERVICES: [u8; 13] = [
    service::RC,
    service::RC,
    service::RC,
    service::RC,
    service::RC,
    service::UC,
    service::UC,
    service::UD,
    service::XRC,
    service::XRC,
    service::GSI,
    service::RAW_ETHERNET,
    service::REG_UMR,
];
/// Peers of the queue pairs.
const PEERS: [Peer; SERVICES.len()] = [
    Peer::Other(0),
    Peer::Own(2),
    Peer::Own(1),
    Peer::Own(4),
    Peer::Own(3),
    Peer::Other(1),
    Peer::Own(6),
    Peer::Own(7),
    Peer::Own(9),
    Peer::Own(8),
    Peer::Own(10),
    Peer::Own(11),
    Peer::Own(12),
];
/// The XRC target.
const TARGET: usize = 9;
const PLAN: Plan = Plan {
    services: &SERVICES,
    pooled: &[3, 4],
    xrc_target: TARGET,
    log_xrc_cq: 6,
    fast_register: true,
};
/// Queue pairs that have a receive queue of their own.
const RECEIVING: [usize; 7] = [0, 1, 2, 5, 6, 7, 10];

/// The hostile guest.
struct Guest {
    node: Node,
    targets: Targets,
    netdev: Netdev,
    frame: Block,
    other_pd: u32,
    regions: Vec<Region>,
    changeable: Vec<u32>,
    tally: Tally,
}

/// Creates a key that UMR WQEs may change.
fn changeable_key(node: &Node, mode: u8) -> u32 {
    let mut input = CreateMkeyIn::default();
    let context = input.memory_key_mkey_entry_mut();
    context.set_free(true);
    context.set_umr_en(true);
    context.set_access_mode_1_0(mode);
    context.set_pd(node.pd);
    context.set_qpn(ANY_QP);
    context.set_log_page_size(12);
    context.set_translations_octword_size(LIST);
    let output: CreateMkeyOut = node.hca.commands.call(Opcode::CREATE_MKEY, &input).unwrap();
    output.mkey_index() << 8
}

impl Guest {
    fn new(node: Node) -> Self {
        let hca = &node.hca;
        let targets = Targets::create(&node, PLAN);
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
            targets,
            netdev,
            frame,
            other_pd,
            regions,
            changeable,
            tally: Tally::default(),
        }
    }

    /// Recreates a queue pair and its peer, and connects them.
    fn renew(&mut self, index: usize, other: &mut Other) {
        let ends = match PEERS[index] {
            Peer::Own(peer) if peer != index => vec![index, peer],
            Peer::Own(_) => vec![index],
            Peer::Other(peer) => {
                other.queue_pairs[peer].reset(&other.node).unwrap();
                vec![index]
            }
        };
        for &end in &ends {
            self.targets.recreate(&self.node, end);
        }
        ends.iter().for_each(|&end| self.connect(end, other));
        // A receive, so that not every send meets an empty queue.
        let list = [(self.regions[0].at(64), 2000, self.regions[0].key)];
        ends.iter().filter(|&&end| end != TARGET).for_each(|&end| {
            self.targets.queue_pairs[end].receive(&list);
        });
    }

    fn connect(&self, index: usize, other: &Other) {
        let how = Connection {
            retry_count: 1,
            rnr_retry: 1,
            ..Connection::default()
        };
        let qp = &self.targets.queue_pairs[index];
        let result = match PEERS[index] {
            Peer::Own(peer) => qp.connect(
                &self.node,
                &self.node,
                self.targets.queue_pairs[peer].number,
                &mirrored(how),
            ),
            Peer::Other(peer) => {
                let theirs = &other.queue_pairs[peer];
                return connect((&self.node, qp), (&other.node, theirs), &how);
            }
        };
        result.unwrap();
    }

    fn send(&mut self, choices: &mut Choices<'_>, other: &mut Other) -> Option<()> {
        let index = choices.index(SERVICES.len())?;
        if index == TARGET {
            return Some(());
        }
        if self.targets.in_error(&self.node, index) && choices.byte()? < 200 {
            self.renew(index, other);
        }
        for _ in 0..=choices.byte()? % 4 {
            let wqe = self.send_wqe(index, choices, other)?;
            self.targets.queue_pairs[index].put_bytes(&wqe);
            self.tally.made += 1;
        }
        self.targets.queue_pairs[index].ring();
        if choices.byte()? < 160 {
            // Time for the device, before the next change overtakes it.
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
                let index = choices.one(&RECEIVING)?;
                self.targets.queue_pairs[index].receive_bytes(&wqe);
            }
            which => {
                let targets = &mut self.targets;
                let srq = if which & 1 == 0 {
                    &mut targets.rmp
                } else {
                    &mut targets.xrc_srq
                };
                let mut next = NextSegment::default();
                next.next_wqe_index.set(choices.byte()?.into());
                let mut wqe = [next.as_bytes(), &wqe[..48]].concat();
                choices.damage(&mut wqe)?;
                if choices.byte()? < 200 {
                    srq.post(&[(self.regions[0].at(64), 2000, self.regions[0].key)]);
                } else {
                    srq.post_bytes(&wqe);
                }
            }
        }
        Some(())
    }

    /// Posts a frame on the Ethernet send queue.
    fn ethernet(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let queue = &mut self.netdev.channels[0];
        let request = sq::Request {
            data: &[(self.frame.address(), u32::from(choices.byte()?) * 4)],
            checksums: choices.byte()?,
            mss: choices.one(&[0, 0, 20, 1, u16::MAX])?,
            vlan: choices.one(&[None, None, Some(7)])?,
            ..sq::Request::default()
        };
        let mut wqe = queue.sq.wqe(&request);
        choices.damage(&mut wqe)?;
        queue.sq.post(&wqe);
        self.tally.made += 1;
        Some(())
    }

    fn poll(&mut self) {
        let tally = &mut self.tally;
        let mut count = |cqe: &Cqe| match error_of(cqe) {
            Some((syndrome, _)) => {
                assert_ne!(syndrome, 0, "{cqe:02x?}");
                tally.refused += 1;
            }
            None => tally.succeeded += 1,
        };
        self.targets.poll(&mut count);
        let channels = self.netdev.channels.iter_mut();
        for queue in channels.flat_map(|channel| [&mut channel.send_cq, &mut channel.receive_cq]) {
            while let Some(cqe) = queue.poll() {
                count(&cqe);
            }
            queue.release();
        }
        let mut events = self.node.hca.events.lock();
        while events.poll().is_some() {}
        events.update(true);
    }

    /// Executes the step that the next bytes choose. `None` if too few are left.
    fn step(&mut self, choices: &mut Choices<'_>, other: &mut Other) -> Option<()> {
        match choices.byte()? {
            0..=119 => self.send(choices, other),
            120..=164 => self.receive(choices, other),
            165..=184 => self.ethernet(choices),
            185..=194 => {
                // Garbage in place of a WQE.
                let index = choices.index(SERVICES.len())?;
                let mut garbage = vec![0; 64];
                garbage.iter_mut().try_for_each(|byte| {
                    *byte = choices.byte()?;
                    Some(())
                })?;
                if index != TARGET {
                    self.targets.queue_pairs[index].put_bytes(&garbage);
                    self.targets.queue_pairs[index].ring();
                }
                self.tally.made += 1;
                Some(())
            }
            195..=209 => {
                // Any values in doorbell records, and doorbells of any queue.
                let qp = &self.targets.queue_pairs[choices.index(SERVICES.len())?];
                let (receives, sends) = (choices.word()?, choices.word()?);
                qp.set_records(receives, sends);
                let queue = choices.one(&[qp.number, 0, 0xff_ffff, other.queue_pairs[0].number])?;
                let mut doorbell = [0; 8];
                layout::set(&mut doorbell, 0, 32, u64::from(choices.word()?));
                layout::set(&mut doorbell, 32, 32, u64::from(queue) << 8);
                let offset = u64::from(self.node.hca.uar) * 4096 + 0x800;
                self.node.hca.machine.write_pair(offset, doorbell);
                Some(())
            }
            210..=234 => {
                let index = choices.index(SERVICES.len())?;
                if choices.byte()? < 60 {
                    self.targets.queue_pairs[index].fail(&self.node).unwrap();
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
        self.targets.destroy(&self.node);
        self.regions.iter().for_each(|region| region.destroy(&hca).unwrap());
        self.changeable.iter().for_each(|&key| destroy_mkey(&hca, key).unwrap());
        dealloc_pd(&hca, self.other_pd).unwrap();
        self.netdev.close();
        drop(hca);
        self.node.close();
    }
}

/// The same sequence numbers in both directions, for queue pairs of one guest.
fn mirrored(how: Connection) -> Connection {
    Connection {
        psn: (how.psn.0, how.psn.0),
        ..how
    }
}

/// Runs an input on the first of two new guests of one network, and checks that the other one is not harmed.
pub fn run([hostile, other]: [Node; 2], input: &[u8]) -> Tally {
    let (mut guest, mut other) = (Guest::new(hostile), Other::new(other));
    (0..SERVICES.len()).for_each(|index| guest.connect(index, &other));
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
