//! Timestamps of completions.

use std::mem::offset_of;

use mlx5_prm::init_segment::InitSegment;
use mlx5_prm::queue_entry::CqeOpcode;
use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::qp::{Connection, Request, Shape, service};

use crate::pair::{End, Pair};

/// Reads the clock as the driver does (`mlx5_read_clock`, core/lib/clock.c).
fn clock(end: &End) -> u64 {
    let half = |offset: usize| u64::from(end.node.hca.machine.read(offset as u64));
    let high = offset_of!(InitSegment, internal_timer_h);
    let low = offset_of!(InitSegment, internal_timer_l);
    let (first, rest) = (half(high), half(low));
    let again = half(high);
    again << 32 | if first == again { rest } else { half(low) }
}

#[test]
fn completions_have_their_time_from_the_device_s_clock() {
    let mut pair = Pair::new(Shape::new(service::RC), &Connection::default());
    let (mut here, mut there) = (clock(&pair.a), clock(&pair.b));
    for _ in 0..5 {
        let receive = pair.b.qp.receive(&[pair.b.part(0, 100)]);
        let send = pair.a.qp.post(&Request::new(WqeOpcode::Send, pair.a.data(0, 100)));
        let received = pair.b.qp.received(CqeOpcode::ResponderSend, receive, 100);
        let sent = pair.a.qp.sent(WqeOpcode::Send, send);
        for (cqe, end, before) in [(received, &pair.b, &mut there), (sent, &pair.a, &mut here)] {
            let now = clock(end);
            let time = cqe.timestamp.get();
            assert!(*before <= time && time <= now, "{before} {time} {now}");
            *before = time;
        }
    }
    pair.end();
}
