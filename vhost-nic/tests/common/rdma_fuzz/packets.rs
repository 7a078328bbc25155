//! Packets of a hostile peer: right ones, the same with bytes changed, and garbage, to queue pairs of every service.

use std::sync::Arc;

use mlx5_prm::wqe::WqeOpcode;
use vhost_nic::frame::view::FrameView;
use vhost_nic::net::Switch;
use vhost_nic::roce::headers::{Aeth, AtomicAckEth, AtomicEth, Bth, Deth, Headers, Ieth, ImmDt, Reth, XrcEth};
use vhost_nic::roce::icrc;
use vhost_nic::roce::opcode::{Extension, Opcode, Operation};
use vhost_nic::roce::psn::Psn;
use vhost_nic::roce::syndrome::Syndrome;

use super::{Canary, Tally, exchange};
use crate::common::choices::Choices;
use crate::common::completion_queue::CompletionQueue;
use crate::common::node::{Node, alloc_xrcd, dealloc_xrcd};
use crate::common::queue_pair::{Connection, Data, Q_KEY, QueuePair, Request, Shape, service};
use crate::common::region::{Region, Rights};
use crate::common::shared_receive::SharedReceive;
use crate::common::stranger::Stranger;

/// Most packets of a run.
const MAX_PACKETS: u64 = 400;
/// Bytes of the regions.
const REGION: u64 = 1 << 16;
/// The queue pair of the peer.
const PEER: u32 = 0x77;
/// Bytes of the ICRC.
const ICRC: usize = 4;
/// Bytes of the longest packet of the connections.
const MTU: u32 = 1024;

/// Numbers of operations that one packet is enough for: sends, writes, reads, atomics.
const WHOLE: [u8; 8] = [0x04, 0x05, 0x0a, 0x0b, 0x0c, 0x13, 0x14, 0x17];
/// The state of a queue pair in error.
const ERROR: u8 = 6;

/// Service of each queue pair, and whether it may send, too.
const QUEUE_PAIRS: [(u8, bool); 9] = [
    (service::RC, true),
    (service::RC, false),
    (service::RC, true),
    (service::UC, true),
    (service::UD, true),
    (service::XRC, true),
    (service::XRC, true),
    (service::GSI, true),
    (service::RC, true),
];
/// The one that takes receives from a pool, the target of XRC, and the ones that ask the peer for something.
const POOLED: usize = 2;
const TARGET: usize = 6;
const ASKING: [usize; 3] = [0, 5, 8];

/// The guest that is attacked.
struct Victim {
    node: Node,
    queue_pairs: Vec<QueuePair>,
    pool: SharedReceive,
    xrcd: u32,
    xrc_cq: CompletionQueue,
    xrc: SharedReceive,
    /// What the peer may access.
    open: Region,
    /// What it may not.
    closed: Region,
    canary: Canary,
    tally: Tally,
}

impl Victim {
    fn new(switch: &Arc<Switch>, stranger: &Stranger) -> Self {
        let node = Node::open(switch, 1);
        let hca = &node.hca;
        let memory = Arc::clone(&hca.machine.memory);
        let mut canary = Canary::new();
        canary.sit(&memory);
        let xrcd = alloc_xrcd(hca).unwrap();
        let xrc_cq = node.completion_queue(8, false);
        let xrc = SharedReceive::xrc(hca, node.pd, xrcd, &xrc_cq, 4).unwrap();
        let pool = SharedReceive::pool(hca, node.pd, 4).unwrap();
        let queue_pairs: Vec<QueuePair> = QUEUE_PAIRS
            .iter()
            .enumerate()
            .map(|(index, &(service, _))| {
                let shape = Shape {
                    srq: (index == POOLED).then_some(pool.number),
                    sends: index != TARGET,
                    xrcd: if service == service::XRC { xrcd } else { 0 },
                    cs_req: index as u8 % 3,
                    cs_res: index as u8 % 3,
                    large_cqes: index % 2 == 1,
                    ..Shape::new(service)
                };
                QueuePair::create(&node, shape).unwrap()
            })
            .collect();
        canary.sit(&memory);
        let open = node.region(REGION);
        canary.sit(&memory);
        let closed = Region::create(hca, node.pd, REGION, Rights::READ_ONLY).unwrap();
        closed.write(0, &[0x77; REGION as usize]);
        canary.sit(&memory);
        let mut victim = Self {
            node,
            queue_pairs,
            pool,
            xrcd,
            xrc_cq,
            xrc,
            open,
            closed,
            canary,
            tally: Tally::default(),
        };
        (0..QUEUE_PAIRS.len()).for_each(|index| victim.connect(index, stranger));
        victim
    }

    fn connect(&mut self, index: usize, stranger: &Stranger) {
        let how = Connection {
            ack_timeout: 0,
            ..Connection::default()
        };
        let qp = &mut self.queue_pairs[index];
        qp.reset(&self.node).unwrap();
        qp.initialize(&self.node, &how).unwrap();
        qp.make_ready_to_receive(&self.node, (stranger.mac, stranger.gid), PEER, &how)
            .unwrap();
        if QUEUE_PAIRS[index].1 {
            qp.make_ready_to_send(&self.node, &how).unwrap();
        }
    }

