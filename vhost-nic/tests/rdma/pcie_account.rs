//! The PCIe account of queue pairs: transactions of each way to post a message (`docs/pcie-account.md`).

use std::time::Duration;

use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::node::Node;
use mlx5_test_driver::qp::{Connection, Data, QueuePair, Request, Shape, address, connect, service};
use vhost_nic::hca::pcie_account::{PcieAccount, Transactions};
use vhost_nic::net::Switch;

use crate::inspect::Inspect;
use crate::nic::machine_with;
use crate::pair::{End, Pair};

/// Messages of a measurement.
const N: u16 = 16;
/// Time limit for BlueFlame that the driver meets on a busy machine, too.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);

/// Transactions of `bytes` each.
fn each(count: u64, bytes: u64) -> Transactions {
    Transactions {
        count,
        bytes: count * bytes,
    }
}

fn account(node: &Node) -> PcieAccount {
    node.hca.machine.nic().snapshot().pcie
}

/// Returns the transactions of two guests since an earlier account of each.
fn since(before: [PcieAccount; 2], nodes: [&Node; 2]) -> [PcieAccount; 2] {
    let now = nodes.map(account);
    [0, 1].map(|guest| difference(now[guest], before[guest]))
}

/// Subtracts an earlier account.
fn difference(now: PcieAccount, before: PcieAccount) -> PcieAccount {
    let minus = |now: Transactions, before: Transactions| Transactions {
        count: now.count - before.count,
        bytes: now.bytes - before.bytes,
    };
    PcieAccount {
        doorbells: minus(now.doorbells, before.doorbells),
        blue_flame: minus(now.blue_flame, before.blue_flame),
        cq_doorbells: minus(now.cq_doorbells, before.cq_doorbells),
        eq_doorbells: minus(now.eq_doorbells, before.eq_doorbells),
        send_wqe_reads: minus(now.send_wqe_reads, before.send_wqe_reads),
        receive_wqe_reads: minus(now.receive_wqe_reads, before.receive_wqe_reads),
        payload_reads: minus(now.payload_reads, before.payload_reads),
        payload_writes: minus(now.payload_writes, before.payload_writes),
        cqe_writes: minus(now.cqe_writes, before.cqe_writes),
        eqe_writes: minus(now.eqe_writes, before.eqe_writes),
        interrupts: minus(now.interrupts, before.interrupts),
    }
}

/// Requester and responder while messages are posted, and the account of both.
fn measure(pair: &mut Pair, act: impl FnOnce(&mut Pair)) -> [PcieAccount; 2] {
    let before = [&pair.a, &pair.b].map(|end: &End| account(&end.node));
    act(pair);
    since(before, [&pair.a.node, &pair.b.node])
}

/// Posts requests, each with a doorbell of its own, and waits for the completion of each.
fn post_each(pair: &mut Pair, request: &Request) {
    for _ in 0..N {
        let counter = pair.a.qp.post(request);
        pair.a.qp.sent(request.opcode, counter);
    }
}

fn inline(length: usize) -> Vec<Data> {
    vec![Data::Inline(vec![0x5a; length])]
}

/// Transactions of requests that each have a doorbell and a CQE, and a WQE of one basic block.
fn posted() -> PcieAccount {
    PcieAccount {
        doorbells: each(N.into(), 8),
        send_wqe_reads: each(N.into(), 64),
        cqe_writes: each(N.into(), 64),
        ..PcieAccount::default()
    }
}

#[test]
fn a_plain_write_is_two_reads_and_an_inline_one_is_one() {
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    let received = PcieAccount {
        payload_writes: each(N.into(), 28),
        ..PcieAccount::default()
    };
    let plain = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 28), 0);
    let measured = measure(&mut pair, |pair| post_each(pair, &plain));
    let sent = PcieAccount {
        payload_reads: each(N.into(), 28),
        ..posted()
    };
    assert_eq!(measured, [sent, received]);
    let inline = pair.request(WqeOpcode::RdmaWrite, inline(28), 0);
    let measured = measure(&mut pair, |pair| post_each(pair, &inline));
    assert_eq!(measured, [posted(), received]);
    pair.end();
}

