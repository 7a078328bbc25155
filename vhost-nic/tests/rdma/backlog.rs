//! RDMA through keys whose many short ranges take many steps: it waits for the thread of the guest that made them. The
//! NICs of these tests have no threads, so that turns can be counted.

use std::sync::Arc;

use mlx5_prm::mkey::{CreateMkeyIn, CreateMkeyOut};
use mlx5_prm::opcode::Opcode;
use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::machine::Machine;
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::region::Region;
use vhost_nic::net::Switch;
use vhost_nic::nic::{Nic, PortSnapshot};
use vhost_nic::pci::{FunctionConfig, FunctionParts, Identity, PciFunction};

use crate::inspect::Inspect;
use crate::nic::{NicFunction, VECTORS, config};

/// Bytes of a message, and of each range of a key: more ranges than a delivery has steps for, and fewer than the device
/// refuses.
const LENGTH: usize = 8192;
const RANGE: usize = 17;
/// `MLX5_MKC_ACCESS_MODE_KLMS`.
const KLM: u8 = 2;
const VARIANT: u8 = 0x3c;

/// Two guests with connected queue pairs, and a region each.
struct Pair {
    nodes: [Node; 2],
    qps: [QueuePair; 2],
    regions: [Region; 2],
}

fn machine(switch: &Arc<Switch>, number: u8) -> Machine {
    let (config, parts) = (config(number), FunctionParts::new(VECTORS));
    let nic = Nic::without_thread(&config, &parts).unwrap();
    nic.connect(switch);
    let (identity, mac) = (Identity::default(), config.mac);
    let function = Arc::new(PciFunction::new(FunctionConfig { identity, mac }, parts, nic.clone()));
    Machine::new(Arc::new(NicFunction { nic, function }), mac.0)
}

fn pattern(seed: usize) -> Vec<u8> {
    (0..LENGTH).map(|at| (at * 7 + at / 251 + seed) as u8).collect()
}

impl Pair {
    fn new(service: u8) -> Self {
        let switch = Switch::new();
        let nodes = [1, 2].map(|number| Node::open(machine(&switch, number), number));
        let qps = nodes
            .each_ref()
            .map(|node| QueuePair::create(node, Shape::new(service)).unwrap());
        let how = Connection {
            // No timer: a turn that is late would be another one.
            ack_timeout: 0,
            ..Connection::default()
        };
        connect((&nodes[0], &qps[0]), (&nodes[1], &qps[1]), &how);
        let regions = nodes.each_ref().map(|node| node.region(LENGTH as u64));
        let pair = Self { nodes, qps, regions };
        // Queue pairs that are ready to send look for WQEs.
        [0, 1].iter().for_each(|side| pair.step(*side));
        pair
    }

    /// Creates a key for the region of a guest, in short ranges.
    fn in_ranges(&self, side: usize) -> u32 {
        let (node, region) = (&self.nodes[side], &self.regions[side]);
        let list: Vec<u8> = (0..LENGTH)
            .step_by(RANGE)
            .flat_map(|at| {
                let length = RANGE.min(LENGTH - at) as u32;
                let mut entry = [0; 16];
                entry[..4].copy_from_slice(&length.to_be_bytes());
                entry[4..8].copy_from_slice(&region.key.to_be_bytes());
                entry[8..].copy_from_slice(&region.at(at as u64).to_be_bytes());
                entry
            })
            .collect();
        let octwords = (list.len() / 16) as u32;
        let mut input = CreateMkeyIn::default();
        input.set_translations_octword_actual_size(octwords);
        let context = input.memory_key_mkey_entry_mut();
        context.set_access_mode_1_0(KLM);
        context.set_lr(true);
        context.set_lw(true);
        context.set_rr(true);
        context.set_rw(true);
        context.set_pd(node.pd);
        context.set_qpn(0xff_ffff);
        context.set_mkey_7_0(VARIANT);
        context.set_len(LENGTH as u64);
        context.set_translations_octword_size(octwords);
        let commands = &node.hca.commands;
        let (output, _): (CreateMkeyOut, _) = commands.call_with(Opcode::CREATE_MKEY, 0, &input, &list, 0).unwrap();
        output.mkey_index() << 8 | u32::from(VARIANT)
    }

    fn local(&self) -> Vec<Data> {
        let own = &self.regions[0];
        vec![Data::Memory((own.at(0), LENGTH as u32, own.key))]
    }

    fn step(&self, side: usize) {
        self.nodes[side].hca.machine.nic().step();
    }

