//! Scatter to CQE: data in completions instead of memory, when requested and only then.

use mlx5_prm::queue_entry::{Cqe, CqeOpcode};
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::cq::CompletionQueue;
use mlx5_test_driver::qp::{Connection, Request, Shape, service};
use mlx5_test_driver::wait::await_some;
use zerocopy::IntoBytes;

use crate::inspect::Inspect;
use crate::pair::{End, Pair, pattern};

/// Codes of `cs_req` and `cs_res` (`MLX5_REQ_SCAT_DATA32_CQE`, `MLX5_RES_SCAT_DATA32_CQE` and so on), and their bytes.
const CODES: [(u8, usize); 3] = [(0, 0), (1, 32), (2, 64)];

/// The data in a completion, if it has any.
fn data(cqe: &Cqe, cq: &CompletionQueue, length: usize) -> Option<Vec<u8>> {
    match cqe.op_own & (Cqe::INLINE_32 | Cqe::INLINE_64) {
        0 => None,
        Cqe::INLINE_32 => Some(cqe.as_bytes()[..length].to_vec()),
        _ => Some(cq.lower_half()[..length].to_vec()),
    }
}

fn shape(requester: u8, responder: u8) -> Shape {
    Shape {
        large_cqes: requester.max(responder) == 2,
        cs_req: requester,
        cs_res: responder,
        ..Shape::new(service::RC)
    }
}

#[test]
fn short_sends_are_in_the_completion_of_the_receive() {
    for (code, most) in CODES {
        let mut pair = Pair::new(shape(0, code), &Connection::default());
        for length in [0, 1, 31, 32, 33, 63, 64, 65, 2000] {
            let (sent, canvas) = (pattern(length as u64, length), pattern(77, 4096));
            pair.a.memory.write(0, &sent);
            pair.b.memory.write(0, &canvas);
            let receive = pair.b.qp.receive(&[pair.b.part(100, 3000)]);
            let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, length)));
            let cqe = pair.b.qp.received(CqeOpcode::ResponderSend, receive, length);
            pair.a.qp.sent(WqeOpcode::Send, send);
            let inline = data(&cqe, &pair.b.qp.receive_cq, length);
            let mut expected = canvas;
            if length > 0 && length <= most {
                assert_eq!(inline.as_ref(), Some(&sent), "{length} of {most}");
            } else {
                assert_eq!(inline, None, "{length} of {most}");
                expected[100..][..length].copy_from_slice(&sent);
            }
            assert!(pair.b.memory.read(0, 4096) == expected, "{length} of {most}");
            // A write goes to memory, whatever its length.
            pair.b.memory.write(0, &expected);
            let receive = pair.b.qp.receive(&[]);
            let write = pair
                .a
                .qp
                .post(&pair.request(WqeOpcode::RdmaWriteImmediate, pair.a.data(0, length), 200));
            let cqe = pair.b.qp.received(CqeOpcode::ResponderWriteImmediate, receive, length);
            pair.a.qp.sent(WqeOpcode::RdmaWriteImmediate, write);
            assert_eq!(data(&cqe, &pair.b.qp.receive_cq, length), None);
            assert!(pair.b.memory.read(200, length) == sent);
        }
        pair.end();
    }
}