#[test]
fn a_list_has_one_doorbell_and_one_fetch() {
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    let rows = [
        (pair.a.data(0, 28), 1, each(N.into(), 28)),
        (inline(28), 1, each(0, 28)),
        (inline(28), N, each(0, 28)),
    ];
    for (data, signaled, payload_reads) in rows {
        let request = pair.request(WqeOpcode::RdmaWrite, data, 0);
        let silent = Request {
            flags: 0,
            ..request.clone()
        };
        let [sent, _] = measure(&mut pair, |pair| {
            let counters: Vec<u16> = (1..=N)
                .filter_map(|at| match at.is_multiple_of(signaled) {
                    true => Some(pair.a.qp.put(&request)),
                    false => {
                        pair.a.qp.put(&silent);
                        None
                    }
                })
                .collect();
            pair.a.qp.ring();
            for counter in counters {
                pair.a.qp.sent(request.opcode, counter);
            }
        });
        let expected = PcieAccount {
            doorbells: each(1, 8),
            send_wqe_reads: each(1, u64::from(N) * 64),
            payload_reads,
            cqe_writes: each((N / signaled).into(), 64),
            ..PcieAccount::default()
        };
        assert_eq!(sent, expected, "one in {signaled} signaled");
    }
    pair.end();
}

#[test]
fn unsignaled_requests_have_no_completion() {
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    let signaled = pair.request(WqeOpcode::RdmaWrite, inline(28), 0);
    let silent = Request {
        flags: 0,
        ..signaled.clone()
    };
    let [sent, _] = measure(&mut pair, |pair| {
        for _ in 1..N {
            pair.a.qp.post(&silent);
        }
        let last = pair.a.qp.post(&signaled);
        pair.a.qp.sent(signaled.opcode, last);
    });
    let expected = PcieAccount {
        cqe_writes: each(1, 64),
        ..posted()
    };
    assert_eq!(sent, expected);
    pair.end();
}

#[test]
fn a_wqe_in_a_register_is_not_read() {
    let machine = machine_with(&Switch::new(), 1, |config| config.blue_flame = Some(FOR_EVER));
    let node = Node::open(machine, 1);
    let qp = || QueuePair::create(&node, Shape::new(service::RC)).unwrap();
    let (mut a, b) = (qp(), qp());
    connect((&node, &a), (&node, &b), &Connection::default());
    let memory = node.region(4096);
    let mut post = |data: Vec<Data>, half: u64| {
        let request = Request::remote(WqeOpcode::RdmaWrite, data, memory.at(0), memory.key);
        let wqe = a.wqe(&request);
        let counter = a.put_bytes(&wqe);
        a.ring_with(half, &wqe);
        a.sent(WqeOpcode::RdmaWrite, counter);
    };
    let first = account(&node);
    // The first copy to each half register is taken for a doorbell.
    [0, 1].into_iter().for_each(|half| post(inline(28), half));
    let before = account(&node);
    let begun = difference(before, first);
    assert_eq!(
        (begun.doorbells, begun.blue_flame, begun.send_wqe_reads),
        (each(2, 8), each(0, 64), each(2, 64))
    );
    // WQEs of one and of two basic blocks, and one whose data are in memory.
    let plain = vec![Data::Memory((memory.at(100), 28, memory.key))];
    for (data, length, blocks, reads) in [(inline(28), 28, 1, 0), (inline(92), 92, 2, 0), (plain, 28, 1, N)] {
        let before = account(&node);
        (0..N).for_each(|at| post(data.clone(), u64::from(at) & 1));
        let expected = PcieAccount {
            blue_flame: each(u64::from(N) * blocks, 64),
            payload_reads: each(reads.into(), 28),
            payload_writes: each(N.into(), length),
            cqe_writes: each(N.into(), 64),
            ..PcieAccount::default()
        };
        assert_eq!(difference(account(&node), before), expected, "{length} bytes");
    }
    a.destroy(&node).unwrap();
    b.destroy(&node).unwrap();
    memory.destroy(&node.hca).unwrap();
    node.close();
}

/// Sends, and the account of both guests.
fn sends(shape: Shape, length: usize) -> [PcieAccount; 2] {
    let mut pair = Pair::new(shape, &Connection::default());
    let request = Request::new(WqeOpcode::Send, pair.a.data(0, length));
    let measured = measure(&mut pair, |pair| {
        for _ in 0..N {
            let receive = pair.b.qp.receive(&[pair.b.part(0, 4096)]);
            let send = pair.a.qp.post(&request);
            pair.b.qp.received(CqeOpcode::ResponderSend, receive, length);
            pair.a.qp.sent(WqeOpcode::Send, send);
        }
    });
    pair.end();
    measured
}

fn scattered(large_cqes: bool, requester: u8, responder: u8) -> Shape {
    Shape {
        large_cqes,
        cs_req: requester,
        cs_res: responder,
        ..Shape::new(service::RC)
    }
}

