//! Guest memory is mapped and unmapped while messages are in flight: the threads that carry them must not deadlock with
//! the mapper.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use mlx5_prm::queue_entry::{EventType, Syndrome};
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::cq::{CompletionQueue, error_of};
use mlx5_test_driver::machine::Machine;
use mlx5_test_driver::memory::Memory;
use mlx5_test_driver::qp::{Connection, Data, Request, Shape, connect, service};
use vhost_nic::dma::Backing;

use crate::inspect::Inspect;
use crate::pair::{Pair, pattern};

/// A guest address without RAM.
const ELSEWHERE: u64 = 0x10_0000_0000;
/// Bytes that are mapped and unmapped there.
const LENGTH: u64 = 1 << 20;
/// Bytes of a message.
const MESSAGE: usize = 64;
/// Minimum number of unmaps in each test.
const CHANGES: u64 = 500_000;

/// Stops the mapper when dropped, also on panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Maps and unmaps memory of both guests while it calls `round` repeatedly, with the round's number.
fn while_memory_changes(pair: &mut Pair, mut round: impl FnMut(&mut Pair, u64)) {
    let machines = [&pair.a, &pair.b].map(|end| end.node.hca.machine.clone());
    let (over, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    let change = |machine: &Machine| {
        let dma = machine.function().dma();
        let other = Memory::new();
        let backing = || Backing {
            file: other.file(),
            offset: 0,
            writable: true,
        };
        while !over.load(Ordering::Relaxed) {
            dma.map(ELSEWHERE, LENGTH, Some(backing())).unwrap();
            // Most of these find nothing to unmap. They take the write lock all the same, and quickly, so that a writer
            // waits nearly always.
            for _ in 0..100 {
                dma.unmap(ELSEWHERE, LENGTH).unwrap();
                changes.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for machine in &machines {
            scope.spawn(|| change(machine));
        }
        let _over = Over(&over);
        let mut number = 0;
        while changes.load(Ordering::Relaxed) < CHANGES {
            round(pair, number);
            number += 1;
        }
    });
}

/// Waits for a completion. Returns the syndrome if it is an error.
fn outcome(cq: &mut CompletionQueue) -> Option<u8> {
    let cqe = cq.wait();
    cq.release();
    error_of(&cqe).map(|(syndrome, _)| syndrome)
}

#[test]
fn messages_of_all_kinds_pass() {
    for service in [service::RC, service::UC] {
        let mut pair = Pair::new(Shape::new(service), &Connection::default());
        while_memory_changes(&mut pair, |pair, round| {
            let bytes = pattern(round, MESSAGE);
            pair.a.memory.write(0, &bytes);
            pair.b.memory.write(0, &[0; 4 * MESSAGE]);
            for at in [2, 3] {
                let into = pair.b.part(at * MESSAGE as u64, MESSAGE);
                pair.b.qp.receive(&[into]);
            }
            let target = |at: usize| (at * MESSAGE) as u64;
            // An operation that holds the read lock is followed by one that takes it differently.
            let mut requests = vec![
                pair.request(WqeOpcode::RdmaWrite, vec![Data::Inline(bytes.clone())], target(0)),
                pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, MESSAGE), target(1)),
                Request {
                    immediate: round as u32,
                    ..pair.request(WqeOpcode::RdmaWriteImmediate, pair.a.data(0, MESSAGE), target(2))
                },
                pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, MESSAGE), target(1)),
                Request::new(WqeOpcode::Send, pair.a.data(0, MESSAGE)),
            ];
            if service == service::RC {
                let add = Request {
                    operands: Some((1, 0)),
                    ..pair.request(WqeOpcode::AtomicFetchAdd, pair.a.data(1024, 8), 4096)
                };
                let read = pair.request(WqeOpcode::RdmaRead, pair.a.data(2048, MESSAGE), target(1));
                let write = requests[1].clone();
                requests.extend([add, write.clone(), read, write]);
            }
            for request in &requests {
                pair.a.qp.put(request);
            }
            pair.a.qp.ring();
            for _ in &requests {
                assert_eq!(outcome(&mut pair.a.qp.send_cq), None);
            }
            for _ in 0..2 {
                assert_eq!(outcome(&mut pair.b.qp.receive_cq), None);
            }
            for at in [0, 1, 2, 3] {
                assert!(
                    pair.b.memory.read(target(at), MESSAGE) == bytes,
                    "{at} in round {round}"
                );
            }
            if service == service::RC {
                assert!(pair.a.memory.read(2048, MESSAGE) == bytes, "round {round}");
                let count = pair.b.memory.read(4096, 8).try_into().unwrap();
                assert_eq!(u64::from_le_bytes(count), round + 1);
            }
        });
        pair.end();
    }
}

#[test]
fn a_refusal_is_told() {
    let how = Connection::default();
    let mut pair = Pair::new(Shape::new(service::RC), &how);
    while_memory_changes(&mut pair, |pair, _| {
        let write = pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, MESSAGE), 0);
        let mut wrong = write.clone();
        wrong.remote = wrong.remote.map(|(address, key)| (address, key ^ 1));
        for request in [&write, &write, &wrong] {
            pair.a.qp.put(request);
        }
        pair.a.qp.ring();
        let outcomes = [(); 3].map(|()| outcome(&mut pair.a.qp.send_cq));
        assert_eq!(outcomes, [None, None, Some(Syndrome::RemoteAccess as u8)]);
        pair.b.node.hca.wait_event(EventType::WqAccessError);
        for end in [&mut pair.a, &mut pair.b] {
            end.qp.reset(&end.node).unwrap();
        }
        connect((&pair.a.node, &pair.a.qp), (&pair.b.node, &pair.b.qp), &how);
    });
    pair.end();
}