#[test]
fn short_reads_and_atomics_are_in_their_completion_if_they_have_one() {
    for (code, most) in CODES {
        let mut pair = Pair::new(shape(code, 0), &Connection::default());
        for length in [0, 1, 31, 32, 33, 63, 64, 65, 2000] {
            for completes in [true, false] {
                let (there, canvas) = (pattern(length as u64, length), pattern(77, 4096));
                pair.b.memory.write(0, &there);
                pair.a.memory.write(0, &canvas);
                let mut request = pair.request(WqeOpcode::RdmaRead, pair.a.data(100, length), 0);
                if !completes {
                    request.flags = 0;
                }
                let read = pair.a.qp.post(&request);
                let mut inline = None;
                if completes {
                    let cqe = pair.a.qp.sent(WqeOpcode::RdmaRead, read);
                    inline = data(&cqe, &pair.a.qp.send_cq, length);
                }
                let nop = pair.a.qp.post(&Request::new(WqeOpcode::Nop, Vec::new()));
                pair.a.qp.sent(WqeOpcode::Nop, nop);
                let mut expected = canvas;
                if completes && length > 0 && length <= most {
                    assert_eq!(inline.as_ref(), Some(&there), "{length} of {most}");
                } else {
                    assert_eq!(inline, None, "{length} of {most}");
                    expected[100..][..length].copy_from_slice(&there);
                }
                assert!(pair.a.memory.read(0, 4096) == expected, "{length} of {most}");
            }
        }
        for completes in [true, false] {
            pair.b.memory.write(0, &41_u64.to_le_bytes());
            pair.a.memory.write(0, &[0xee; 16]);
            let mut request = pair.request(WqeOpcode::AtomicFetchAdd, pair.a.data(0, 8), 0);
            request.operands = Some((1, 0));
            if !completes {
                request.flags = 0;
            }
            let add = pair.a.qp.post(&request);
            let mut inline = None;
            if completes {
                let cqe = pair.a.qp.sent(WqeOpcode::AtomicFetchAdd, add);
                inline = data(&cqe, &pair.a.qp.send_cq, 8);
            }
            let nop = pair.a.qp.post(&Request::new(WqeOpcode::Nop, Vec::new()));
            pair.a.qp.sent(WqeOpcode::Nop, nop);
            assert_eq!(pair.b.memory.read(0, 8), 42_u64.to_le_bytes());
            let memory = if completes && most > 0 {
                assert_eq!(inline, Some(41_u64.to_le_bytes().to_vec()));
                vec![0xee; 8]
            } else {
                assert_eq!(inline, None);
                41_u64.to_le_bytes().to_vec()
            };
            assert_eq!(pair.a.memory.read(0, 8), memory);
        }
        pair.end();
    }
}

#[test]
fn completions_are_counted_by_where_their_data_went() {
    for (code, most) in CODES {
        let mut pair = Pair::new(shape(code, code), &Connection::default());
        let counts = |end: &End| end.node.hca.machine.nic().snapshot().completions;
        let (mut here, mut there) = (counts(&pair.a), counts(&pair.b));
        for length in [0, 8, 40, 100] {
            let receive = pair.b.qp.receive(&[pair.b.part(100, 100)]);
            let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, length)));
            let received = pair.b.qp.received(CqeOpcode::ResponderSend, receive, length);
            pair.a.qp.sent(WqeOpcode::Send, send);
            // A send returns no data.
            here.plain += 1;
            let read = pair
                .a
                .qp
                .post(&pair.request(WqeOpcode::RdmaRead, pair.a.data(0, length), 0));
            let done = pair.a.qp.sent(WqeOpcode::RdmaRead, read);
            for (cqe, counted) in [(received, &mut there), (done, &mut here)] {
                let inline = cqe.op_own & (Cqe::INLINE_32 | Cqe::INLINE_64);
                assert_eq!(inline != 0, (1..=most).contains(&length), "{length} of {most}");
                match inline {
                    0 => counted.plain += 1,
                    Cqe::INLINE_32 => counted.inline_32 += 1,
                    _ => counted.inline_64 += 1,
                }
            }
        }
        assert_eq!((counts(&pair.a), counts(&pair.b)), (here, there), "{most}");
        pair.end();
    }
}

#[test]
fn data_that_find_no_room_are_not_written_over_others() {
    let mut pair = Pair::new(shape(0, 2), &Connection::default());
    let data = |number: usize| pattern(number as u64, 64);
    let mut first = None;
    // One more than the queue has entries, and none is released.
    for number in 0..513 {
        pair.a.memory.write(0, &data(number));
        pair.b.qp.receive(&[pair.b.part(0, 64)]);
        let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, 64)));
        first.get_or_insert_with(|| pair.b.qp.receive_cq.wait());
        if number < 512 {
            pair.a.qp.sent(WqeOpcode::Send, send);
        }
    }
    let guest_errors = || pair.b.node.hca.machine.nic().snapshot().guest_errors;
    await_some("the overrun", || {
        guest_errors().contains_key("cq_overrun").then_some(())
    });
    assert_eq!(pair.b.qp.receive_cq.lower_half(), data(0));
}
