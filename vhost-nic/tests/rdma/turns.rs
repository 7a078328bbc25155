//! Fair scheduling of a guest's queue pairs.

use std::sync::mpsc;

use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::cq::error_of;
use mlx5_test_driver::qp::{Connection, QueuePair, Request, Shape, connect, service};

use crate::pair::Pair;
use crate::wire::Fate;

/// Number of long messages, a ring full, and their bytes.
const COUNT: usize = 256;
const LENGTH: usize = 16 << 10;

#[test]
fn who_has_little_to_do_does_not_wait_for_all_of_who_has_much() {
    let how = Connection::default();
    let mut pair = Pair::new(Shape::new(service::RC), &how);
    let [mut brief, peer] =
        [&pair.a, &pair.b].map(|end| QueuePair::create(&end.node, Shape::new(service::RC)).unwrap());
    connect((&pair.a.node, &brief), (&pair.b.node, &peer), &how);
    // The first packet is in flight until both have posted.
    let (go, wait) = mpsc::channel();
    let mut wait = Some(wait);
    pair.wire.judge(move |_| {
        wait.take()
            .into_iter()
            .for_each(|wait: mpsc::Receiver<()>| wait.recv().unwrap());
        Fate::Pass
    });
    let request = |length| pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, length), 0);
    let (long, short): (Request, Request) = (request(LENGTH), request(64));
    for _ in 0..COUNT {
        pair.a.qp.put(&long);
    }
    pair.a.qp.ring();
    brief.post(&short);
    go.send(()).unwrap();
    let cqe = brief.send_cq.wait();
    assert_eq!(error_of(&cqe), None);
    let time = cqe.timestamp.get();
    let mut before = 0;
    for _ in 0..COUNT {
        let cqe = pair.a.qp.send_cq.wait();
        pair.a.qp.send_cq.release();
        assert_eq!(error_of(&cqe), None);
        before += usize::from(cqe.timestamp.get() <= time);
    }
    assert!(before <= COUNT / 2, "{before} of {COUNT} went first");
    brief.destroy(&pair.a.node).unwrap();
    peer.destroy(&pair.b.node).unwrap();
    pair.end();
}