    fn port(&self, side: usize) -> PortSnapshot {
        self.nodes[side].hca.machine.nic().summary().port
    }

    /// Has the requester's NIC take a turn, in which the message does not end, then that of `side`, in which it does.
    #[track_caller]
    fn waits_for(&mut self, side: usize) {
        self.step(0);
        assert!(!self.qps[0].send_cq.has_more(), "it is over in a turn of its sender");
        let (packets, waiting) = (self.port(side).received, self.port(side).backlogged);
        assert!((1..=packets).contains(&waiting), "{waiting} of {packets} wait");
        assert_eq!(self.port(1 - side).backlogged, 0);
        self.step(side);
        let PortSnapshot {
            received,
            backlogged,
            backlog_dropped,
            ..
        } = self.port(side);
        assert_eq!((received, backlogged, backlog_dropped), (packets, waiting, 0));
    }
}

#[test]
fn a_write_waits_for_the_thread_of_its_receiver() {
    let mut pair = Pair::new(service::RC);
    let (key, data) = (pair.in_ranges(1), pattern(1));
    pair.regions[0].write(0, &data);
    let counter = pair.qps[0].post(&Request::remote(WqeOpcode::RdmaWrite, pair.local(), 0, key));
    pair.waits_for(1);
    pair.qps[0].sent(WqeOpcode::RdmaWrite, counter);
    assert!(pair.regions[1].read(0, LENGTH) == data);
}

#[test]
fn a_read_waits_for_the_thread_of_the_guest_that_is_read() {
    let mut pair = Pair::new(service::RC);
    let (key, data) = (pair.in_ranges(1), pattern(2));
    pair.regions[1].write(0, &data);
    let counter = pair.qps[0].post(&Request::remote(WqeOpcode::RdmaRead, pair.local(), 0, key));
    pair.waits_for(1);
    pair.qps[0].sent(WqeOpcode::RdmaRead, counter);
    assert!(pair.regions[0].read(0, LENGTH) == data);
}

#[test]
fn the_response_to_a_read_waits_for_the_thread_of_its_requester() {
    let mut pair = Pair::new(service::RC);
    let (key, data) = (pair.in_ranges(0), pattern(3));
    pair.regions[1].write(0, &data);
    let into = vec![Data::Memory((0, LENGTH as u32, key))];
    let peer = &pair.regions[1];
    let request = Request::remote(WqeOpcode::RdmaRead, into, peer.at(0), peer.key);
    let counter = pair.qps[0].post(&request);
    pair.waits_for(0);
    pair.qps[0].sent(WqeOpcode::RdmaRead, counter);
    assert!(pair.regions[0].read(0, LENGTH) == data);
}

#[test]
fn a_send_waits_for_the_thread_of_its_receiver() {
    let mut pair = Pair::new(service::RC);
    let (key, data) = (pair.in_ranges(1), pattern(4));
    pair.regions[0].write(0, &data);
    let posted = pair.qps[1].receive(&[(0, LENGTH as u32, key)]);
    let spare = pair.qps[1].receive(&[(0, LENGTH as u32, key)]);
    let request = Request::new(WqeOpcode::Send, pair.local());
    let counter = pair.qps[0].post(&request);
    pair.waits_for(1);
    pair.qps[0].sent(WqeOpcode::Send, counter);
    pair.qps[1].received(CqeOpcode::ResponderSend, posted, LENGTH);
    assert!(pair.regions[1].read(0, LENGTH) == data);
    // One WQE was taken, once.
    let counter = pair.qps[0].post(&request);
    pair.step(0);
    pair.step(1);
    pair.qps[0].sent(WqeOpcode::Send, counter);
    pair.qps[1].received(CqeOpcode::ResponderSend, spare, LENGTH);
}

#[test]
fn an_unreliable_write_waits_for_the_thread_of_its_receiver() {
    let mut pair = Pair::new(service::UC);
    let (key, data) = (pair.in_ranges(1), pattern(5));
    pair.regions[0].write(0, &data);
    let counter = pair.qps[0].post(&Request::remote(WqeOpcode::RdmaWrite, pair.local(), 0, key));
    pair.step(0);
    // It is complete when it has left.
    pair.qps[0].sent(WqeOpcode::RdmaWrite, counter);
    assert!(pair.regions[1].read(0, LENGTH) != data);
    pair.step(1);
    assert!(pair.regions[1].read(0, LENGTH) == data);
}
