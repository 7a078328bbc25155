//! Mistakes of RDMA programs, and the findings about them.

use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::{ControlSegment, WqeOpcode};
use mlx5_test_driver::domain::{alloc_pd, dealloc_pd};
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, connect, service};
use mlx5_test_driver::region::{Region, Rights};
use mlx5_test_driver::srq::Srq;
use mlx5_test_driver::wait::eventually;
use vhost_nic::hca::nic_finding::Finding;
use vhost_nic::net::Switch;
use zerocopy::IntoBytes;

use crate::found::{Found, found};
use crate::inspect::Inspect;
use crate::nic::{machine, machine_with};
use crate::pair::Pair;

/// Syndromes of completions.
const LOCAL_PROTECTION: u8 = 0x04;
const LOCAL_OPERATION: u8 = 0x02;
const REMOTE_ACCESS: u8 = 0x13;

fn pair() -> Pair {
    Pair::new(Shape::new(service::RC), &Connection::default())
}

#[track_caller]
fn expect(node: &Node, expected: &[Found]) {
    assert_eq!(found(&node.hca.machine), expected);
}

/// A range of a key in the form of a data segment.
fn segment(length: u32, key: u32, address: u64) -> Vec<u8> {
    [&length.to_be_bytes()[..], &key.to_be_bytes(), &address.to_be_bytes()].concat()
}

/// The doorbell of a WQE.
fn doorbell(opcode: WqeOpcode, index: u16, qp: &QueuePair) -> [u8; 8] {
    let mut control = ControlSegment::default();
    control.opmod_idx_opcode.set(u32::from(index) << 8 | opcode as u32);
    control.qpn_ds.set(qp.number << 8 | 1);
    *control.as_bytes().first_chunk().unwrap()
}

#[test]
fn messages_without_mistakes_are_no_findings() {
    let mut pair = pair();
    for opcode in [WqeOpcode::RdmaWrite, WqeOpcode::RdmaRead] {
        for _ in 0..300 {
            let index = pair.a.qp.post(&pair.request(opcode, pair.a.data(0, 5000), 0));
            pair.a.qp.sent(opcode, index);
        }
    }
    let receive = pair.b.qp.receive(&[pair.b.part(0, 100)]);
    let index = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, 100)));
    pair.a.qp.sent(WqeOpcode::Send, index);
    pair.b.qp.received(CqeOpcode::ResponderSend, receive, 100);
    let machines = [&pair.a, &pair.b].map(|end| end.node.hca.machine.clone());
    pair.end();
    for machine in machines {
        assert_eq!(found(&machine), []);
    }
}

#[test]
fn a_key_destroyed_under_a_read_is_stale() {
    // The key of the destination, and that of the source.
    for local in [true, false] {
        let mut pair = pair();
        let end = if local { &pair.a } else { &pair.b };
        let region = end.node.region(4096);
        let (hca, address, key) = (end.node.hca.clone(), region.at(8), region.key);
        let request = match local {
            true => pair.request(WqeOpcode::RdmaRead, vec![Data::Memory((address, 100, key))], 0),
            false => Request::remote(WqeOpcode::RdmaRead, pair.a.data(0, 100), address, key),
        };
        let read = pair.a.qp.put(&request);
        region.destroy(&hca).unwrap();
        drop(hca);
        pair.a.qp.ring();
        let syndrome = if local { LOCAL_PROTECTION } else { REMOTE_ACCESS };
        assert_eq!(pair.a.qp.send_error(read), syndrome);
        let end = if local { &pair.a } else { &pair.b };
        let evidence = segment(100, key, address);
        expect(
            &end.node,
            &[Found::new(Finding::StaleKey, "mkey", key.into(), &evidence)],
        );
        pair.end();
    }
}

#[test]
fn keys_of_other_kinds_are_told_apart() {
    for kind in [Finding::UnknownKey, Finding::WrongPd, Finding::KeyViolation] {
        let mut pair = pair();
        let hca = &pair.b.node.hca;
        let other_pd = alloc_pd(hca).unwrap();
        let pd = if kind == Finding::WrongPd {
            other_pd
        } else {
            pair.b.node.pd
        };
        let rights = match kind {
            Finding::KeyViolation => Rights::READ_ONLY,
            _ => Rights::ALL,
        };
        let target = Region::create(hca, pd, 4096, rights).unwrap();
        let key = if kind == Finding::UnknownKey {
            target.key ^ 1
        } else {
            target.key
        };
        let request = Request::remote(WqeOpcode::RdmaWrite, pair.a.data(0, 8), target.start, key);
        let bad = pair.a.qp.post(&request);
        assert_eq!(pair.a.qp.send_error(bad), REMOTE_ACCESS);
        let evidence = segment(8, key, target.start);
        expect(&pair.b.node, &[Found::new(kind, "mkey", key.into(), &evidence)]);
        expect(&pair.a.node, &[]);
        target.destroy(&pair.b.node.hca).unwrap();
        dealloc_pd(&pair.b.node.hca, other_pd).unwrap();
        pair.end();
    }
}

