//! A program that writes to the doorbell registers of its own UAR page, for queues of others.

use std::time::Duration;

use mlx5_prm::command::Status;
use mlx5_prm::opcode::Opcode;
use mlx5_prm::qp::{CreateQpIn, CreateQpOut, DestroyQpIn, DestroyQpOut};
use mlx5_prm::wqe::{SEND_WQE_BB, WqeOpcode};
use mlx5_test_driver::hca::{alloc_uar, dealloc_uar};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::region::Region;
use mlx5_test_driver::wait::eventually;
use vhost_nic::net::Switch;

use crate::inspect::Inspect;
use crate::nic::machine_with;

/// Registers of a UAR page.
const CQ_ARM: u64 = 0x20;
const EQ_ARM: u64 = 0x40;
const EQ_UPDATE: u64 = 0x48;
const DOORBELL: u64 = 0x800;
/// `st` of a CQ that is not armed.
const FIRED: u8 = 0xa;

/// A guest with a victim's connected queue pair, and the page of another program.
struct Guest {
    node: Node,
    victim: QueuePair,
    peer: QueuePair,
    memory: Region,
    /// BAR offset of the other page, and its number.
    page: u64,
    uar: u32,
}

impl Guest {
    fn new(blue_flame: Option<Duration>) -> Self {
        let machine = machine_with(&Switch::new(), 1, |config| config.blue_flame = blue_flame);
        let node = Node::open(machine, 1);
        let qp = || QueuePair::create(&node, Shape::new(service::RC)).unwrap();
        let (victim, peer) = (qp(), qp());
        connect((&node, &victim), (&node, &peer), &Connection::default());
        let memory = node.region(4096);
        let uar = alloc_uar(&node.hca.commands).unwrap();
        Self {
            node,
            victim,
            peer,
            memory,
            page: u64::from(uar) * 4096,
            uar,
        }
    }

    /// An inline RDMA write of eight bytes.
    fn write(&self, byte: u8) -> Request {
        let (address, key) = (self.memory.at(0), self.memory.key);
        Request::remote(WqeOpcode::RdmaWrite, vec![Data::Inline(vec![byte; 8])], address, key)
    }

    fn strays(&self) -> u64 {
        let errors = self.node.hca.machine.nic().snapshot().guest_errors;
        errors.get("stray_doorbell").copied().unwrap_or(0)
    }

    fn close(self) {
        self.victim.destroy(&self.node).unwrap();
        self.peer.destroy(&self.node).unwrap();
        self.memory.destroy(&self.node.hca).unwrap();
        dealloc_uar(&self.node.hca.commands, self.uar).unwrap();
        self.node.close();
    }
}

#[test]
fn a_wqe_through_somebody_elses_page_is_not_carried_out() {
    let mut guest = Guest::new(Some(Duration::from_secs(1 << 20)));
    let machine = guest.node.hca.machine.clone();
    let good = guest.victim.wqe(&guest.write(b'A'));
    let mut evil = guest.victim.wqe(&guest.write(b'E'));
    evil.resize(SEND_WQE_BB, 0);
    let counter = guest.victim.put_bytes(&good);
    guest.victim.publish();
    machine.device().bar_write(guest.page + DOORBELL, &evil);
    assert_eq!(guest.strays(), 1);
    guest.victim.ring();
    guest.victim.sent(WqeOpcode::RdmaWrite, counter);
    assert_eq!(guest.memory.read(0, 8), [b'A'; 8]);
    assert_eq!(machine.nic().snapshot().blue_flame_wqes, 0);
    guest.close();
}

#[test]
fn the_rest_of_a_torn_wqe_in_somebody_elses_page_is_not_waited_for() {
    let mut guest = Guest::new(Some(Duration::from_millis(1)));
    let machine = guest.node.hca.machine.clone();
    let mut evil = guest.victim.wqe(&guest.write(b'E'));
    evil.resize(SEND_WQE_BB, 0);
    // The page is known for whole WQEs; the second one stays incomplete.
    machine.device().bar_write(guest.page + DOORBELL, &evil);
    machine.device().bar_write(guest.page + DOORBELL, &evil[..8]);
    eventually("the deadline", || guest.strays() == 2);
    let counter = guest.victim.post(&guest.write(b'A'));
    guest.victim.sent(WqeOpcode::RdmaWrite, counter);
    assert_eq!(guest.strays(), 2);
    guest.close();
}

#[test]
fn a_doorbell_in_somebody_elses_page_is_a_stray_one() {
    let mut guest = Guest::new(None);
    let machine = guest.node.hca.machine.clone();
    let mut doorbell = [0; 8];
    doorbell[4..7].copy_from_slice(&guest.victim.number.to_be_bytes()[1..]);
    machine.write_pair(guest.page + DOORBELL, doorbell);
    assert_eq!(guest.strays(), 1);
    let counter = guest.victim.post(&guest.write(b'A'));
    guest.victim.sent(WqeOpcode::RdmaWrite, counter);
    assert_eq!(guest.strays(), 1);
    guest.close();
}

#[test]
fn a_cq_is_not_armed_through_somebody_elses_page() {
    let guest = Guest::new(None);
    let machine = guest.node.hca.machine.clone();
    let mut doorbell = [0; 8];
    doorbell[4..].copy_from_slice(&guest.victim.send_cq.number.to_be_bytes());
    machine.write_pair(guest.page + CQ_ARM, doorbell);
    assert_eq!(guest.victim.send_cq.query(&guest.node.hca).unwrap().st(), FIRED);
    assert_eq!(guest.strays(), 1);
    guest.close();
}

#[test]
fn an_event_queue_of_the_kernel_is_not_updated_through_a_programs_page() {
    let guest = Guest::new(None);
    let machine = guest.node.hca.machine.clone();
    let errors = |kind| machine.nic().snapshot().guest_errors.get(kind).copied();
    // Every event queue would be full, the one of commands included.
    for number in 1..=4_u32 {
        for register in [EQ_ARM, EQ_UPDATE] {
            machine.write(guest.page + register, number << 24 | 0x80_0000);
        }
    }
    assert_eq!(guest.strays(), 8);
    let uar = alloc_uar(&guest.node.hca.commands).unwrap();
    dealloc_uar(&guest.node.hca.commands, uar).unwrap();
    assert_eq!(errors("eq_overrun"), None);
    guest.close();
}

#[test]
fn a_queue_pair_holds_its_page() {
    let guest = Guest::new(None);
    let commands = &guest.node.hca.commands;
    let create = |uar| {
        let mut input = CreateQpIn::default();
        let context = input.qpc_mut();
        context.set_st(service::RC);
        context.set_pd(guest.node.pd);
        context.set_uar_page(uar);
        context.set_cqn_snd(guest.victim.send_cq.number);
        context.set_cqn_rcv(guest.victim.receive_cq.number);
        context.set_rq_type(3);
        let page = guest.memory.pages()[0].to_be_bytes();
        commands
            .call_with::<_, CreateQpOut>(Opcode::CREATE_QP, 0, &input, &page, 0)
            .map(|(output, _)| output.qpn())
    };
    assert!(create(guest.uar + 1).unwrap_err().is(Status::BadResource));
    let number = create(guest.uar).unwrap();
    assert!(
        dealloc_uar(commands, guest.uar)
            .unwrap_err()
            .is(Status::BadResourceState)
    );
    let mut input = DestroyQpIn::default();
    input.set_qpn(number);
    commands.call::<_, DestroyQpOut>(Opcode::DESTROY_QP, &input).unwrap();
    guest.close();
}
