//! Model time of PCIe transactions (`--pcie-latency`).

use std::time::Duration;

use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::qp::{Connection, Data, Shape, service};

use crate::inspect::Inspect;
use crate::pair::{End, Pair};

/// Time of a round trip.
const ROUND_TRIP: Duration = Duration::from_nanos(1000);

/// Model time in halves of a round trip that two guests spend while a message is posted.
fn halves(opcode: WqeOpcode, data: fn(&End) -> Vec<Data>, count: u16) -> [u64; 2] {
    let shape = Shape::new(service::RC);
    let mut pair = Pair::configured(shape, &Connection::default(), |config| config.pcie_latency = ROUND_TRIP);
    let mut request = pair.request(opcode, data(&pair.a), 0);
    let halves = |pair: &Pair| {
        [&pair.a, &pair.b].map(|end| {
            let spent = end.node.hca.machine.nic().snapshot().pcie_latency_ns;
            spent / (ROUND_TRIP.as_nanos() as u64 / 2)
        })
    };
    let before = halves(&pair);
    if opcode == WqeOpcode::Send {
        request.remote = None;
        for _ in 0..count {
            pair.b.qp.receive(&[pair.b.part(0, 64)]);
        }
    }
    let counters: Vec<u16> = (0..count).map(|_| pair.a.qp.put(&request)).collect();
    pair.a.qp.ring();
    for counter in counters {
        pair.a.qp.sent(opcode, counter);
    }
    let after = halves(&pair);
    pair.end();
    [0, 1].map(|guest| after[guest] - before[guest])
}

#[test]
fn a_message_waits_for_its_transactions_and_a_list_for_those_of_one() {
    let memory = |end: &End| end.data(0, 28);
    let inline = |_: &End| vec![Data::Inline(vec![0x5a; 28])];
    for count in [1, 16] {
        // Doorbell, fetch, data and CQE; the data at the peer.
        assert_eq!(halves(WqeOpcode::RdmaWrite, memory, count), [1 + 2 + 2 + 1, 1]);
        assert_eq!(halves(WqeOpcode::RdmaWrite, inline, count), [1 + 2 + 1, 1]);
        // Fetch, data and CQE at the peer.
        assert_eq!(halves(WqeOpcode::Send, memory, count), [1 + 2 + 2 + 1, 2 + 1 + 1]);
    }
    // The response is written before the CQE.
    assert_eq!(halves(WqeOpcode::RdmaRead, memory, 1), [1 + 2 + 1 + 1, 2]);
}
