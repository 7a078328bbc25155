//! Fuzz driver: bytes become packets of a hostile peer, valid ones, the same with bytes changed, and garbage, to queue
//! pairs of every service. The other fuzz drivers are in `mlx5_test_driver::fuzz`; this one builds its packets with the
//! crate's own RoCE code.

use std::sync::Arc;

use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::fuzz::canary::Canary;
use mlx5_test_driver::fuzz::choices::Choices;
use mlx5_test_driver::fuzz::targets::{Plan, Targets};
use mlx5_test_driver::fuzz::{Tally, exchange};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, Q_KEY, Request, service};
use mlx5_test_driver::region::{Region, Rights};
use vhost_nic::frame::view::FrameView;
use vhost_nic::net::Switch;
use vhost_nic::roce::headers::{Aeth, AtomicAckEth, AtomicEth, Bth, Deth, Headers, Ieth, ImmDt, Reth, XrcEth};
use vhost_nic::roce::icrc;
use vhost_nic::roce::opcode::{Extension, Opcode, Operation};
use vhost_nic::roce::psn::Psn;
use vhost_nic::roce::syndrome::Syndrome;

use crate::nic::machine;
use crate::raw_peer::RawPeer;

/// Maximum number of packets of a run.
const MAX_PACKETS: u64 = 400;
/// Bytes of each region.
const REGION: u64 = 1 << 16;
/// QP number of the peer.
const PEER: u32 = 0x77;
/// Bytes of the ICRC.
const ICRC: usize = 4;
/// Path MTU of the connections, in bytes.
const MTU: u32 = 1024;

/// BTH operation codes of messages of one packet: sends, writes, reads, atomics.
const WHOLE: [u8; 8] = [0x04, 0x05, 0x0a, 0x0b, 0x0c, 0x13, 0x14, 0x17];
/// Services of the queue pairs.
const SERVICES: [u8; 9] = [
    service::RC,
    service::RC,
    service::RC,
    service::UC,
    service::UD,
    service::XRC,
    service::XRC,
    service::GSI,
    service::RC,
];
/// The queue pair with a path of RoCE v1, a requester.
const V1: usize = 8;
/// The queue pair that stays in RTR.
const RECEIVE_ONLY: usize = 1;
/// The queue pair that receives from the RMP.
const POOLED: usize = 2;
/// The XRC initiator and the XRC target.
const INITIATOR: usize = 5;
const TARGET: usize = 6;
/// The requesters.
const REQUESTERS: [usize; 3] = [0, INITIATOR, 8];
const PLAN: Plan = Plan {
    services: &SERVICES,
    pooled: &[POOLED],
    xrc_target: TARGET,
    log_xrc_cq: 8,
    fast_register: false,
};

/// The guest under attack.
struct Victim {
    node: Node,
    targets: Targets,
    /// Memory that the peer may access.
    open: Region,
    /// Memory that it may not access.
    closed: Region,
    canary: Canary,
    tally: Tally,
}

impl Victim {
    fn new(switch: &Arc<Switch>, peer: &RawPeer) -> Self {
        let node = Node::open(machine(switch, 1), 1);
        let hca = &node.hca;
        let memory = Arc::clone(&hca.machine.memory);
        let mut canary = Canary::new();
        canary.add(&memory);
        let targets = Targets::create(&node, PLAN);
        canary.add(&memory);
        let open = node.region(REGION);
        canary.add(&memory);
        let closed = Region::create(hca, node.pd, REGION, Rights::READ_ONLY).unwrap();
        closed.write(0, &[0x77; REGION as usize]);
        canary.add(&memory);
        let mut victim = Self {
            node,
            targets,
            open,
            closed,
            canary,
            tally: Tally::default(),
        };
        (0..SERVICES.len()).for_each(|index| victim.connect(index, peer));
        victim
    }

    fn connect(&mut self, index: usize, peer: &RawPeer) {
        let how = Connection {
            ack_timeout: 0,
            v1: index == V1,
            ..Connection::default()
        };
        let qp = &mut self.targets.queue_pairs[index];
        qp.reset(&self.node).unwrap();
        qp.initialize(&self.node, &how).unwrap();
        qp.make_ready_to_receive(&self.node, (peer.mac, peer.gid), PEER, &how)
            .unwrap();
        if index != RECEIVE_ONLY {
            qp.make_ready_to_send(&self.node, &how).unwrap();
        }
    }

    fn receive(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let room = choices.one(&[0, 10, 100, MTU, 4 * MTU])?;
        let list = [(self.open.at(4096), room, self.open.key)];
        let targets = &mut self.targets;
        match choices.index(SERVICES.len() + 2)? {
            POOLED => _ = targets.rmp.post(&list),
            INITIATOR | TARGET => _ = targets.xrc_srq.post(&list),
            index if index < SERVICES.len() => _ = targets.queue_pairs[index].receive(&list),
            _ => _ = targets.xrc_srq.post(&list),
        }
        Some(())
    }

