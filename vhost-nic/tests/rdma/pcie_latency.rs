//! Model time of PCIe transactions (`--pcie-latency`).

use std::time::Duration;

use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::qp::{Connection, Data, Shape, service};

use crate::inspect::Inspect;
use crate::pair::{End, Pair};

/// Time of a round trip.
const ROUND_TRIP: Duration = Duration::from_nanos(1000);

/// Time limit for BlueFlame that the driver meets on a busy machine, too.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);

/// A way to post messages.
#[derive(Clone, Copy)]
enum By {
    /// A list with one doorbell.
    Doorbell { list: u16 },
    /// One message, through a doorbell register.
    BlueFlame,
}

const ONE: By = By::Doorbell { list: 1 };

/// Model time in halves of a round trip that two guests spend while a message is posted.
fn halves_of(shape: Shape, opcode: WqeOpcode, data: fn(&End) -> Vec<Data>, by: By) -> [u64; 2] {
    let mut pair = Pair::configured(shape, &Connection::default(), |config| {
        config.pcie_latency = ROUND_TRIP;
        config.blue_flame = matches!(by, By::BlueFlame).then_some(FOR_EVER);
    });
    let mut request = pair.request(opcode, data(&pair.a), 0);
    let halves = |pair: &Pair| {
        [&pair.a, &pair.b].map(|end| {
            let spent = end.node.hca.machine.nic().snapshot().pcie_latency_ns;
            spent / (ROUND_TRIP.as_nanos() as u64 / 2)
        })
    };
    let before;
    let counters = match by {
        By::Doorbell { list } => {
            before = halves(&pair);
            if opcode == WqeOpcode::Send {
                request.remote = None;
                for _ in 0..list {
                    pair.b.qp.receive(&[pair.b.part(0, 64)]);
                }
            }
            let counters = (0..list).map(|_| pair.a.qp.put(&request)).collect();
            pair.a.qp.ring();
            counters
        }
        By::BlueFlame => {
            let copy = |pair: &mut Pair, half: u64| {
                let wqe = pair.a.qp.wqe(&request);
                let counter = pair.a.qp.put_bytes(&wqe);
                pair.a.qp.ring_with(half, &wqe);
                counter
            };
            // The first copy to each half register is taken for a doorbell.
            for half in [0, 1] {
                let counter = copy(&mut pair, half);
                pair.a.qp.sent(opcode, counter);
            }
            before = halves(&pair);
            vec![copy(&mut pair, 0)]
        }
    };
    for counter in counters {
        pair.a.qp.sent(opcode, counter);
    }
    let after = halves(&pair);
    pair.end();
    [0, 1].map(|guest| after[guest] - before[guest])
}

fn halves(opcode: WqeOpcode, data: fn(&End) -> Vec<Data>, by: By) -> [u64; 2] {
    halves_of(Shape::new(service::RC), opcode, data, by)
}

fn memory(end: &End) -> Vec<Data> {
    end.data(0, 28)
}

fn inline(_: &End) -> Vec<Data> {
    vec![Data::Inline(vec![0x5a; 28])]
}

#[test]
fn a_message_waits_for_its_transactions_and_a_list_for_those_of_one() {
    for list in [1, 16] {
        let by = By::Doorbell { list };
        // Doorbell, fetch, data and CQE; the data at the peer.
        assert_eq!(halves(WqeOpcode::RdmaWrite, memory, by), [1 + 2 + 2 + 1, 1]);
        assert_eq!(halves(WqeOpcode::RdmaWrite, inline, by), [1 + 2 + 1, 1]);
        // Fetch, data and CQE at the peer.
        assert_eq!(halves(WqeOpcode::Send, memory, by), [1 + 2 + 2 + 1, 2 + 1 + 1]);
    }
    // The response is written before the CQE.
    assert_eq!(halves(WqeOpcode::RdmaRead, memory, ONE), [1 + 2 + 1 + 1, 2]);
}

#[test]
fn a_wqe_in_a_register_waits_for_no_fetch() {
    assert_eq!(halves(WqeOpcode::RdmaWrite, memory, By::BlueFlame), [1 + 2 + 1, 1]);
    assert_eq!(halves(WqeOpcode::RdmaWrite, inline, By::BlueFlame), [1 + 1, 1]);
}

#[test]
fn data_in_a_cqe_wait_for_no_write_of_their_own() {
    let long = |end: &End| end.data(0, 64);
    let scattered = |large_cqes, code| Shape {
        large_cqes,
        cs_req: code,
        cs_res: code,
        ..Shape::new(service::RC)
    };
    let (send, read) = (WqeOpcode::Send, WqeOpcode::RdmaRead);
    let sent = 1 + 2 + 2 + 1;
    for (large, code, data) in [
        (false, 1, memory as fn(&End) -> Vec<Data>),
        (true, 2, memory),
        (true, 2, long),
    ] {
        let shape = scattered(large, code);
        assert_eq!(halves_of(shape, send, data, ONE), [sent, 2 + 1], "{shape:?}");
        assert_eq!(halves_of(shape, read, data, ONE), [1 + 2 + 1, 2], "{shape:?}");
    }
    // 64 bytes fit a CQE of 128 bytes, if that is asked for.
    for (large, code) in [(false, 1), (true, 0)] {
        let shape = scattered(large, code);
        assert_eq!(halves_of(shape, send, long, ONE), [sent, 2 + 1 + 1], "{shape:?}");
        assert_eq!(halves_of(shape, read, long, ONE), [1 + 2 + 1 + 1, 2], "{shape:?}");
    }
}