#[test]
fn memory_that_was_unmapped_is_told_from_memory_that_never_was() {
    let mut pair = pair();
    let machine = pair.b.node.hca.machine.clone();
    let page = pair.b.memory.pages()[0];
    machine.function().dma().unmap(page, 4096).unwrap();
    let bad = pair
        .a
        .qp
        .post(&pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 16));
    assert_eq!(pair.a.qp.send_error(bad), 0x14, "remote operation");
    let evidence = (page + 16).to_be_bytes();
    let number = pair.b.qp.number.into();
    expect(
        &pair.b.node,
        &[Found::new(Finding::DmaAfterUnmap, "queue", number, &evidence)],
    );
    machine.function().dma().unmap_all();
    machine.map();
    pair.end();
}

#[test]
fn a_doorbell_before_record_and_wqe_is_found_when_it_rings() {
    let mut pair = pair();
    let qp = &pair.a.qp;
    let value = doorbell(WqeOpcode::RdmaWrite, 0, qp);
    qp.ring_value(value);
    let number = qp.number.into();
    let record = [&value[..], &[0, 0]].concat();
    let wqe = [&value[..], &[0; 16]].concat();
    let behind = Found::new(Finding::DoorbellRecordBehind, "queue", number, &record);
    let before = Found::new(Finding::DoorbellBeforeWqe, "queue", number, &wqe);
    expect(&pair.a.node, &[behind, before]);
    // In time after all.
    let index = pair
        .a
        .qp
        .post(&pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0));
    pair.a.qp.sent(WqeOpcode::RdmaWrite, index);
    pair.end();
}

#[test]
fn a_wqe_that_was_never_written_is_stale() {
    let mut pair = pair();
    let good = pair
        .a
        .qp
        .post(&pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0));
    pair.a.qp.sent(WqeOpcode::RdmaWrite, good);
    // The ring is blank there.
    pair.a.qp.put_again(1);
    pair.a.qp.publish();
    let value = doorbell(WqeOpcode::RdmaWrite, 1, &pair.a.qp);
    pair.a.qp.ring_value(value);
    assert_eq!(pair.a.qp.send_error(1), LOCAL_OPERATION);
    let number = pair.a.qp.number.into();
    let blank = [0; 16];
    expect(
        &pair.a.node,
        &[
            Found::new(
                Finding::DoorbellBeforeWqe,
                "queue",
                number,
                &[&value[..], &blank].concat(),
            ),
            Found::new(Finding::StaleWqe, "queue", number, &blank),
            Found::new(Finding::BadSendWqe, "queue", number, &blank),
        ],
    );
    pair.end();
}

#[test]
fn a_second_doorbell_for_a_wqe_is_suspicious() {
    let mut pair = pair();
    let index = pair
        .a
        .qp
        .post(&pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 8), 0));
    pair.a.qp.sent(WqeOpcode::RdmaWrite, index);
    pair.a.qp.ring();
    let [found] = &found(&pair.a.node.hca.machine)[..] else {
        panic!("one finding");
    };
    let value = &found.evidence;
    assert_eq!(value[..4], [0, 0, 0, WqeOpcode::RdmaWrite as u8]);
    let expected = Found::new(Finding::DoorbellWithoutWqe, "queue", pair.a.qp.number.into(), value);
    assert_eq!(*found, expected);
    pair.end();
}

#[test]
fn a_producer_index_beyond_the_ring_is_an_overrun() {
    let mut pair = pair();
    // 257 blocks in a ring of 256.
    pair.a.qp.set_records(0, 257);
    let nop = doorbell(WqeOpcode::Nop, 0, &pair.a.qp);
    let mut wqe = [0; 64];
    wqe[..8].copy_from_slice(&nop);
    pair.a.qp.put_bytes(&wqe);
    pair.a.qp.ring_value(nop);
    // The blocks behind the first are blank.
    pair.a.qp.send_error(1);
    let number = pair.a.qp.number.into();
    let overrun = Found::new(Finding::QueueOverrun, "queue", number, &[1, 1, 0, 0]);
    assert!(found(&pair.a.node.hca.machine).contains(&overrun));
    pair.a.qp.set_records(0, 0);
    pair.end();
}

#[test]
fn a_producer_index_beyond_a_receive_queue_is_an_overrun() {
    let mut pair = pair();
    let receive = pair.b.qp.receive(&[pair.b.part(0, 100)]);
    // 257 WQEs in a ring of 256.
    pair.b.qp.set_records(257, 0);
    let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, 100)));
    pair.b.qp.received(CqeOpcode::ResponderSend, receive, 100);
    pair.a.qp.sent(WqeOpcode::Send, send);
    let number = pair.b.qp.number.into();
    expect(
        &pair.b.node,
        &[Found::new(Finding::QueueOverrun, "queue", number, &[1, 1, 0, 0])],
    );
    pair.b.qp.set_records(1, 0);
    pair.end();
}