    /// Posts a request to the peer, whose responses are fuzzed as well.
    fn request(&mut self, choices: &mut Choices<'_>) -> Option<()> {
        let index = choices.one(&REQUESTERS)?;
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
        if SERVICES[index] == service::XRC {
            request.xrc_srqn = Some(5);
        }
        self.targets.queue_pairs[index].post(&request);
        Some(())
    }

    /// A valid packet, or nearly so.
    fn packet(&mut self, choices: &mut Choices<'_>, peer: &RawPeer) -> Option<Vec<u8>> {
        let index = choices.index(SERVICES.len())?;
        if self.targets.in_error(&self.node, index) && choices.byte()? < 200 {
            self.connect(index, peer);
        }
        let qp = &self.targets.queue_pairs[index];
        let transport = match SERVICES[index] {
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
            // The last PSN sent, or one shortly before.
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
            0..=239 if SERVICES[index] == service::GSI => 1,
            0..=239 => qp.number,
            _ => choices.one(&[0, 1, 0xff_ffff, self.targets.queue_pairs[0].number, PEER])?,
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
                    headers.xrc = Some(XrcEth::new(self.targets.xrc_srq_number(choices)?));
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
        let payload = vec![0xa5; payload as usize];
        // Mostly of the version of the connection.
        let other = choices.byte()? >= 240;
        Some(match (index == V1) != other {
            true => peer.v1_packet(&self.node, &headers, &payload),
            false => peer.packet(&self.node, &headers, &payload),
        })
    }

    /// Executes the step that the next bytes choose. `None` if too few are left.
    fn step(&mut self, choices: &mut Choices<'_>, peer: &RawPeer) -> Option<()> {
        match choices.byte()? {
            0..=169 => {
                let mut frame = self.packet(choices, peer)?;
                choices.damage(&mut frame)?;
                sign(&mut frame, peer);
                if choices.byte()? < 230 {
                    seal_again(&mut frame);
                }
                peer.send(&frame);
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
                sign(&mut frame, peer);
                peer.send(&frame);
                self.tally.made += 1;
                Some(())
            }
            180..=209 => self.receive(choices),
            210..=234 => self.request(choices),
            _ => {
                let index = choices.index(SERVICES.len())?;
                self.connect(index, peer);
                Some(())
            }
        }
    }

    /// Counts the responses since the last call.
    fn count(&mut self, peer: &RawPeer) {
        for answer in peer.packets() {
            let refused = answer
                .headers
                .aeth
                .is_some_and(|aeth| !matches!(Syndrome::from_byte(aeth.syndrome), Some(Syndrome::Ack { .. })));
            if refused {
                self.tally.refused += 1;
            } else if answer.opcode.is_response() {
                self.tally.succeeded += 1;
            }
        }
    }

    fn check(&self) {
        self.canary.check();
        assert!(self.closed.read(0, REGION as usize) == [0x77; REGION as usize]);
    }

    fn close(self) {
        let hca = Arc::clone(&self.node.hca);
        self.targets.destroy(&self.node);
        // The peer may have invalidated the key, which still exists.
        self.open.destroy(&hca).unwrap();
        self.closed.destroy(&hca).unwrap();
        drop(hca);
        self.node.close();
    }
}

/// Sets the source address of a frame: the switch learns from it, and with a forged one the peer would get the frames
/// of others.
fn sign(frame: &mut [u8], peer: &RawPeer) {
    if let Some(source) = frame.get_mut(6..12) {
        source.copy_from_slice(&peer.mac);
    }
}

/// Recomputes the ICRC of a frame, if it still is a packet.
fn seal_again(frame: &mut Vec<u8>) {
    let end = frame.len() - ICRC;
    let mut sealed = Vec::new();
    if FrameView::new(&frame[..end]).is_some_and(|view| icrc::append(&view, [], &mut sealed)) {
        *frame = sealed;
    }
}

/// Runs an input, and checks that only memory that the peer may write has changed.
pub fn run(input: &[u8]) -> Tally {
    let switch = Switch::new();
    let peer = RawPeer::new(&switch, 2);
    let bystander = Node::open(machine(&switch, 3), 3);
    let mut canary = Canary::new();
    canary.add(&bystander.hca.machine.memory);
    let mut victim = Victim::new(&switch, &peer);
    let mut choices = Choices::new(input);
    while victim.tally.made < MAX_PACKETS && victim.step(&mut choices, &peer).is_some() {
        victim.count(&peer);
        victim.targets.poll(|_| {});
    }
    exchange(&victim.node, &bystander);
    victim.count(&peer);
    victim.check();
    canary.check();
    let tally = victim.tally;
    victim.close();
    bystander.close();
    tally
}
