//! Every operation at every interesting length, byte for byte.

use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::{ControlSegment, WqeOpcode};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::region::Region;
use vhost_nic::net::Switch;

use crate::nic::machine;
use crate::pair::{Pair, pattern};

/// Lengths around every boundary.
fn lengths(mtu: usize) -> Vec<usize> {
    let mut lengths = vec![0, 1, 3, 31, 32, 33, 63, 64, 65];
    lengths.extend([mtu - 1, mtu, mtu + 1, 2 * mtu - 1, 2 * mtu, 2 * mtu + 1, 1 << 20]);
    lengths
}

/// Bytes before and after the data that must stay unchanged.
const MARGIN: u64 = 5000;

#[test]
fn sends_of_all_lengths_arrive_byte_for_byte() {
    let how = Connection::default();
    for service in [service::RC, service::UC] {
        let mut pair = Pair::new(Shape::new(service), &how);
        for (index, length) in lengths(how.mtu()).into_iter().enumerate() {
            let data = pattern(index as u64, length);
            let canvas = pattern(99, length + 2 * MARGIN as usize);
            pair.a.memory.write(11, &data);
            pair.b.memory.write(0, &canvas);
            let receive = pair.b.qp.receive(&[
                pair.b.part(MARGIN, length / 2),
                pair.b.part(MARGIN + length as u64 / 2, length - length / 2 + 1),
            ]);
            let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(11, length)));
            let cqe = pair.b.qp.received(CqeOpcode::ResponderSend, receive, length);
            assert_eq!(cqe.srqn_uidx.get(), 0x12_3456);
            pair.a.qp.sent(WqeOpcode::Send, send);
            let mut expected = canvas;
            expected[MARGIN as usize..][..length].copy_from_slice(&data);
            assert!(pair.b.memory.read(0, expected.len()) == expected, "{length} bytes");
        }
        pair.a.qp.silent();
        pair.b.qp.silent();
        pair.end();
    }
}

#[test]
fn writes_of_all_lengths_arrive_byte_for_byte_and_silently() {
    let how = Connection::default();
    for service in [service::RC, service::UC] {
        let mut pair = Pair::new(Shape::new(service), &how);
        for (index, length) in lengths(how.mtu()).into_iter().enumerate() {
            let data = pattern(index as u64, length);
            let canvas = pattern(99, length + 2 * MARGIN as usize);
            pair.a.memory.write(4095, &data);
            pair.b.memory.write(0, &canvas);
            let write = pair
                .a
                .qp
                .post(&pair.request(WqeOpcode::RdmaWrite, pair.a.data(4095, length), MARGIN));
            pair.a.qp.sent(WqeOpcode::RdmaWrite, write);
            let mut expected = canvas;
            expected[MARGIN as usize..][..length].copy_from_slice(&data);
            assert!(pair.b.memory.read(0, expected.len()) == expected, "{length} bytes");
            // With an immediate, a receive completes.
            let receive = pair.b.qp.receive(&[]);
            let mut request = pair.request(WqeOpcode::RdmaWriteImmediate, pair.a.data(4095, length), MARGIN + 1);
            request.immediate = 0xfeed_0000 + index as u32;
            request.flags |= ControlSegment::SOLICITED;
            let write = pair.a.qp.post(&request);
            let cqe = pair.b.qp.received(CqeOpcode::ResponderWriteImmediate, receive, length);
            assert_eq!(cqe.immediate.get(), 0xfeed_0000 + index as u32);
            pair.a.qp.sent(WqeOpcode::RdmaWriteImmediate, write);
            expected[MARGIN as usize + 1..][..length].copy_from_slice(&data);
            assert!(pair.b.memory.read(0, expected.len()) == expected, "{length} bytes");
        }
        pair.a.qp.silent();
        pair.b.qp.silent();
        pair.end();
    }
}

#[test]
fn reads_of_all_lengths_arrive_byte_for_byte() {
    let how = Connection::default();
    let mut pair = Pair::new(Shape::new(service::RC), &how);
    for (index, length) in lengths(how.mtu()).into_iter().enumerate() {
        let data = pattern(index as u64, length);
        let canvas = pattern(99, length + 2 * MARGIN as usize);
        pair.b.memory.write(4093, &data);
        pair.a.memory.write(0, &canvas);
        let parts = vec![
            Data::Memory(pair.a.part(MARGIN, length / 3)),
            Data::Memory(pair.a.part(MARGIN + length as u64 / 3, length - length / 3)),
        ];
        let read = pair.a.qp.post(&pair.request(WqeOpcode::RdmaRead, parts, 4093));
        let cqe = pair.a.qp.sent(WqeOpcode::RdmaRead, read);
        assert_eq!(cqe.byte_count.get() as usize, length);
        let mut expected = canvas;
        expected[MARGIN as usize..][..length].copy_from_slice(&data);
        assert!(pair.a.memory.read(0, expected.len()) == expected, "{length} bytes");
    }
    pair.a.qp.silent();
    pair.b.qp.silent();
    pair.end();
}

/// The longest message, and more packets in a row than fit into half the PSN space.
#[test]
fn a_message_has_up_to_two_gib() {
    const LONGEST: u64 = 1 << 31;
    const PAGE: u64 = 2 << 20;
    let switch = Switch::new();
    let nodes = [1, 2].map(|number| Node::open(machine(&switch, number), number));
    let [mut a, b] = nodes
        .each_ref()
        .map(|node| QueuePair::create(node, Shape::new(service::RC)).unwrap());
    connect((&nodes[0], &a), (&nodes[1], &b), &Connection::default());
    let [from, to] = nodes
        .each_ref()
        .map(|node| Region::of_one_page(&node.hca, node.pd, LONGEST + 1, PAGE).unwrap());
    let data = pattern(1, PAGE as usize);
    from.write(0, &data);
    // A data segment has 31 bits of length.
    let halves = |more: u32| {
        let half = LONGEST as u32 / 2;
        let parts = [
            (from.at(0), half, from.key),
            (from.at(half.into()), half + more, from.key),
        ];
        parts.map(Data::Memory).to_vec()
    };
    let opcodes = [WqeOpcode::RdmaWrite, WqeOpcode::RdmaRead].into_iter().cycle().take(10);
    let posted: Vec<_> = opcodes
        .map(|opcode| (opcode, a.put(&Request::remote(opcode, halves(0), to.at(0), to.key))))
        .collect();
    a.ring();
    for (opcode, counter) in posted {
        a.sent(opcode, counter);
        assert!(to.read(0, PAGE as usize) == data);
    }
    let long = a.post(&Request::remote(WqeOpcode::RdmaWrite, halves(1), to.at(0), to.key));
    assert_eq!(a.send_error(long), 0x01);
    for (node, (qp, region)) in nodes.into_iter().zip([(a, from), (b, to)]) {
        qp.destroy(&node).unwrap();
        region.destroy(&node.hca).unwrap();
        node.close();
    }
}