#[test]
fn a_receive_is_a_read_and_two_writes_and_a_short_one_a_read_and_one_write() {
    let plain = PcieAccount {
        receive_wqe_reads: each(N.into(), 64),
        payload_writes: each(N.into(), 32),
        cqe_writes: each(N.into(), 64),
        ..PcieAccount::default()
    };
    let sent = PcieAccount {
        payload_reads: each(N.into(), 32),
        ..posted()
    };
    assert_eq!(sends(scattered(false, 0, 0), 32), [sent, plain]);
    // Without data in them, CQEs of 128 bytes are 64 bytes long.
    assert_eq!(sends(scattered(true, 0, 0), 32), [sent, plain]);
    let in_cqe = PcieAccount {
        payload_writes: Transactions::default(),
        ..plain
    };
    assert_eq!(sends(scattered(false, 0, 1), 32), [sent, in_cqe]);
    assert_eq!(sends(scattered(true, 0, 2), 32), [sent, in_cqe]);
    let sent = PcieAccount {
        payload_reads: each(N.into(), 64),
        ..posted()
    };
    let in_large_cqe = PcieAccount {
        cqe_writes: each(N.into(), 128),
        ..in_cqe
    };
    assert_eq!(sends(scattered(true, 0, 2), 64), [sent, in_large_cqe]);
}

/// RDMA reads, and the account of both guests.
fn reads(shape: Shape, length: usize) -> [PcieAccount; 2] {
    let mut pair = Pair::new(shape, &Connection::default());
    let request = pair.request(WqeOpcode::RdmaRead, pair.a.data(0, length), 0);
    let measured = measure(&mut pair, |pair| post_each(pair, &request));
    pair.end();
    measured
}

#[test]
fn a_short_read_is_written_with_its_completion() {
    let there = |length| PcieAccount {
        payload_reads: each(N.into(), length),
        ..PcieAccount::default()
    };
    let plain = PcieAccount {
        payload_writes: each(N.into(), 32),
        ..posted()
    };
    assert_eq!(reads(scattered(false, 0, 0), 32), [plain, there(32)]);
    assert_eq!(reads(scattered(false, 1, 0), 32), [posted(), there(32)]);
    assert_eq!(reads(scattered(true, 2, 0), 32), [posted(), there(32)]);
    let large = PcieAccount {
        cqe_writes: each(N.into(), 128),
        ..posted()
    };
    assert_eq!(reads(scattered(true, 2, 0), 64), [large, there(64)]);
}

#[test]
fn an_atomic_is_read_and_written_at_the_responder() {
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    pair.b.memory.write(0, &[0; 8]);
    let mut add = pair.request(WqeOpcode::AtomicFetchAdd, pair.a.data(0, 8), 0);
    add.operands = Some((1, 0));
    let sent = PcieAccount {
        payload_writes: each(N.into(), 8),
        ..posted()
    };
    let read = PcieAccount {
        payload_reads: each(N.into(), 8),
        ..PcieAccount::default()
    };
    let read_and_written = PcieAccount {
        payload_writes: each(N.into(), 8),
        ..read
    };
    let measured = measure(&mut pair, |pair| post_each(pair, &add));
    assert_eq!(measured, [sent, read_and_written]);
    // The comparison fails, so nothing is written.
    let mut swap = pair.request(WqeOpcode::AtomicCompareSwap, pair.a.data(0, 8), 0);
    swap.operands = Some((1, 0));
    let measured = measure(&mut pair, |pair| post_each(pair, &swap));
    assert_eq!(measured, [sent, read]);
    pair.end();
}

#[test]
fn each_packet_of_a_long_message_is_a_transaction_for_each_of_its_segments() {
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    // Packets of 1024 bytes: five, of which the second reads of both segments.
    let data = vec![
        Data::Memory(pair.a.part(0, 1500)),
        Data::Memory(pair.a.part(2000, 3000)),
    ];
    let write = pair.request(WqeOpcode::RdmaWrite, data.clone(), 0);
    let measured = measure(&mut pair, |pair| post_each(pair, &write));
    let n = u64::from(N);
    let bytes = |count| Transactions {
        count: n * count,
        bytes: n * 4500,
    };
    let sent = PcieAccount {
        payload_reads: bytes(6),
        ..posted()
    };
    let received = PcieAccount {
        payload_writes: bytes(5),
        ..PcieAccount::default()
    };
    assert_eq!(measured, [sent, received]);
    let read = pair.request(WqeOpcode::RdmaRead, data, 0);
    let measured = measure(&mut pair, |pair| post_each(pair, &read));
    let there = PcieAccount {
        payload_reads: bytes(5),
        ..PcieAccount::default()
    };
    let here = PcieAccount {
        payload_writes: bytes(6),
        ..posted()
    };
    assert_eq!(measured, [here, there]);
    pair.end();
}