    fn receive(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let room = choices.one(&[0, 10, 100, MTU, 4 * MTU])?;
        let list = [(self.open.at(4096), room, self.open.key)];
        match choices.index(QUEUE_PAIRS.len() + 2)? {
            POOLED => _ = self.pool.post(&list),
            5 | TARGET => _ = self.xrc.post(&list),
            index if index < QUEUE_PAIRS.len() => _ = self.queue_pairs[index].receive(&list),
            _ => _ = self.xrc.post(&list),
        }
        Some(())
    }

    /// Asks the peer for something: its answers are packets, too.
    fn ask(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let index = choices.one(&ASKING)?;
        let length = choices.one(&[0, 8, 8, MTU, 3 * MTU])?;
        let data = vec![Data::Memory((self.open.at(8192), length, self.open.key))];
        let opcode = choices.one(&[
            WqeOpcode::Send,
            WqeOpcode::RdmaWrite,
            WqeOpcode::RdmaRead,
            WqeOpcode::AtomicFetchAdd,
        ])?;
        let mut request = Request::remote(opcode, data, 0x1000, 0x1234);
        if opcode == WqeOpcode::Send {
            request.remote = None;
        }
        if opcode == WqeOpcode::AtomicFetchAdd {
            request.operands = Some((1, 0));
        }
        if QUEUE_PAIRS[index].0 == service::XRC {
            request.xrc_srqn = Some(5);
        }
        self.queue_pairs[index].post(&request);
        Some(())
    }

    /// A packet as it might be meant.
    fn packet(&mut self, choices: &mut Choices<'_>, stranger: &Stranger) -> Option<Vec<u8>> {
        let index = choices.index(QUEUE_PAIRS.len())?;
        let in_error = self.queue_pairs[index].query(&self.node).unwrap().state() == ERROR;
        if in_error && choices.byte()? < 200 {
            self.connect(index, stranger);
        }
        let qp = &self.queue_pairs[index];
        let transport = match QUEUE_PAIRS[index].0 {
            service::RC => 0x00,
            service::UC => 0x20,
            service::XRC => 0xa0,
            _ => 0x60,
        };
        let opcode = match choices.byte()? {
            0..=139 => Opcode::from_byte(transport | choices.one(&WHOLE)?),
            byte @ 140..=239 => Opcode::from_byte(transport | byte & 0x1f),
            _ => Opcode::from_byte(choices.byte()?),
        };
        let opcode = opcode.or(Opcode::from_byte(transport | 0x04))?;
        let context = qp.query(&self.node).unwrap();
        let base = if opcode.is_response() {
            // What was sent last, or a bit before.
            Psn::new(context.next_send_psn()) - choices.one(&[0, 1, 1, 1, 2, 3, 5])?
        } else {
            Psn::new(context.next_rcv_psn())
        };
        let psn = match choices.byte()? {
            0..=219 => base,
            220..=229 => base - 1,
            230..=239 => base + 1,
            _ => Psn::new(choices.word()? & 0xff_ffff),
        };
        let qpn = match choices.byte()? {
            0..=239 if QUEUE_PAIRS[index].0 == service::GSI => 1,
            0..=239 => qp.number,
            _ => choices.one(&[0, 1, 0xff_ffff, self.queue_pairs[0].number, PEER])?,
        };
        let bth = Bth::new(opcode, qpn, psn)
            .with_ack_request(choices.byte()? < 200)
            .with_solicited(choices.byte()? & 1 != 0);
        let mut headers = Headers::new(bth);
        let length = choices.one(&[0, 1, 8, 8, 100, MTU - 1, MTU, MTU, MTU + 1, 1 << 16, 1 << 31])?;
        let address = match choices.byte()? {
            0..=219 => self
                .open
                .at(choices.one(&[0, 0, 8, 1, REGION - 1024, REGION - 8, REGION])?),
            _ => u64::from(choices.word()?) << 32 | u64::from(choices.word()?),
        };
        let key = match choices.byte()? {
            0..=199 => self.open.key,
            200..=229 => self.closed.key,
            _ => choices.word()?,
        };
        for extension in opcode.extensions() {
            match extension {
                Extension::XrcEth => {
                    let queues = [self.xrc.number, self.xrc.number, self.pool.number, 0];
                    headers.xrc = Some(XrcEth::new(choices.one(&queues)?));
                }
                Extension::Deth => headers.deth = Some(Deth::new(choices.one(&[Q_KEY, Q_KEY, 0x8001_0000, 0])?, PEER)),
                Extension::Reth => headers.reth = Some(Reth::new(address, key, length)),
                Extension::AtomicEth => {
                    headers.atomic = Some(AtomicEth {
                        virtual_address: address.into(),
                        rkey: key.into(),
                        swap_or_add: 1.into(),
                        compare: 0.into(),
                    });
                }
                Extension::Aeth => headers.aeth = Some(Aeth::new(choices.byte()?, 1)),
                Extension::AtomicAckEth => headers.atomic_ack = Some(AtomicAckEth { original: 7.into() }),
                Extension::ImmDt => {
                    headers.immediate = Some(ImmDt {
                        immediate: [1, 2, 3, 4],
                    })
                }
                Extension::Ieth => headers.invalidate = Some(Ieth { rkey: key.into() }),
            }
        }
        let payload = match opcode.operation() {
            Operation::Send | Operation::Write | Operation::ReadResponse => match choices.byte()? {
                0..=199 => length.min(MTU),
                _ => choices.one(&[0, 1, 3, MTU - 1, MTU, MTU + 1, 1400])?,
            },
            _ => choices.one(&[0, 0, 0, 0, 0, 4])?,
        };
        Some(stranger.packet(&self.node, &headers, &vec![0xa5; payload as usize]))
    }

