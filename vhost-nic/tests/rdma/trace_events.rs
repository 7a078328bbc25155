//! Events of the trace beside those of a message: doorbells of CQ and EQ, moderation, retransmission.

use std::time::Duration;

use mlx5_prm::wqe::WqeOpcode;
use mlx5_test_driver::qp::{Connection, Shape, service};
use vhost_daemon::trace::{Event, start_flight_recorder};
use vhost_nic::timeline::NicTimeline;

use crate::pair::Pair;
use crate::trace::{chain, name, recorded};
use crate::wire::Fate;

/// Moderation in microseconds, and the packets of the message.
const PERIOD: u16 = 3000;
const PACKETS: usize = 5;

#[test]
fn a_moderated_completion_after_a_lost_packet() {
    start_flight_recorder();
    let how = Connection::default();
    let mut pair = Pair::new(Shape::new(service::RC), &how);
    let hca = pair.a.node.hca.clone();
    let cq = pair.a.qp.send_cq.number;
    pair.a.qp.send_cq.moderate(&hca, PERIOD).unwrap();
    // The third packet, in the midst of the message.
    let lost = how.psn.0 + 2;
    pair.wire
        .strike(0, Fate::Drop, move |kind| kind.forth && kind.psn == lost);
    let interrupts = hca.machine.interrupts.clone();
    let seen = interrupts.count(1);
    pair.a.qp.send_cq.arm(&hca, false);
    let length = PACKETS * how.mtu();
    let index = pair
        .a
        .qp
        .post(&pair.request(WqeOpcode::RdmaWrite, pair.a.data(0, length), 0));
    pair.a.qp.sent(WqeOpcode::RdmaWrite, index);
    assert!(interrupts.wait(1, seen, Duration::from_secs(100)));
    pair.a.qp.send_cq.event();
    drop(hca);
    pair.end();

    let trace = recorded();
    assert_eq!(trace.lost, 0);
    let timeline = NicTimeline::new(&trace);
    let a = 1;
    let one = |wanted: &str, of: &dyn Fn(&Event) -> bool| {
        let events = trace.events.iter().enumerate();
        let found: Vec<usize> = events
            .filter(|(_, event)| name(event) == wanted && event.guest == a && of(event))
            .map(|(index, _)| index)
            .collect();
        let [index] = found[..] else {
            panic!("{} events {wanted}", found.len())
        };
        let causes: Vec<&str> = chain(&trace, &timeline, index)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        (trace.events[index], causes)
    };
    let of_cq = |event: &Event| event.object == cq;

    let (arm, causes) = one("arm_cq", &of_cq);
    assert_eq!((arm.arguments, &causes[..]), ([0; 4], &["arm_cq"][..]));
    let (expired, causes) = one("moderation_expired", &of_cq);
    let completed = ["moderation_set", "cqe", "packet_in", "packet_out"];
    assert_eq!((causes[0], &causes[1..5]), ("moderation_expired", &completed[..]));
    let (set, causes) = one("moderation_set", &of_cq);
    assert_eq!(
        (set.arguments, &causes[..4]),
        ([PERIOD.into(), 0, 0, 0], &completed[..])
    );
    assert!(expired.time >= set.time + 1000 * u64::from(PERIOD));
    let (eqe, causes) = one("eqe", &|event| event.arguments == [0, 0, cq, 0]);
    assert_eq!(causes[..3], ["eqe", "cqe", "packet_in"]);
    assert!(eqe.time >= expired.time);
    let (update, _) = one("update_eq", &|event| event.object == eqe.object);
    assert_eq!(update.arguments, [0, 1, 0, 0], "armed as it was created");

    let (retransmission, causes) = one("retransmission", &|_| true);
    assert_eq!(retransmission.object, pair_number(&trace.events, lost));
    assert_eq!(retransmission.arguments, [lost, 0, 0, 0]);
    assert_eq!(causes, ["retransmission", "wqe", "doorbell"]);
    // The packets from the lost one on leave again, after that.
    let again = trace
        .events
        .iter()
        .filter(|event| name(event) == "packet_out" && event.guest == a && event.arguments[0] & 0xff_ffff == lost);
    assert!(
        again.clone().all(|event| event.time >= retransmission.time),
        "{again:?}"
    );
    assert_eq!(again.count(), 1);
}

/// The queue pair whose retransmission begins with a PSN.
fn pair_number(events: &[Event], psn: u32) -> u32 {
    let wqe = |event: &&Event| name(event) == "wqe" && (event.arguments[2]..=psn).contains(&psn);
    events.iter().find(wqe).unwrap().object
}