#[test]
fn a_datagram_is_written_with_its_header() {
    let shape = Shape::new(service::UD);
    let mut pair = Pair::unconnected(shape, shape);
    connect(
        (&pair.a.node, &pair.a.qp),
        (&pair.b.node, &pair.b.qp),
        &Connection::default(),
    );
    let to = address(&pair.b.node, pair.b.qp.number, mlx5_test_driver::qp::Q_KEY);
    let mut request = Request::new(WqeOpcode::Send, pair.a.data(0, 100));
    request.to = Some(to);
    let measured = measure(&mut pair, |pair| {
        for _ in 0..N {
            let receive = pair.b.qp.receive(&[pair.b.part(0, 40), pair.b.part(64, 200)]);
            let send = pair.a.qp.post(&request);
            pair.b.qp.received(CqeOpcode::ResponderSend, receive, 140);
            pair.a.qp.sent(WqeOpcode::Send, send);
        }
    });
    let n = u64::from(N);
    let sent = PcieAccount {
        // Control segment, address vector of 48 bytes, data segment: 80 bytes.
        send_wqe_reads: each(n, 128),
        payload_reads: each(n, 100),
        ..posted()
    };
    let received = PcieAccount {
        receive_wqe_reads: each(n, 64),
        // The GRH and the data are in a segment each.
        payload_writes: Transactions {
            count: 2 * n,
            bytes: n * 140,
        },
        cqe_writes: each(n, 64),
        ..PcieAccount::default()
    };
    assert_eq!(measured, [sent, received]);
    pair.end();
}

#[test]
fn an_event_is_a_doorbell_an_entry_and_an_interrupt() {
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    let interrupts = pair.a.node.hca.machine.interrupts.clone();
    let request = pair.request(WqeOpcode::RdmaWrite, inline(28), 0);
    let measured = measure(&mut pair, |pair| {
        pair.a.qp.send_cq.arm(&pair.a.node.hca, false);
        let seen = interrupts.count(1);
        let counter = pair.a.qp.post(&request);
        pair.a.qp.sent(request.opcode, counter);
        assert!(interrupts.wait(1, seen, Duration::from_secs(100)));
    });
    let expected = PcieAccount {
        doorbells: each(1, 8),
        cq_doorbells: each(1, 8),
        send_wqe_reads: each(1, 64),
        cqe_writes: each(1, 64),
        eqe_writes: each(1, 64),
        interrupts: each(1, 4),
        ..PcieAccount::default()
    };
    assert_eq!(measured[0], expected);
    pair.end();
}

#[test]
fn the_account_of_a_device_includes_queues_that_are_gone() {
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    let request = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, 28), 0);
    post_each(&mut pair, &request);
    let number = pair.a.qp.number.to_string();
    let snapshot = pair.a.node.hca.machine.nic().snapshot();
    let qp = &snapshot.hca["queues"][&number]["pair"];
    let n = u64::from(N);
    assert_eq!(qp["pcie"]["doorbells"], serde_json::json!({"count": n, "bytes": 8 * n}));
    assert_eq!(
        qp["pcie"]["wqe_reads"],
        serde_json::json!({"count": n, "bytes": 64 * n})
    );
    assert_eq!(
        qp["requester"]["payload"]["reads"],
        serde_json::json!({"count": n, "bytes": 28 * n})
    );
    let cq = &snapshot.hca["cqs"][pair.a.qp.send_cq.number.to_string()];
    assert_eq!(
        cq["state"]["cqe_writes"],
        serde_json::json!({"count": n, "bytes": 64 * n})
    );
    let data = |account: PcieAccount| {
        (
            account.doorbells,
            account.send_wqe_reads,
            account.payload_reads,
            account.cqe_writes,
        )
    };
    let expected = (each(n, 8), each(n, 64), each(n, 28), each(n, 64));
    assert_eq!(data(snapshot.pcie), expected);
    pair.a.qp.reset(&pair.a.node).unwrap();
    assert_eq!(data(account(&pair.a.node)), expected, "after a reset of the queue pair");
    // The indexes begin at 0 again.
    pair.a
        .qp
        .connect(&pair.a.node, &pair.b.node, pair.b.qp.number, &Connection::default())
        .unwrap();
    pair.a.qp.destroy(&pair.a.node).unwrap();
    assert_eq!(data(account(&pair.a.node)), expected, "after its destruction");
    pair.a.node.hca.machine.device().reset();
    assert_eq!(data(account(&pair.a.node)), expected, "after a reset of the function");
}