    /// Does what the next bytes say; none are left otherwise.
    fn step(&mut self, choices: &mut Choices<'_>, stranger: &Stranger) -> Option<()> {
        match choices.byte()? {
            0..=169 => {
                let mut frame = self.packet(choices, stranger)?;
                choices.damage(&mut frame)?;
                sign(&mut frame, stranger);
                if choices.byte()? < 230 {
                    seal_again(&mut frame);
                }
                stranger.send(&frame);
                self.tally.made += 1;
                Some(())
            }
            170..=179 => {
                let mut frame = vec![0; choices.index(1500)?];
                for byte in frame.iter_mut().take(64) {
                    *byte = choices.byte()?;
                }
                if let Some(start) = frame.first_chunk_mut() {
                    *start = self.node.mac;
                }
                sign(&mut frame, stranger);
                stranger.send(&frame);
                self.tally.made += 1;
                Some(())
            }
            180..=209 => self.receive(choices),
            210..=234 => self.ask(choices),
            _ => {
                let index = choices.index(QUEUE_PAIRS.len())?;
                self.connect(index, stranger);
                Some(())
            }
        }
    }

    /// Reads all completions.
    fn poll(&mut self) {
        let queues = self
            .queue_pairs
            .iter_mut()
            .flat_map(|qp| [&mut qp.send_cq, &mut qp.receive_cq]);
        for queue in queues.chain([&mut self.xrc_cq]) {
            while queue.next().is_some() {}
            queue.release();
        }
    }

    /// What came back since this was asked last.
    fn count(&mut self, stranger: &Stranger) {
        for answer in stranger.packets() {
            let refused = answer
                .headers
                .aeth
                .is_some_and(|aeth| !matches!(Syndrome::from_byte(aeth.syndrome), Some(Syndrome::Ack { .. })));
            if refused {
                self.tally.refused += 1;
            } else if answer.opcode.is_response() {
                self.tally.carried_out += 1;
            }
        }
    }

    fn check(&self) {
        self.canary.check();
        assert!(self.closed.read(0, REGION as usize) == [0x77; REGION as usize]);
    }

    fn close(self) {
        let hca = Arc::clone(&self.node.hca);
        self.queue_pairs.iter().for_each(|qp| qp.destroy(&self.node).unwrap());
        self.pool.destroy(&hca).unwrap();
        self.xrc.destroy(&hca).unwrap();
        self.xrc_cq.destroy(&hca).unwrap();
        dealloc_xrcd(&hca, self.xrcd).unwrap();
        // The peer may have taken it away from the queue pairs, but not from the table of keys.
        self.open.destroy(&hca).unwrap();
        self.closed.destroy(&hca).unwrap();
        drop(hca);
        self.node.close();
    }
}

/// Sees that a frame says who sent it: switches learn from that, and who lies about it gets the others' frames.
fn sign(frame: &mut [u8], stranger: &Stranger) {
    if let Some(source) = frame.get_mut(6..12) {
        source.copy_from_slice(&stranger.mac);
    }
}

/// Gives a frame the ICRC that it should have, if it still is a packet.
fn seal_again(frame: &mut Vec<u8>) {
    let end = frame.len() - ICRC;
    let mut sealed = Vec::new();
    if FrameView::new(&frame[..end]).is_some_and(|view| icrc::append(&view, [], &mut sealed)) {
        *frame = sealed;
    }
}

/// Does what the bytes say, and checks that only that is harmed which the peer has a right to.
pub fn run(input: &[u8]) -> Tally {
    let switch = Switch::new();
    let stranger = Stranger::new(&switch, 2);
    let bystander = Node::open(&switch, 3);
    let mut canary = Canary::new();
    canary.sit(&bystander.hca.machine.memory);
    let mut victim = Victim::new(&switch, &stranger);
    let mut choices = Choices::new(input);
    while victim.tally.made < MAX_PACKETS && victim.step(&mut choices, &stranger).is_some() {
        victim.count(&stranger);
        victim.poll();
    }
    exchange(&victim.node, &bystander);
    victim.count(&stranger);
    victim.check();
    canary.check();
    let tally = victim.tally;
    victim.close();
    bystander.close();
    tally
}