#[test]
fn a_producer_index_beyond_a_shared_receive_queue_is_an_overrun() {
    let Pair { mut a, b, wire } = pair();
    let mut pool = Srq::rmp(&b.node.hca, b.node.pd, 4).unwrap();
    let shape = Shape {
        srq: Some(pool.number),
        ..Shape::new(service::RC)
    };
    let mut target = QueuePair::create(&b.node, shape).unwrap();
    let mut other = QueuePair::create(&a.node, Shape::new(service::RC)).unwrap();
    connect((&a.node, &other), (&b.node, &target), &Connection::default());
    // One more than the list has.
    let posted = [(); 17].map(|()| pool.post(&[b.part(0, 100)]));
    for (index, findings) in posted.iter().zip([1, 1]) {
        let send = other.post(&Request::new(WqeOpcode::Send, a.data(0, 100)));
        target.received(CqeOpcode::ResponderSend, *index, 100);
        other.sent(WqeOpcode::Send, send);
        assert_eq!(found(&b.node.hca.machine).len(), findings);
    }
    let number = pool.number.into();
    expect(
        &b.node,
        &[Found::new(Finding::QueueOverrun, "queue", number, &[0, 17, 0, 0])],
    );
    other.destroy(&a.node).unwrap();
    target.destroy(&b.node).unwrap();
    pool.destroy(&b.node.hca).unwrap();
    a.qp.silent();
    Pair { a, b, wire }.end();
}

#[test]
fn a_wqe_that_changes_before_its_completion_is_found_if_asked_for() {
    for check_wqes in [true, false] {
        let switch = Switch::new();
        let machine_of = |number| machine_with(&switch, number, |config| config.check_wqes = check_wqes);
        let (a, b) = (Node::open(machine_of(1), 1), Node::open(machine_of(2), 2));
        // A ring of one block: the next WQE is written over the first.
        let shape = Shape {
            log_sq: 0,
            ..Shape::new(service::RC)
        };
        let mut sender = QueuePair::create(&a, shape).unwrap();
        let mut receiver = QueuePair::create(&b, Shape::new(service::RC)).unwrap();
        connect((&a, &sender), (&b, &receiver), &Connection::default());
        let (from, to) = (a.region(4096), b.region(4096));
        let index = sender.post(&Request::new(
            WqeOpcode::Send,
            vec![Data::Memory((from.start, 100, from.key))],
        ));
        // Refused until a receive is posted: the WQE has been read by then.
        eventually("an RNR NAK", || b.hca.machine.nic().snapshot().port.received > 0);
        let next = sender.wqe(&Request::new(
            WqeOpcode::Send,
            vec![Data::Memory((from.start, 99, from.key))],
        ));
        sender.put_bytes(&next);
        receiver.receive(&[(to.start, 100, to.key)]);
        sender.sent(WqeOpcode::Send, index);
        let number = sender.number.into();
        let expected = Found::new(Finding::WqeChanged, "queue", number, &next);
        expect(
            &a,
            if check_wqes {
                std::slice::from_ref(&expected)
            } else {
                &[]
            },
        );
        sender.destroy(&a).unwrap();
        receiver.destroy(&b).unwrap();
        from.destroy(&a.hca).unwrap();
        to.destroy(&b.hca).unwrap();
        a.close();
        b.close();
    }
}

#[test]
fn a_queue_pair_destroyed_with_work_in_flight_is_suspicious() {
    let mut pair = pair();
    // No receive is posted.
    let request = Request::new(WqeOpcode::Send, pair.a.data(0, 100));
    let wqe = pair.a.qp.wqe(&request);
    pair.a.qp.post(&request);
    let machine = pair.a.node.hca.machine.clone();
    let number = pair.a.qp.number.into();
    pair.end();
    assert_eq!(
        found(&machine),
        [Found::new(Finding::QpInFlight, "queue", number, &wqe[..16])]
    );
}

#[test]
fn completions_and_events_that_nobody_reads_are_suspicious() {
    let machine = machine(&Switch::new(), 1);
    let node = Node::open(machine, 1);
    let machine = node.hca.machine.clone();
    let mut qp = QueuePair::create(&node, Shape::new(service::RC)).unwrap();
    // With itself.
    let how = Connection {
        psn: (5, 5),
        ..Connection::default()
    };
    qp.connect(&node, &node, qp.number, &how).unwrap();
    let memory = node.region(4096);
    qp.send_cq.arm(&node.hca, false);
    let data = vec![Data::Memory((memory.start, 8, memory.key))];
    qp.post(&Request::remote(WqeOpcode::RdmaWrite, data, memory.at(8), memory.key));
    eventually("a completion", || machine.nic().snapshot().completions.plain > 0);
    // The event follows the completion.
    qp.send_cq.event();
    let cq = qp.send_cq.number.into();
    qp.destroy(&node).unwrap();
    memory.destroy(&node.hca).unwrap();
    node.close();
    let ahead = [0, 0, 0, 1, 0, 0, 0, 0];
    let expected = [
        Found::new(Finding::CqNotRearmed, "cq", cq, &ahead),
        // The driver has three of its own.
        Found::new(Finding::EqNotRearmed, "eq", 4, &ahead),
    ];
    assert_eq!(found(&machine), expected);
}
